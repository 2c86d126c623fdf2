//! Record: the times and counters of a connection, which are recorded exactly once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::context::Context;
use crate::outcome::Outcome;
use crate::routing::RouteStats;

/// The times and the bytes of a connection.
pub(super) struct ConnectionRecord {
    opened: Instant,
    hello_took: Option<Duration>,
    connect_took: Option<Duration>,
    bytes: ByteCounts,
    is_closed: bool,
}

/// The number of bytes relayed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ByteCounts {
    /// From the client to the endpoint.
    pub(super) up: u64,
    /// From the endpoint to the client.
    pub(super) down: u64,
}

impl ConnectionRecord {
    /// Starts the record of a connection that was just accepted, and counts it as open.
    pub(super) fn open(context: &Context) -> Self {
        let opened = Instant::now();
        context.opened(opened);
        ConnectionRecord {
            opened,
            hello_took: None,
            connect_took: None,
            bytes: ByteCounts::default(),
            is_closed: false,
        }
    }

    /// Records that the hello is complete.
    pub(super) fn peeked(&mut self, context: &Context) {
        let took = self.opened.elapsed();
        self.hello_took = Some(took);
        context.metrics.durations.hello.observe(took.as_secs_f64());
    }

    /// Records that the connection to the endpoint is open, after a TLS handshake that took so long.
    pub(super) fn connected(&mut self, handshake: Duration) {
        let before = self.hello_took.unwrap_or_default() + handshake;
        self.connect_took = Some(self.opened.elapsed().saturating_sub(before));
    }

    /// Updates the total of relayed bytes, and adds the difference to the route's counters.
    pub(super) fn passed(&mut self, stats: &RouteStats, bytes: ByteCounts) {
        add(&stats.bytes_up, bytes.up.saturating_sub(self.bytes.up));
        add(&stats.bytes_down, bytes.down.saturating_sub(self.bytes.down));
        self.bytes = bytes;
    }

    /// Ends the connection. The first call counts it and returns its duration.
    pub(super) fn close(
        &mut self,
        context: &Context,
        stats: &RouteStats,
        outcome: Outcome,
    ) -> Option<Duration> {
        if std::mem::replace(&mut self.is_closed, true) {
            return None;
        }
        add(stats.ended(outcome), 1);
        let lasted = self.opened.elapsed();
        context.metrics.durations.connection.observe(lasted.as_secs_f64());
        Some(lasted)
    }

    /// When it was accepted.
    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// How long the hello took, if there is one.
    pub(super) fn hello_took(&self) -> Option<Duration> {
        self.hello_took
    }

    /// How long it took to connect, if a connection was opened.
    pub(super) fn connect_took(&self) -> Option<Duration> {
        self.connect_took
    }

    /// The total of relayed bytes.
    pub(super) fn bytes(&self) -> ByteCounts {
        self.bytes
    }

    /// Whether no byte was read from the client, and none sent to it.
    pub(super) fn is_silent(&self) -> bool {
        self.hello_took.is_none() && self.bytes == ByteCounts::default()
    }
}

/// Adds to a counter that is shared by all workers. Adding 0 does not touch it.
fn add(counter: &AtomicU64, by: u64) {
    if by > 0 {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}
