//! What is read off the routing table when somebody scrapes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use crate::outcome::Outcome;
use crate::routing::{Availability, Moment, RouteKey, RouteStats, Table, TableReader};

/// Reads the table of the moment, and the tallies of its routes.
#[derive(Debug)]
pub(super) struct TableCollector {
    reader: TableReader,
    unrouted: Arc<RouteStats>,
    connections: Desc,
    bytes: Desc,
    endpoints: Desc,
    routes: Desc,
    hostnames: Desc,
    generation: Desc,
}

impl TableCollector {
    pub(super) fn new(reader: TableReader, unrouted: Arc<RouteStats>) -> prometheus::Result<Self> {
        let desc = |name: &str, help: &str, labels: &[&str]| {
            let labels = labels.iter().copied().map(str::to_owned).collect();
            Desc::new(format!("sluice_{name}"), help.to_owned(), labels, HashMap::new())
        };
        Ok(TableCollector {
            reader,
            unrouted,
            connections: desc(
                "connections_total",
                "Ended client connections by route and by how they ended; those that found no \
                 route have an empty kind, namespace and route.",
                &["kind", "namespace", "route", "outcome"],
            )?,
            bytes: desc(
                "bytes_total",
                "Bytes passed on, by route and direction.",
                &["kind", "namespace", "route", "direction"],
            )?,
            endpoints: desc(
                "endpoints",
                "Endpoints of all backends that routes name, by state.",
                &["state"],
            )?,
            routes: desc("routes", "Routes that are served.", &[])?,
            hostnames: desc("hostnames", "Hostnames that have a route.", &[])?,
            generation: desc("table_generation", "Tables that were swapped in.", &[])?,
        })
    }
}

impl Collector for TableCollector {
    fn desc(&self) -> Vec<&Desc> {
        let TableCollector { connections, bytes, endpoints, routes, hostnames, generation, .. } =
            self;
        vec![connections, bytes, endpoints, routes, hostnames, generation]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let table = self.reader.table();
        let tallies = Series::of(&table, &self.unrouted);
        let gauge = |desc: &Desc, labels: &[(&str, &str)], value: u64| {
            family(desc, MetricType::GAUGE, vec![gauge(labels, value)])
        };
        vec![
            family(
                &self.connections,
                MetricType::COUNTER,
                tallies.iter().flat_map(Series::connections).collect(),
            ),
            family(
                &self.bytes,
                MetricType::COUNTER,
                tallies.iter().flat_map(Series::bytes).collect(),
            ),
            family(&self.endpoints, MetricType::GAUGE, endpoints(&table)),
            gauge(&self.routes, &[], table.len() as u64),
            gauge(&self.hostnames, &[], table.hostnames() as u64),
            gauge(&self.generation, &[], table.generation()),
        ]
    }
}

/// The counts of one route.
struct Series<'t> {
    kind: &'static str,
    namespace: &'t str,
    route: &'t str,
    stats: &'t RouteStats,
    /// The outcome that is shown from the start, at zero too, so that rate() sees its first
    /// connection. None for routes that are gone. The others appear once they happened: a series
    /// of each for every route, most of them zero for ever, are too many.
    shown: Option<Outcome>,
}

impl<'t> Series<'t> {
    /// One for each route of the table, one for each that went lately, and one for connections
    /// without a route.
    fn of(table: &'t Table, unrouted: &'t RouteStats) -> Vec<Self> {
        let of_route = |key: &'t RouteKey, stats: &'t RouteStats, shown| Series {
            kind: key.kind().as_str(),
            namespace: key.namespace(),
            route: key.name(),
            stats,
            shown,
        };
        let served = table
            .routes()
            .map(|route| of_route(&route.spec.key, &route.stats, Some(Outcome::Completed)));
        let gone = table.retired().iter().map(|(key, stats)| of_route(key, stats, None));
        let mut all: Vec<Self> = served.chain(gone).collect();
        // The same series twice would make Prometheus refuse the whole scrape.
        let route = |series: &Self| (series.namespace, series.route, series.kind);
        all.sort_by_key(|series| (route(series), series.shown.is_none()));
        all.dedup_by(|one, other| route(one) == route(other));
        all.push(Series {
            kind: "",
            namespace: "",
            route: "",
            stats: unrouted,
            shown: Some(Outcome::NoRoute),
        });
        all
    }

    fn connections(&self) -> impl Iterator<Item = Metric> {
        Outcome::ALL.into_iter().filter_map(|outcome| {
            let count = read(self.stats.ended(outcome));
            (count > 0 || self.shown == Some(outcome))
                .then(|| self.counter("outcome", outcome.as_str(), count))
        })
    }

    fn bytes(&self) -> impl Iterator<Item = Metric> {
        [("upstream", &self.stats.bytes_up), ("downstream", &self.stats.bytes_down)]
            .into_iter()
            .filter_map(|(direction, bytes)| {
                let bytes = read(bytes);
                (bytes > 0 || self.shown == Some(Outcome::Completed))
                    .then(|| self.counter("direction", direction, bytes))
            })
    }

    fn counter(&self, label: &str, value: &str, count: u64) -> Metric {
        let labels = [
            ("kind", self.kind),
            ("namespace", self.namespace),
            ("route", self.route),
            (label, value),
        ];
        let mut counter = Counter::default();
        counter.set_value(count as f64);
        let mut metric = Metric::from_label(pairs(&labels));
        metric.set_counter(counter);
        metric
    }
}

/// How many endpoints the backends of the table have in each state; those that several routes name
/// count once.
fn endpoints(table: &Table) -> Vec<Metric> {
    let (mut seen, now) = (HashSet::new(), Moment::now());
    let mut counts = Availability::STATES.map(|state| (state, 0));
    table
        .routes()
        .flat_map(|route| route.backends.iter())
        .filter(|share| seen.insert(Arc::as_ptr(&share.backend)))
        .for_each(|share| {
            for endpoint in share.backend.endpoints().iter() {
                let state = endpoint.availability(now).state();
                let count = counts.iter_mut().find(|(other, _)| *other == state);
                count.into_iter().for_each(|(_, count)| *count += 1);
            }
        });
    counts.into_iter().map(|(state, count)| gauge(&[("state", state)], count)).collect()
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn gauge(labels: &[(&str, &str)], value: u64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value as f64);
    let mut metric = Metric::from_label(pairs(labels));
    metric.set_gauge(gauge);
    metric
}

fn pairs(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}

fn family(desc: &Desc, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
