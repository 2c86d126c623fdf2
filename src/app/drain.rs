//! The end of the process: waits until clients use other replicas, then until their connections have ended,
//! then stops all parts.

use std::pin::Pin;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::Notify;
use tokio::time::{timeout, timeout_at};

use super::saving;
use crate::access_log::Writing;
use crate::config::Drain;
use crate::control::status;
use crate::logging;
use crate::metrics::Metrics;
use crate::proxy::Running;

/// Listeners are closed after no client has connected for this time.
const QUIET: Duration = Duration::from_secs(1);
/// The maximum duration of resetting the last connections.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum time for writing the last lines of the access log.
const LOG_TIMEOUT: Duration = Duration::from_secs(1);
/// The maximum duration of all steps after the drain. The chart's grace period includes it.
pub(super) const LAST_STEPS: Duration = Duration::from_secs(20);
const _: () = assert!(
    ABORT_TIMEOUT.as_millis()
        + LOG_TIMEOUT.as_millis()
        + saving::LAST_WITHIN.as_millis()
        + status::LEAVE_TIMEOUT.as_millis()
        + logging::FLUSH_TIMEOUT.as_millis()
        < LAST_STEPS.as_millis()
);

/// Resets the remaining connections, and waits for the workers and the access log.
pub(super) async fn end(
    metrics: &Metrics,
    running: Running,
    ended: &Notify,
    writing: Option<Writing>,
) -> anyhow::Result<()> {
    let left = metrics.connections.total();
    running.abort();
    if timeout(ABORT_TIMEOUT, over(&running, ended)).await.is_err() {
        anyhow::bail!("the workers did not end in {ABORT_TIMEOUT:?}");
    }
    running.join().context("a worker ended by itself")?;
    if writing.is_some_and(|writing| !writing.finish(LOG_TIMEOUT)) {
        tracing::warn!("the reader of the access log has stalled; its last lines are lost");
    }
    tracing::info!(reset = left, "ended");
    Ok(())
}

/// Continues to accept until load balancers have noticed that this replica is unready and no more clients
/// connect, for at most half of the timeout. Then waits for connections to end. `hurry` ends all of this.
pub(super) async fn drain(
    config: Drain,
    running: &Running,
    ended: &Notify,
    mut hurry: Pin<&mut impl Future<Output = ()>>,
) {
    tokio::select! {
        () = tokio::time::sleep(config.delay) => {}
        () = hurry.as_mut() => return,
    }
    let end = tokio::time::Instant::now() + config.timeout;
    tokio::select! {
        _ = timeout(config.timeout / 2, quiet(running)) => {}
        () = hurry.as_mut() => return,
    }
    running.close();
    tracing::info!("no longer accepting");
    tokio::select! {
        _ = timeout_at(end, over(running, ended)) => {}
        () = hurry => {}
    }
}

/// Waits until no client has connected for some time: load balancers may notice late that this replica is
/// unready, and their clients would be refused. With passed sockets, clients wait in these for the next
/// process.
async fn quiet(running: &Running) {
    if !running.refuses_when_closed() {
        return;
    }
    while let Some(left) = QUIET.checked_sub(running.quiet_for()).filter(|left| !left.is_zero()) {
        tokio::time::sleep(left).await;
    }
}

/// Waits until all workers have ended.
async fn over(running: &Running, ended: &Notify) {
    while !running.is_over() {
        ended.notified().await;
    }
}
