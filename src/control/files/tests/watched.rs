//! Manifests that are watched for a test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::installation;
use crate::control::dns::DnsFollower;
use crate::control::files::FilesUpdate;
use crate::control::files::pace::Pace;
use crate::control::files::watch::watch_at;
use crate::control::translate::Installation;

/// Nothing is found by chance: without being told, nobody looks.
pub(super) const TOLD: Pace = Pace {
    quiet: Duration::from_millis(50),
    longest: Duration::from_millis(500),
    silence: Duration::from_secs(3600),
    held: Duration::from_secs(1),
    poll: Duration::from_secs(3600),
    idle: Duration::from_secs(3600),
    notify: true,
};

/// Longer than anything may take on a busy machine. Only a test that fails waits for so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A watching of manifests, and what it has told so far.
pub(super) struct Watched {
    pub(super) updates: UnboundedReceiver<FilesUpdate>,
    pub(super) last: FilesUpdate,
    /// The names of the routes in force, by all updates so far.
    routes: BTreeSet<String>,
    failed: Arc<AtomicUsize>,
    /// Has everything read again.
    pub(super) reread: Arc<Notify>,
    task: JoinHandle<std::convert::Infallible>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watched {
    pub(super) async fn new(pace: Pace, paths: &[&Path]) -> Self {
        Watched::of(installation(), pace, paths).await
    }

    pub(super) async fn of(installation: Installation, pace: Pace, paths: &[&Path]) -> Self {
        let (sender, mut updates) = unbounded_channel();
        let paths: Vec<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
        let publish = move |update| sender.send(update).unwrap_or_default();
        let failed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&failed);
        let failure = move || _ = count.fetch_add(1, Ordering::Relaxed);
        let reread = Arc::new(Notify::new());
        let (names, told) = (DnsFollower::new(&[]), Arc::clone(&reread));
        let watching = watch_at(pace, paths, installation, names, told, publish, failure);
        let task = tokio::spawn(watching);
        let last = timeout(PATIENCE, updates.recv()).await;
        let last = last.expect("in time").expect("a first update");
        let mut watched =
            Watched { updates, last: last.clone(), routes: BTreeSet::new(), failed, reread, task };
        watched.take(last);
        watched
    }

    /// Waits for the next update.
    pub(super) async fn next(&mut self) {
        let update = timeout(PATIENCE, self.updates.recv()).await;
        self.take(update.expect("in time").expect("an update"));
    }

    pub(super) fn take(&mut self, update: FilesUpdate) {
        for (key, route) in &update.delta.changes.routes {
            match route {
                Some(_) => _ = self.routes.insert(key.name().to_owned()),
                None => _ = self.routes.remove(key.name()),
            }
        }
        self.last = update;
    }

    /// How often something could not be watched or read.
    pub(super) fn failures(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }

    /// The names of the routes in force.
    pub(super) fn routes(&self) -> Vec<&str> {
        self.routes.iter().map(String::as_str).collect()
    }

    /// How many objects and files are at fault.
    pub(super) fn faults(&self) -> usize {
        self.last.faults.iter().map(|(_, faults)| faults).sum()
    }

    /// Waits for an update with these routes and this many faults.
    #[track_caller]
    pub(super) fn until<'w>(
        &'w mut self,
        routes: &'w [&str],
        faults: usize,
    ) -> impl Future<Output = ()> + 'w {
        let caller = std::panic::Location::caller();
        async move {
            let deadline = tokio::time::Instant::now() + PATIENCE;
            while self.routes() != routes || self.faults() != faults {
                match tokio::time::timeout_at(deadline, self.updates.recv()).await {
                    Ok(update) => self.take(update.expect("an update")),
                    Err(_) => panic!(
                        "{caller}: {:?} with {} faults, not {routes:?} with {faults}",
                        self.routes(),
                        self.faults()
                    ),
                }
            }
        }
    }

    /// Lets what was begun come to its end, so that the next change is found because it is told and
    /// not because of a former one.
    pub(super) async fn calm(&mut self) {
        self.stays(Duration::from_millis(150)).await;
    }

    /// Checks that nothing is published for a while.
    pub(super) async fn stays(&mut self, time: Duration) {
        if let Ok(update) = timeout(time, self.updates.recv()).await {
            panic!("published {update:?}");
        }
    }
}

pub(super) fn temporary() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

pub(super) fn write(file: &Path, content: &str) {
    fs::write(file, content).expect("written");
}
