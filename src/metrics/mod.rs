//! The Prometheus metrics.
//!
//! There is no global registry: a process creates one [`Metrics`] and passes clones. The metrics of the data
//! plane are plain fields, so a worker only performs an atomic addition and never looks up labels. The
//! counters of a route are in its [`RouteStats`], and are read for each scrape. A server name is never a
//! label.

mod connections;
mod groups;
mod registration;
mod table;
mod tls;

use std::io;
use std::sync::Arc;

use prometheus::process_collector::ProcessCollector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};
use rustix::io::Errno;

use crate::limiter::SourceTable;
use crate::reach::{EndpointRefusal, EndpointRefusalKind};
use crate::routing::{FailureKind, Kind, RouteStats, TableReader};
pub use connections::{ConnectionCount, OpenConnections};
pub use groups::{
    CheckMetrics, DurationMetrics, HandshakeMetrics, LimitMetrics, LocalityMetrics, PipeMetrics,
    ProcessMetrics, SourceMetrics, StatusMetrics, TableMetrics,
};
use registration::{Registration, register_build_info};
use table::TableCollector;

/// The media type of what [`Metrics::encode`] returns.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The label values of `sluice_manifest_faults`: the kinds of objects, and files.
const FAULTY_KINDS: [&str; 7] = [
    Kind::SniRoute.as_str(),
    Kind::Service.as_str(),
    Kind::EndpointSlice.as_str(),
    Kind::ReferenceGrant.as_str(),
    Kind::ConfigMap.as_str(),
    Kind::Secret.as_str(),
    "File",
];

/// All metrics of one process. Clones are cheap and share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// The outcomes of connections without a route: `sluice_connections_total` with empty `namespace` and
    /// `route`.
    pub unrouted: Arc<RouteStats>,
    /// The connections that are open now, which two metrics show.
    pub connections: OpenConnections,
    /// `sluice_connections_active`: from accept to the outcome.
    connections_active: IntGauge,
    /// `sluice_worker_connections`, by worker.
    worker_connections: IntGaugeVec,
    /// `sluice_accept_errors_total`.
    pub accept_errors: AcceptErrors,
    endpoints_refused: IntCounterVec,
    endpoint_ejections: IntCounterVec,
    /// The sources that are counted for limits, of which two metrics tell.
    pub sources: Arc<SourceTable>,
    /// The connections to near endpoints, and to others.
    pub locality: LocalityMetrics,
    /// The connections that exceed limits.
    pub limits: LimitMetrics,
    manifest_faults: IntGaugeVec,
    /// The active health checks.
    pub checks: CheckMetrics,
    /// The pipes of the splice pools.
    pub pipes: PipeMetrics,
    /// The durations of connections and their steps.
    pub durations: DurationMetrics,
    /// The TLS handshakes with clients.
    pub handshakes: HandshakeMetrics,
    /// The faults of the process, and its logs.
    pub process: ProcessMetrics,
    /// The source of objects.
    pub source: SourceMetrics,
    /// Changes of the table, and the saved table.
    pub table: TableMetrics,
    /// The statuses of routes.
    pub status: StatusMetrics,
}

/// `sluice_accept_errors_total` by its label `error`.
#[derive(Clone, Debug)]
pub struct AcceptErrors {
    /// The process has no descriptor left.
    pub emfile: IntCounter,
    /// The machine has no descriptor left.
    pub enfile: IntCounter,
    /// An error of a single client, which has left or which a firewall refuses.
    pub client: IntCounter,
    /// Anything else.
    pub other: IntCounter,
}

impl AcceptErrors {
    /// The counter for an error of accept(2).
    pub fn of(&self, error: &io::Error) -> &IntCounter {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::MFILE) => &self.emfile,
            Some(Errno::NFILE) => &self.enfile,
            Some(errno) if OF_ONE_CLIENT.contains(&errno) => &self.client,
            _ => &self.other,
        }
    }
}

/// The errors of accept(2) that concern a single client, so that the next client can be accepted at once:
/// errors of its connection, and refusals of a firewall or filter.
pub const OF_ONE_CLIENT: [Errno; 12] = [
    Errno::CONNABORTED,
    Errno::PROTO,
    Errno::PERM,
    Errno::INTR,
    Errno::TIMEDOUT,
    Errno::NETDOWN,
    Errno::NETUNREACH,
    Errno::HOSTDOWN,
    Errno::HOSTUNREACH,
    Errno::NONET,
    Errno::NOPROTOOPT,
    Errno::OPNOTSUPP,
];

impl Metrics {
    /// The metrics of a process that serves the tables of `reader`.
    ///
    /// # Errors
    /// Only when two metrics have the same name.
    pub fn new(reader: TableReader) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let unrouted = Arc::new(RouteStats::default());
        registry.register(Box::new(TableCollector::new(reader, Arc::clone(&unrouted))?))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        register_build_info(&registry)?;
        let new = Registration(&registry);
        let metrics = Metrics {
            unrouted,
            connections: OpenConnections::default(),
            connections_active: new
                .gauge("connections_active", "Client connections that are open now.")?,
            worker_connections: new.gauges(
                "worker_connections",
                "Client connections that are open now, by the thread that serves them.",
                "worker",
            )?,
            accept_errors: new.accept_errors()?,
            endpoints_refused: new.counters(
                "endpoints_refused_total",
                "Attempts to connect to an endpoint that no route may lead to, by reason.",
                "reason",
            )?,
            endpoint_ejections: new.counters(
                "endpoint_ejections_total",
                "Ejections of endpoints that have failed too often in a row, by the last failure.",
                "reason",
            )?,
            sources: Arc::default(),
            locality: LocalityMetrics::new(&new)?,
            limits: LimitMetrics::new(&new)?,
            manifest_faults: new.gauges(
                "manifest_faults",
                "Faulty objects and files, by kind.",
                "kind",
            )?,
            checks: CheckMetrics::new(&new)?,
            pipes: PipeMetrics::new(&new)?,
            durations: DurationMetrics::new(&new)?,
            handshakes: HandshakeMetrics::new(&new)?,
            process: ProcessMetrics::new(&new)?,
            source: SourceMetrics::new(&new)?,
            table: TableMetrics::new(&new)?,
            status: StatusMetrics::new(&new)?,
            registry,
        };
        // A kind without faults also has a series.
        FAULTY_KINDS.iter().for_each(|kind| metrics.set_manifest_faults(kind, 0));
        EndpointRefusal::KINDS.into_iter().for_each(|kind| drop(metrics.endpoint_refused(kind)));
        FailureKind::ALL.into_iter().for_each(|reason| drop(metrics.endpoint_ejected(reason)));
        Ok(metrics)
    }

    /// Sets `sluice_manifest_faults` for a kind of objects, or for files: the current number of faulty ones.
    pub fn set_manifest_faults(&self, kind: &str, faults: usize) {
        let faults = i64::try_from(faults).unwrap_or(i64::MAX);
        self.manifest_faults.with_label_values(&[kind]).set(faults);
    }

    /// `sluice_endpoints_refused_total` for one reason.
    pub fn endpoint_refused(&self, reason: EndpointRefusalKind) -> IntCounter {
        self.endpoints_refused.with_label_values(&[reason.as_str()])
    }

    /// `sluice_endpoint_ejections_total` for one reason.
    pub fn endpoint_ejected(&self, reason: FailureKind) -> IntCounter {
        self.endpoint_ejections.with_label_values(&[reason.as_str()])
    }

    /// `sluice_health_checks_total` for one result.
    pub fn health_checks(&self, result: &str) -> IntCounter {
        self.checks.made.with_label_values(&[result])
    }

    /// `sluice_backend_certificate_problems` for one problem.
    pub fn certificate_problems(&self, problem: &str) -> IntGauge {
        self.checks.problems.with_label_values(&[problem])
    }

    /// All metrics in the text format of [`CONTENT_TYPE`].
    ///
    /// # Errors
    /// Only when a collector returns a family without a name or without samples.
    pub fn encode(&self) -> prometheus::Result<String> {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.connections_active.set(gauge(self.connections.total()));
        for (worker, count) in self.connections.by_worker().into_iter().enumerate() {
            self.worker_connections.with_label_values(&[&worker.to_string()]).set(gauge(count));
        }
        self.limits.read(&self.sources);
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;
    use crate::routing::channel;

    #[test]
    fn an_accept_error_is_counted_under_its_own_label() {
        let metrics = Metrics::new(channel().1).expect("metrics");
        for errno in [24, 23, 24, 103, 71, 5] {
            metrics.accept_errors.of(&io::Error::from_raw_os_error(errno)).inc();
        }
        metrics.accept_errors.of(&io::Error::other("no errno")).inc();
        let text = metrics.encode().expect("text");
        for line in [
            "sluice_accept_errors_total{error=\"emfile\"} 2",
            "sluice_accept_errors_total{error=\"enfile\"} 1",
            "sluice_accept_errors_total{error=\"client\"} 2",
            "sluice_accept_errors_total{error=\"other\"} 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn clones_share_their_values_and_processes_do_not() {
        let (one, other) =
            (Metrics::new(channel().1).expect("one"), Metrics::new(channel().1).expect("other"));
        one.clone().connections.of(0).add(1);
        assert!(one.encode().expect("text").contains("\nsluice_connections_active 1\n"));
        assert!(other.encode().expect("text").contains("\nsluice_connections_active 0\n"));
    }
}
