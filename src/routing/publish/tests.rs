use super::*;
use crate::routing::{Attachment, Hostname, ListenerRef, ObjectKey, Scope};

fn spec(name: &str, hostname: &str, backend: &str) -> RouteSpec {
    RouteSpec {
        backends: vec![(BackendKey::address("", backend), 1)],
        ..RouteSpec::new(
            RouteKey::sni_route("ns", name),
            hostname.parse::<Hostname>().expect("a hostname").into(),
        )
    }
}

fn snapshot(routes: &[RouteSpec], endpoints: &[(&str, &str)]) -> Snapshot {
    let mut snapshot = Snapshot { routes: routes.to_vec(), ..Snapshot::default() };
    for (backend, address) in endpoints {
        let addresses = snapshot.endpoints.entry(BackendKey::address("", backend)).or_default();
        addresses.push(address.parse().expect("an address"));
    }
    snapshot
}

fn find(reader: &TableReader, name: &str) -> Option<Arc<Route>> {
    reader.table().lookup(Some(name), "https", []).map(|found| Arc::clone(found.route))
}

#[test]
fn a_change_of_endpoints_is_visible_without_a_new_table() {
    let (mut writer, reader) = channel();
    let routes = [spec("a", "a.com", "one")];
    let first = writer.apply(snapshot(&routes, &[("one", "10.0.0.1:1")]));
    assert_eq!(first, ApplyResult { table: true, backends: 1 });
    let held = find(&reader, "a.com").expect("a route");

    let second = writer.apply(snapshot(&routes, &[("one", "10.0.0.2:1")]));
    assert_eq!(second, ApplyResult { table: false, backends: 1 });
    assert_eq!(reader.table().generation(), 1);
    assert_eq!(held.backends[0].backend.endpoints()[0].address.to_string(), "10.0.0.2:1");
}

/// The same hostname in two scopes is two hostnames, each with its own route.
#[test]
fn scopes_share_no_hostname() {
    let (mut writer, reader) = channel();
    let gateway = |name: &str| Scope::Gateway(ObjectKey::new("infra", name));
    let to = |scope: Scope, name: &str| {
        let mut spec = spec(name, "a.com", name);
        spec.attachments[0].scope = scope;
        spec
    };
    let mut both = to(gateway("one"), "both");
    both.attachments.push(Attachment {
        listeners: vec!["tls".into()],
        ..Attachment::to_all(gateway("two"), Hostname::Exact("b.com").into())
    });
    writer.apply(snapshot(&[spec("config", "a.com", "config"), both.clone()], &[]));
    let (one, two, three) = (gateway("one"), gateway("two"), gateway("three"));
    let winner = |name: &str, scope: &Scope, listener: &str| {
        let listener = ListenerRef { scope, name: listener };
        let table = reader.table();
        table.lookup(Some(name), listener, []).map(|found| found.route.spec.key.name().to_owned())
    };
    assert_eq!(winner("a.com", &Scope::Config, "https").as_deref(), Some("config"));
    assert_eq!(winner("a.com", &one, "https").as_deref(), Some("both"));
    assert_eq!(winner("a.com", &two, "tls"), None);
    assert_eq!(winner("b.com", &two, "tls").as_deref(), Some("both"));
    assert_eq!(winner("b.com", &two, "other"), None, "of another listener");
    assert_eq!(winner("b.com", &Scope::Config, "https"), None);
    assert_eq!(winner("a.com", &three, "https"), None, "nobody is attached to it");
    assert_eq!(reader.table().hostnames(), 3);

    // Removing an attachment does not affect other scopes.
    both.attachments.remove(0);
    writer.apply(snapshot(&[spec("config", "a.com", "config"), both], &[]));
    assert_eq!(winner("a.com", &one, "https"), None);
    assert_eq!(winner("b.com", &two, "tls").as_deref(), Some("both"));
    assert_eq!(reader.table().hostnames(), 2);
}

#[test]
fn the_first_table_is_published_even_if_it_is_empty() {
    let (mut writer, reader) = channel();
    assert_eq!(reader.table().generation(), 0);
    assert!(writer.apply(Snapshot::default()).table);
    assert_eq!(reader.table().generation(), 1);
    assert!(!writer.apply(Snapshot::default()).table);
}

#[test]
fn a_changed_route_keeps_its_counters_and_does_not_affect_others() {
    let (mut writer, reader) = channel();
    writer.apply(snapshot(&[spec("a", "a.com", "one"), spec("b", "b.com", "one")], &[]));
    let (a, b) = (find(&reader, "a.com").expect("a"), find(&reader, "b.com").expect("b"));
    writer.apply(snapshot(&[spec("a", "new.com", "one"), spec("b", "b.com", "one")], &[]));
    assert!(find(&reader, "a.com").is_none());
    assert!(Arc::ptr_eq(&a.stats, &find(&reader, "new.com").expect("a").stats));
    assert!(Arc::ptr_eq(&b, &find(&reader, "b.com").expect("b")));
    assert!(Arc::ptr_eq(&a.backends[0].backend, &b.backends[0].backend));
}

#[test]
fn a_backend_exists_as_long_as_a_route_names_it() {
    let (mut writer, reader) = channel();
    let (a, b) = (spec("a", "a.com", "one"), spec("b", "b.com", "one"));
    writer.apply(snapshot(&[a.clone(), b.clone()], &[("one", "10.0.0.1:1")]));
    assert!(writer.apply(snapshot(&[b], &[("one", "10.0.0.1:1")])).table);
    let kept = find(&reader, "b.com").expect("b");
    assert_eq!(kept.backends[0].backend.endpoints().len(), 1);
    writer.apply(snapshot(&[], &[]));
    assert!(writer.backends.is_empty());
    // A backend that is named again is a new one, and gets the endpoints that come with the route.
    let again = TableChanges {
        routes: vec![(a.key.clone(), Some(a))],
        endpoints: snapshot(&[], &[("one", "10.0.0.2:1")]).endpoints,
        ..TableChanges::default()
    };
    assert_eq!(writer.update(again), ApplyResult { table: true, backends: 1 });
    let served = find(&reader, "a.com").expect("a");
    assert_eq!(served.backends[0].backend.endpoints()[0].address.to_string(), "10.0.0.2:1");
}

#[test]
fn the_counters_of_a_removed_route_stay_for_some_time_and_while_it_has_connections() {
    let (mut writer, reader) = channel();
    let a = spec("a", "a.com", "one");
    let start = Instant::now();
    let later = |steps: u32| start + RETIRED_FOR * steps + Duration::from_secs(1);
    let change = |name: &str, spec: Option<RouteSpec>| {
        let key = RouteKey::sni_route("ns", name);
        TableChanges { routes: vec![(key, spec)], ..TableChanges::default() }
    };
    let other = |n: u32| change("other", Some(spec("other", &format!("n{n}.com"), "one")));
    writer.publish(change("a", Some(a.clone())), start, true);
    let connection = find(&reader, "a.com").expect("a");

    writer.publish(change("a", None), start, true);
    assert!(find(&reader, "a.com").is_none());
    assert_eq!(reader.table().retired().len(), 1);
    writer.publish(other(2), later(2), true);
    assert_eq!(reader.table().retired().len(), 1, "a connection still counts there");
    let stats = Arc::clone(&connection.stats);
    writer.publish(change("a", Some(a)), later(2), true);
    assert!(Arc::ptr_eq(&stats, &find(&reader, "a.com").expect("a").stats));
    assert_eq!(reader.table().retired().len(), 0);
    writer.publish(change("a", None), later(2), true);
    drop((connection, stats));
    writer.publish(other(3), later(4), true);
    assert_eq!(reader.table().retired().len(), 0);
}

/// Freeing a large table would block a worker for too long.
#[test]
fn values_are_freed_by_the_writer_even_if_a_reader_held_them_last() {
    let (mut writer, reader) = channel();
    let routes = [spec("a", "a.com", "one")];
    writer.apply(snapshot(&routes, &[("one", "10.0.0.1:1")]));
    let table = reader.table();
    let served = table.routes().next().expect("a route");
    let set = served.backends[0].backend.endpoints();
    let (route, endpoint) = (Arc::downgrade(served), Arc::downgrade(&set[0]));
    let backend = Arc::downgrade(&served.backends[0].backend);

    writer.apply(snapshot(&routes, &[("one", "10.0.0.2:1")]));
    drop(set);
    assert_eq!(endpoint.strong_count(), 1, "the set is freed by its reader");
    writer.apply(snapshot(&[], &[]));
    assert_eq!(endpoint.strong_count(), 0);
    drop(table);
    assert!(route.strong_count() > 0 && backend.strong_count() > 0, "by its reader");
    writer.update(TableChanges::default());
    assert_eq!((route.strong_count(), backend.strong_count()), (0, 0));
}
