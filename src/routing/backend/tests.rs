//! Kept endpoints, and the health of address families.

use super::*;
use crate::routing::{Availability, ENDPOINT_REST, EjectionRule, FAMILY_REST, Ring};

fn known(endpoints: &[SocketAddr]) -> BackendAddresses<'_> {
    BackendAddresses { endpoints, others: None, places: &[] }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn kept_endpoints_keep_their_connections() {
    let backend = Backend::new(BackendKey::address("", "x"), known(&[]));
    let (a, b, c) = (address("10.0.0.1:1"), address("10.0.0.2:1"), address("10.0.0.3:1"));
    assert!(backend.set_endpoints(known(&[a, b]), None).is_some());
    let busy = backend.endpoints()[1].begin(Moment::now(), &EjectionRule::OFF);
    assert!(backend.set_endpoints(known(&[b, c]), None).is_some());
    assert_eq!(backend.endpoints()[0].active(), 1);
    assert_eq!(backend.endpoints()[1].active(), 0);
    drop(busy);
    assert_eq!(backend.endpoints()[0].active(), 0);
}

/// Its connections went on meanwhile.
#[test]
fn an_endpoint_that_is_not_ready_for_a_moment_keeps_its_connections_and_not_its_failures() {
    let backend = Backend::new(BackendKey::address("", "x"), known(&[]));
    let (a, b, now) = (address("10.0.0.1:1"), address("10.0.0.2:1"), Moment::now());
    backend.set_endpoints(known(&[a, b]), None);
    let endpoint = Arc::clone(&backend.endpoints()[0]);
    let busy = endpoint.begin(now, &EjectionRule::OFF);
    endpoint.failed(now);
    let unready = OtherAddresses::Known(vec![a]);
    let without_a = BackendAddresses { endpoints: &[b], others: Some(&unready), places: &[] };
    let change = backend.set_endpoints(without_a, Some(now)).expect("a change");
    assert_eq!(change.gone, []);
    backend.set_endpoints(known(&[a, b]), Some(now));
    let endpoint = Arc::clone(&backend.endpoints()[0]);
    assert_eq!(endpoint.active(), 1);
    assert_eq!(endpoint.availability(now, &EjectionRule::OFF), Availability::Well);
    drop(busy);
    assert_eq!(endpoint.active(), 0);
}

#[test]
fn storing_the_same_endpoints_again_is_no_change() {
    let backend = Backend::new(BackendKey::address("", "x"), known(&[]));
    assert!(backend.set_endpoints(known(&[]), None).is_none());
    assert!(backend.set_endpoints(known(&[address("10.0.0.1:1")]), None).is_some());
    assert!(backend.set_endpoints(known(&[address("10.0.0.1:1")]), None).is_none());
}

#[test]
fn kept_endpoints_keep_their_health() {
    let backend = Backend::new(BackendKey::address("", "x"), known(&[]));
    let (a, b, now) = (address("10.0.0.1:1"), address("10.0.0.2:1"), Moment::now());
    backend.set_endpoints(known(&[a]), None);
    backend.endpoints()[0].failed(now);
    backend.set_endpoints(known(&[a, b]), None);
    let availability: Vec<_> =
        backend.endpoints().iter().map(|e| e.availability(now, &EjectionRule::OFF)).collect();
    assert_eq!(availability, [Availability::Resting, Availability::Well]);
}

#[test]
fn a_family_without_a_route_ranks_before_failed_endpoints() {
    let addresses = ["10.0.0.1:1", "[::ffff:10.0.0.2]:1", "[fd00::1]:1", "[fd00::2]:1"];
    let addresses = addresses.map(address);
    let backend = Backend::new(BackendKey::address("", "x"), known(&addresses));
    let availability = |now: Moment| -> Vec<_> {
        backend
            .endpoints()
            .iter()
            .map(|endpoint| endpoint.availability(now, &EjectionRule::OFF))
            .collect()
    };
    use Availability::{Due, Resting, Unrouted, Well};
    let now = Moment::now();
    backend.endpoints()[2].unrouted(now);
    assert_eq!(availability(now), [Well, Well, Resting, Unrouted]);
    assert_eq!(availability(now + ENDPOINT_REST), [Well, Well, Unrouted, Unrouted]);
    // A forbidden endpoint does not affect the others.
    backend.endpoints()[3].refused(now);
    assert_eq!(availability(now), [Well, Well, Resting, Resting]);
    assert_eq!(availability(now + ENDPOINT_REST), [Well, Well, Unrouted, Unrouted]);
    let later = now + FAMILY_REST;
    assert_eq!(availability(later), [Well, Well, Due, Due]);
    // One trial at a time for the whole family.
    let trial = backend.endpoints()[3].begin(later, &EjectionRule::OFF);
    assert_eq!(availability(later), [Well, Well, Unrouted, Resting]);
    drop(trial);
    assert_eq!(availability(later), [Well, Well, Due, Due], "it has shown nothing");
    let trial = backend.endpoints()[3].begin(later, &EjectionRule::OFF);
    trial.settle(Endpoint::succeeded);
    drop(trial);
    assert_eq!(availability(later), [Well, Well, Due, Well]);
}

/// Earlier, each new endpoint was compared with each old one.
#[test]
fn replacing_very_many_endpoints_is_quick() {
    const MANY: u32 = 60_000;
    let addresses = |net: u32| -> Vec<SocketAddr> {
        (0..MANY).map(|n| (std::net::Ipv4Addr::from((net << 24) + n), 443).into()).collect()
    };
    let backend = Backend::new(BackendKey::address("", "x"), known(&addresses(10)));
    let start = std::time::Instant::now();
    assert!(backend.set_endpoints(known(&addresses(11)), None).is_some());
    // This took 12 s with the quadratic comparison, and takes some tens of milliseconds now, even
    // unoptimised.
    let took = start.elapsed();
    assert!(took < std::time::Duration::from_secs(2), "{took:?}");
}

/// A change of hints alone takes effect, and the endpoints keep their state.
#[test]
fn other_places_of_the_same_endpoints_are_a_change() {
    let backend = Backend::new(BackendKey::address("", "x"), known(&[]));
    let addresses = [address("10.0.0.1:1")];
    let place_in = |ring: Ring| {
        let places = [Arc::new(EndpointPlace { ring, ..EndpointPlace::default() })];
        let known = BackendAddresses { endpoints: &addresses, others: None, places: &places };
        backend.set_endpoints(known, None).is_some()
    };
    assert!(place_in(Ring::Any));
    let busy = backend.endpoints()[0].begin(Moment::now(), &EjectionRule::OFF);
    assert!(place_in(Ring::Zone));
    assert!(!place_in(Ring::Zone));
    assert_eq!(backend.endpoints()[0].active(), 1);
    drop(busy);
}
