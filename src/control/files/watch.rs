//! Manifests while sluice runs: every change is live within a second.

use std::collections::{BTreeSet, HashSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::Fault;
use super::read::{Interest, Reading};
use super::source::Source;
use crate::control::build::{Installation, Plan, build};
use crate::control::status::{RouteStatus, log_changes};

/// What to serve from now on.
#[derive(Clone, Debug)]
pub struct Update {
    /// The table and the statuses.
    pub plan: Plan,
    /// Whether every file has been good at some time. Once true, it stays so.
    pub complete: bool,
    /// How many faults the files have now.
    pub faults: usize,
    /// When it was first noticed that anything changed.
    pub noticed: Instant,
}

/// Reads the manifests and calls `publish` with the first plan at once, then after every change.
///
/// Never returns; drop it to end it. It reads the files where it runs, so it belongs on a runtime
/// that serves no connections, with time enabled.
pub async fn watch(
    paths: Vec<PathBuf>,
    installation: Installation,
    publish: impl FnMut(Update),
) -> Infallible {
    watch_at(Pace::default(), paths, installation, publish).await
}

/// How often things happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// For how long files must stay as they are to count as written.
    pub(super) quiet: Duration,
    /// For how long to wait for that at most.
    pub(super) longest: Duration,
    /// How often to look without being told, where the kernel cannot tell.
    pub(super) poll: Duration,
    /// How often to look without being told, where it can: some file systems do not.
    pub(super) idle: Duration,
    /// Whether the kernel is asked at all.
    pub(super) notify: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            quiet: Duration::from_millis(50),
            longest: Duration::from_millis(500),
            poll: Duration::from_millis(300),
            idle: Duration::from_secs(10),
            notify: true,
        }
    }
}

pub(super) async fn watch_at(
    pace: Pace,
    paths: Vec<PathBuf>,
    installation: Installation,
    mut publish: impl FnMut(Update),
) -> Infallible {
    let mut watches = Watches::new(pace.notify);
    let mut state = State { source: Source::default(), statuses: Vec::new(), installation };
    let noticed = Instant::now();
    watches.renew(Interest::of(&paths));
    let mut reading = Reading::of(&paths);
    state.apply(&reading);
    publish(state.update(noticed));
    loop {
        let longest = if watches.healthy { pace.idle } else { pace.poll };
        let told = tokio::time::timeout(longest, watches.shared.wake.notified()).await.is_ok();
        let noticed = Instant::now();
        if told {
            tokio::time::sleep(pace.quiet).await;
        }
        let now = settled(pace, &paths, &reading, &mut watches).await;
        if state.apply(&now) {
            publish(state.update(noticed));
        }
        reading = now;
    }
}

/// Reads until two readings, some time apart, agree and no file is being written as far as is
/// known: a change counts when it is whole.
async fn settled(
    pace: Pace,
    paths: &[PathBuf],
    applied: &Reading,
    watches: &mut Watches,
) -> Reading {
    let deadline = Instant::now() + pace.longest;
    let mut last: Option<Reading> = None;
    loop {
        // Watch first, read then: what changes in between is told.
        watches.renew(Interest::of(paths));
        let reading = Reading::of(paths);
        let agrees = reading == *applied || last.as_ref() == Some(&reading);
        if agrees && !watches.shared.writing() {
            return reading;
        }
        if Instant::now() >= deadline {
            // Somebody goes on writing. What rests is taken, the rest in another turn.
            let writing = watches.shared.take_writing();
            watches.shared.wake.notify_one();
            let last = last.unwrap_or_default();
            return reading.where_steady(&last, applied, |file| writing.contains(file));
        }
        last = Some(reading);
        tokio::time::sleep(pace.quiet).await;
    }
}

/// What is in force, and what was said about it.
struct State {
    source: Source,
    statuses: Vec<RouteStatus>,
    installation: Installation,
}

impl State {
    /// Takes a reading over and says what is wrong with what changed; returns whether anything did.
    fn apply(&mut self, reading: &Reading) -> bool {
        let before = self.source.faults();
        let changed = self.source.apply(reading);
        let faults = self.source.faults();
        for fault in &faults {
            if changed.contains(&fault.file) || !before.contains(fault) {
                log_fault(fault);
            }
        }
        let faulty = |faults: &[Fault], file: &Path| faults.iter().any(|fault| fault.file == file);
        for file in &changed {
            if faulty(&before, file) && !faulty(&faults, file) {
                info!(file = %file.display(), "a file of manifests is in order again");
            }
        }
        !changed.is_empty()
    }

    fn update(&mut self, noticed: Instant) -> Update {
        let plan = build(&self.source.resources(), &self.installation);
        log_changes(&self.statuses, &plan.statuses);
        self.statuses.clone_from(&plan.statuses);
        let faults = self.source.faults().len();
        Update { plan, complete: self.source.complete(), faults, noticed }
    }
}

fn log_fault(fault: &Fault) {
    let Fault { file, line, object, field, message: detail } = fault;
    let (object, field) = (object.as_deref(), field.as_deref());
    let file = file.display();
    warn!(%file, line, object, field, detail, "a file of manifests is at fault and changes nothing");
}

/// The kernel's watches over the folders of interest.
struct Watches {
    shared: Arc<Shared>,
    enabled: bool,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    /// Whether every folder of interest is watched.
    healthy: bool,
}

/// What the watcher's thread and the control plane both see.
#[derive(Default)]
struct Shared {
    wake: Notify,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    interest: Interest,
    /// Files that were written to and not closed since.
    writing: HashSet<PathBuf>,
}

impl Watches {
    fn new(enabled: bool) -> Self {
        let shared = Arc::new(Shared::default());
        // Whatever changes while the first watches are being set up: one more look shows it.
        shared.wake.notify_one();
        Watches { shared, enabled, watcher: None, watched: BTreeSet::new(), healthy: true }
    }

    /// Watches what is of interest now and nothing else.
    ///
    /// Folders that are watched already are watched again: another folder may have taken the place
    /// of the former one. For the same folder, the kernel does nothing.
    fn renew(&mut self, interest: Interest) {
        let wanted = interest.watched();
        self.shared.lock().interest = interest;
        match self.try_renew(&wanted) {
            Ok(()) if !self.healthy => {
                info!("manifests are watched again");
                self.healthy = true;
            }
            Err(error) if self.healthy => {
                warn!(%error, "manifests cannot be watched; looking at them every now and then");
                self.healthy = false;
            }
            _ => {}
        }
        self.watched = wanted;
    }

    fn try_renew(&mut self, wanted: &BTreeSet<PathBuf>) -> notify::Result<()> {
        if !self.enabled {
            return Err(notify::Error::generic("switched off"));
        }
        let watcher = match &mut self.watcher {
            Some(watcher) => watcher,
            none => {
                let shared = Arc::clone(&self.shared);
                let told = move |event| shared.told(event);
                none.insert(RecommendedWatcher::new(told, notify::Config::default())?)
            }
        };
        for gone in self.watched.difference(wanted) {
            // It fails where the folder itself is gone, and the watch with it.
            let _ = watcher.unwatch(gone);
        }
        // All that can be watched, even if one cannot.
        let results: Vec<_> = wanted
            .iter()
            .map(|folder| watcher.watch(folder, RecursiveMode::NonRecursive))
            .collect();
        results.into_iter().collect()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> bool {
        !self.lock().writing.is_empty()
    }

    fn forget_writers(&self) {
        self.lock().writing.clear();
    }

    /// The files that are being written, which are forgotten: their writers may be gone untold.
    fn take_writing(&self) -> HashSet<PathBuf> {
        std::mem::take(&mut self.lock().writing)
    }

    /// Called by the watcher's thread. Nothing is taken from an event but that something happened:
    /// what happened, the files say.
    fn told(&self, event: notify::Result<Event>) {
        let matters = match event {
            Ok(event) if event.need_rescan() => {
                self.forget_writers();
                true
            }
            Ok(event) => self.lock().note(&event),
            Err(_) => true,
        };
        if matters {
            self.wake.notify_one();
        }
    }
}

impl Seen {
    /// Keeps track of writers; returns whether the event may mean a change.
    fn note(&mut self, event: &Event) -> bool {
        let written = matches!(event.kind, EventKind::Modify(ModifyKind::Data(_)));
        let closed = matches!(event.kind, EventKind::Access(AccessKind::Close(AccessMode::Write)));
        // Every reading opens files: that is no change, and would go on for ever.
        if event.kind.is_access() && !closed {
            return false;
        }
        let mut matters = false;
        for path in event.paths.iter().filter(|path| self.interest.includes(path)) {
            matters = true;
            if written {
                self.writing.insert(path.clone());
            } else {
                self.writing.remove(path);
            }
        }
        matters
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reading_is_no_change_and_writing_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, "").expect("written");
        let paths = [folder.path().to_owned()];
        let mut watches = Watches::new(true);
        watches.shared.wake.notified().await;
        watches.renew(Interest::of(&paths));
        assert!(watches.healthy);

        Reading::of(&paths);
        std::fs::write(folder.path().with_extension("beside"), "").expect("written");
        let told = watches.shared.wake.notified();
        assert!(tokio::time::timeout(Duration::from_millis(200), told).await.is_err());
        std::fs::write(&file, "x").expect("written");
        let told = watches.shared.wake.notified();
        assert!(tokio::time::timeout(Duration::from_secs(10), told).await.is_ok());
        let _ = std::fs::remove_file(folder.path().with_extension("beside"));
    }
}
