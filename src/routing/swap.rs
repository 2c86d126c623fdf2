//! The way of a table from the control plane to the workers: one writer, many readers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::route::WeightedBackend;
use super::{Backend, BackendKey, Route, RouteKey, RouteSpec, Table, Tally};

/// How long the counts of a route that is gone are still reported: a few scrapes of a slow
/// Prometheus. After that, they go with its last connection.
const RETIRED_FOR: Duration = Duration::from_secs(300);

/// All that the control plane wants served: routes, and the endpoints of the backends they name.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The valid routes, in any order.
    pub routes: Vec<RouteSpec>,
    /// The endpoints by backend, in a stable order. A backend that is not named here has none.
    pub endpoints: HashMap<BackendKey, Vec<SocketAddr>>,
}

/// What [`Writer::apply`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Whether a new table was swapped in.
    pub table: bool,
    /// How many backends got other endpoints.
    pub backends: usize,
}

/// A new, empty table with its writer and a first reader.
pub fn channel() -> (Writer, Reader) {
    let shared = Arc::new(ArcSwap::default());
    let writer =
        Writer { shared: Arc::clone(&shared), backends: HashMap::new(), tallies: BTreeMap::new() };
    (writer, Reader { shared })
}

/// The workers' side. Cloned freely; reading takes no lock.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<ArcSwap<Table>>,
}

impl Reader {
    /// The table of this moment. Not to be held across an await.
    pub fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.shared.load()
    }
}

/// The control plane's side. There is one.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<ArcSwap<Table>>,
    backends: HashMap<BackendKey, Arc<Backend>>,
    /// The counts of every route that is served or was lately, with the moment it went.
    tallies: BTreeMap<RouteKey, (Arc<Tally>, Option<Instant>)>,
}

impl Writer {
    /// Serves `snapshot` from now on. Established connections keep the route that they have.
    ///
    /// Routes and backends that did not change are carried over with their state. When only
    /// endpoints changed, the table stays as it is.
    pub fn apply(&mut self, snapshot: Snapshot) -> Applied {
        self.apply_at(snapshot, Instant::now())
    }

    fn apply_at(&mut self, snapshot: Snapshot, now: Instant) -> Applied {
        let old = self.shared.load_full();
        self.keep_named_backends(&snapshot.routes);
        let backends = self
            .backends
            .iter()
            .filter(|(key, backend)| {
                backend.set_endpoints(snapshot.endpoints.get(*key).map_or(&[][..], Vec::as_slice))
            })
            .count();

        let mut known: HashMap<&RouteKey, &Arc<Route>> =
            old.routes().iter().map(|route| (&route.spec.key, route)).collect();
        let same = snapshot.routes.len() == known.len()
            && snapshot
                .routes
                .iter()
                .all(|spec| known.get(&spec.key).is_some_and(|r| r.spec == *spec));
        if same && old.generation() > 0 {
            return Applied { table: false, backends };
        }

        let retired = self.retire(&snapshot.routes, now);
        let routes = snapshot
            .routes
            .into_iter()
            .map(|spec| match known.remove(&spec.key) {
                Some(route) if route.spec == spec => Arc::clone(route),
                _ => Arc::new(self.route(spec)),
            })
            .collect();
        self.shared.store(Arc::new(Table::new(routes, retired, old.generation() + 1)));
        Applied { table: true, backends }
    }

    /// Makes `backends` hold exactly those that some route names.
    fn keep_named_backends(&mut self, routes: &[RouteSpec]) {
        let named: HashSet<&BackendKey> =
            routes.iter().flat_map(|route| route.backends.iter().map(|(key, _)| key)).collect();
        self.backends.retain(|key, _| named.contains(key));
        for key in named {
            if !self.backends.contains_key(key) {
                self.backends.insert(key.clone(), Arc::new(Backend::new(key.clone())));
            }
        }
    }

    /// Marks the routes that went, forgets those that nobody will ask for again, and returns what
    /// is left of the former.
    fn retire(&mut self, routes: &[RouteSpec], now: Instant) -> Vec<(RouteKey, Arc<Tally>)> {
        let served: HashSet<&RouteKey> = routes.iter().map(|route| &route.key).collect();
        let mut retired = Vec::new();
        self.tallies.retain(|key, (tally, gone)| {
            if served.contains(key) {
                *gone = None;
                return true;
            }
            let since = *gone.get_or_insert(now);
            // This map and the old table hold one each; any more are connections.
            let kept = now.duration_since(since) < RETIRED_FOR || Arc::strong_count(tally) > 2;
            if kept {
                retired.push((key.clone(), Arc::clone(tally)));
            }
            kept
        });
        retired
    }

    fn route(&mut self, spec: RouteSpec) -> Route {
        let backends = spec
            .backends
            .iter()
            .filter_map(|(key, weight)| {
                let backend = Arc::clone(self.backends.get(key)?);
                Some(WeightedBackend { weight: *weight, backend })
            })
            .collect();
        let (tally, _) = self.tallies.entry(spec.key.clone()).or_default();
        let tally = Arc::clone(tally);
        Route::new(spec, backends, tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{Policy, Timeouts};

    fn spec(name: &str, hostname: &str, backend: &str) -> RouteSpec {
        RouteSpec {
            key: RouteKey { namespace: "ns".into(), name: name.into() },
            created: None,
            hostnames: vec![hostname.parse().expect("a hostname")],
            listeners: vec![],
            alpn: vec![],
            backends: vec![(BackendKey::Address(backend.into()), 1)],
            policy: Policy::default(),
            timeouts: Timeouts::default(),
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

    fn find(reader: &Reader, name: &str) -> Option<Arc<Route>> {
        reader.table().lookup(Some(name), "https", |_| false).map(|found| Arc::clone(found.route))
    }

    #[test]
    fn a_change_of_endpoints_swaps_no_table_and_is_seen_through_the_old_one() {
        let (mut writer, reader) = channel();
        let routes = [spec("a", "a.com", "one")];
        let first = writer.apply(snapshot(&routes, &[("one", "10.0.0.1:1")]));
        assert_eq!(first, Applied { table: true, backends: 1 });
        let held = find(&reader, "a.com").expect("a route");

        let second = writer.apply(snapshot(&routes, &[("one", "10.0.0.2:1")]));
        assert_eq!(second, Applied { table: false, backends: 1 });
        assert_eq!(reader.table().generation(), 1);
        assert_eq!(held.backends[0].backend.endpoints()[0].address.to_string(), "10.0.0.2:1");
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
        assert!(Arc::ptr_eq(&a.tally, &find(&reader, "new.com").expect("a").tally));
        assert!(Arc::ptr_eq(&b, &find(&reader, "b.com").expect("b")));
        assert!(Arc::ptr_eq(&a.backends[0].backend, &b.backends[0].backend));
    }

    #[test]
    fn the_counts_of_a_gone_route_stay_a_while_and_as_long_as_it_has_connections() {
        let (mut writer, reader) = channel();
        let a = spec("a", "a.com", "one");
        let start = Instant::now();
        let later = |steps: u32| start + RETIRED_FOR * steps + Duration::from_secs(1);
        let other = |n: u32| snapshot(&[spec("other", &format!("n{n}.com"), "one")], &[]);
        writer.apply_at(snapshot(&[a], &[]), start);
        let connection = find(&reader, "a.com").expect("a");

        writer.apply_at(other(1), later(0));
        assert_eq!(reader.table().retired().len(), 1);
        writer.apply_at(other(2), later(2));
        assert_eq!(reader.table().retired().len(), 1, "a connection still counts there");
        drop(connection);
        writer.apply_at(other(3), later(3));
        assert_eq!(reader.table().retired().len(), 0);
    }
}
