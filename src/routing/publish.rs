//! Publication of tables: one writer in the control plane, many readers in the workers.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap as HashMap;
use arc_swap::ArcSwap;

use super::deferred_drop::DeferredDrop;
use super::route::WeightedBackend;
use super::{Backend, BackendKey, EndpointSet, Route, RouteKey, RouteSpec, RouteStats, Table};

/// How long the counters of a deleted route are reported: a few scrapes of a slow Prometheus. After that,
/// they are dropped with its last connection.
const RETIRED_FOR: Duration = Duration::from_secs(300);

/// A complete set of routes, with the endpoints of their backends.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The valid routes, in any order.
    pub routes: Vec<RouteSpec>,
    /// The endpoints by backend, in a stable order. A backend that is not named here has none.
    pub endpoints: HashMap<BackendKey, Vec<SocketAddr>>,
}

/// A change of routes and endpoints.
#[derive(Clone, Debug, Default)]
pub struct TableChanges {
    /// New or changed routes, each once, by key; `None` for deleted ones.
    pub routes: Vec<(RouteKey, Option<RouteSpec>)>,
    /// The endpoints of backends that changed, and of those that a route here is the first to name.
    pub endpoints: HashMap<BackendKey, Vec<SocketAddr>>,
}

/// The effect of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplyResult {
    /// Whether a new table was published.
    pub table: bool,
    /// How many backends have got other endpoints.
    pub backends: usize,
}

/// A new, empty table with its writer and a first reader.
pub fn channel() -> (TableWriter, TableReader) {
    let shared = Arc::new(ArcSwap::default());
    let writer = TableWriter {
        shared: Arc::clone(&shared),
        backends: HashMap::new(),
        retired: BTreeMap::new(),
        old: Replaced::default(),
    };
    (writer, TableReader { shared })
}

/// Reads the current table. Clones are cheap, and reading takes no lock.
#[derive(Clone, Debug)]
pub struct TableReader {
    shared: Arc<ArcSwap<Table>>,
}

impl TableReader {
    /// The current table. Not to be held across an await.
    pub fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.shared.load()
    }
}

/// Publishes tables. There is one, in the control plane.
#[derive(Debug)]
pub struct TableWriter {
    shared: Arc<ArcSwap<Table>>,
    /// Every backend that some route names, with how many times.
    backends: HashMap<BackendKey, (Arc<Backend>, usize)>,
    /// The counters of deleted routes, with the time of deletion.
    retired: BTreeMap<RouteKey, (Arc<RouteStats>, Instant)>,
    old: Replaced,
}

/// Replaced values that readers may still hold. Tables hold backends, and backends hold sets.
#[derive(Debug, Default)]
struct Replaced {
    tables: DeferredDrop<Table>,
    backends: DeferredDrop<Backend>,
    sets: DeferredDrop<EndpointSet>,
}

impl Replaced {
    /// Frees values that nobody holds any more, which are nearly all: readers hold a table or a set for some
    /// microseconds. A connection holds its route and backends until it ends.
    fn sweep(&mut self) {
        self.tables.sweep();
        self.backends.sweep();
        self.sets.sweep();
    }
}

impl TableWriter {
    /// Publishes exactly `snapshot`. Established connections keep their route.
    ///
    /// Unchanged routes and backends keep their state. If only endpoints have changed, no new table is
    /// made.
    pub fn apply(&mut self, snapshot: Snapshot) -> ApplyResult {
        let table = self.shared.load_full();
        // Of several with one key, the last is taken.
        let mut routes: HashMap<RouteKey, Option<RouteSpec>> =
            table.routes().map(|route| (route.spec.key.clone(), None)).collect();
        drop(table);
        routes.extend(snapshot.routes.into_iter().map(|route| (route.key.clone(), Some(route))));
        let mut changes =
            TableChanges { routes: routes.into_iter().collect(), endpoints: snapshot.endpoints };
        for backend in self.backends.keys() {
            // A backend that the snapshot says nothing about has no endpoints.
            changes.endpoints.entry(backend.clone()).or_default();
        }
        self.update(changes)
    }

    /// Publishes a change. Its cost depends on the change, not on the size of the table.
    pub fn update(&mut self, changes: TableChanges) -> ApplyResult {
        self.update_at(changes, Instant::now())
    }

    fn update_at(&mut self, changes: TableChanges, now: Instant) -> ApplyResult {
        let applied = self.change(changes, now);
        self.old.sweep();
        applied
    }

    fn change(&mut self, changes: TableChanges, now: Instant) -> ApplyResult {
        let old = self.shared.load_full();
        let mut routes = changes.routes;
        routes.retain(|(key, new)| old.route(key).map(|route| &route.spec) != new.as_ref());

        let known = changes
            .endpoints
            .iter()
            .filter_map(|(key, addresses)| Some((&self.backends.get(key)?.0, addresses)));
        let mut changed = 0;
        for old in known.filter_map(|(backend, addresses)| backend.set_endpoints(addresses)) {
            self.old.sets.keep(old);
            changed += 1;
        }
        if routes.is_empty() && old.generation() > 0 {
            return ApplyResult { table: false, backends: changed };
        }

        self.backends.reserve(changes.endpoints.len());
        let mut new = Vec::with_capacity(routes.len());
        for (key, spec) in routes {
            let before = old.route(&key);
            let route = spec.map(|spec| {
                let stats = self.stats(&key, before);
                let backends = self.name_backends(&spec, &changes.endpoints, &mut changed);
                Arc::new(Route::new(spec, backends, stats))
            });
            if route.is_none() {
                self.retire(before, now);
            }
            new.push((key, route));
        }
        // After all new routes have named their backends, so that a backend that moves between routes stays.
        new.iter().for_each(|(key, _)| self.release(old.route(key)));
        let retired = self.still_reported(now);
        self.shared.store(Arc::new(old.with(&new, retired)));
        self.old.tables.keep(old);
        ApplyResult { table: true, backends: changed }
    }

    /// The backends of a route that is to be served. Those that no route named before get their
    /// endpoints here, before it is served.
    fn name_backends(
        &mut self,
        spec: &RouteSpec,
        endpoints: &HashMap<BackendKey, Vec<SocketAddr>>,
        changed: &mut usize,
    ) -> Box<[WeightedBackend]> {
        let backends = spec.backends.iter();
        backends
            .map(|(key, weight)| {
                let (backend, named) = self.backends.entry(key.clone()).or_insert_with(|| {
                    let addresses = endpoints.get(key).map(Vec::as_slice).unwrap_or_default();
                    *changed += usize::from(!addresses.is_empty());
                    (Arc::new(Backend::new(key.clone(), addresses)), 0)
                });
                *named += 1;
                WeightedBackend { weight: *weight, backend: Arc::clone(backend) }
            })
            .collect()
    }

    /// The counts of a route that is to be served: those that it has, if it has any.
    fn stats(&mut self, key: &RouteKey, before: Option<&Arc<Route>>) -> Arc<RouteStats> {
        match before {
            Some(before) => Arc::clone(&before.stats),
            None => self.retired.remove(key).map(|(stats, _)| stats).unwrap_or_default(),
        }
    }

    fn retire(&mut self, route: Option<&Arc<Route>>, now: Instant) {
        if let Some(route) = route {
            self.retired.insert(route.spec.key.clone(), (Arc::clone(&route.stats), now));
        }
    }

    /// Forgets the backends of a route that is no longer served, unless others name them.
    fn release(&mut self, route: Option<&Arc<Route>>) {
        for (key, _) in route.iter().flat_map(|route| &route.spec.backends) {
            if let Entry::Occupied(mut backend) = self.backends.entry(key.clone()) {
                backend.get_mut().1 = backend.get().1.saturating_sub(1);
                if backend.get().1 == 0 {
                    self.old.backends.keep(backend.remove().0);
                }
            }
        }
    }

    /// The counts of the routes that are gone, without those that nobody will ask for again.
    fn still_reported(&mut self, now: Instant) -> Vec<(RouteKey, Arc<RouteStats>)> {
        // This map holds one and the old table may hold another; any more are connections.
        self.retired.retain(|_, (stats, since)| {
            now.duration_since(*since) < RETIRED_FOR || Arc::strong_count(stats) > 2
        });
        self.retired.iter().map(|(key, (stats, _))| (key.clone(), Arc::clone(stats))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{Attachment, Hostname, ListenerRef, ObjectKey, Scope};

    fn spec(name: &str, hostname: &str, backend: &str) -> RouteSpec {
        RouteSpec {
            backends: vec![(BackendKey::Address(backend.into()), 1)],
            ..RouteSpec::new(
                RouteKey::sni_route("ns", name),
                hostname.parse::<Hostname>().expect("a hostname").into(),
            )
        }
    }

    fn snapshot(routes: &[RouteSpec], endpoints: &[(&str, &str)]) -> Snapshot {
        let mut snapshot = Snapshot { routes: routes.to_vec(), ..Snapshot::default() };
        for (backend, address) in endpoints {
            let addresses =
                snapshot.endpoints.entry(BackendKey::Address((*backend).into())).or_default();
            addresses.push(address.parse().expect("an address"));
        }
        snapshot
    }

    fn find(reader: &TableReader, name: &str) -> Option<Arc<Route>> {
        reader.table().lookup(Some(name), "https", []).map(|found| Arc::clone(found.route))
    }

    #[test]
    fn a_change_of_endpoints_swaps_no_table_and_is_seen_through_the_old_one() {
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

    /// The same hostname in two scopes is two hostnames, of which each has its own route.
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
            table
                .lookup(Some(name), listener, [])
                .map(|found| found.route.spec.key.name().to_owned())
        };
        assert_eq!(winner("a.com", &Scope::Config, "https").as_deref(), Some("config"));
        assert_eq!(winner("a.com", &one, "https").as_deref(), Some("both"));
        assert_eq!(winner("a.com", &two, "tls"), None);
        assert_eq!(winner("b.com", &two, "tls").as_deref(), Some("both"));
        assert_eq!(winner("b.com", &two, "other"), None, "of another listener");
        assert_eq!(winner("b.com", &Scope::Config, "https"), None);
        assert_eq!(winner("a.com", &three, "https"), None, "nobody is attached to it");
        assert_eq!(reader.table().hostnames(), 3);

        // What a scope loses, the others keep.
        both.attachments.remove(0);
        writer.apply(snapshot(&[spec("config", "a.com", "config"), both], &[]));
        assert_eq!(winner("a.com", &one, "https"), None);
        assert_eq!(winner("b.com", &two, "tls").as_deref(), Some("both"));
        assert_eq!(reader.table().hostnames(), 2);
    }

    #[test]
    fn the_first_table_counts_even_when_it_is_empty() {
        let (mut writer, reader) = channel();
        assert_eq!(reader.table().generation(), 0);
        assert!(writer.apply(Snapshot::default()).table);
        assert_eq!(reader.table().generation(), 1);
        assert!(!writer.apply(Snapshot::default()).table);
    }

    #[test]
    fn a_changed_route_keeps_its_counts_and_leaves_the_others_alone() {
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
    fn a_backend_lasts_as_long_as_a_route_names_it() {
        let (mut writer, reader) = channel();
        let (a, b) = (spec("a", "a.com", "one"), spec("b", "b.com", "one"));
        writer.apply(snapshot(&[a.clone(), b.clone()], &[("one", "10.0.0.1:1")]));
        assert!(writer.apply(snapshot(&[b], &[("one", "10.0.0.1:1")])).table);
        let kept = find(&reader, "b.com").expect("b");
        assert_eq!(kept.backends[0].backend.endpoints().len(), 1);
        writer.apply(snapshot(&[], &[]));
        assert!(writer.backends.is_empty());
        // Named again, it is a new one, and has the endpoints that come with the route.
        let again = TableChanges {
            routes: vec![(a.key.clone(), Some(a))],
            endpoints: snapshot(&[], &[("one", "10.0.0.2:1")]).endpoints,
        };
        assert_eq!(writer.update(again), ApplyResult { table: true, backends: 1 });
        let served = find(&reader, "a.com").expect("a");
        assert_eq!(served.backends[0].backend.endpoints()[0].address.to_string(), "10.0.0.2:1");
    }

    #[test]
    fn the_counts_of_a_gone_route_stay_a_while_and_as_long_as_it_has_connections() {
        let (mut writer, reader) = channel();
        let a = spec("a", "a.com", "one");
        let start = Instant::now();
        let later = |steps: u32| start + RETIRED_FOR * steps + Duration::from_secs(1);
        let change = |name: &str, spec: Option<RouteSpec>| {
            let key = RouteKey::sni_route("ns", name);
            TableChanges { routes: vec![(key, spec)], ..TableChanges::default() }
        };
        let other = |n: u32| change("other", Some(spec("other", &format!("n{n}.com"), "one")));
        writer.update_at(change("a", Some(a.clone())), start);
        let connection = find(&reader, "a.com").expect("a");

        writer.update_at(change("a", None), start);
        assert!(find(&reader, "a.com").is_none());
        assert_eq!(reader.table().retired().len(), 1);
        writer.update_at(other(2), later(2));
        assert_eq!(reader.table().retired().len(), 1, "a connection still counts there");
        let stats = Arc::clone(&connection.stats);
        writer.update_at(change("a", Some(a)), later(2));
        assert!(Arc::ptr_eq(&stats, &find(&reader, "a.com").expect("a").stats));
        assert_eq!(reader.table().retired().len(), 0);
        writer.update_at(change("a", None), later(2));
        drop((connection, stats));
        writer.update_at(other(3), later(4));
        assert_eq!(reader.table().retired().len(), 0);
    }

    /// Of a large table, that takes longer than a worker may be away.
    #[test]
    fn what_a_reader_holds_last_is_freed_by_the_writer() {
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
}
