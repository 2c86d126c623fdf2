//! Endpoints that are meant for this node or zone.

use std::net::SocketAddr;
use std::sync::Arc;

use sluice::outcome::Outcome;
use sluice::policy::{Locality, Number};
use sluice::routing::{EndpointPlace, Moment, Ring, Snapshot};

use crate::support::{Plane, Target, answering, ask, refusing, target};

/// Serves a route whose endpoints are in these rings.
fn serve(plane: &mut Plane, target: Target, rings: &[Ring]) {
    let key = target.spec.backends[0].0.clone();
    let place = |ring: &Ring| Arc::new(EndpointPlace { ring: *ring, ..EndpointPlace::default() });
    let places = rings.iter().map(place).collect();
    plane.apply_with(vec![target], |snapshot: &mut Snapshot| {
        snapshot.places.insert(key, places);
    });
}

/// How many connections there were to each ring.
fn counted(plane: &Plane) -> [u64; 3] {
    Ring::ALL.map(|ring| plane.metrics.locality.of(ring).get())
}

fn endpoints() -> [SocketAddr; 3] {
    ["far", "zone", "node"].map(answering)
}

const RINGS: [Ring; 3] = [Ring::Any, Ring::Zone, Ring::Node];

#[test]
fn the_nearest_endpoint_gets_all_connections_until_it_fails() {
    let mut plane = Plane::start(Vec::new());
    serve(&mut plane, target("a.test", &endpoints()), &RINGS);
    for (index, answer) in [(2, "node"), (1, "zone"), (0, "far")] {
        for _ in 0..5 {
            assert_eq!(ask(plane.address(), "a.test"), answer);
        }
        // For longer than the test takes.
        plane.endpoints()[index].failed(Moment::now() + std::time::Duration::from_secs(600));
    }
    plane.assert_ended(&[("a.test", Outcome::Completed, 15)]);
    assert_eq!(counted(&plane), [5, 5, 5]);
}

#[test]
fn a_client_whose_near_endpoints_refuse_is_served_by_another_ring() {
    let (dead, _socket) = refusing();
    let (near, _other_socket) = refusing();
    let addresses = [answering("far"), near, dead];
    let mut plane = Plane::start(Vec::new());
    serve(&mut plane, target("a.test", &addresses), &RINGS);
    assert_eq!(ask(plane.address(), "a.test"), "far");
    plane.assert_ended(&[("a.test", Outcome::Completed, 1)]);
    assert_eq!(counted(&plane), [0, 0, 1]);
}

#[test]
fn a_full_ring_leads_to_the_next_one() {
    let limited = target("a.test", &endpoints()).policy(|policy| {
        policy.limits.per_endpoint.connections = Some(Number::new(1));
    });
    let mut plane = Plane::start(Vec::new());
    serve(&mut plane, limited, &RINGS);
    let near = plane.endpoints()[2].begin(Moment::now(), &sluice::routing::EjectionRule::OFF);
    assert_eq!(ask(plane.address(), "a.test"), "zone");
    drop(near);
    assert_eq!(ask(plane.address(), "a.test"), "node");
}

#[test]
fn a_route_can_ignore_where_endpoints_are() {
    let ignoring = target("a.test", &endpoints())
        .policy(|policy| policy.load_balancing.locality = Some(Locality::Ignore));
    let mut plane = Plane::start(Vec::new());
    serve(&mut plane, ignoring, &RINGS);
    let mut answers: Vec<_> = (0..3).map(|_| ask(plane.address(), "a.test")).collect();
    answers.sort_unstable();
    assert_eq!(answers, ["far", "node", "zone"]);
    plane.assert_ended(&[("a.test", Outcome::Completed, 3)]);
    assert_eq!(counted(&plane), [0, 0, 0]);
}
