//! The addresses of DNS names, kept up to date by the time to live of their records.
//!
//! Each address family of a name is looked up by itself (`schedule`), and lookups take turns by
//! namespace (`turns`), so that neither servers that are silent nor a tenant with many names keep
//! another name waiting. `known` has what is known of a name, `lookup` asks the servers.

mod client;
mod known_addresses;
mod lookup_queues;
mod schedule;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::{FutureExt, Stream};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, JoinSet};

use self::client::DnsClient;
pub use self::client::read_answer;
use self::known_addresses::LookupResult;
use self::schedule::{LookupJob, Schedule};
use super::api::DnsName;
use super::translate::{DnsAnswer, NameChanges};

/// How long the first table waits for the names that it leads to.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Keeps names resolved. Needs a tokio runtime.
///
/// Names are looked up as they stand, without search domains, first in the hosts file. Both address
/// families count, and the first that answers is used at once. When a lookup fails, the addresses
/// of the last good answer stay; when the servers say that there are none, they go.
#[derive(Debug)]
pub struct DnsFollower {
    /// To the task that does it, which ends with this.
    changes: mpsc::UnboundedSender<NameChanges>,
}

/// What [`DnsFollower`] finds out, as a stream that ends with it. A panic of the task that finds it out is
/// one of whoever reads this, so that both can be started anew.
#[derive(Debug)]
pub struct DnsAnswers {
    told: mpsc::UnboundedReceiver<(DnsName, DnsAnswer)>,
    /// Until its end is known.
    task: Option<JoinHandle<()>>,
}

impl Stream for DnsAnswers {
    type Item = (DnsName, DnsAnswer);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.told.poll_recv(context) {
            Poll::Ready(None) => {}
            told => return told,
        }
        let Some(task) = &mut self.task else { return Poll::Ready(None) };
        let ended = ready!(Pin::new(task).poll(context));
        self.task = None;
        match ended.map_err(JoinError::try_into_panic) {
            Err(Ok(panic)) => resume_unwind(panic),
            Ok(()) | Err(Err(_)) => Poll::Ready(None),
        }
    }
}

impl DnsFollower {
    /// Resolves by these servers; by those of `/etc/resolv.conf` if there are none.
    pub fn new(servers: &[SocketAddr]) -> (Self, DnsAnswers) {
        let (tell, told) = mpsc::unbounded_channel();
        let (changes, changed) = mpsc::unbounded_channel();
        let task = tokio::spawn(follow(Arc::new(DnsClient::new(servers)), changed, tell));
        (DnsFollower { changes }, DnsAnswers { told, task: Some(task) })
    }

    /// Begins and ends to follow names.
    pub fn change(&mut self, changes: NameChanges) {
        if !changes.wanted.is_empty() || !changes.unwanted.is_empty() {
            // Fails only when the runtime ends.
            let _ = self.changes.send(changes);
        }
    }
}

/// Looks up what is due, and tells what is new, until nobody can change anything any more.
async fn follow(
    lookup: Arc<DnsClient>,
    mut changes: mpsc::UnboundedReceiver<NameChanges>,
    tell: mpsc::UnboundedSender<(DnsName, DnsAnswer)>,
) {
    let mut schedule = Schedule::default();
    let mut running = JoinSet::new();
    loop {
        while let Some(job) = schedule.next(Instant::now()) {
            let lookup = Arc::clone(&lookup);
            running.spawn(async move {
                let result = look_up(&lookup, &job).await;
                (job, result)
            });
        }
        let next_due = schedule.next_due();
        let due = async {
            match next_due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            change = changes.recv() => match change {
                Some(change) => schedule.change(change, Instant::now()),
                None => return,
            },
            Some(done) = running.join_next() => {
                // It is never aborted, and panics are caught.
                if let Ok((job, result)) = done {
                    schedule.finish(&job, result, Instant::now());
                }
            }
            () = due => {}
        }
        for answer in schedule.take_answers() {
            // Fails only when nobody wants to know any more.
            let _ = tell.send(answer);
        }
    }
}

async fn look_up(lookup: &DnsClient, job: &LookupJob) -> LookupResult {
    let asked = AssertUnwindSafe(lookup.ask(&job.name, job.family)).catch_unwind().await;
    asked.unwrap_or_else(|_| LookupResult::Failed("the lookup has panicked".to_owned()))
}
