//! The limit on checked endpoints.

use super::*;
use crate::routing::balance::search::MOST_LOOKS;

/// How many endpoints were checked for a request, including earlier choices for the same client.
fn looked_at(request: &EndpointRequest<'_>) -> usize {
    MOST_LOOKS - request.looks_left()
}

#[test]
fn a_choice_among_very_many_endpoints_checks_few() {
    const MANY: usize = 60_000;
    for policy in Balancing::ALL {
        let route = route(policy, &[(1, MANY)]);
        let most = |now: Moment, expected: usize| {
            for n in 0..200 {
                let request =
                    EndpointRequest { now, ..EndpointRequest::new(client(n), &[], mix(n.into())) };
                assert!(choose(&route, &request).is_ok());
                assert!(looked_at(&request) <= expected, "{policy:?}: {}", looked_at(&request));
            }
        };
        let now = Moment::now();
        most(now, if policy == Balancing::LeastConnections { 2 } else { 1 });
        endpoints(&route, 0).iter().step_by(2).for_each(|endpoint| endpoint.failed(now));
        most(now, 40);
        endpoints(&route, 0).iter().for_each(|endpoint| endpoint.failed(now));
        most(now, MOST_LOOKS / 2);
    }
}

/// The worst case of one client: 16 large backends whose endpoints fail one after the other.
#[test]
fn all_choices_for_a_client_together_check_few_endpoints() {
    const TRIES: usize = 17;
    for policy in Balancing::ALL {
        let route = route(policy, &[(1, 300); 16]);
        let now = Moment::now();
        (0..16).flat_map(|n| endpoints(&route, n)).for_each(|endpoint| endpoint.failed(now));
        let (mut tried, mut search) = (Vec::new(), SearchState::default());
        for n in 0..TRIES as u64 {
            let request =
                EndpointRequest { now, search, ..EndpointRequest::new(client(1), &tried, mix(n)) };
            let next = choose(&route, &request).unwrap().endpoint().address;
            let looked_at = looked_at(&request);
            assert!(looked_at <= MOST_LOOKS, "{policy:?}: {looked_at}");
            search = request.search;
            assert!(!tried.contains(&next), "{policy:?}");
            tried.push(next);
        }
    }
}

/// A few endpoints of each backend are checked, however many are dead.
#[test]
fn a_healthy_light_backend_is_found_among_large_dead_ones() {
    for policy in Balancing::ALL {
        let mut backends = [(100, 300); 16];
        backends[15] = (1, 1);
        let route = route(policy, &backends);
        let now = Moment::now();
        (0..15).flat_map(|n| endpoints(&route, n)).for_each(|endpoint| endpoint.failed(now));
        assert_eq!(chosen(&route, 50, now), HashMap::from([(address(15, 0), 50)]), "{policy:?}");
    }
}
