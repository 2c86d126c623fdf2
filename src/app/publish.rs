//! Publishes the results of the control plane: the table to the workers, and the statuses.

use std::sync::Arc;
use std::time::Instant;

use prometheus::{Histogram, IntCounter};

use crate::control::status::{Statuses, log_changes, log_moves};
use crate::control::translate::Delta;
use crate::metrics::Metrics;
use crate::reach::OwnEndpoints;
use crate::routing::{ApplyResult, Snapshot, TableChanges, TableWriter};

/// Publishes the tables and statuses of a source.
pub(super) struct Publisher {
    writer: TableWriter,
    statuses: Statuses,
    own_endpoints: OwnEndpoints,
    swap_duration: Histogram,
    owner_changes: IntCounter,
    /// Whether the current table is from the current start of the source.
    live: bool,
    /// Whether any table is served.
    served: bool,
}

impl Publisher {
    pub(super) fn new(
        writer: TableWriter,
        statuses: Statuses,
        own_endpoints: OwnEndpoints,
        metrics: &Metrics,
    ) -> Self {
        let swap_duration = metrics.table.swap_duration.clone();
        let owner_changes = metrics.table.hostname_owner_changes.clone();
        let (live, served) = (false, false);
        Publisher { writer, statuses, own_endpoints, swap_duration, owner_changes, live, served }
    }

    /// Records that a source starts or restarts. Its first result replaces the table and all statuses in one
    /// step.
    pub(super) fn begin(&mut self) {
        self.live = false;
    }

    /// Publishes a delta of changes that were `noticed` at that time. The first delta after a start is
    /// complete, and replaces everything.
    pub(super) fn publish(&mut self, delta: Delta, noticed: Instant) -> ApplyResult {
        let Delta { changes, statuses: told, moves, own_endpoints, .. } = delta;
        if let Some(endpoints) = own_endpoints {
            self.own_endpoints.set(&endpoints);
        }
        let mut told: Vec<_> = told.into_iter().map(Arc::new).collect();
        // The order of the log lines.
        told.sort_unstable_by(|a, b| a.object.cmp(&b.object));
        let mut held = self.statuses.hold();
        // After a restart of the source, all statuses of the earlier start are replaced.
        let known = if self.live { Vec::new() } else { held.snapshot() };
        let looked_at = changes.routes.iter().map(|(key, _)| key.object());
        let looked_at = looked_at.chain(told.iter().chain(&known).map(|status| &status.object));
        let before = held.update(looked_at, &told);
        self.served = true;
        let applied = if std::mem::replace(&mut self.live, true) {
            self.writer.update(changes)
        } else {
            let TableChanges { routes, endpoints, others, places } = changes;
            let routes = routes.into_iter().filter_map(|(_, spec)| spec).collect();
            self.writer.start_over(Snapshot { routes, endpoints, others, places })
        };
        for moved in &moves {
            self.owner_changes.inc_by(u64::try_from(moved.hostnames.len()).unwrap_or(u64::MAX));
        }
        log_moves(&moves);
        held.moved(moves);
        drop(held);
        log_changes(&before, &told);
        self.swap_duration.observe(noticed.elapsed().as_secs_f64());
        applied
    }

    /// Serves a table from elsewhere, until the source has one.
    pub(super) fn serve_instead(&mut self, snapshot: Snapshot) {
        if !self.served {
            self.served = true;
            self.writer.start_over(snapshot);
        }
    }

    /// Whether the source has published anything since its start.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// Whether any table was published.
    pub(super) fn has_table(&self) -> bool {
        self.served
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use serde_json::{Value, json};

    use super::*;
    use crate::admin::report::RoutesReport;
    use crate::control::api::SniRoute;
    use crate::control::log_capture::LogCapture;
    use crate::control::translate::{Builder, Installation};
    use crate::reach::Reach;
    use crate::routing::{self, ObjectRef, RouteKey, TableReader};

    fn builder() -> Builder {
        Builder::new(Installation {
            reach: Reach { local_addresses: true, ..Reach::default() },
            ..Installation::default()
        })
    }

    fn route(name: &str) -> SniRoute {
        route_to(name, json!({ "address": "192.0.2.1:1" }))
    }

    fn route_to(name: &str, backend: Value) -> SniRoute {
        serde_json::from_value(json!({
            "apiVersion": "sluice.dev/v1alpha1",
            "kind": "SniRoute",
            "metadata": { "name": name, "namespace": "ns" },
            "spec": { "hostnames": [format!("{name}.test")], "backends": [backend] },
        }))
        .unwrap()
    }

    fn served(table: &TableReader) -> Vec<String> {
        let table = table.table();
        let mut names: Vec<_> =
            table.routes().map(|route| route.spec.key.name().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_first_delta_replaces_everything_and_later_ones_add() {
        let (writer, table) = routing::channel();
        let statuses = Statuses::default();
        let metrics = Metrics::new(table.clone()).unwrap();
        let mut publisher =
            Publisher::new(writer, statuses.clone(), OwnEndpoints::default(), &metrics);

        let mut saved = builder();
        saved.put_route(&route("old"));
        saved.put_route(&route("kept"));
        let changes = saved.settle().changes;
        let routes: Vec<_> = changes.routes.into_iter().filter_map(|(_, spec)| spec).collect();
        let snapshot = Snapshot { routes, endpoints: changes.endpoints, ..Snapshot::default() };
        publisher.serve_instead(snapshot.clone());
        assert_eq!(served(&table), ["kept", "old"]);
        assert_eq!(statuses.count(), 0);

        let mut source = builder();
        source.put_route(&route("kept"));
        source.put_route(&route("new"));
        let applied = publisher.publish(source.settle(), Instant::now());
        assert!(applied.table && publisher.is_live());
        assert_eq!(served(&table), ["kept", "new"]);
        assert_eq!(statuses.count(), 2);

        source.put_route(&route("newer"));
        source.remove_route(&RouteKey::sni_route("ns", "kept"));
        publisher.publish(source.settle(), Instant::now());
        assert_eq!(served(&table), ["new", "newer"]);
        assert_eq!(statuses.count(), 2);
        // The saved table comes too late.
        publisher.serve_instead(snapshot);
        assert_eq!(served(&table), ["new", "newer"]);
    }

    #[test]
    fn a_restarted_source_replaces_everything_in_one_step() {
        let (writer, table) = routing::channel();
        let statuses = Statuses::default();
        let metrics = Metrics::new(table.clone()).unwrap();
        let own = OwnEndpoints::default();
        let mut publisher = Publisher::new(writer, statuses.clone(), own, &metrics);
        publisher.begin();
        let mut source = builder();
        source.put_route(&route("gone"));
        source.put_route(&route("kept"));
        publisher.publish(source.settle(), Instant::now());
        let generation = table.table().generation();

        publisher.begin();
        assert!(!publisher.is_live() && publisher.has_table());
        // The saved table is older than the current one.
        publisher.serve_instead(Snapshot::default());
        assert_eq!(served(&table), ["gone", "kept"]);
        let mut source = builder();
        source.put_route(&route("kept"));
        source.put_route(&route("new"));
        publisher.publish(source.settle(), Instant::now());
        assert_eq!(served(&table), ["kept", "new"]);
        assert_eq!(table.table().generation(), generation + 1);
        assert_eq!(statuses.count(), 2);
        assert!(statuses.get(&ObjectRef::sni_route("ns", "gone")).is_none());
    }

    #[test]
    fn a_route_and_its_status_become_visible_together() {
        let (writer, table) = routing::channel();
        let statuses = Statuses::default();
        let metrics = Metrics::new(table.clone()).unwrap();
        let mut publisher =
            Publisher::new(writer, statuses.clone(), OwnEndpoints::default(), &metrics);
        let mut source = builder();
        let over = AtomicBool::new(false);
        let look = || {
            let report = RoutesReport::now(&table, &statuses);
            for route in &report.routes {
                assert!(route.served && !route.conditions.is_empty(), "{route:?}");
            }
        };
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    look();
                }
            });
            for number in 0..2000_i32 {
                source.put_route(&route(&format!("r{number}")));
                source.remove_route(&RouteKey::sni_route("ns", &format!("r{}", number - 1)));
                publisher.publish(source.settle(), Instant::now());
            }
            over.store(true, Ordering::Relaxed);
            watcher.join().unwrap();
        });
    }

    #[test]
    fn hostnames_that_change_their_owner_are_counted_and_logged() {
        let (writer, table) = routing::channel();
        let metrics = Metrics::new(table).unwrap();
        let mut publisher =
            Publisher::new(writer, Statuses::default(), OwnEndpoints::default(), &metrics);
        let log = LogCapture::default();
        let _guard = log.listen();
        let mut source = builder();
        let of = |namespace: &str, name: &str| {
            let mut route = route(name);
            route.metadata.namespace = Some(namespace.to_owned());
            route.spec.hostnames = ["a.test", "b.test"].map(|text| text.parse().unwrap()).into();
            route
        };
        source.put_route(&of("one", "first"));
        source.put_route(&of("two", "second"));
        publisher.publish(source.settle(), Instant::now());
        assert_eq!(metrics.table.hostname_owner_changes.get(), 0);
        source.remove_route(&RouteKey::sni_route("one", "first"));
        publisher.publish(source.settle(), Instant::now());
        assert_eq!(metrics.table.hostname_owner_changes.get(), 2);
        let lines = log.take();
        let moved = lines.iter().map(|line| &line["fields"]);
        let moved: Vec<_> =
            moved.filter(|fields| fields["hostnames"] == "a.test, b.test").collect();
        assert_eq!(moved.len(), 1, "{lines:?}");
        assert_eq!(
            (&moved[0]["from"], &moved[0]["to"]),
            (&json!("one/first"), &json!("two/second"))
        );
    }

    #[test]
    fn faulty_routes_are_logged_once_by_name() {
        let (writer, table) = routing::channel();
        let metrics = Metrics::new(table).unwrap();
        let mut publisher =
            Publisher::new(writer, Statuses::default(), OwnEndpoints::default(), &metrics);
        let log = LogCapture::default();
        let _guard = log.listen();
        let said = |what: &str| -> Vec<String> {
            let lines = log.take();
            let lines = lines.iter().map(|line| &line["fields"]);
            let lines = lines.filter(|fields| fields["message"] == what);
            lines.map(|fields| format!("{} {}", fields["route"], fields["condition"])).collect()
        };

        let mut source = builder();
        let nowhere = json!({ "service": { "name": "nowhere", "port": 1 } });
        for name in ["c", "a", "b"] {
            source.put_route(&route_to(name, nowhere.clone()));
        }
        publisher.publish(source.settle(), Instant::now());
        let unresolved = ["a", "b", "c"].map(|name| format!(r#""ns/{name}" "ResolvedRefs""#));
        assert_eq!(said("a route is not in order"), unresolved);
        // Computed again, without a change.
        source.put_route(&route_to("b", nowhere));
        publisher.publish(source.settle(), Instant::now());
        assert_eq!(said("a route is not in order"), [""; 0]);
        source.put_route(&route("b"));
        publisher.publish(source.settle(), Instant::now());
        assert_eq!(said("a route is in order again"), unresolved[1..2]);
    }
}
