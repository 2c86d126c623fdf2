//! Endpoints that are meant for this node or zone.

use std::time::Duration;

use super::*;
use crate::routing::{EndpointPlace, Ring};

/// A route with one backend, whose endpoints are in these rings.
fn near_route(policy: serde_json::Value, rings: &[Ring]) -> Arc<Route> {
    let policy: Policy =
        serde_json::from_value(serde_json::json!({ "loadBalancing": policy })).unwrap();
    let key = BackendKey::address("", "0");
    let spec = RouteSpec {
        policy: TrafficPolicy::of(&policy),
        ..route(Balancing::Random, &[(1, 0)]).spec.clone()
    };
    let place = |ring: &Ring| Arc::new(EndpointPlace { ring: *ring, ..EndpointPlace::default() });
    let addresses = (0..rings.len()).map(|number| address(0, number)).collect();
    let (mut writer, reader) = channel();
    writer.apply(Snapshot {
        routes: vec![spec],
        endpoints: [(key.clone(), addresses)].into_iter().collect(),
        places: [(key, rings.iter().map(place).collect())].into_iter().collect(),
        ..Snapshot::default()
    });
    Arc::clone(reader.table().routes().next().unwrap())
}

/// The endpoints that 200 clients get one after the other, and their rings.
fn used(route: &Route) -> std::collections::BTreeSet<(usize, Option<Ring>)> {
    let number =
        |endpoint: SocketAddr| (0..100).find(|number| address(0, *number) == endpoint).unwrap();
    (0..200)
        .map(|n| {
            let request = EndpointRequest::new(client(n), &[], mix(u64::from(n)));
            let active = choose(route, &request).unwrap();
            (number(active.endpoint().address), active.ring())
        })
        .collect()
}

const RINGS: [Ring; 6] = [Ring::Any, Ring::Zone, Ring::Node, Ring::Any, Ring::Node, Ring::Zone];
const NEAR: [Balancing; 3] =
    [Balancing::RoundRobin, Balancing::LeastConnections, Balancing::Random];

fn of_ring(wanted: Ring) -> Vec<(usize, Option<Ring>)> {
    let numbered = RINGS.iter().enumerate().filter(|(_, ring)| **ring == wanted);
    numbered.map(|(number, ring)| (number, Some(*ring))).collect()
}

fn fail(route: &Route, ring: Ring) {
    let all = endpoints(route, 0);
    of_ring(ring).into_iter().for_each(|(number, _)| all[number].failed(Moment::now()));
}

#[test]
fn the_nearest_endpoints_are_used_until_they_fail() {
    for policy in NEAR {
        let route = near_route(serde_json::json!({ "policy": policy.as_str() }), &RINGS);
        for ring in Ring::ALL {
            let used: Vec<_> = used(&route).into_iter().collect();
            assert_eq!(used, of_ring(ring), "{policy:?}");
            fail(&route, ring);
        }
        // All of them have failed: any may be tried.
        assert!(!used(&route).is_empty());
        endpoints(&route, 0)[2].succeeded();
        let used: Vec<_> = used(&route).into_iter().collect();
        assert_eq!(used, [(2, Some(Ring::Node))], "{policy:?}");
    }
}

#[test]
fn a_client_whose_near_endpoints_refuse_gets_one_further_away() {
    for policy in NEAR {
        let route = near_route(serde_json::json!({ "policy": policy.as_str() }), &RINGS);
        let mut tried = Vec::new();
        let mut rings = Vec::new();
        loop {
            let request = EndpointRequest::new(client(1), &tried, mix(tried.len() as u64));
            let Ok(active) = choose(&route, &request) else { break };
            rings.push(active.ring().unwrap());
            tried.push(active.endpoint().address);
        }
        assert_eq!(rings.len(), RINGS.len());
        assert!(rings.is_sorted(), "{policy:?}: {rings:?}");
    }
}

#[test]
fn near_endpoints_are_equal_to_others_if_nobody_prefers_them() {
    for policy in NEAR {
        let policy = serde_json::json!({ "policy": policy.as_str(), "locality": "Ignore" });
        let used = used(&near_route(policy, &RINGS));
        assert_eq!(used, (0..RINGS.len()).map(|number| (number, None)).collect());
    }
    // Without hints for here, there is nothing to count.
    let used = used(&near_route(serde_json::json!({}), &[Ring::Any; 4]));
    assert_eq!(used, (0..4).map(|number| (number, None)).collect());
}

/// Replicas in different zones must agree.
#[test]
fn hash_policies_ignore_where_endpoints_are() {
    for policy in ["SourceAddress", "ServerName"] {
        let here = near_route(serde_json::json!({ "policy": policy }), &RINGS);
        let there = near_route(serde_json::json!({ "policy": policy }), &[Ring::Any; RINGS.len()]);
        assert_eq!(used(&here), used(&there), "{policy}");
    }
}

/// More endpoints than a search looks at.
#[test]
fn many_dead_endpoints_of_a_zone_do_not_hide_the_others() {
    let rings: Vec<Ring> =
        (0..1000).map(|n| if n < 900 { Ring::Zone } else { Ring::Any }).collect();
    for policy in NEAR {
        let route = near_route(serde_json::json!({ "policy": policy.as_str() }), &rings);
        let all = endpoints(&route, 0);
        all[..900].iter().for_each(|endpoint| endpoint.failed(Moment::now()));
        for n in 0..100 {
            let request = EndpointRequest::new(client(n), &[], mix(u64::from(n)));
            let active = choose(&route, &request).unwrap();
            assert_eq!(active.ring(), Some(Ring::Any), "{policy:?}");
        }
    }
}

/// The only endpoint of this node is back: the zone goes on with what exceeds its weight.
#[test]
fn an_endpoint_that_starts_slowly_and_is_alone_in_its_ring_leaves_the_rest_to_the_next_ring() {
    const OVER: Duration = Duration::from_secs(100);
    let rings = [Ring::Node, Ring::Zone, Ring::Zone, Ring::Zone];
    for policy in NEAR {
        let policy = serde_json::json!({ "policy": policy.as_str(), "slowStart": "100s" });
        let route = near_route(policy.clone(), &rings);
        let (since, all) = (Moment::now(), endpoints(&route, 0));
        let share = |part: f64| {
            let chosen = chosen(&route, 4000, since + OVER.mul_f64(part));
            f64::from(chosen.get(&all[0].address).copied().unwrap_or_default()) / 4000.0
        };
        assert!(share(0.0) > 0.99, "{policy}: it has been there from the start");
        all[0].comes_back(Some(since));
        for part in [0.0, 0.1, 0.5, 0.9, 1.0] {
            let share = share(part);
            assert!((share - part).abs() < 0.03, "{policy}: {share} at {part}");
        }
        // Nobody else is well.
        all[1..].iter().for_each(|endpoint| endpoint.failed(since));
        assert!(share(0.0) > 0.99, "{policy}");
    }
}

/// Beside another one of its ring that is well, as without rings.
#[test]
fn a_ring_keeps_its_connections_if_one_of_its_endpoints_has_its_whole_weight() {
    for policy in NEAR {
        let policy = serde_json::json!({ "policy": policy.as_str(), "slowStart": "100s" });
        let route = near_route(policy.clone(), &RINGS);
        let since = Moment::now();
        endpoints(&route, 0)[2].comes_back(Some(since));
        let chosen = chosen(&route, 400, since);
        assert!(chosen[&address(0, 4)] > 390, "{policy}: {chosen:?}");
        // A dead one is no reason to stay.
        endpoints(&route, 0)[4].failed(since);
        let request = |n: u32| EndpointRequest {
            now: since,
            ..EndpointRequest::new(client(n), &[], mix(n.into()))
        };
        let far =
            (0..400).filter(|n| choose(&route, &request(*n)).unwrap().ring() == Some(Ring::Zone));
        assert!(far.count() > 390, "{policy}");
    }
}
