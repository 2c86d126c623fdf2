//! The addresses of DNS names, kept up to date according to the TTL of their records.
//!
//! `schedule` decides when each address family of a name is looked up. `lookup_queues` lets namespaces take
//! turns, so that neither silent servers nor a namespace with many names delay the names of others.
//! `known_addresses` stores the results, and `client` sends the queries.

mod client;
mod known_addresses;
mod lookup_queues;
mod schedule;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::client::DnsClient;
pub use self::client::read_answer;
use self::known_addresses::LookupResult;
use self::schedule::{LookupJob, LookupSchedule};
use super::api::DnsName;
use super::task_stream::TaskStream;
use super::translate::{DnsAnswer, NameChanges};

/// How long the first table waits for the addresses of its DNS names.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Resolves DNS names, and keeps their addresses up to date. Needs a tokio runtime.
///
/// Names are looked up without search domains, first in the hosts file. Both address families are used; the
/// first answer takes effect at once. After a failed lookup, the last known addresses stay. If the servers
/// answer that there are none, the addresses are removed.
#[derive(Debug)]
pub struct DnsFollower {
    /// The channel to the task that resolves the names. The task ends when this is dropped.
    changes: mpsc::UnboundedSender<NameChanges>,
}

/// The answers of a [`DnsFollower`].
pub type DnsAnswers = TaskStream<(DnsName, DnsAnswer)>;

impl DnsFollower {
    /// Resolves names with these servers; without any, with those of `/etc/resolv.conf`.
    pub fn new(servers: &[SocketAddr]) -> (Self, DnsAnswers) {
        let (tell, told) = mpsc::unbounded_channel();
        let (changes, changed) = mpsc::unbounded_channel();
        let task = tokio::spawn(follow(Arc::new(DnsClient::new(servers)), changed, tell));
        (DnsFollower { changes }, TaskStream::new(told, task))
    }

    /// Adds and removes names.
    pub fn change(&mut self, changes: NameChanges) {
        if !changes.wanted.is_empty() || !changes.unwanted.is_empty() {
            // Fails only when the runtime ends.
            let _ = self.changes.send(changes);
        }
    }
}

/// Starts lookups when they are due and sends new answers, until the sender of changes is dropped.
async fn follow(
    lookup: Arc<DnsClient>,
    mut changes: mpsc::UnboundedReceiver<NameChanges>,
    tell: mpsc::UnboundedSender<(DnsName, DnsAnswer)>,
) {
    let mut schedule = LookupSchedule::default();
    let mut running = JoinSet::new();
    loop {
        while let Some(job) = schedule.next(Instant::now()) {
            let lookup = Arc::clone(&lookup);
            running.spawn(async move {
                let result = look_up(&lookup, &job).await;
                (job, result)
            });
        }
        tokio::select! {
            change = changes.recv() => match change {
                Some(change) => schedule.change(change, Instant::now()),
                None => return,
            },
            Some(done) = running.join_next() => {
                // Tasks here are never aborted, and panics are caught.
                if let Ok((job, result)) = done {
                    schedule.finish(&job, result, Instant::now());
                }
            }
            () = until(schedule.next_due()) => {}
        }
        for answer in schedule.take_answers() {
            // Fails only when the receiver is dropped.
            let _ = tell.send(answer);
        }
    }
}

/// Sleeps until `due`; for ever without a time.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

async fn look_up(lookup: &DnsClient, job: &LookupJob) -> LookupResult {
    let asked = AssertUnwindSafe(lookup.ask(&job.name, job.family)).catch_unwind().await;
    asked.unwrap_or_else(|_| LookupResult::Failed("the lookup has panicked".to_owned()))
}
