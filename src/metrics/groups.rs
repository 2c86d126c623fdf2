//! Groups of related metrics.

use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::registration::Registration;
use crate::limiter::SourceTable;
use crate::outcome::Limit;
use crate::routing::Ring;

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

/// `sluice_splice_pipes`: the pipes of the splice pools.
#[derive(Clone, Debug)]
pub struct PipeMetrics {
    /// `state="idle"`: in a worker's pool.
    pub idle: IntGauge,
    /// `state="busy"`: lent to a connection.
    pub busy: IntGauge,
}

impl PipeMetrics {
    pub(super) fn new(new: &Registration<'_>) -> prometheus::Result<Self> {
        let pipes = new.gauges("splice_pipes", "Pipes of the splice pools, by state.", "state")?;
        Ok(PipeMetrics {
            idle: pipes.with_label_values(&["idle"]),
            busy: pipes.with_label_values(&["busy"]),
        })
    }
}

/// The durations of connections and their steps.
#[derive(Clone, Debug)]
pub struct DurationMetrics {
    /// `sluice_hello_duration_seconds`: from accept to a complete ClientHello.
    pub hello: Histogram,
    /// `sluice_connect_duration_seconds`: the duration of one successful connect to one endpoint.
    pub connect: Histogram,
    /// `sluice_connection_duration_seconds`: from accept to the outcome.
    pub connection: Histogram,
}

impl DurationMetrics {
    pub(super) fn new(new: &Registration<'_>) -> prometheus::Result<Self> {
        Ok(DurationMetrics {
            hello: new.histogram(
                "hello_duration_seconds",
                "Time from accept to a complete ClientHello.",
                ROUND_TRIP,
            )?,
            connect: new.histogram(
                "connect_duration_seconds",
                "Time of one successful connect to an endpoint.",
                ROUND_TRIP,
            )?,
            connection: new.histogram(
                "connection_duration_seconds",
                "Time from accept to the end of a connection.",
                LIFETIME,
            )?,
        })
    }
}

/// The TLS handshakes with clients.
#[derive(Clone, Debug)]
pub struct HandshakeMetrics {
    /// `sluice_handshake_duration_seconds`: of a complete handshake, from the hello on.
    duration: Histogram,
    /// `sluice_handshakes_total{result="full"}`.
    full: IntCounter,
    /// `sluice_handshakes_total{result="resumed"}`.
    resumed: IntCounter,
    /// `sluice_handshakes_total{result="failed"}`.
    pub failed: IntCounter,
}

impl HandshakeMetrics {
    pub(super) fn new(new: &Registration<'_>) -> prometheus::Result<Self> {
        let results = new.counters(
            "handshakes_total",
            "TLS handshakes with clients of routes that terminate TLS, by result.",
            "result",
        )?;
        Ok(HandshakeMetrics {
            duration: new.histogram(
                "handshake_duration_seconds",
                "Time from a ClientHello to the end of the TLS handshake that sluice serves.",
                ROUND_TRIP,
            )?,
            full: results.with_label_values(&["full"]),
            resumed: results.with_label_values(&["resumed"]),
            failed: results.with_label_values(&["failed"]),
        })
    }

    /// Counts a complete handshake, which may have resumed an earlier session.
    pub fn completed(&self, resumed: bool, took: Duration) {
        if resumed { &self.resumed } else { &self.full }.inc();
        self.duration.observe(took.as_secs_f64());
    }
}

/// `sluice_locality_connections_total`: connections to backends some of whose endpoints are nearer than others.
#[derive(Clone, Debug)]
pub struct LocalityMetrics([IntCounter; Ring::ALL.len()]);

impl LocalityMetrics {
    pub(super) fn new(new: &Registration<'_>) -> prometheus::Result<Self> {
        let connections = new.counters(
            "locality_connections_total",
            "Connections to a Service that has endpoints for this node or zone, by whom the chosen \
             endpoint is for.",
            "ring",
        )?;
        Ok(LocalityMetrics(Ring::ALL.map(|ring| connections.with_label_values(&[ring.as_str()]))))
    }

    /// The counter of connections to endpoints of this ring.
    pub fn of(&self, ring: Ring) -> &IntCounter {
        // In bounds: every ring is its own index in `Ring::ALL`.
        &self.0[ring as usize]
    }
}

/// The connections that exceed limits, and the sources that are counted.
#[derive(Clone, Debug)]
pub struct LimitMetrics {
    /// `sluice_limit_exceeded_total{mode="enforce"}`, in the order of [`Limit::ALL`].
    refused: [IntCounter; Limit::ALL.len()],
    /// `sluice_limit_exceeded_total{mode="report"}`.
    reported: [IntCounter; Limit::ALL.len()],
    /// `sluice_limit_sources`.
    sources: IntGauge,
    /// `sluice_limit_sources_shared_total`.
    shared: IntCounter,
}

impl LimitMetrics {
    pub(super) fn new(new: &Registration<'_>) -> prometheus::Result<Self> {
        let exceeded = new.counters_by(
            "limit_exceeded_total",
            "Connections that exceeded a limit, by limit, and by whether it is enforced.",
            &["limit", "mode"],
        )?;
        let of = |mode: &str| {
            Limit::ALL.map(|limit| exceeded.with_label_values(&[limit.as_str(), mode]))
        };
        Ok(LimitMetrics {
            refused: of("enforce"),
            reported: of("report"),
            sources: new
                .gauge("limit_sources", "Sources of connections that are counted for limits.")?,
            shared: new.counter(
                "limit_sources_shared_total",
                "Connections whose source found no room, and was counted together with others.",
            )?,
        })
    }

    /// The counter of refused connections.
    pub fn refused(&self, limit: Limit) -> &IntCounter {
        // In bounds: every limit is its own index in `Limit::ALL`.
        &self.refused[limit as usize]
    }

    /// The counter of connections that were admitted, because the limit is only reported.
    pub fn reported(&self, limit: Limit) -> &IntCounter {
        &self.reported[limit as usize]
    }

    /// Reads the state of the table of sources.
    pub(super) fn read(&self, sources: &SourceTable) {
        self.sources.set(i64::try_from(sources.len()).unwrap_or(i64::MAX));
        self.shared.inc_by(sources.shared().saturating_sub(self.shared.get()));
    }
}

/// The faults of the process, and its logs.
#[derive(Clone, Debug)]
pub struct ProcessMetrics {
    /// `sluice_panics_total`: faults of sluice itself, each of which ended one task.
    pub panics: IntCounter,
    /// `sluice_stalled_threads`: threads that do not answer.
    pub stalled_threads: IntGauge,
    /// `sluice_workers_lost_total`: threads of the data plane that ended by themselves.
    pub workers_lost: IntCounter,
    /// `sluice_access_log_dropped_total`: lines that were dropped because the output was too slow.
    pub access_log_dropped: IntCounter,
    /// `sluice_log_dropped_total`: lines that were dropped because the output was too slow.
    pub log_dropped: IntCounter,
}

impl ProcessMetrics {
    pub(super) fn new(new: &Registration<'_>) -> prometheus::Result<Self> {
        Ok(ProcessMetrics {
            panics: new.counter("panics_total", "Faults of sluice, each of which ended a task.")?,
            stalled_threads: new
                .gauge("stalled_threads", "Threads that have not answered for 5 seconds.")?,
            workers_lost: new.counter(
                "workers_lost_total",
                "Threads of the data plane that ended by themselves.",
            )?,
            access_log_dropped: new.counter(
                "access_log_dropped_total",
                "Lines of the access log that were dropped because its reader was too slow.",
            )?,
            log_dropped: new.counter(
                "log_dropped_total",
                "Lines of the log that were dropped because its reader was too slow.",
            )?,
        })
    }
}

/// The source of objects.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    /// `sluice_source_errors_total`: failed reads and watches.
    pub errors: IntCounter,
    /// `sluice_source_up`: 1 while all objects of the source are followed, else 0.
    pub up: IntGauge,
}

impl SourceMetrics {
    pub(super) fn new(new: &Registration<'_>) -> prometheus::Result<Self> {
        Ok(SourceMetrics {
            errors: new.counter(
                "source_errors_total",
                "Failed reads and watches of the source of routes.",
            )?,
            up: new.gauge(
                "source_up",
                "1 while all objects of the source of routes are followed, else 0.",
            )?,
        })
    }
}

/// Changes of the table, and the saved table.
#[derive(Clone, Debug)]
pub struct TableMetrics {
    /// `sluice_table_swap_duration_seconds`: from the change of an object to the table that contains it.
    pub swap_duration: Histogram,
    /// `sluice_table_from_saved`: 1 while the saved table of an earlier process is served, else 0.
    pub from_saved: IntGauge,
    /// `sluice_table_saved_timestamp_seconds`: the time of the last save; 0 before the first one.
    pub saved: IntGauge,
    /// `sluice_table_save_errors_total`: failed saves of the table.
    pub save_errors: IntCounter,
    /// `sluice_hostname_owner_changes_total`: hostnames that moved to another namespace.
    pub hostname_owner_changes: IntCounter,
}

impl TableMetrics {
    pub(super) fn new(new: &Registration<'_>) -> prometheus::Result<Self> {
        Ok(TableMetrics {
            swap_duration: new.histogram(
                "table_swap_duration_seconds",
                "Time from the change of an object to the table that has it.",
                PROPAGATION,
            )?,
            from_saved: new.gauge(
                "table_from_saved",
                "1 while a table is served that an earlier process saved, else 0.",
            )?,
            saved: new.gauge(
                "table_saved_timestamp_seconds",
                "Unix time of the last table that was saved; 0 before the first.",
            )?,
            save_errors: new
                .counter("table_save_errors_total", "Tables that could not be saved.")?,
            hostname_owner_changes: new.counter(
                "hostname_owner_changes_total",
                "Hostnames that moved to another namespace.",
            )?,
        })
    }
}

/// The statuses of routes.
#[derive(Clone, Debug)]
pub struct StatusMetrics {
    /// `sluice_leader`: 1 while this replica writes the statuses of routes, else 0.
    pub leader: IntGauge,
    /// `sluice_status_writes_total{result="ok"}`.
    pub written: IntCounter,
    /// `sluice_status_writes_total{result="error"}`.
    pub failed: IntCounter,
    /// `sluice_events_dropped_total`: Kubernetes Events that were not written.
    pub events_dropped: IntCounter,
}

impl StatusMetrics {
    pub(super) fn new(new: &Registration<'_>) -> prometheus::Result<Self> {
        let writes = new.counters(
            "status_writes_total",
            "Writes of the status of a route to the API server, by result.",
            "result",
        )?;
        Ok(StatusMetrics {
            leader: new.gauge(
                "leader",
                "1 while this replica is the one that writes the status of routes, else 0.",
            )?,
            written: writes.with_label_values(&["ok"]),
            failed: writes.with_label_values(&["error"]),
            events_dropped: new.counter(
                "events_dropped_total",
                "Events about routes that the API server has refused or that found no room.",
            )?,
        })
    }
}

/// The active health checks.
#[derive(Clone, Debug)]
pub struct CheckMetrics {
    /// `sluice_health_checks_total`, by its label `result`.
    pub(super) made: IntCounterVec,
    /// `sluice_health_checked_endpoints`: the addresses that are checked, each once for each kind of checks.
    pub checked: IntGauge,
    /// `sluice_health_unchecked_endpoints`: endpoints beyond the most that are checked.
    pub unchecked: IntGauge,
    /// `sluice_health_check_delay_seconds`: how long the check that waits longest has waited.
    pub delay: Gauge,
    /// `sluice_health_check_failures_total`: addresses that became unhealthy.
    pub failed: IntCounter,
    /// `sluice_backend_certificate_problems`, by its label `problem`.
    pub(super) problems: IntGaugeVec,
}

impl CheckMetrics {
    pub(super) fn new(new: &Registration<'_>) -> prometheus::Result<Self> {
        Ok(CheckMetrics {
            made: new.counters(
                "health_checks_total",
                "Active health checks of endpoints, by result.",
                "result",
            )?,
            checked: new.gauge(
                "health_checked_endpoints",
                "Addresses that are actively checked, each once for each kind of checks.",
            )?,
            unchecked: new.gauge(
                "health_unchecked_endpoints",
                "Endpoints that are not checked although their routes ask for it, because they are too many.",
            )?,
            delay: new.fraction(
                "health_check_delay_seconds",
                "How long the health check that waits longest has waited for a turn and the budget of the process.",
            )?,
            failed: new.counter(
                "health_check_failures_total",
                "Endpoints that became unhealthy by their health checks.",
            )?,
            problems: new.gauges(
                "backend_certificate_problems",
                "Routes with a problem of the certificates that their health checks see, by problem.",
                "problem",
            )?,
        })
    }
}
