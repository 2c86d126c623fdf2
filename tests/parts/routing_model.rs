//! The routing table against a slow model that is right by looking at it.

use std::cmp::Reverse;
use std::collections::HashSet;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use sluice::routing::{
    Age, AnyOn, BackendKey, ClaimConflict, Claimant, Demand, Hostname, Hostnames,
    MOST_ROUTES_A_HOSTNAME, MatchKind, Referrer, RouteKey, RouteSpec, Snapshot, Table, channel,
    judge, judge_any,
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
    let listener = is_on(route, ask.listener);
    let protocol = route.alpn.is_empty() || route.alpn.iter().any(|one| ask.offers(one));
    listener && protocol
}

/// The routes here have one attachment.
fn listeners(route: &RouteSpec) -> &[Box<str>] {
    &route.attachments[0].listeners
}

fn is_on(route: &RouteSpec, listener: &str) -> bool {
    listeners(route).is_empty() || listeners(route).contains(&listener.into())
}

fn claims(route: &RouteSpec, hostname: Hostname<&str>) -> bool {
    route.hostnames().any(|one| one == hostname)
}

/// What decides between claims to one hostname, the greatest first: ALPN, age, then the key.
fn rank(route: &RouteSpec) -> impl Ord + use<'_> {
    (!route.alpn.is_empty(), Reverse(age(route)))
}

/// The least owns what it claims, for its namespace.
fn age(route: &RouteSpec) -> impl Ord + use<'_> {
    (route.created.unwrap_or(i64::MAX), route.key.namespace(), route.key.name())
}

/// Which namespaces let which others have their hostnames.
type Grants = Vec<(&'static str, &'static str)>;

fn may(grants: &Grants, owner: &str, namespace: &str) -> bool {
    owner == namespace || grants.contains(&(owner, namespace))
}

/// Looks at every claim of every route.
fn model<'r>(
    routes: &'r [RouteSpec],
    grants: &Grants,
    ask: &Ask,
) -> Option<(&'r RouteKey, Hostname<&'r str>)> {
    let mut claimed: Vec<Hostname<&str>> = routes.iter().flat_map(RouteSpec::hostnames).collect();
    claimed.retain(|hostname| covers(&hostname.to_string(), ask.name.as_deref()));
    claimed.sort_unstable();
    claimed.dedup();
    let mut only = None;
    // From the most specific to the least.
    for hostname in claimed.into_iter().rev() {
        let claims: Vec<&RouteSpec> =
            routes.iter().filter(|route| claims(route, hostname)).collect();
        // `*` is owned on each listener by itself, everything else as a whole.
        let here = |route: &&&RouteSpec| hostname != Hostname::Any || is_on(route, ask.listener);
        let oldest = claims.iter().filter(here).min_by(|a, b| age(a).cmp(&age(b)));
        let Some(owner) = oldest.map(|oldest| oldest.key.namespace()) else { continue };
        let best = claims
            .iter()
            .filter(|route| admits(route, ask) && may(grants, owner, route.key.namespace()))
            .filter(|route| only.is_none_or(|only| only == route.key.namespace()))
            .max_by(|a, b| rank(a).cmp(&rank(b)));
        if let Some(best) = best {
            return Some((&best.key, hostname));
        }
        only = only.or(Some(owner));
    }
    None
}

/// What becomes of each claim to a hostname.
fn judged<'r>(
    routes: &'r [RouteSpec],
    grants: &Grants,
    hostname: Hostname<&str>,
) -> Vec<(&'r RouteSpec, Option<ClaimConflict>)> {
    let mut claims: Vec<(Age, Demand, &RouteSpec)> = routes
        .iter()
        .filter(|route| claims(route, hostname))
        .map(|route| {
            let (listeners, alpn) = (listeners(route).into(), route.alpn.clone().into());
            (
                Age::new(route.created, route.key.clone()),
                Demand { listeners, alpn, reserved: false },
                route,
            )
        })
        .collect();
    claims.sort_by(|a, b| a.0.cmp(&b.0));
    let claimants: Vec<Claimant<'_>> =
        claims.iter().map(|(age, demand, _)| Claimant { age, demand }).collect();
    let shares = |owner: &str, from: Referrer<'_>| may(grants, owner, from.namespace);
    let conflicts = match hostname {
        Hostname::Any => judge_any(&claimants, shares),
        _ => judge(&claimants, shares),
    };
    assert_eq!(conflicts.len(), claims.len());
    claims.iter().map(|(_, _, route)| *route).zip(conflicts).collect()
}

/// The routes as a control plane has them served: without what belongs to other namespaces.
fn served(routes: &[RouteSpec], grants: &Grants) -> Vec<RouteSpec> {
    let narrow = |route: &RouteSpec| {
        let mut any_on = AnyOn::All;
        let left = route.hostnames().filter(|hostname| {
            let conflicts = judged(routes, grants, *hostname);
            let own = conflicts.into_iter().find(|(other, _)| other.key == route.key);
            match own.unwrap().1 {
                Some(ClaimConflict::ForeignOn { served, .. }) => any_on = served,
                Some(conflict) => return !conflict.is_left_out(),
                None => {}
            }
            true
        });
        let hostnames: Hostnames = left.collect();
        let mut narrow = route.clone();
        narrow.attachments[0].hostnames = hostnames.with_any_on(any_on);
        narrow
    };
    routes.iter().map(narrow).filter(|route| route.hostnames().next().is_some()).collect()
}

fn grants() -> impl Strategy<Value = Grants> {
    let namespaces = ["l", "m", "n", "n-"];
    let pairs: Grants =
        namespaces.iter().flat_map(|a| namespaces.iter().map(move |b| (*a, *b))).collect();
    prop_oneof![Just(Vec::new()), subsequence(pairs, 0..=4)]
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
                created,
                alpn: alpn.into_iter().map(Into::into).collect(),
                backends: vec![(BackendKey::Address("192.0.2.1:1".into()), 1)],
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

/// Names that many routes claim.
const CROWDED: [&str; 2] = ["*.a", "b.a"];

/// Routes for the same names, nearly all with ALPN.
fn crowd() -> impl Strategy<Value = Vec<RouteSpec>> {
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

/// The table gives the connection to the same route as the model, and by the same hostname.
#[track_caller]
fn assert_agrees(table: &Table, routes: &[RouteSpec], grants: &Grants, ask: &Ask) {
    let name = ask.name.as_deref();
    let offers = ask.offers.iter().map(|protocol| protocol.as_bytes());
    let found = table.lookup(name, ask.listener, offers);
    let found = found.map(|found| (&found.route.spec.key, hostname_of(found.kind, name)));
    let expected = model(routes, grants, ask);
    let expected = expected.map(|(key, hostname)| (key, hostname.to_string()));
    assert_eq!(found, expected, "{ask:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_table_answers_as_the_model_does(
        former in routes(),
        routes in routes(),
        grants in grants(),
        asks in proptest::collection::vec(ask(), 1..40),
    ) {
        let (mut writer, reader) = channel();
        // What was served before must make no difference.
        writer.apply(Snapshot { routes: former, ..Snapshot::default() });
        let served = served(&routes, &grants);
        writer.apply(Snapshot { routes: served.clone(), ..Snapshot::default() });
        let table = reader.table();
        prop_assert_eq!(table.len(), served.len());
        let hostnames: HashSet<_> =
            served.iter().flat_map(RouteSpec::hostnames).collect();
        prop_assert_eq!(table.hostnames(), hostnames.len());
        let special = routes.iter().flat_map(RouteSpec::hostnames).flat_map(asks_for);
        for ask in asks.into_iter().chain(special) {
            assert_agrees(&table, &routes, &grants, &ask);
        }
    }

    /// Their claims are found by an index.
    #[test]
    fn many_routes_of_one_name_answer_as_the_model_does(former in crowd(), routes in crowd()) {
        let (mut writer, reader) = channel();
        writer.apply(Snapshot { routes: former, ..Snapshot::default() });
        writer.apply(Snapshot { routes: routes.clone(), ..Snapshot::default() });
        let (table, grants) = (reader.table(), vec![("m", "n"), ("n", "m")]);
        for ask in CROWDED.iter().flat_map(|name| asks_for(name.parse::<Hostname>().unwrap().borrowed())) {
            assert_agrees(&table, &routes, &grants, &ask);
        }
    }

    #[test]
    fn a_verdict_tells_the_truth(routes in routes(), grants in grants()) {
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
                    // Then something is left for it.
                    None => prop_assert!(asks.iter().any(mine), "{} gets no {hostname}", route.key),
                    Some(ClaimConflict::Foreign { owner }) => {
                        prop_assert!(!asks.iter().any(mine), "{} gets {hostname}", route.key);
                        prop_assert!(age(named(&owner)) < age(route));
                        prop_assert!(!may(&grants, owner.namespace(), route.key.namespace()));
                    }
                    Some(ClaimConflict::ForeignOn { owner, .. }) => {
                        prop_assert!(asks.iter().any(|ask| meant(ask) && !mine(ask)));
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
                        // Something that both would take goes to another.
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

fn route_of(key: (&str, &str), created: i64, alpn: &[&str], listeners: &[&str]) -> RouteSpec {
    let boxed = |texts: &[&str]| texts.iter().map(|text| (*text).into()).collect();
    RouteSpec {
        created: Some(created),
        alpn: boxed(alpn),
        backends: vec![(BackendKey::Address("192.0.2.1:1".into()), 1)],
        ..RouteSpec::new(RouteKey::sni_route(key.0, key.1), Hostname::Exact("a.test").into())
            .on(listeners)
    }
}

#[test]
fn the_oldest_routes_of_a_hostname_and_listener_stay() {
    let name = |number: usize| format!("r{number:03}");
    let mut routes: Vec<RouteSpec> = (0..200)
        .map(|n| route_of(("n", &name(n)), n as i64, &[&name(n)], &[LISTENERS[n % 2]]))
        .collect();
    // As old as any, and of all listeners.
    routes.push(route_of(("n", "all"), 0, &["all"], &[]));
    // Later, on a listener that is not full.
    routes.push(route_of(("n", "third"), 300, &["third"], &["three"]));
    let conflicts = judged(&routes, &Vec::new(), Hostname::Exact("a.test"));
    let left: Vec<i64> = conflicts
        .iter()
        .filter(|(_, conflict)| conflict.is_none())
        .map(|(route, _)| route.created.unwrap())
        .collect();
    // Of each of the two listeners one place is taken by the route of all.
    let expected: Vec<i64> = [0].into_iter().chain(0..126).chain([300]).collect();
    assert_eq!(left, expected);
    assert_eq!(MOST_ROUTES_A_HOSTNAME, 64);
    let rest = conflicts.iter().filter(|(route, _)| route.created > Some(125));
    let mut rest = rest.filter(|(route, _)| route.created < Some(300));
    assert!(rest.all(|(_, conflict)| *conflict == Some(ClaimConflict::TooMany)));
}

#[test]
fn routes_that_another_namespace_keeps_out_take_no_place() {
    let mut routes: Vec<RouteSpec> = vec![route_of(("n", "owner"), 0, &[], &[])];
    routes.extend((0..100).map(|n| route_of(("m", &format!("r{n}")), 1 + n, &["x"], &[])));
    routes.push(route_of(("n", "acme"), 1000, &["acme-tls/1"], &[]));
    for (route, conflict) in judged(&routes, &Vec::new(), Hostname::Exact("a.test")) {
        let foreign = matches!(conflict, Some(ClaimConflict::Foreign { .. }));
        assert_eq!(foreign, route.key.namespace() == "m", "{}: {conflict:?}", route.key);
        assert!(foreign || conflict.is_none());
    }
}
