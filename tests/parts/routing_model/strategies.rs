//! Random routes, grants and connections.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use sluice::routing::{BackendKey, Hostname, RouteKey, RouteSpec};

use super::{Ask, Grants, HOSTNAMES, LISTENERS, PROTOCOLS};

pub(super) fn grants() -> impl Strategy<Value = Grants> {
    let namespaces = ["l", "m", "n", "n-"];
    let pairs: Grants =
        namespaces.iter().flat_map(|a| namespaces.iter().map(move |b| (*a, *b))).collect();
    prop_oneof![Just(Vec::new()), subsequence(pairs, 0..=4)]
}

pub(super) fn routes() -> impl Strategy<Value = Vec<RouteSpec>> {
    let claims = (
        subsequence(&HOSTNAMES[..], 1..=4),
        subsequence(&LISTENERS[..2], 0..=2),
        subsequence(&PROTOCOLS[..2], 0..=2),
        prop_oneof![Just(None), (0..3i64).prop_map(Some)],
    );
    let keys = subsequence(
        vec![("n", "a"), ("n", "b"), ("m", "a"), ("m", "b"), ("m", "c"), ("n-", "a"), ("l", "z")],
        0..=7,
    );
    (keys.prop_shuffle(), proptest::collection::vec(claims, 7)).prop_map(|(keys, claims)| {
        keys.into_iter()
            .zip(claims)
            .map(|(key, (names, listeners, alpn, created))| RouteSpec {
                created,
                alpn: alpn.into_iter().map(Into::into).collect(),
                backends: vec![(BackendKey::address("", "192.0.2.1:1"), 1)],
                ..RouteSpec::new(
                    RouteKey::sni_route(key.0, key.1),
                    names
                        .iter()
                        .map(|name| name.parse::<Hostname>().expect("a hostname"))
                        .collect(),
                )
                .on(&listeners)
            })
            .collect()
    })
}

/// Hostnames that many routes claim.
pub(super) const CROWDED: [&str; 2] = ["*.a", "b.a"];

/// Routes for the same names, nearly all with ALPN.
pub(super) fn crowd() -> impl Strategy<Value = Vec<RouteSpec>> {
    let route = (
        select(&["m", "n"][..]),
        subsequence(&CROWDED[..], 1..=2),
        subsequence(&LISTENERS[..], 0..=3),
        prop_oneof![1 => Just(vec![]), 9 => subsequence(&PROTOCOLS[..], 1..=2)],
        0..5i64,
    );
    proptest::collection::vec(route, 0..16).prop_map(|routes| {
        let routes = routes.into_iter().enumerate();
        let spec = |(number, (namespace, names, listeners, alpn, created)): (usize, _)| {
            let (names, listeners, alpn): (Vec<&str>, Vec<&str>, Vec<&str>) =
                (names, listeners, alpn);
            let name = format!("r{number}");
            let mut route = route_of((namespace, &name), created, &alpn, &listeners);
            route.attachments[0].hostnames =
                names.iter().map(|name| name.parse::<Hostname>().unwrap()).collect();
            route
        };
        routes.map(spec).collect()
    })
}

pub(super) fn ask() -> impl Strategy<Value = Ask> {
    let name = proptest::collection::vec(select(&["a", "b", "c", "aa"][..]), 0..=5)
        .prop_map(|labels| Some(labels.join(".")).filter(|name| !name.is_empty()));
    (name, select(&LISTENERS[..]), subsequence(&PROTOCOLS[..], 0..=3))
        .prop_map(|(name, listener, offers)| Ask { name, listener, offers })
}

/// Every listener with every set of protocols, for a name that this hostname covers and no more specific
/// one does.
pub(super) fn asks_for(hostname: Hostname<&str>) -> Vec<Ask> {
    let name = match hostname {
        Hostname::Any => None,
        Hostname::Exact(name) => Some(name.to_string()),
        Hostname::Wildcard(suffix) => Some(format!("zz.{suffix}")),
    };
    let mut asks = Vec::new();
    for listener in LISTENERS {
        for set in 0..1 << PROTOCOLS.len() {
            let offered = PROTOCOLS.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1);
            let offers = offered.map(|(_, protocol)| *protocol).collect();
            asks.push(Ask { name: name.clone(), listener, offers });
        }
    }
    asks
}

pub(super) fn route_of(
    key: (&str, &str),
    created: i64,
    alpn: &[&str],
    listeners: &[&str],
) -> RouteSpec {
    let boxed = |texts: &[&str]| texts.iter().map(|text| (*text).into()).collect();
    RouteSpec {
        created: Some(created),
        alpn: boxed(alpn),
        backends: vec![(BackendKey::address("", "192.0.2.1:1"), 1)],
        ..RouteSpec::new(RouteKey::sni_route(key.0, key.1), Hostname::Exact("a.test").into())
            .on(listeners)
    }
}
