//! The distribution of connections by each policy.

use std::collections::BTreeSet;

use super::*;

#[test]
fn round_robin_follows_the_weights_and_spreads_turns_evenly() {
    let route = route(Balancing::RoundRobin, &[(5, 1), (1, 1), (1, 1)]);
    let round_robin: Vec<_> = (0..7).map(|_| pick(&route, client(0), &[], 0).unwrap()).collect();
    let of = |n| round_robin.iter().filter(|t| **t == address(n, 0)).count();
    assert_eq!((of(0), of(1), of(2)), (5, 1, 1));
    let heaviest_run = round_robin.chunk_by(|a, b| a == b).map(<[_]>::len).max();
    assert!(heaviest_run <= Some(2), "{round_robin:?}");
}

#[test]
fn round_robin_takes_the_endpoints_of_a_backend_in_turn() {
    let route = route(Balancing::RoundRobin, &[(1, 3)]);
    let round_robin: Vec<_> = (0..6).map(|_| pick(&route, client(0), &[], 0).unwrap()).collect();
    let first = (0..3).find(|n| round_robin[0] == address(0, *n)).unwrap();
    assert_eq!(round_robin, [0, 1, 2, 3, 4, 5].map(|n| address(0, (first + n) % 3)));
}

#[test]
fn a_dead_endpoint_gets_its_turn_and_no_more() {
    for endpoints in [2, 3] {
        let route = route(Balancing::RoundRobin, &[(1, endpoints)]);
        let dead = address(0, 0);
        let retries = (0..60)
            .filter(|_| pick(&route, client(0), &[], 0) == Some(dead))
            .filter(|_| pick(&route, client(0), &[dead], 0).is_some())
            .count();
        assert_eq!(retries, 60 / endpoints);
    }
}

#[test]
fn no_endpoint_is_tried_twice() {
    for policy in Balancing::ALL {
        let route = route(policy, &[(9, 2), (1, 1)]);
        let mut tried = Vec::new();
        while let Some(next) = pick(&route, client(1), &tried, mix(tried.len() as u64)) {
            assert!(!tried.contains(&next), "{policy:?}");
            tried.push(next);
        }
        assert_eq!(tried.len(), 3, "{policy:?}");
    }
}

#[test]
fn backends_without_weight_or_endpoints_get_no_connections() {
    for policy in Balancing::ALL {
        let all = shares(&route(policy, &[(0, 1), (90, 0), (10, 1)]), 50);
        assert_eq!(all, HashMap::from([(2, 50)]), "{policy:?}");
        assert!(pick(&route(policy, &[(0, 1), (5, 0)]), client(0), &[], 0).is_none());
    }
}

#[test]
fn random_and_hash_policies_follow_the_weights() {
    for policy in [Balancing::Random, Balancing::SourceAddress, Balancing::ServerName] {
        let all = shares(&route(policy, &[(3, 2), (1, 1)]), 4000);
        assert!((2800..3200).contains(&all[&0]), "{policy:?}: {all:?}");
    }
}

#[test]
fn least_connections_follows_the_shares() {
    let route = route(Balancing::LeastConnections, &[(3, 1), (1, 1)]);
    let open: Vec<_> = (0..40)
        .map(|_| choose(&route, &EndpointRequest::new(client(0), &[], 0)).unwrap())
        .collect();
    let first = open.iter().filter(|c| c.endpoint().address == address(0, 0)).count();
    assert_eq!(first, 30);
    let (drop_first, _keep): (Vec<_>, Vec<_>) =
        open.into_iter().partition(|c| c.endpoint().address == address(0, 0));
    drop(drop_first);
    assert_eq!(pick(&route, client(0), &[], 0), Some(address(0, 0)));
}

#[test]
fn retries_choose_a_random_endpoint_except_with_hash_policies() {
    for policy in Balancing::ALL {
        let route = route(policy, &[(1, 6)]);
        let tried = [address(0, 0), address(0, 1)];
        let next: HashMap<_, u32> = (0..600).fold(HashMap::new(), |mut next, n| {
            let one = pick(&route, client(7), &tried, mix(n)).unwrap();
            *next.entry(one).or_default() += 1;
            next
        });
        match policy {
            Balancing::SourceAddress | Balancing::ServerName => assert_eq!(next.len(), 1),
            _ => assert!(next.values().all(|n| (90..220).contains(n)), "{policy:?}: {next:?}"),
        }
    }
}

#[test]
fn processes_that_start_together_begin_with_different_endpoints() {
    for policy in [Balancing::RoundRobin, Balancing::LeastConnections, Balancing::Random] {
        let first = |backends: &[(u32, usize)], n| {
            pick(&route(policy, backends), client(0), &[], mix(n)).unwrap()
        };
        let among_endpoints: BTreeSet<_> = (0..200).map(|n| first(&[(1, 6)], n)).collect();
        assert_eq!(among_endpoints.len(), 6, "{policy:?}");
        let backends = [(2, 1), (1, 1), (1, 1)];
        let among_backends: BTreeSet<_> = (0..200).map(|n| first(&backends, n)).collect();
        // At first, the heaviest backend has the fewest connections for its weight.
        let least = if policy == Balancing::LeastConnections { 1 } else { 3 };
        assert_eq!(among_backends.len(), least, "{policy:?}");
    }
}

#[test]
fn the_better_of_two_distributes_connections_by_share() {
    let open = |backends: &[(u32, usize)], count: u32| {
        let route = route(Balancing::LeastConnections, backends);
        let request = |n| EndpointRequest::new(client(n), &[], mix(u64::from(n)));
        let open: Vec<_> = (0..count).map(|n| choose(&route, &request(n)).unwrap()).collect();
        let active = |backend| -> Vec<usize> {
            endpoints(&route, backend).iter().map(|endpoint| endpoint.active()).collect()
        };
        let active: Vec<Vec<usize>> = (0..backends.len()).map(active).collect();
        drop(open);
        active
    };
    let active = open(&[(3, 100), (1, 100)], 4000);
    assert!((2900..3100).contains(&active[0].iter().sum::<usize>()), "{active:?}");
    assert!(active[0].iter().all(|n| (24..36).contains(n)), "{active:?}");
    // One endpoint has the same share as a hundred others together.
    let active = open(&[(1, 1), (1, 100)], 4000);
    assert!((1900..2100).contains(&active[0][0]), "{active:?}");
}
