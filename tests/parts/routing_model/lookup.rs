//! The lookup in the table.

use std::collections::HashSet;

use proptest::prelude::*;
use sluice::routing::{Hostname, MatchKind, RouteKey, RouteSpec, Snapshot, Table, channel};

use super::strategies::{CROWDED, ask, asks_for, crowd, grants, routes};
use super::{Ask, Grants, model, served};

fn hostname_of(kind: MatchKind<'_>, name: Option<&str>) -> String {
    match kind {
        MatchKind::Exact => name.unwrap_or_default().to_owned(),
        MatchKind::Wildcard(suffix) => format!("*.{suffix}"),
        MatchKind::Any => "*".to_owned(),
    }
}

/// Checks that the table and the model choose the same route and the same hostname.
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

/// A route that loses `*` on each of its listeners, by namespace on one and by age on the other, still has what
/// a name of its own namespace leaves over.
#[test]
fn a_name_without_a_suitable_claim_falls_to_a_route_of_its_namespace() {
    let spec = |namespace: &str, hostname: &str, created, on: &[&str], alpn: &[&str]| RouteSpec {
        created,
        alpn: alpn.iter().map(|protocol| (*protocol).into()).collect(),
        ..RouteSpec::new(
            RouteKey::sni_route(namespace, hostname),
            hostname.parse::<Hostname>().unwrap().into(),
        )
        .on(on)
    };
    let routes = [
        spec("m", "b", None, &[], &["http/1.1"]),
        spec("m", "*", None, &["one", "two"], &[]),
        spec("n", "*", Some(0), &["two"], &[]),
        spec("n-", "*", Some(0), &[], &[]),
    ];
    let grants = vec![("n-", "m")];
    let (mut writer, reader) = channel();
    writer.apply(Snapshot { routes: served(&routes, &grants), ..Snapshot::default() });
    let ask = Ask { name: Some("b".to_owned()), listener: "one", offers: vec![] };
    assert_eq!(model(&routes, &grants, &ask).map(|(key, _)| key), Some(&routes[1].key));
    assert_agrees(&reader.table(), &routes, &grants, &ask);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_table_agrees_with_the_model(
        former in routes(),
        routes in routes(),
        grants in grants(),
        asks in proptest::collection::vec(ask(), 1..40),
    ) {
        let (mut writer, reader) = channel();
        // The previous routes must not matter.
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

    /// These claims are found by the index of protocols.
    #[test]
    fn many_routes_of_one_name_agree_with_the_model(former in crowd(), routes in crowd()) {
        let (mut writer, reader) = channel();
        writer.apply(Snapshot { routes: former, ..Snapshot::default() });
        writer.apply(Snapshot { routes: routes.clone(), ..Snapshot::default() });
        let (table, grants) = (reader.table(), vec![("m", "n"), ("n", "m")]);
        for ask in CROWDED.iter().flat_map(|name| asks_for(name.parse::<Hostname>().unwrap().borrowed())) {
            assert_agrees(&table, &routes, &grants, &ask);
        }
    }
}
