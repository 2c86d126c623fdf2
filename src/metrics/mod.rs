//! The Prometheus metrics.
//!
//! There is no global registry: a process creates one [`Metrics`] and passes clones. The metrics of the data
//! plane are plain fields, so a worker only performs an atomic addition and never looks up labels. The
//! counters of a route are in its [`RouteStats`], and are read for each scrape. A server name is never a
//! label.

mod connections;
mod table;

use std::io;
use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use rustix::io::Errno;

use crate::reach::{EndpointRefusal, EndpointRefusalKind};
use crate::routing::{Kind, RouteStats, TableReader};
pub use connections::{ConnectionCount, OpenConnections};
use table::TableCollector;

/// The media type of what [`Metrics::encode`] returns.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The version in `sluice_build_info`.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The label values of `sluice_manifest_faults`: the kinds of objects, and files.
const FAULTY_KINDS: [&str; 5] = [
    Kind::SniRoute.as_str(),
    Kind::Service.as_str(),
    Kind::EndpointSlice.as_str(),
    Kind::ReferenceGrant.as_str(),
    "File",
];

/// Upper bounds in seconds for durations of one round trip to a client or an endpoint, in the cluster or
/// around the world.
const ROUND_TRIP: &[f64] = &[
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Upper bounds in seconds for whole connections: from one request to a day.
const LIFETIME: &[f64] = &[
    0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 10800.0, 43200.0, 86400.0,
];
/// Upper bounds in seconds for a change of an object to take effect.
const PROPAGATION: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

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
    /// `sluice_splice_pipes{state="idle"}`: in a worker's pool.
    pub pipes_idle: IntGauge,
    /// `sluice_splice_pipes{state="busy"}`: lent to a connection.
    pub pipes_busy: IntGauge,
    /// `sluice_accept_errors_total`.
    pub accept_errors: AcceptErrors,
    endpoints_refused: IntCounterVec,
    /// `sluice_access_log_dropped_total`: lines that were dropped because the output was too slow.
    pub access_log_dropped: IntCounter,
    /// `sluice_log_dropped_total`: lines that were dropped because the output was too slow.
    pub log_dropped: IntCounter,
    /// `sluice_panics_total`: faults of sluice itself, each of which ended one task.
    pub panics: IntCounter,
    /// `sluice_stalled_threads`: threads that do not answer.
    pub stalled_threads: IntGauge,
    /// `sluice_workers_lost_total`: threads of the data plane that ended by themselves.
    pub workers_lost: IntCounter,
    /// `sluice_hello_duration_seconds`: from accept to a complete ClientHello.
    pub hello_duration: Histogram,
    /// `sluice_connect_duration_seconds`: the duration of one successful connect to one endpoint.
    pub connect_duration: Histogram,
    /// `sluice_connection_duration_seconds`: from accept to the outcome.
    pub connection_duration: Histogram,
    /// `sluice_table_swap_duration_seconds`: from the change of an object to the table that contains it.
    pub table_swap_duration: Histogram,
    /// `sluice_source_errors_total`: failed reads and watches of the source of objects.
    pub source_errors: IntCounter,
    /// `sluice_source_up`: 1 while all objects of the source are followed, else 0.
    pub source_up: IntGauge,
    /// `sluice_table_from_saved`: 1 while the saved table of an earlier process is served, else 0.
    pub table_from_saved: IntGauge,
    /// `sluice_table_saved_timestamp_seconds`: the time of the last save; 0 before the first one.
    pub table_saved: IntGauge,
    /// `sluice_table_save_errors_total`: failed saves of the table.
    pub table_save_errors: IntCounter,
    manifest_faults: IntGaugeVec,
    /// `sluice_hostname_owner_changes_total`: hostnames that moved to another namespace.
    pub hostname_owner_changes: IntCounter,
    /// `sluice_leader`: 1 while this replica writes the statuses of routes, else 0.
    pub leader: IntGauge,
    /// `sluice_status_writes_total{result="ok"}`.
    pub status_written: IntCounter,
    /// `sluice_status_writes_total{result="error"}`.
    pub status_failed: IntCounter,
    /// `sluice_events_dropped_total`: Kubernetes Events that were not written.
    pub events_dropped: IntCounter,
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
        let status_writes = new.counters(
            "status_writes_total",
            "Writes of the status of a route to the API server, by result.",
            "result",
        )?;
        let pipes = new.gauges("splice_pipes", "Pipes of the splice pools, by state.", "state")?;
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
            pipes_idle: pipes.with_label_values(&["idle"]),
            pipes_busy: pipes.with_label_values(&["busy"]),
            accept_errors: new.accept_errors()?,
            endpoints_refused: new.counters(
                "endpoints_refused_total",
                "Attempts to connect to an endpoint that no route may lead to, by reason.",
                "reason",
            )?,
            access_log_dropped: new.counter(
                "access_log_dropped_total",
                "Lines of the access log that were dropped because its reader was too slow.",
            )?,
            log_dropped: new.counter(
                "log_dropped_total",
                "Lines of the log that were dropped because its reader was too slow.",
            )?,
            panics: new.counter("panics_total", "Faults of sluice, each of which ended a task.")?,
            stalled_threads: new
                .gauge("stalled_threads", "Threads that have not answered for 5 seconds.")?,
            workers_lost: new.counter(
                "workers_lost_total",
                "Threads of the data plane that ended by themselves.",
            )?,
            hello_duration: new.histogram(
                "hello_duration_seconds",
                "Time from accept to a whole ClientHello.",
                ROUND_TRIP,
            )?,
            connect_duration: new.histogram(
                "connect_duration_seconds",
                "Time of one successful connect to an endpoint.",
                ROUND_TRIP,
            )?,
            connection_duration: new.histogram(
                "connection_duration_seconds",
                "Time from accept to the end of a connection.",
                LIFETIME,
            )?,
            table_swap_duration: new.histogram(
                "table_swap_duration_seconds",
                "Time from the change of an object to the table that has it.",
                PROPAGATION,
            )?,
            source_errors: new.counter(
                "source_errors_total",
                "Failed reads and watches of the source of routes.",
            )?,
            source_up: new.gauge(
                "source_up",
                "1 while everything is followed at the source of routes, else 0.",
            )?,
            table_from_saved: new.gauge(
                "table_from_saved",
                "1 while a table is served that an earlier process saved, else 0.",
            )?,
            table_saved: new.gauge(
                "table_saved_timestamp_seconds",
                "Unix time of the last table that was saved; 0 before the first.",
            )?,
            table_save_errors: new
                .counter("table_save_errors_total", "Tables that could not be saved.")?,
            manifest_faults: new.gauges(
                "manifest_faults",
                "Objects and files that are at fault now, by kind.",
                "kind",
            )?,
            hostname_owner_changes: new.counter(
                "hostname_owner_changes_total",
                "Hostnames that came to belong to another namespace.",
            )?,
            leader: new.gauge(
                "leader",
                "1 while this replica is the one that writes the status of routes, else 0.",
            )?,
            status_written: status_writes.with_label_values(&["ok"]),
            status_failed: status_writes.with_label_values(&["error"]),
            events_dropped: new.counter(
                "events_dropped_total",
                "Events about routes that the API server has refused or that found no room.",
            )?,
            registry,
        };
        // A kind without faults also has a series.
        FAULTY_KINDS.iter().for_each(|kind| metrics.set_manifest_faults(kind, 0));
        EndpointRefusal::KINDS.into_iter().for_each(|kind| drop(metrics.endpoint_refused(kind)));
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
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Makes metrics under `sluice_` and registers them.
struct Registration<'r>(&'r Registry);

impl Registration<'_> {
    fn register<C: Collector + Clone + 'static>(&self, metric: C) -> prometheus::Result<C> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::with_opts(opts(name, help))?)
    }

    fn counters(&self, name: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(opts(name, help), &[label])?)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::with_opts(opts(name, help))?)
    }

    fn gauges(&self, name: &str, help: &str, label: &str) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(opts(name, help), &[label])?)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(opts)?)
    }

    fn accept_errors(&self) -> prometheus::Result<AcceptErrors> {
        let opts = opts("accept_errors_total", "Failed accepts on any port, by error.");
        let errors = self.register(IntCounterVec::new(opts, &["error"])?)?;
        Ok(AcceptErrors {
            emfile: errors.with_label_values(&["emfile"]),
            enfile: errors.with_label_values(&["enfile"]),
            client: errors.with_label_values(&["client"]),
            other: errors.with_label_values(&["other"]),
        })
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("sluice")
}

fn register_build_info(registry: &Registry) -> prometheus::Result<()> {
    let opts = opts("build_info", "Always 1; the labels say what is running.");
    let info = Registration(registry).register(IntGaugeVec::new(opts, &["version"])?)?;
    info.with_label_values(&[VERSION]).set(1);
    Ok(())
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
