//! The routing table against a slow model that is right by looking at it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::cmp::Reverse;
use std::collections::HashSet;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use sluice::routing::{
    BackendKey, Hostname, MatchKind, Policy, RouteKey, RouteSpec, Snapshot, Timeouts, channel,
    conflicts_over,
};

/// Few, so that routes meet: exact names, wildcards at three depths, and any.
const HOSTNAMES: [&str; 10] =
    ["*", "*.a", "*.b.a", "*.a.b.a", "*.b", "a", "b.a", "a.b.a", "c.a.b.a", "b"];
const LISTENERS: [&str; 3] = ["one", "two", "three"];
const PROTOCOLS: [&str; 3] = ["h2", "http/1.1", "x"];

/// One connection, as the table sees it.
#[derive(Clone, Debug)]
struct Ask {
    name: Option<String>,
    listener: &'static str,
    offers: Vec<&'static str>,
}

impl Ask {
    fn offers(&self, protocol: &str) -> bool {
        self.offers.contains(&protocol)
    }
}

/// Whether a hostname covers a name, said in terms of text alone.
fn covers(hostname: &str, name: Option<&str>) -> bool {
    match (hostname.strip_prefix('*'), name) {
        (Some(""), _) => true,
        (_, None) => false,
        (None, Some(name)) => name == hostname,
        (Some(dot_suffix), Some(name)) => name.ends_with(dot_suffix) && name != dot_suffix,
    }
}

fn admits(route: &RouteSpec, ask: &Ask) -> bool {
    let listener = route.listeners.is_empty() || route.listeners.contains(&ask.listener.into());
    let protocol = route.alpn.is_empty() || route.alpn.iter().any(|one| ask.offers(one));
    listener && protocol
}

/// What decides between claims, the greatest first: the hostname, ALPN, age, then the key.
fn rank<'r>(hostname: Hostname<&'r str>, route: &'r RouteSpec) -> impl Ord + use<'r> {
    let age = Reverse(route.created.unwrap_or(i64::MAX));
    let key = (route.key.namespace(), route.key.name());
    (hostname, !route.alpn.is_empty(), age, Reverse(key))
}

/// Looks at every claim of every route.
fn model<'r>(routes: &'r [RouteSpec], ask: &Ask) -> Option<(&'r RouteKey, Hostname<&'r str>)> {
    routes
        .iter()
        .filter(|route| admits(route, ask))
        .flat_map(|route| route.hostnames.iter().map(move |hostname| (hostname, route)))
        .filter(|(hostname, _)| covers(&hostname.to_string(), ask.name.as_deref()))
        .max_by(|a, b| rank(a.0, a.1).cmp(&rank(b.0, b.1)))
        .map(|(hostname, route)| (&route.key, hostname))
}

fn routes() -> impl Strategy<Value = Vec<RouteSpec>> {
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
                key: RouteKey::new(key.0, key.1),
                created,
                hostnames: names
                    .iter()
                    .map(|name| name.parse::<Hostname>().expect("a hostname"))
                    .collect(),
                listeners: listeners.into_iter().map(Into::into).collect(),
                alpn: alpn.into_iter().map(Into::into).collect(),
                backends: vec![(BackendKey::Address("192.0.2.1:1".into()), 1)],
                policy: Policy::default(),
                timeouts: Timeouts::default(),
            })
            .collect()
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    let name = proptest::collection::vec(select(&["a", "b", "c", "aa"][..]), 0..=5)
        .prop_map(|labels| Some(labels.join(".")).filter(|name| !name.is_empty()));
    (name, select(&LISTENERS[..]), subsequence(&PROTOCOLS[..], 0..=3))
        .prop_map(|(name, listener, offers)| Ask { name, listener, offers })
}

/// Every listener with every set of protocols, for a name that meets this hostname and none that
/// beats it.
fn asks_for(hostname: Hostname<&str>) -> Vec<Ask> {
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

fn hostname_of(kind: MatchKind<'_>, name: Option<&str>) -> String {
    match kind {
        MatchKind::Exact => name.unwrap_or_default().to_owned(),
        MatchKind::Wildcard(suffix) => format!("*.{suffix}"),
        MatchKind::Any => "*".to_owned(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_table_answers_as_the_model_does(
        former in routes(),
        routes in routes(),
        asks in proptest::collection::vec(ask(), 1..40),
    ) {
        let (mut writer, reader) = channel();
        // What was served before must make no difference.
        writer.apply(Snapshot { routes: former, ..Snapshot::default() });
        writer.apply(Snapshot { routes: routes.clone(), ..Snapshot::default() });
        let table = reader.table();
        prop_assert_eq!(table.len(), routes.len());
        let hostnames: HashSet<_> =
            routes.iter().flat_map(|route| route.hostnames.iter()).collect();
        prop_assert_eq!(table.hostnames(), hostnames.len());
        let special = routes.iter().flat_map(|route| route.hostnames.iter()).flat_map(asks_for);
        for ask in asks.into_iter().chain(special) {
            let name = ask.name.as_deref();
            let offers = |protocol: &[u8]| {
                PROTOCOLS.iter().any(|p| p.as_bytes() == protocol && ask.offers(p))
            };
            let found = table.lookup(name, ask.listener, offers);
            let found = found.map(|found| (&found.route.spec.key, hostname_of(found.kind, name)));
            let expected = model(&routes, &ask).map(|(key, hostname)| (key, hostname.to_string()));
            prop_assert_eq!(found, expected, "{:?}", ask);
        }
    }

    #[test]
    fn a_conflict_tells_the_truth(routes in routes()) {
        let hostnames: HashSet<_> =
            routes.iter().flat_map(|route| route.hostnames.iter()).collect();
        for hostname in hostnames {
            let claims = |route: &&RouteSpec| route.hostnames.contains(&hostname);
            let claimants: Vec<&RouteSpec> = routes.iter().filter(claims).collect();
            let lost = conflicts_over(&hostname.owned(), &claimants);
            prop_assert_eq!(lost.len(), claimants.len());
            for (route, told) in claimants.into_iter().zip(lost) {
                prop_assert!(told.iter().all(|conflict| conflict.hostname.borrowed() == hostname));
                let asks = asks_for(hostname);
                let mine = |ask: &Ask| model(&routes, ask) == Some((&route.key, hostname));
                match told {
                    // Then something is left for it.
                    None => prop_assert!(asks.iter().any(mine), "{} gets no {hostname}", route.key),
                    Some(conflict) => {
                        let winner = routes.iter().find(|other| other.key == conflict.winner);
                        let winner = winner.expect("the winner is one of them");
                        prop_assert!(winner.hostnames.contains(&hostname));
                        prop_assert!(rank(hostname, winner) > rank(hostname, route));
                        if conflict.whole {
                            prop_assert!(!asks.iter().any(mine), "{} gets {hostname}", route.key);
                        } else {
                            // Something that both would take goes to another.
                            let meant = |ask: &Ask| admits(route, ask) && admits(winner, ask);
                            prop_assert!(asks.iter().any(|ask| meant(ask) && !mine(ask)));
                        }
                    }
                }
            }
        }
    }
}
