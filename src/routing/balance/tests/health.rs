//! Choices among endpoints of which some have failed.

use super::*;
use crate::policy::{ActiveHealth, CheckKind, Number};
use crate::routing::{Availability, CheckState, CheckVerdict, ENDPOINT_REST, EjectionRule};

#[test]
fn a_failed_endpoint_is_tried_last_and_then_by_one_client() {
    for policy in Balancing::ALL {
        let route = route(policy, &[(1, 4)]);
        let (dead, now) = (address(0, 2), Moment::now());
        endpoints(&route, 0)[2].failed(now);
        assert_eq!(chosen(&route, 400, now).get(&dead), None, "{policy:?}");
        let later = now + ENDPOINT_REST;
        assert_eq!(chosen(&route, 400, later).get(&dead), Some(&1), "{policy:?}");
        endpoints(&route, 0)[2].succeeded();
        assert!(chosen(&route, 400, later).contains_key(&dead), "{policy:?}");
    }
}

/// A route with active checks, and the states of the endpoints of its backend.
fn checked(policy: impl Into<Policy>, endpoints: usize) -> (Arc<Route>, Vec<Arc<CheckState>>) {
    let mut policy = policy.into();
    policy.health.active = Some(ActiveHealth::new(CheckKind::Tcp));
    let route = route(policy, &[(1, endpoints)]);
    let check = route.check.as_ref().unwrap();
    let state = |endpoint: &Arc<Endpoint>| {
        let state = Arc::<CheckState>::default();
        endpoint.set_checks(&[(Arc::clone(check), Arc::clone(&state))]);
        state
    };
    let states = route.backends[0].backend.endpoints().iter().map(state).collect();
    (route, states)
}

#[test]
fn an_unhealthy_endpoint_comes_last() {
    for balancing in Balancing::ALL {
        let (route, states) = checked(balancing, 3);
        let (now, all) = (Moment::now(), endpoints(&route, 0));
        states[1].set(CheckVerdict::Unhealthy);
        assert_eq!(chosen(&route, 400, now).get(&all[1].address), None, "{balancing:?}");
        // Rather one that has failed than one that has failed its checks, too.
        all[0].failed(now);
        all[2].failed(now);
        assert_eq!(chosen(&route, 400, now).get(&all[1].address), None, "{balancing:?}");
    }
}

#[test]
fn of_several_unhealthy_endpoints_one_without_failures_is_tried_first() {
    for balancing in Balancing::ALL {
        let (route, states) = checked(balancing, 4);
        let (now, all) = (Moment::now(), endpoints(&route, 0));
        states[1..].iter().for_each(|state| state.set(CheckVerdict::Unhealthy));
        all[1].failed(now);
        all[3].failed(now);
        for n in 0..100 {
            let tried = [all[0].address];
            let request =
                EndpointRequest { now, ..EndpointRequest::new(client(n), &tried, mix(n.into())) };
            let next = choose(&route, &request).unwrap();
            assert_eq!(next.endpoint().address, all[2].address, "{balancing:?}");
        }
    }
}

/// The check is wrong, rather than all endpoints.
#[test]
fn if_all_endpoints_are_unhealthy_checks_do_not_count() {
    for balancing in Balancing::ALL {
        let (route, states) = checked(balancing, 4);
        let (now, all) = (Moment::now(), endpoints(&route, 0));
        let before = chosen(&route, 400, now);
        states.iter().for_each(|state| state.set(CheckVerdict::Unhealthy));
        let after = chosen(&route, 400, now);
        if matches!(balancing, Balancing::RoundRobin | Balancing::LeastConnections) {
            assert!(after.values().all(|count| *count == 100), "{balancing:?}: {after:?}");
        } else {
            assert_eq!(before, after, "{balancing:?}");
        }
        // Passive health goes on: a failed one rests, and then has one trial.
        all[2].failed(now);
        assert_eq!(chosen(&route, 400, now).get(&all[2].address), None, "{balancing:?}");
        let later = now + ENDPOINT_REST;
        assert_eq!(chosen(&route, 400, later).get(&all[2].address), Some(&1), "{balancing:?}");
        // One that passes gets all.
        states[3].set(CheckVerdict::Healthy);
        let all_to = HashMap::from([(all[3].address, 400)]);
        assert_eq!(chosen(&route, 400, now), all_to, "{balancing:?}");
    }
}

/// An endpoint that passes its checks and may not have another connection leaves the others as they are.
#[test]
fn unhealthy_endpoints_share_what_the_full_ones_cannot_take() {
    let mut policy = Policy::from(Balancing::LeastConnections);
    policy.limits.per_endpoint.connections = Some(Number::new(100));
    let (route, states) = checked(policy, 3);
    states[1..].iter().for_each(|state| state.set(CheckVerdict::Unhealthy));
    let shares = chosen(&route, 250, Moment::now());
    assert_eq!(shares[&address(0, 0)], 100);
    assert_eq!([1, 2].map(|number| shares[&address(0, number)]), [75, 75]);
}

#[test]
fn if_all_endpoints_have_failed_all_are_tried() {
    for policy in Balancing::ALL {
        let route = route(policy, &[(1, 3), (2, 1)]);
        let now = Moment::now();
        for endpoint in endpoints(&route, 0).iter().chain(&endpoints(&route, 1)) {
            endpoint.failed(now);
        }
        assert_eq!(chosen(&route, 400, now).len(), 4, "{policy:?}");
        // An endpoint whose rest is over is preferred to those that rest.
        endpoints(&route, 0)[1].succeeded();
        let tried = [address(0, 0)];
        let request = EndpointRequest { now, ..EndpointRequest::new(client(1), &tried, 1) };
        let next = choose(&route, &request).unwrap();
        assert_eq!(next.endpoint().address, address(0, 1), "{policy:?}");
    }
}

#[test]
fn a_retry_is_no_trial_while_other_endpoints_are_healthy() {
    for policy in Balancing::ALL {
        let route = route(policy, &[(1, 4)]);
        let (now, tried) = (Moment::now(), [address(0, 0)]);
        endpoints(&route, 0)[..3].iter().for_each(|endpoint| endpoint.failed(now));
        for n in 0..100 {
            let later = now + ENDPOINT_REST;
            let request = EndpointRequest {
                now: later,
                ..EndpointRequest::new(client(n), &tried, mix(n.into()))
            };
            let next = choose(&route, &request).unwrap();
            assert_eq!(next.endpoint().address, address(0, 3), "{policy:?}");
        }
    }
}

#[test]
fn the_share_of_dead_endpoints_is_spread_over_all_healthy_ones() {
    for policy in Balancing::ALL {
        let route = route(policy, &[(1, 6)]);
        let now = Moment::now();
        endpoints(&route, 0)[..3].iter().for_each(|endpoint| endpoint.failed(now));
        let shares = chosen(&route, 6000, now);
        assert_eq!(shares.len(), 3);
        assert!(shares.values().all(|n| (1750..2250).contains(n)), "{policy:?}: {shares:?}");
    }
}

/// Clients get the only healthy backend, although its weight is low.
#[test]
fn a_light_backend_replaces_dead_heavy_ones() {
    for policy in Balancing::ALL {
        let route = route(policy, &[(90, 1), (90, 1), (90, 1), (10, 1)]);
        let now = Moment::now();
        (0..3).for_each(|backend| endpoints(&route, backend)[0].failed(now));
        assert_eq!(chosen(&route, 30, now), HashMap::from([(address(3, 0), 30)]), "{policy:?}");
    }
}

#[test]
fn a_trial_whose_client_leaves_is_repeated_by_the_next_client() {
    for policy in Balancing::ALL {
        let route = route(policy, &[(1, 2)]);
        let (now, all) = (Moment::now(), endpoints(&route, 0));
        all[1].failed(now + ENDPOINT_REST);
        all[0].failed(now);
        let later = now + ENDPOINT_REST;
        for _ in 0..3 {
            let request = EndpointRequest { now: later, ..EndpointRequest::new(client(0), &[], 0) };
            let trial = choose(&route, &request).unwrap();
            assert!(Arc::ptr_eq(trial.endpoint(), &all[0]), "{policy:?}");
            assert_eq!(all[0].availability(later, &EjectionRule::OFF), Availability::Resting);
        }
        let request = EndpointRequest { now: later, ..EndpointRequest::new(client(0), &[], 0) };
        choose(&route, &request).unwrap().settle(Endpoint::succeeded);
        assert_eq!(
            all[0].availability(later, &EjectionRule::OFF),
            Availability::Well,
            "the result stays"
        );
    }
}

/// Two draws that start at dead endpoints still give two different endpoints.
#[test]
fn the_better_of_two_is_found_among_many_dead_endpoints() {
    let route = route(Balancing::LeastConnections, &[(1, 40)]);
    let (now, all) = (Moment::now(), endpoints(&route, 0));
    all[2..].iter().for_each(|endpoint| endpoint.failed(now));
    let _busy: Vec<_> = (0..1000).map(|_| all[0].begin(now, &EjectionRule::OFF)).collect();
    let idle = (0..1000).filter(|n| pick(&route, client(1), &[], mix(*n)) == Some(all[1].address));
    // The idle one is chosen in three of four cases; if both draws were the same, in one of two.
    let idle = idle.count();
    assert!((680..820).contains(&idle), "{idle}");
}

#[test]
fn a_family_without_a_route_is_avoided_for_the_same_client_in_all_backends() {
    for policy in Balancing::ALL {
        let key = |n: usize| BackendKey::address("", &n.to_string());
        let spec = route(policy, &[(1, 0); 16]).spec.clone();
        let addresses = |n: usize| -> Vec<SocketAddr> {
            let ipv6 = (0..40).map(|m| ([0xfd00, 0, 0, 0, 0, 0, n as u16, m], 443).into());
            ipv6.chain([address(n, 0)]).collect()
        };
        let endpoints = (0..16).map(|n| (key(n), addresses(n))).collect();
        let (mut writer, reader) = channel();
        writer.apply(Snapshot { routes: vec![spec], endpoints, ..Snapshot::default() });
        let route = Arc::clone(reader.table().routes().next().unwrap());
        let first: SocketAddr = "[fd00::1]:443".parse().unwrap();
        let (tried, mut search) = ([first], SearchState::default());
        search.unrouted(first);
        for n in 0..50 {
            let request = EndpointRequest {
                search: search.clone(),
                ..EndpointRequest::new(client(n), &tried, mix(n.into()))
            };
            let next = choose(&route, &request).unwrap();
            assert!(next.endpoint().address.is_ipv4(), "{policy:?}");
        }
    }
}
