//! The end of the traffic: until clients know another way, until their connections are over, and what
//! comes after that.

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

/// How long no client has come when listeners are closed.
const QUIET: Duration = Duration::from_secs(1);
/// How long the resets of the last connections may take.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the output of the access log may take for the last lines.
const LOG_TIMEOUT: Duration = Duration::from_secs(1);
/// How long all may take that comes after a drain. The chart's grace period has as much.
pub(super) const LAST_STEPS: Duration = Duration::from_secs(20);
const _: () = assert!(
    ABORT_TIMEOUT.as_millis()
        + LOG_TIMEOUT.as_millis()
        + saving::LAST_WITHIN.as_millis()
        + status::LEAVE_TIMEOUT.as_millis()
        + logging::FLUSH_TIMEOUT.as_millis()
        < LAST_STEPS.as_millis()
);

/// Resets the connections that are left, and waits for the workers and the access log.
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

/// Goes on accepting while load balancers learn that this replica is unready, and until clients no
/// longer come, but not for more than half of the timeout; then lets connections end by themselves.
/// `hurry` cuts all of it short.
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

/// Waits until no client has come for a moment: load balancers may be late to learn that this
/// replica is unready, and a client that they still send here would find nobody. Where sockets were
/// passed to the process, clients wait in them for the next one.
async fn quiet(running: &Running) {
    if !running.refuses_when_closed() {
        return;
    }
    while let Some(left) = QUIET.checked_sub(running.quiet_for()).filter(|left| !left.is_zero()) {
        tokio::time::sleep(left).await;
    }
}

/// Waits until all workers are over.
async fn over(running: &Running, ended: &Notify) {
    while !running.is_over() {
        ended.notified().await;
    }
}
