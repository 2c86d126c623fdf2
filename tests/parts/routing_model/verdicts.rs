//! The conflicts of claims to one hostname.

use std::collections::HashSet;

use proptest::prelude::*;
use sluice::routing::{ClaimConflict, Hostname, MOST_ROUTES_A_HOSTNAME, RouteKey, RouteSpec};

use super::strategies::{asks_for, grants, route_of, routes};
use super::{Ask, LISTENERS, admits, age, judged, may, model, rank};

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn conflicts_agree_with_the_model(routes in routes(), grants in grants()) {
        let hostnames: HashSet<_> =
            routes.iter().flat_map(RouteSpec::hostnames).collect();
        for hostname in hostnames {
            let asks = asks_for(hostname);
            let named = |key: &RouteKey| routes.iter().find(|route| route.key == *key).unwrap();
            for (route, conflict) in judged(&routes, &grants, hostname) {
                let mine =
                    |ask: &Ask| model(&routes, &grants, ask) == Some((&route.key, hostname));
                let meant = |ask: &Ask| admits(route, ask);
                match conflict {
                    // The route then gets some connections.
                    None => prop_assert!(asks.iter().any(mine), "{} gets no {hostname}", route.key),
                    Some(ClaimConflict::Foreign { owner }) => {
                        prop_assert!(!asks.iter().any(mine), "{} gets {hostname}", route.key);
                        prop_assert!(age(named(&owner)) < age(route));
                        prop_assert!(!may(&grants, owner.namespace(), route.key.namespace()));
                    }
                    Some(ClaimConflict::ForeignOn { owner, winner, .. }) => {
                        prop_assert!(asks.iter().any(|ask| meant(ask) && !mine(ask)));
                        if let Some(winner) = winner {
                            prop_assert!(!asks.iter().any(mine), "{} gets {hostname}", route.key);
                            prop_assert!(rank(named(&winner)) > rank(route));
                        }
                        prop_assert!(age(named(&owner)) < age(route));
                        prop_assert!(hostname == Hostname::Any);
                    }
                    Some(ClaimConflict::Taken { winner }) => {
                        prop_assert!(!asks.iter().any(mine), "{} gets {hostname}", route.key);
                        prop_assert!(rank(named(&winner)) > rank(route));
                    }
                    Some(ClaimConflict::PartlyTaken { winner }) => {
                        let winner = named(&winner);
                        prop_assert!(rank(winner) > rank(route));
                        // Another route gets a connection that both ask for.
                        let both = |ask: &Ask| meant(ask) && admits(winner, ask);
                        prop_assert!(asks.iter().any(|ask| both(ask) && !mine(ask)));
                        prop_assert!(asks.iter().any(mine));
                    }
                    Some(other) => prop_assert!(false, "{other:?} of seven routes"),
                }
            }
        }
    }
}

#[test]
fn the_oldest_routes_of_a_hostname_and_listener_stay() {
    let name = |number: usize| format!("r{number:03}");
    let mut routes: Vec<RouteSpec> = (0..200)
        .map(|n| route_of(("n", &name(n)), n as i64, &[&name(n)], &[LISTENERS[n % 2]]))
        .collect();
    // As old as the oldest, and on all listeners.
    routes.push(route_of(("n", "all"), 0, &["all"], &[]));
    // Younger, on a listener that is not full.
    routes.push(route_of(("n", "third"), 300, &["third"], &["three"]));
    let conflicts = judged(&routes, &Vec::new(), Hostname::Exact("a.test"));
    let left: Vec<i64> = conflicts
        .iter()
        .filter(|(_, conflict)| conflict.is_none())
        .map(|(route, _)| route.created.unwrap())
        .collect();
    // The route on all listeners takes one place on each of the two listeners.
    let expected: Vec<i64> = [0].into_iter().chain(0..126).chain([300]).collect();
    assert_eq!(left, expected);
    assert_eq!(MOST_ROUTES_A_HOSTNAME, 64);
    let rest = conflicts.iter().filter(|(route, _)| route.created > Some(125));
    let mut rest = rest.filter(|(route, _)| route.created < Some(300));
    assert!(rest.all(|(_, conflict)| *conflict == Some(ClaimConflict::TooMany)));
}

#[test]
fn refused_routes_of_other_namespaces_do_not_count_for_the_limit() {
    let mut routes: Vec<RouteSpec> = vec![route_of(("n", "owner"), 0, &[], &[])];
    routes.extend((0..100).map(|n| route_of(("m", &format!("r{n}")), 1 + n, &["x"], &[])));
    routes.push(route_of(("n", "acme"), 1000, &["acme-tls/1"], &[]));
    for (route, conflict) in judged(&routes, &Vec::new(), Hostname::Exact("a.test")) {
        let foreign = matches!(conflict, Some(ClaimConflict::Foreign { .. }));
        assert_eq!(foreign, route.key.namespace() == "m", "{}: {conflict:?}", route.key);
        assert!(foreign || conflict.is_none());
    }
}
