//! The reporter: takes part in the leader election, and writes statuses while this replica is the leader.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use prometheus::{IntCounter, IntGauge};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::moves::Moves;
use super::statuses::StatusEvent;
use super::writer::StatusWriter;
use super::{EjectionSource, HostnameMove, Statuses};
use crate::control::lease::{self, Candidate};
use crate::control::supervise::{Supervised, supervise};

/// How long [`Reporter::left`] waits at most. Giving up the Lease takes less.
pub(crate) const LEAVE_TIMEOUT: Duration = Duration::from_millis(1500);

/// The arguments of the reporter.
pub struct ReporterArgs {
    /// The client for the API server.
    pub client: Client,
    /// Where the routes are; empty means in all namespaces.
    pub namespaces: Vec<String>,
    /// The Lease for the leader election.
    pub lease: lease::LeaseSettings,
    /// Receives whether this replica leads.
    pub lead: watch::Sender<bool>,
    /// The statuses to write.
    pub statuses: Statuses,
    /// The endpoints that this replica has ejected.
    pub ejections: EjectionSource,
    /// Its metrics.
    pub meters: Meters,
    /// Receives panics after which it restarts.
    pub supervised: Box<dyn Fn(Supervised) + Send + Sync>,
}

/// The metrics of the reporter.
#[derive(Clone, Debug)]
pub struct Meters {
    /// 1 while this replica leads.
    pub leader: IntGauge,
    /// Statuses that were written.
    pub written: IntCounter,
    /// Writes that failed. One that is refused because the route has changed meanwhile is none.
    pub failed: IntCounter,
    /// Events that were not written.
    pub events_dropped: IntCounter,
}

impl ReporterArgs {
    fn leads(&self, leads: bool) {
        self.meters.leader.set(i64::from(leads));
        self.lead.send_replace(leads);
    }
}

impl fmt::Debug for ReporterArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReporterArgs").field("lease", &self.lease).finish_non_exhaustive()
    }
}

/// Writes statuses in a task of its own, so that whatever happens there ends nothing else.
#[derive(Debug)]
pub struct Reporter {
    leaving: Arc<Notify>,
    task: JoinHandle<()>,
}

/// The stream of changes.
pub(super) struct StatusChanges {
    /// From [`Statuses::follow`].
    news: UnboundedReceiver<StatusEvent>,
    /// The Events about hostnames that changed their owner. Every replica stores them.
    pub(super) moves: Moves,
}

impl Reporter {
    /// Starts it on the runtime of whoever calls. It begins once there are statuses.
    pub fn start(reporting: ReporterArgs) -> Self {
        let changes = StatusChanges::new(reporting.statuses.follow());
        let leaving = Arc::new(Notify::new());
        let task = tokio::spawn(run(reporting, changes, Arc::clone(&leaving)));
        Reporter { leaving, task }
    }

    /// Has it write no more, and give up the Lease, so that another replica leads at once.
    pub fn leave(&self) {
        self.leaving.notify_one();
    }

    /// Waits until it has left, for a short time at most.
    pub async fn left(self) {
        self.leave();
        let _ = timeout(LEAVE_TIMEOUT, self.task).await;
    }
}

async fn run(reporting: ReporterArgs, changes: StatusChanges, leaving: Arc<Notify>) {
    let candidate = Candidate::new(reporting.client.clone(), reporting.lease.clone());
    // Locked by one start after the other.
    let state = Mutex::new((candidate, changes));
    tokio::select! {
        biased;
        () = leaving.notified() => {}
        never = report_for_good(&reporting, &state) => match never {},
    }
    reporting.leads(false);
    let (mut candidate, _) = state.into_inner();
    candidate.release().await;
}

async fn report_for_good(
    reporting: &ReporterArgs,
    state: &Mutex<(Candidate, StatusChanges)>,
) -> Infallible {
    // Who has no table has nothing to write, and would only keep others from it.
    state.lock().await.1.next().await;
    supervise("statuses", &reporting.supervised, || async {
        let (candidate, changes) = &mut *state.lock().await;
        report(reporting, candidate, changes).await
    })
    .await
}

async fn report(
    reporting: &ReporterArgs,
    candidate: &mut Candidate,
    changes: &mut StatusChanges,
) -> Infallible {
    loop {
        reporting.leads(false);
        tokio::select! {
            () = candidate.acquire() => {}
            // What else is to be said is in the statuses.
            never = changes.hear_of_moves(|moves, more| moves.remember(more, Instant::now())) => {
                match never {}
            }
        }
        reporting.leads(true);
        tokio::select! {
            biased;
            // To drop the writer is to drop what it has under way.
            () = candidate.keep() => {}
            never = StatusWriter::new(reporting).run(changes) => match never {},
        }
    }
}

impl StatusChanges {
    pub(super) fn new(news: UnboundedReceiver<StatusEvent>) -> Self {
        StatusChanges { news, moves: Moves::default() }
    }

    /// The next change.
    pub(super) async fn next(&mut self) -> StatusEvent {
        match self.news.recv().await {
            Some(news) => news,
            // Somebody else follows now.
            None => std::future::pending().await,
        }
    }

    /// Has hostnames that change their owner put in, and heeds no other change.
    pub(super) async fn hear_of_moves(
        &mut self,
        put: impl Fn(&mut Moves, &[HostnameMove]),
    ) -> Infallible {
        loop {
            if let StatusEvent::Moved(more) = self.next().await {
                put(&mut self.moves, &more);
            }
        }
    }
}
