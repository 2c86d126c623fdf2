//! Publication of tables: one writer in the control plane, many readers in the workers.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap as HashMap;
use arc_swap::ArcSwap;

use super::backend::{AddressChange, BackendAddresses};
use super::deferred_drop::DeferredDrop;
use super::route::WeightedBackend;
use super::subscribers::Subscribers;
use super::{
    Backend, BackendKey, CheckParams, EndpointPlace, EndpointPlaces, EndpointSet, Interned, Moment,
    OtherAddresses, Removals, Route, RouteKey, RouteSpec, RouteStats, Table,
};

/// How long the counters of a deleted route are reported: a few scrapes of a slow Prometheus. Then they are
/// dropped, as soon as the last connection of the route has ended.
const RETIRED_FOR: Duration = Duration::from_secs(300);

/// A complete set of routes, with the endpoints of their backends.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The valid routes, in any order.
    pub routes: Vec<RouteSpec>,
    /// The endpoints by backend, in a stable order. A backend that is not named here has none.
    pub endpoints: HashMap<BackendKey, Vec<SocketAddr>>,
    /// The addresses that they have besides. A backend that is not named here has none.
    pub others: HashMap<BackendKey, OtherAddresses>,
    /// The places of endpoints, in their order. Those of a backend that is not named here are unknown.
    pub places: HashMap<BackendKey, EndpointPlaces>,
}

/// A change of routes and endpoints.
#[derive(Clone, Debug, Default)]
pub struct TableChanges {
    /// New or changed routes, each once, by key; `None` for deleted ones.
    pub routes: Vec<(RouteKey, Option<RouteSpec>)>,
    /// The endpoints of backends that changed, and of those that a route here is the first to name.
    pub endpoints: HashMap<BackendKey, Vec<SocketAddr>>,
    /// The addresses that those backends have besides. A backend that is not named here has none.
    pub others: HashMap<BackendKey, OtherAddresses>,
    /// The places of those endpoints, in their order. Those of a backend that is not named here are unknown.
    pub places: HashMap<BackendKey, EndpointPlaces>,
}

impl TableChanges {
    /// Sets the addresses of a backend.
    pub fn set_addresses(
        &mut self,
        backend: BackendKey,
        endpoints: &[SocketAddr],
        others: &OtherAddresses,
        places: &[Arc<EndpointPlace>],
    ) {
        if *others != OtherAddresses::default() {
            self.others.insert(backend.clone(), others.clone());
        } else if !self.others.is_empty() {
            self.others.remove(&backend);
        }
        if !places.is_empty() {
            self.places.insert(backend.clone(), places.into());
        } else if !self.places.is_empty() {
            self.places.remove(&backend);
        }
        self.endpoints.insert(backend, endpoints.to_vec());
    }

    /// The addresses of a backend.
    fn addresses(&self, backend: &BackendKey) -> BackendAddresses<'_> {
        let places = self.places.get(backend).map(|places| &**places);
        BackendAddresses {
            endpoints: self.endpoints.get(backend).map(Vec::as_slice).unwrap_or_default(),
            others: self.others.get(backend),
            places: places.unwrap_or_default(),
        }
    }
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
    let (shared, subscribers) = (Arc::new(ArcSwap::default()), TableSubscribers::default());
    let writer = TableWriter {
        shared: Arc::clone(&shared),
        subscribers: subscribers.clone(),
        backends: HashMap::new(),
        checks: Interned::default(),
        retired: BTreeMap::new(),
        old: Replaced::default(),
    };
    (writer, TableReader { shared, subscribers })
}

/// Reads the current table. Clones are cheap, and reading takes no lock.
#[derive(Clone, Debug)]
pub struct TableReader {
    shared: Arc<ArcSwap<Table>>,
    subscribers: TableSubscribers,
}

/// Who follows the table.
#[derive(Clone, Debug, Default)]
struct TableSubscribers {
    removals: Arc<Subscribers<Arc<Removals>>>,
    changes: Arc<Subscribers<ApplyResult>>,
}

impl TableReader {
    /// The current table. Not to be held across an await.
    pub fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.shared.load()
    }

    /// Has `subscriber` called, on the writer's thread, after each change with which addresses have left
    /// their backends.
    pub fn on_removal(&self, subscriber: impl Fn(&Arc<Removals>) + Send + 'static) {
        self.subscribers.removals.add(Box::new(subscriber));
    }

    /// Has `subscriber` called, on the writer's thread, after each change of routes or endpoints.
    pub fn on_change(&self, subscriber: impl Fn(&ApplyResult) + Send + 'static) {
        self.subscribers.changes.add(Box::new(subscriber));
    }
}

/// Publishes tables. There is one, in the control plane.
#[derive(Debug)]
pub struct TableWriter {
    shared: Arc<ArcSwap<Table>>,
    subscribers: TableSubscribers,
    /// Every backend that some route names, with how many times.
    backends: HashMap<BackendKey, (Arc<Backend>, usize)>,
    /// The active checks that routes ask for.
    checks: Interned<CheckParams>,
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
    /// Frees values that nobody holds any more, which are nearly all: readers hold a table or a set only for
    /// some microseconds. A connection holds its route and backends until it ends.
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
        let changes = self.changes_to(snapshot);
        self.update(changes)
    }

    /// Like [`TableWriter::apply`], for a table of another origin, such as a saved one or one of a source
    /// that has started again. The difference may be older than it seems, so it closes no connections.
    pub fn start_over(&mut self, snapshot: Snapshot) -> ApplyResult {
        let changes = self.changes_to(snapshot);
        self.publish(changes, Instant::now(), false)
    }

    fn changes_to(&self, snapshot: Snapshot) -> TableChanges {
        let table = self.shared.load_full();
        // Of several routes with one key, the last is used.
        let mut routes: HashMap<RouteKey, Option<RouteSpec>> =
            table.routes().map(|route| (route.spec.key.clone(), None)).collect();
        drop(table);
        routes.extend(snapshot.routes.into_iter().map(|route| (route.key.clone(), Some(route))));
        let Snapshot { endpoints, others, places, .. } = snapshot;
        let routes = routes.into_iter().collect();
        let mut changes = TableChanges { routes, endpoints, others, places };
        for backend in self.backends.keys() {
            // A backend without endpoints in the snapshot has none.
            changes.endpoints.entry(backend.clone()).or_default();
        }
        changes
    }

    /// Publishes a change. Its cost depends on the change, not on the size of the table.
    pub fn update(&mut self, changes: TableChanges) -> ApplyResult {
        self.publish(changes, Instant::now(), true)
    }

    /// Publishes a change. `live` is whether it happens now: otherwise, it closes no connections, and no
    /// endpoint has just arrived.
    fn publish(&mut self, changes: TableChanges, now: Instant, live: bool) -> ApplyResult {
        let mut gone = HashMap::new();
        let arrival = live.then(|| Moment::of(now));
        let applied = self.change(changes, now, arrival, &mut gone);
        if !gone.is_empty() {
            let removals = Removals::new(self.shared.load_full(), gone, live);
            self.subscribers.removals.tell(&Arc::new(removals));
        }
        if applied.table || applied.backends > 0 {
            self.subscribers.changes.tell(&applied);
        }
        self.old.sweep();
        applied
    }

    /// Publishes a change, and adds to `gone` the addresses that are gone from their backends. New endpoints of
    /// known backends arrive at `arrival`.
    fn change(
        &mut self,
        mut changes: TableChanges,
        now: Instant,
        arrival: Option<Moment>,
        gone: &mut HashMap<SocketAddr, Vec<BackendKey>>,
    ) -> ApplyResult {
        let old = self.shared.load_full();
        let mut routes = std::mem::take(&mut changes.routes);
        routes.retain(|(key, new)| old.route(key).map(|route| &route.spec) != new.as_ref());

        let mut changed = 0;
        for key in changes.endpoints.keys() {
            let Some((backend, _)) = self.backends.get(key) else { continue };
            let change = backend.set_endpoints(changes.addresses(key), arrival);
            let Some(AddressChange { old, gone: left }) = change else { continue };
            self.old.sets.keep(old);
            changed += 1;
            left.into_iter().for_each(|address| gone.entry(address).or_default().push(key.clone()));
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
                let backends = self.name_backends(&spec, &changes, &mut changed);
                let check = spec.check().map(|check| self.checks.shared(check));
                Arc::new(Route::new(spec, backends, stats, check))
            });
            if route.is_none() {
                self.retire(before, now);
            }
            new.push((key, route));
        }
        // After all new routes have named their backends, so that a backend that moves between routes is
        // kept.
        new.iter().for_each(|(key, _)| self.release(old.route(key)));
        let retired = self.still_reported(now);
        self.shared.store(Arc::new(old.with(&new, retired)));
        self.old.tables.keep(old);
        ApplyResult { table: true, backends: changed }
    }

    /// The backends of a new route. Backends that no other route names get their endpoints here, before the
    /// route is served.
    fn name_backends(
        &mut self,
        spec: &RouteSpec,
        changes: &TableChanges,
        changed: &mut usize,
    ) -> Box<[WeightedBackend]> {
        let backends = spec.backends.iter().enumerate();
        backends
            .map(|(index, (key, weight))| {
                let (backend, named) = self.backends.entry(key.clone()).or_insert_with(|| {
                    let addresses = changes.addresses(key);
                    *changed += usize::from(!addresses.endpoints.is_empty());
                    (Arc::new(Backend::new(key.clone(), addresses)), 0)
                });
                *named += 1;
                let before = spec.backends.iter().take(index).filter(|(other, _)| other == key);
                WeightedBackend::new(*weight, Arc::clone(backend), before.count())
            })
            .collect()
    }

    /// The counters of a new route; if it existed before, the same ones.
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

    /// Drops the backends of a removed route, unless other routes name them.
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

    /// The counters of removed routes that must still be reported.
    fn still_reported(&mut self, now: Instant) -> Vec<(RouteKey, Arc<RouteStats>)> {
        // This map holds one reference, and the old table may hold another; further ones are held by
        // connections.
        self.retired.retain(|_, (stats, since)| {
            now.duration_since(*since) < RETIRED_FOR || Arc::strong_count(stats) > 2
        });
        self.retired.iter().map(|(key, (stats, _))| (key.clone(), Arc::clone(stats))).collect()
    }
}

#[cfg(test)]
mod tests;
