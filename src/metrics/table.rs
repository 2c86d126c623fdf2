//! Metrics that are read from the routing table for each scrape.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::tls::TlsDescs;
use crate::outcome::Outcome;
use crate::routing::{
    Availability, Backend, HealthRule, Moment, RouteKey, RouteStats, Table, TableReader,
};

/// Reads the current table and the counters of its routes.
#[derive(Debug)]
pub(super) struct TableCollector {
    reader: TableReader,
    unrouted: Arc<RouteStats>,
    connections: Desc,
    bytes: Desc,
    over_limit: Desc,
    certificate_expiry: Desc,
    endpoints: Desc,
    routes: Desc,
    hostnames: Desc,
    generation: Desc,
    tls: TlsDescs,
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
            over_limit: desc(
                "limit_reported_total",
                "Connections of a route that exceeded one of its limits, and were admitted because the \
                 limit is only reported.",
                &["kind", "namespace", "route"],
            )?,
            certificate_expiry: desc(
                "backend_certificate_not_after_seconds",
                "When the first certificate expires that the health checks of a route see, in seconds since \
                 1970.",
                &["kind", "namespace", "route"],
            )?,
            endpoints: desc(
                "endpoints",
                "Endpoints of all backends that routes name, by state.",
                &["state"],
            )?,
            routes: desc("routes", "Routes that are served.", &[])?,
            hostnames: desc("hostnames", "Hostnames that have a route.", &[])?,
            generation: desc("table_generation", "Tables that were swapped in.", &[])?,
            tls: TlsDescs::new(desc)?,
        })
    }
}

impl Collector for TableCollector {
    fn desc(&self) -> Vec<&Desc> {
        let TableCollector { connections, bytes, over_limit, endpoints, .. } = self;
        let TableCollector { certificate_expiry, routes, hostnames, generation, tls, .. } = self;
        let tls = tls.all();
        [
            connections,
            bytes,
            over_limit,
            certificate_expiry,
            endpoints,
            routes,
            hostnames,
            generation,
        ]
        .into_iter()
        .chain(tls)
        .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let table = self.reader.table();
        let series = Series::all(&table, &self.unrouted);
        let gauge = |desc: &Desc, labels: &[(&str, &str)], value: u64| {
            family(desc, MetricType::GAUGE, vec![gauge(labels, value)])
        };
        let tls = self.tls.collect(&table);
        let others = [
            family(
                &self.connections,
                MetricType::COUNTER,
                series.iter().flat_map(Series::connections).collect(),
            ),
            family(
                &self.bytes,
                MetricType::COUNTER,
                series.iter().flat_map(Series::bytes).collect(),
            ),
            family(
                &self.over_limit,
                MetricType::COUNTER,
                series.iter().filter_map(Series::over_limit).collect(),
            ),
            family(
                &self.certificate_expiry,
                MetricType::GAUGE,
                series.iter().filter_map(Series::certificate_expiry).collect(),
            ),
            family(&self.endpoints, MetricType::GAUGE, endpoints(&table)),
            gauge(&self.routes, &[], table.len() as u64),
            gauge(&self.hostnames, &[], table.hostnames() as u64),
            gauge(&self.generation, &[], table.generation()),
        ];
        others.into_iter().chain(tls).collect()
    }
}

/// The sums over the rules of one route object.
struct Series<'t> {
    kind: &'t str,
    namespace: &'t str,
    route: &'t str,
    /// Ended connections, in the order of [`Outcome::ALL`].
    ended: [u64; Outcome::ALL.len()],
    bytes_up: u64,
    bytes_down: u64,
    over_limit: u64,
    /// When the first certificate of an endpoint expires, if one is known.
    certificate_expiry: Option<u64>,
    /// The outcome that is shown from the start, even if it is 0, so that rate() includes its first
    /// connection. `None` for removed routes. Other outcomes appear after their first connection, because a
    /// series of each outcome for every route would be too many.
    shown: Option<Outcome>,
}

impl<'t> Series<'t> {
    /// A series for each route object in the table, for each recently removed one, and for connections
    /// without a route.
    fn all(table: &'t Table, unrouted: &RouteStats) -> Vec<Self> {
        let of_route = |key: &'t RouteKey, stats: &RouteStats, shown| {
            Series::of([key.kind().as_str(), key.namespace(), key.name()], stats, shown)
        };
        let served = table
            .routes()
            .map(|route| of_route(&route.spec.key, &route.stats, Some(Outcome::Completed)));
        let gone = table.retired().iter().map(|(key, stats)| of_route(key, stats, None));
        let mut all: Vec<Self> = served.chain(gone).collect();
        // Duplicate series would make Prometheus reject the whole scrape.
        let route = |series: &Self| (series.namespace, series.route, series.kind);
        all.sort_by_key(route);
        all.dedup_by(|one, sum| {
            let same = route(one) == route(sum);
            if same {
                sum.add(one);
            }
            same
        });
        all.push(Series::of(["", "", ""], unrouted, Some(Outcome::NoRoute)));
        all
    }

    fn of(
        [kind, namespace, route]: [&'t str; 3],
        stats: &RouteStats,
        shown: Option<Outcome>,
    ) -> Self {
        let ended = Outcome::ALL.map(|outcome| read(stats.ended(outcome)));
        let (bytes_up, bytes_down) = (read(&stats.bytes_up), read(&stats.bytes_down));
        let over_limit = read(&stats.over_limit);
        let certificate_expiry = Some(read(&stats.certificate_expiry)).filter(|expiry| *expiry > 0);
        Series {
            kind,
            namespace,
            route,
            ended,
            bytes_up,
            bytes_down,
            over_limit,
            certificate_expiry,
            shown,
        }
    }

    /// Adds the counters of another rule of the same object.
    fn add(&mut self, other: &Self) {
        self.ended.iter_mut().zip(other.ended).for_each(|(sum, count)| *sum += count);
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        self.over_limit += other.over_limit;
        let expiries = [self.certificate_expiry, other.certificate_expiry];
        self.certificate_expiry = expiries.into_iter().flatten().min();
        self.shown = self.shown.or(other.shown);
    }

    fn connections(&self) -> impl Iterator<Item = Metric> {
        Outcome::ALL
            .into_iter()
            .zip(self.ended)
            .filter(|(outcome, count)| *count > 0 || self.shown == Some(*outcome))
            .map(|(outcome, count)| self.counter(Some(("outcome", outcome.as_str())), count))
    }

    fn bytes(&self) -> impl Iterator<Item = Metric> {
        [("upstream", self.bytes_up), ("downstream", self.bytes_down)]
            .into_iter()
            .filter(|(_, bytes)| *bytes > 0 || self.shown == Some(Outcome::Completed))
            .map(|(direction, bytes)| self.counter(Some(("direction", direction)), bytes))
    }

    /// Only of routes with such connections.
    fn over_limit(&self) -> Option<Metric> {
        (self.over_limit > 0).then(|| self.counter(None, self.over_limit))
    }

    /// Only of routes in the table, of whose endpoints a certificate was seen.
    fn certificate_expiry(&self) -> Option<Metric> {
        let expiry = self.certificate_expiry.filter(|_| self.shown.is_some())?;
        let labels = [("kind", self.kind), ("namespace", self.namespace), ("route", self.route)];
        Some(gauge(&labels, expiry))
    }

    /// The counter of the route; with another label if it has one.
    fn counter(&self, label: Option<(&str, &str)>, count: u64) -> Metric {
        let route = [("kind", self.kind), ("namespace", self.namespace), ("route", self.route)];
        let labels: Vec<_> = route.into_iter().chain(label).collect();
        let mut counter = Counter::default();
        counter.set_value(count as f64);
        let mut metric = Metric::from_label(pairs(&labels));
        metric.set_counter(counter);
        metric
    }
}

/// The number of endpoints in each state, over all backends of the table. A backend of several routes counts
/// once: an endpoint that one of them has ejected is ejected, and one that is unhealthy by the active checks of one
/// of them is unhealthy.
fn endpoints(table: &Table) -> Vec<Metric> {
    let mut backends: HashMap<*const Backend, (&Backend, HashSet<HealthRule<'_>>)> = HashMap::new();
    for route in table.routes() {
        let rule = route.health_rule();
        for share in &route.backends {
            let entry = backends.entry(Arc::as_ptr(&share.backend));
            let (_, rules) = entry.or_insert_with(|| (&share.backend, HashSet::new()));
            rules.insert(rule);
        }
    }
    let now = Moment::now();
    let mut counts = Availability::STATES.map(|state| (state, 0));
    for (backend, rules) in backends.values() {
        for endpoint in backend.endpoints().iter() {
            let worst = rules.iter().map(|rule| rule.judge(endpoint, now)).max();
            let state = worst.map(Availability::state);
            let count = counts.iter_mut().find(|(other, _)| Some(*other) == state);
            count.into_iter().for_each(|(_, count)| *count += 1);
        }
    }
    counts.into_iter().map(|(state, count)| gauge(&[("state", state)], count)).collect()
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

pub(super) fn gauge(labels: &[(&str, &str)], value: u64) -> Metric {
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

pub(super) fn family(desc: &Desc, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
