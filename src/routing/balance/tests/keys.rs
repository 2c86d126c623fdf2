//! The endpoint of a source or a server name: shares, movement, and agreement of replicas.

use super::*;
use crate::policy::Policy;

const NAMES: usize = 20_000;

fn key(backend: usize) -> BackendKey {
    BackendKey::address("", &backend.to_string())
}

/// The endpoint of each name on a new replica, whose backends have these weights and addresses.
fn of_names(backends: &[(usize, u32, Vec<SocketAddr>)]) -> Vec<SocketAddr> {
    let spec = RouteSpec {
        backends: backends.iter().map(|(name, weight, _)| (key(*name), *weight)).collect(),
        ..route(Balancing::ServerName, &[]).spec.clone()
    };
    let endpoints = backends.iter().map(|(name, _, all)| (key(*name), all.clone())).collect();
    let (mut writer, reader) = channel();
    writer.apply(Snapshot { routes: vec![spec], endpoints, ..Snapshot::default() });
    let route = Arc::clone(reader.table().routes().next().unwrap());
    (0..NAMES)
        .map(|number| {
            let name = format!("{number}.example.com");
            let request = EndpointRequest {
                name: Some(&name),
                // Neither the client's address nor chance has a part in it.
                ..EndpointRequest::new(client(number as u32), &[], mix(number as u64))
            };
            choose(&route, &request).unwrap().endpoint().address
        })
        .collect()
}

fn addresses(backend: usize, count: usize) -> Vec<SocketAddr> {
    (0..count).map(|number| address(backend, number)).collect()
}

fn counts(chosen: &[SocketAddr]) -> HashMap<SocketAddr, usize> {
    chosen.iter().fold(HashMap::new(), |mut counts, endpoint| {
        *counts.entry(*endpoint).or_default() += 1;
        counts
    })
}

fn moved(before: &[SocketAddr], after: &[SocketAddr]) -> Vec<SocketAddr> {
    let changed = before.iter().zip(after).filter(|(before, after)| before != after);
    changed.map(|(before, _)| *before).collect()
}

#[test]
fn names_have_even_shares() {
    for count in [2, 10, 50] {
        let counts = counts(&of_names(&[(0, 1, addresses(0, count))]));
        let (fair, all) = (NAMES / count, counts.len());
        assert_eq!(all, count);
        let is_fair = |n: &usize| n.abs_diff(fair) * 5 <= fair;
        assert!(counts.values().all(is_fair), "{count}: {counts:?}");
    }
}

#[test]
fn removing_an_endpoint_moves_only_its_names_and_adding_it_brings_them_back() {
    for count in [2, 10, 50] {
        let all = addresses(0, count);
        let before = of_names(&[(0, 1, all.clone())]);
        let gone = all[count / 2];
        let rest: Vec<_> = all.iter().copied().filter(|other| *other != gone).collect();
        let after = of_names(&[(0, 1, rest)]);
        let moved = moved(&before, &after);
        assert!(!moved.is_empty() && moved.iter().all(|endpoint| *endpoint == gone), "{count}");
        assert_eq!(of_names(&[(0, 1, all)]), before);
    }
}

#[test]
fn removing_a_backend_moves_only_its_names() {
    let backend = |number: usize, weight: u32| (number, weight, addresses(number, 3));
    let before = of_names(&[backend(0, 1), backend(1, 2), backend(2, 3)]);
    let after = of_names(&[backend(1, 2), backend(2, 3)]);
    let of_first = |endpoint: &SocketAddr| addresses(0, 3).contains(endpoint);
    let moved = moved(&before, &after);
    assert!(moved.iter().all(of_first));
    assert_eq!(moved.len(), before.iter().filter(|endpoint| of_first(endpoint)).count());
    // A sixth is the share of its weight.
    assert!(moved.len().abs_diff(NAMES / 6) * 5 <= NAMES / 6, "{}", moved.len());
}

#[test]
fn replicas_agree_whatever_the_order_of_endpoints_and_backends() {
    let (one, other) = (addresses(0, 7), addresses(1, 5));
    let reversed = |all: &[SocketAddr]| all.iter().rev().copied().collect::<Vec<_>>();
    assert_eq!(
        of_names(&[(0, 2, one.clone()), (1, 1, other.clone())]),
        of_names(&[(1, 1, reversed(&other)), (0, 2, reversed(&one))])
    );
}

/// A backend that is named twice has both shares.
#[test]
fn a_backend_that_is_named_twice_has_the_sum_of_its_weights() {
    let chosen =
        of_names(&[(0, 1, addresses(0, 1)), (0, 1, addresses(0, 1)), (1, 1, addresses(1, 1))]);
    let count = counts(&chosen)[&address(0, 0)];
    assert!(count.abs_diff(NAMES * 2 / 3) * 20 <= NAMES, "{count}");
}

#[test]
fn a_client_without_a_name_is_like_its_source() {
    let (by_name, by_source) =
        (route(Balancing::ServerName, &[(1, 8)]), route(Balancing::SourceAddress, &[(1, 8)]));
    for number in 0..50 {
        let expected = pick(&by_source, client(number), &[], 1);
        assert_eq!(pick(&by_name, client(number), &[], 2), expected);
        assert_eq!(settled_endpoint(&by_name, Some(client(number)), None), expected);
        assert_eq!(settled_endpoint(&by_source, Some(client(number)), Some("a.com")), expected);
    }
    assert_eq!(settled_endpoint(&by_name, None, None), None);
    assert!(settled_endpoint(&by_name, None, Some("a.com")).is_some());
}

#[test]
fn the_clients_of_a_network_have_the_same_endpoint() {
    let serve = |prefix: serde_json::Value| {
        let policy: Policy = serde_json::from_value(serde_json::json!({
            "loadBalancing": { "policy": "SourceAddress", "prefix": prefix }
        }))
        .unwrap();
        let spec = RouteSpec {
            policy: TrafficPolicy::of(&policy),
            ..route(Balancing::Random, &[(1, 0)]).spec.clone()
        };
        let (mut writer, reader) = channel();
        let endpoints = [(key(0), addresses(0, 16))].into_iter().collect();
        writer.apply(Snapshot { routes: vec![spec], endpoints, ..Snapshot::default() });
        Arc::clone(reader.table().routes().next().unwrap())
    };
    let endpoints = |route: &Route, of: fn(u32) -> IpAddr| {
        let chosen: std::collections::HashSet<_> =
            (0..200).map(|number| pick(route, of(number), &[], 0).unwrap()).collect();
        chosen.len()
    };
    let ipv4 = |number: u32| IpAddr::from([198, 18, 0, number as u8]);
    let ipv6 = |number: u32| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 1, number as u16]);
    let networks = |number: u32| IpAddr::from([0x2001, 0xdb8, 0, number as u16, 0, 0, 0, 1]);
    let usual = serve(serde_json::json!({}));
    assert_eq!(endpoints(&usual, ipv4), 16);
    assert_eq!((endpoints(&usual, ipv6), endpoints(&usual, networks)), (1, 16));
    let wide = serve(serde_json::json!({ "ipv4": 24, "ipv6": 48 }));
    assert_eq!((endpoints(&wide, ipv4), endpoints(&wide, networks)), (1, 1));
    let exact = serve(serde_json::json!({ "ipv6": 128 }));
    assert_eq!(endpoints(&exact, ipv6), 16);
}
