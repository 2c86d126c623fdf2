//! The owner of a hostname, and the messages to the other routes that claim it.

use std::time::{Duration, Instant};

use super::*;
use crate::control::status::MovedRoute;
use crate::routing::{Table, channel};

/// A route that was created at this second.
fn owned(namespace: &str, name: &str, second: u64, fields: &str) -> SniRoute {
    let mut route = route(name, fields, ADDRESS);
    route.metadata.namespace = Some(namespace.to_owned());
    route.metadata.uid = Some(format!("uid-{name}"));
    let (minute, second) = (second / 60, second % 60);
    route.metadata.creation_timestamp =
        Some(yaml(&format!("'2026-01-01T00:{minute:02}:{second:02}Z'")));
    route
}

/// A grant that shares hostnames of `namespace` with the routes of `from`.
fn share(namespace: &str, from: &str, name: &str) -> ReferenceGrant {
    yaml(&format!(
        "{{metadata: {{name: {from}, namespace: {namespace}}}, spec: {{\
         from: [{{group: sluice.dev, kind: SniRoute, namespace: {from}}}], \
         to: [{{group: sluice.dev, kind: SniRoute{name}}}]}}}}"
    ))
}

fn with(routes: &[SniRoute], grants: &[ReferenceGrant]) -> Plan {
    plan(&Resources { routes: routes.to_vec(), grants: grants.to_vec(), ..Resources::default() })
}

fn guarded(routes: &[SniRoute], grants: &[ReferenceGrant]) -> Plan {
    let resources =
        Resources { routes: routes.to_vec(), grants: grants.to_vec(), ..Resources::default() };
    build(&resources, &Installation { hostnames_below: HostnamesBelow::Owner, ..installation() })
}

/// The route that gets a connection.
fn winner(plan: &Plan, name: &str, listener: &str, offers: &[&str]) -> Option<String> {
    let (mut writer, reader) = channel();
    writer.apply(plan.snapshot.clone());
    let table: &Table = &reader.table();
    let name = Some(name).filter(|name| !name.is_empty());
    let found = table.lookup(name, listener, offers.iter().map(|protocol| protocol.as_bytes()))?;
    Some(found.route.spec.key.name().to_owned())
}

fn accepted(plan: &Plan, name: &str) -> String {
    conditions(plan, name)[0].clone()
}

fn victim() -> SniRoute {
    owned("tenant-a", "victim", 10, "hostnames: [login.a.test]")
}

fn thief() -> SniRoute {
    let alpn = "hostnames: [login.a.test], alpn: [acme-tls/1, h2, http/1.1], listeners: [https]";
    owned("tenant-b", "thief", 20, alpn)
}

#[test]
fn alpn_and_listeners_give_a_younger_route_no_name_of_another_namespace() {
    let plan = with(&[victim(), thief()], &[]);
    for offers in [&[][..], &["acme-tls/1"], &["h2", "http/1.1"]] {
        assert_eq!(winner(&plan, "login.a.test", "https", offers).as_deref(), Some("victim"));
    }
    assert_eq!(served(&plan), ["victim"]);
    assert_eq!(
        accepted(&plan, "thief"),
        "false HostnameConflict login.a.test belongs to namespace tenant-a, whose route \
         tenant-a/victim is the oldest"
    );
    assert_eq!(conditions(&plan, "victim"), ALL_GOOD);
    // The other namespace does not get connections that the owner does not use, either.
    let narrow = owned(
        "tenant-a",
        "victim",
        10,
        "hostnames: [login.a.test], alpn: [h2], listeners: [https]",
    );
    let other = owned("tenant-b", "thief", 20, "hostnames: [login.a.test], listeners: [kafka]");
    let plan = with(&[narrow, other], &[]);
    assert_eq!(winner(&plan, "login.a.test", "kafka", &[]), None);
}

#[test]
fn a_route_keeps_hostnames_that_no_other_namespace_owns() {
    let both = owned("tenant-b", "both", 20, "hostnames: [login.a.test, b.test]");
    let plan = with(&[victim(), both], &[]);
    assert_eq!(served(&plan), ["victim", "both"]);
    assert!(accepted(&plan, "both").starts_with("true PartiallyConflicted login.a.test belongs"));
    assert_eq!(winner(&plan, "b.test", "https", &[]).as_deref(), Some("both"));
    assert_eq!(winner(&plan, "login.a.test", "https", &[]).as_deref(), Some("victim"));
}

#[test]
fn a_grant_of_the_owner_shares_the_hostname() {
    let routes = [victim(), thief()];
    for (grant, granted) in [
        (share("tenant-a", "tenant-b", ""), true),
        (share("tenant-a", "tenant-b", ", name: victim"), true),
        (share("tenant-a", "tenant-b", ", name: other"), false),
        (share("tenant-a", "tenant-c", ""), false),
        // Only the owner can grant this, not the other namespace.
        (share("tenant-b", "tenant-b", ""), false),
        (share("tenant-b", "tenant-a", ""), false),
    ] {
        let plan = with(&routes, &[grant]);
        let expected = if granted { "thief" } else { "victim" };
        assert_eq!(winner(&plan, "login.a.test", "https", &["h2"]).as_deref(), Some(expected));
        assert_eq!(winner(&plan, "login.a.test", "https", &[]).as_deref(), Some("victim"));
        assert_eq!(conditions(&plan, "thief") == ALL_GOOD, granted);
    }
}

#[test]
fn no_other_namespace_gets_connections_for_a_claimed_name() {
    let only_h2 = owned("tenant-a", "h2", 10, "hostnames: [login.a.test], alpn: [h2]");
    let own = owned("tenant-a", "own", 50, "hostnames: ['*.test']");
    let others = [
        owned("tenant-b", "wild", 1, "hostnames: ['*.a.test']"),
        owned("tenant-b", "any", 1, "hostnames: ['*']"),
    ];
    let plan = with(&[std::slice::from_ref(&only_h2), &others[..]].concat(), &[]);
    assert_eq!(winner(&plan, "login.a.test", "https", &["h2"]).as_deref(), Some("h2"));
    assert_eq!(winner(&plan, "login.a.test", "https", &[]), None);
    assert_eq!(winner(&plan, "other.a.test", "https", &[]).as_deref(), Some("wild"));
    let plan = with(&[&[only_h2, own], &others[..]].concat(), &[]);
    assert_eq!(winner(&plan, "login.a.test", "https", &[]).as_deref(), Some("own"));
}

#[test]
fn any_name_has_an_owner_for_each_listener() {
    let routes = [
        owned("tenant-a", "kafka", 10, "hostnames: ['*'], listeners: [kafka]"),
        owned("tenant-b", "all", 20, "hostnames: ['*']"),
        owned("tenant-c", "late", 30, "hostnames: ['*'], alpn: [h2]"),
        owned("tenant-a", "second", 40, "hostnames: ['*'], alpn: [h2]"),
    ];
    let plan = with(&routes, &[]);
    for (listener, offers, expected) in [
        ("kafka", &[][..], "kafka"),
        ("kafka", &["h2"], "second"),
        ("https", &[], "all"),
        ("https", &["h2"], "all"),
    ] {
        assert_eq!(winner(&plan, "", listener, offers).as_deref(), Some(expected), "{listener}");
    }
    let owner = |namespace: &str, route: &str| {
        format!("* belongs to namespace {namespace}, whose route {namespace}/{route} is the oldest")
    };
    assert_eq!(
        accepted(&plan, "all"),
        format!("true PartiallyConflicted {}, on kafka", owner("tenant-a", "kafka"))
    );
    assert!(accepted(&plan, "late").starts_with("false HostnameConflict * belongs to namespace"));
    assert_eq!(
        accepted(&plan, "second"),
        format!(
            "true PartiallyConflicted {}, on all listeners but kafka",
            owner("tenant-b", "all")
        )
    );
}

/// The rest of its share is taken by another route of its own namespace, so the route gets no connection for
/// `*`.
#[test]
fn any_name_is_not_served_if_nothing_of_it_is_left() {
    let routes = [
        owned("tenant-b", "first", 10, "hostnames: ['*'], listeners: [kafka], alpn: [h2]"),
        owned("tenant-a", "all", 20, "hostnames: ['*']"),
        owned(
            "tenant-b",
            "both",
            30,
            "hostnames: ['*', b.test], listeners: [kafka, https], alpn: [h2]",
        ),
    ];
    let plan = with(&routes, &[]);
    assert_eq!(winner(&plan, "", "https", &["h2"]).as_deref(), Some("all"));
    assert_eq!(winner(&plan, "", "kafka", &["h2"]).as_deref(), Some("first"));
    assert_eq!(winner(&plan, "b.test", "https", &["h2"]).as_deref(), Some("both"));
    assert!(accepted(&plan, "both").starts_with("true PartiallyConflicted * belongs to namespace"));
}

#[test]
fn routes_of_other_installations_claim_nothing() {
    let mut other = victim();
    other.spec.class_name = Some(yaml("other"));
    let nowhere = owned("tenant-a", "nowhere", 5, "hostnames: [login.a.test], listeners: [nope]");
    let plan = with(&[other, nowhere, thief()], &[]);
    assert_eq!(conditions(&plan, "thief"), ALL_GOOD);
}

#[test]
fn both_owners_have_a_note_about_a_name_below_a_wildcard() {
    let wild = owned("tenant-a", "wild", 10, "hostnames: ['*.a.test']");
    let names: Vec<SniRoute> = (0..5)
        .map(|n| owned("tenant-b", &format!("n{n}"), n, &format!("hostnames: [n{n}.a.test]")))
        .collect();
    let own = owned("tenant-a", "own", 20, "hostnames: [own.a.test, a.test]");
    let plan = with(&[&[wild.clone(), own], &names[..]].concat(), &[]);
    assert_eq!(
        accepted(&plan, "n1"),
        "true SharedDomain n1.a.test is below *.a.test of namespace tenant-a, route tenant-a/wild"
    );
    assert_eq!(
        accepted(&plan, "wild"),
        "true SharedDomain names below *.a.test are other namespaces': n0.a.test of tenant-b/n0, \
         n1.a.test of tenant-b/n1, n2.a.test of tenant-b/n2 and 2 more"
    );
    assert_eq!(conditions(&plan, "own"), ALL_GOOD);
    assert_eq!(winner(&plan, "n1.a.test", "https", &[]).as_deref(), Some("n1"));
    let (_, problems) = examine(
        &Resources { routes: vec![wild, names[0].clone()], ..Resources::default() },
        &installation(),
    );
    assert_eq!(problems, [], "it is no fault");
}

#[test]
fn names_below_a_wildcard_can_be_reserved_for_its_owner() {
    let wild = owned("tenant-a", "wild", 10, "hostnames: ['*.a.test']");
    let deep = owned("tenant-b", "deep", 20, "hostnames: ['*.x.a.test', y.x.a.test]");
    let name = owned("tenant-b", "name", 20, "hostnames: [login.a.test, b.test]");
    let old = owned("tenant-b", "old", 5, "hostnames: [old.a.test]");
    let own = owned("tenant-a", "own", 20, "hostnames: [own.a.test]");
    let routes = [wild, deep, name, old, own];
    let plan = guarded(&routes, &[]);
    for (name, expected) in [
        ("login.a.test", "wild"),
        ("y.x.a.test", "wild"),
        ("own.a.test", "own"),
        ("b.test", "name"),
        ("old.a.test", "old"),
    ] {
        assert_eq!(winner(&plan, name, "https", &[]).as_deref(), Some(expected), "{name}");
    }
    assert!(accepted(&plan, "deep").starts_with("false HostnameConflict *.x.a.test is below"));
    assert_eq!(
        accepted(&plan, "name"),
        "true PartiallyConflicted login.a.test is below *.a.test, which belongs to namespace \
         tenant-a, route tenant-a/wild; only that namespace may have names below it"
    );
    let plan = guarded(&routes, &[share("tenant-a", "tenant-b", "")]);
    assert_eq!(winner(&plan, "login.a.test", "https", &[]).as_deref(), Some("name"));
    assert_eq!(winner(&plan, "y.x.a.test", "https", &[]).as_deref(), Some("deep"));
    // A younger wildcard does not affect existing claims.
    let late = owned("tenant-c", "late", 50, "hostnames: ['*.test']");
    let plan = guarded(&[&routes[..], &[late]].concat(), &[]);
    assert_eq!(winner(&plan, "b.test", "https", &[]).as_deref(), Some("name"));
}

#[test]
fn a_change_of_a_hostnames_owner_is_reported_once() {
    let mut builder = Builder::new(installation());
    let twice = "hostnames: [login.a.test, b.test]";
    builder.put_route(&owned("tenant-a", "victim", 10, twice));
    builder.put_route(&owned("tenant-a", "second", 30, twice));
    builder.put_route(&owned("tenant-b", "thief", 20, twice));
    builder.put_grant(&share("tenant-a", "tenant-c", ""));
    assert_eq!(builder.settle().moves, [], "nobody had them");
    builder.remove_route(&RouteKey::sni_route("tenant-a", "victim"));
    // The oldest route is now of the other namespace, so the other route of the first namespace loses the
    // hostname.
    let moves = builder.settle().moves;
    assert_eq!(moves.len(), 1, "{moves:?}");
    assert_eq!(
        moves[0].hostnames.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["b.test", "login.a.test"]
    );
    let told = |route: &MovedRoute| format!("{} {}", route.object, route.uid.as_deref().unwrap());
    assert_eq!(told(&moves[0].from), "tenant-a/victim uid-victim", "though it is gone");
    assert_eq!(told(&moves[0].to), "tenant-b/thief uid-thief");
    builder.remove_route(&RouteKey::sni_route("tenant-b", "thief"));
    assert_eq!(builder.settle().moves.len(), 1);
    builder.remove_route(&RouteKey::sni_route("tenant-a", "second"));
    assert_eq!(builder.settle().moves, [], "nobody has them");
    builder.put_route(&owned("tenant-b", "thief", 20, twice));
    assert_eq!(builder.settle().moves, [], "they were free");
}

#[test]
fn a_wildcard_above_very_many_names_causes_no_notes() {
    let mut builder = Builder::new(installation());
    let name = |n: usize| {
        let hostnames: Vec<String> = (0..50).map(|m| format!("n{n}x{m}.test")).collect();
        owned("tenant-b", &format!("n{n}"), 1, &format!("hostnames: [{}]", hostnames.join(", ")))
    };
    (0..20).for_each(|n| builder.put_route(&name(n)));
    builder.settle();
    builder.put_route(&owned("tenant-a", "wild", 10, "hostnames: ['*.test']"));
    assert_eq!(builder.settle().statuses.len(), 21, "of a thousand names");
    builder.put_route(&name(20));
    // The routes are updated when this is over.
    assert_eq!(builder.settle().statuses.len(), 22);
    builder.put_route(&name(21));
    assert_eq!(builder.settle().statuses.len(), 1);
    builder.remove_route(&RouteKey::sni_route("tenant-a", "wild"));
    assert_eq!(builder.settle().statuses.len(), 0);
}

/// A route of a tenant that floods the same hostnames, each route with its own protocol.
fn flood(number: usize, more: &str) -> SniRoute {
    let hostnames: Vec<String> = (0..64).map(|n| format!("n{n}.flood.test")).collect();
    let fields = format!("hostnames: [{}], alpn: [p{number}{more}]", hostnames.join(", "));
    owned("tenant-b", &format!("f{number:04}"), 100 + number as u64, &fields)
}

#[test]
fn routes_beyond_the_limit_of_a_hostname_are_not_accepted() {
    let plan = of_routes(&(0..70).map(|n| flood(n, "")).collect::<Vec<_>>());
    assert_eq!(served(&plan).len(), 64);
    assert_eq!(conditions(&plan, "f0063"), ALL_GOOD);
    let told = accepted(&plan, "f0064");
    let first =
        "false TooManyRoutes n0.flood.test has 64 older routes, the most that one may have;";
    assert!(told.starts_with(first), "{told}");
    assert!(told.ends_with("; and 48 more") && told.len() < 2000, "{told}");
    assert_eq!(winner(&plan, "n1.flood.test", "https", &["p63"]).as_deref(), Some("f0063"));
    assert_eq!(winner(&plan, "n1.flood.test", "https", &["p64"]), None);
}

/// The cost of a flood grows with the number of routes, not with its square. The test counts the work after
/// a change, because a debug build may be slow.
#[test]
fn a_change_among_many_claims_to_the_same_names_updates_few_routes() {
    let mut builder = Builder::new(installation());
    let start = Instant::now();
    (0..1200).for_each(|number| builder.put_route(&flood(number, "")));
    assert_eq!(builder.settle().statuses.len(), 1200);
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    for (number, more) in [(1199, ", x"), (3, ", x"), (1199, ""), (3, "")] {
        builder.put_route(&flood(number, more));
        let delta = builder.settle();
        assert_eq!(delta.statuses.len(), 1, "a change of route {number}");
        assert_eq!(delta.changes.routes.len(), 1);
    }
    // The next route gets its place.
    builder.remove_route(&RouteKey::sni_route("tenant-b", "f0003"));
    assert_eq!(builder.settle().changes.routes.len(), 2);
}
