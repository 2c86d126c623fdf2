//! Manifests while sluice runs: every change is live within a second.

use std::collections::{BTreeSet, HashMap, HashSet};
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
    /// Whether every path and file could be read at some time, be it with faults. Once true, it
    /// stays so.
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
    /// For how long to wait for that at most, of all files as of one that is being written.
    pub(super) longest: Duration,
    /// For how long nothing may happen to a file that is open for writing: then it counts as it is.
    pub(super) silence: Duration,
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
            silence: Duration::from_secs(30),
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
        let longest =
            watches.shared.until_silence(pace.silence).map_or(longest, |t| t.min(longest));
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

/// Reads until two readings, some time apart, agree and no file has just begun to be written as far
/// as is known: a change counts when it is whole. A file that is open for writing for longer keeps
/// what it had, and the others go on.
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
        let Writing { files, fresh } = watches.shared.writing(pace);
        let reading = reading.except(applied, |file| files.contains(file));
        let agrees = reading == *applied || last.as_ref() == Some(&reading);
        if agrees && !fresh {
            return reading;
        }
        if Instant::now() >= deadline {
            // Somebody goes on changing files. What rests is taken, the rest in another turn.
            watches.shared.wake.notify_one();
            return reading.where_steady(&last.unwrap_or_default(), applied);
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
    /// Files that were written to and not closed since, by their real paths.
    writing: HashMap<PathBuf, Writer>,
}

/// What is known of a file that is open for writing.
struct Writer {
    /// When it was first written to.
    since: Instant,
    /// When anything last happened to it.
    last: Instant,
}

/// The files that are open for writing.
struct Writing {
    files: HashSet<PathBuf>,
    /// Whether any of them has not been so for long, and so will probably be whole in a moment.
    fresh: bool,
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
        self.shared.lock().look_at(interest);
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

    /// The files that are being written. Those to which nothing has happened for long are given up.
    fn writing(&self, pace: Pace) -> Writing {
        let mut seen = self.lock();
        seen.writing.retain(|file, writer| {
            let silent = writer.last.elapsed() >= pace.silence;
            if silent {
                let (file, silence) = (file.display(), pace.silence);
                warn!(%file, ?silence, "a file is left open for writing; it is read as it is");
            }
            !silent
        });
        Writing {
            files: seen.writing.keys().cloned().collect(),
            fresh: seen.writing.values().any(|writer| writer.since.elapsed() < pace.longest),
        }
    }

    /// How long it is until one of the files that are being written may be given up.
    fn until_silence(&self, silence: Duration) -> Option<Duration> {
        let last = self.lock().writing.values().map(|writer| writer.last).min()?;
        Some(silence.saturating_sub(last.elapsed()))
    }

    fn forget_writers(&self) {
        self.lock().writing.clear();
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
    /// Nothing will be told any more of files that are not of interest.
    fn look_at(&mut self, interest: Interest) {
        self.writing.retain(|file, _| interest.includes(file));
        self.interest = interest;
    }

    /// Keeps track of writers; returns whether the event may mean a change.
    fn note(&mut self, event: &Event) -> bool {
        let written = matches!(event.kind, EventKind::Modify(ModifyKind::Data(_)));
        let closed = matches!(event.kind, EventKind::Access(AccessKind::Close(AccessMode::Write)));
        // Every reading opens files: that is no change, and would go on for ever.
        if event.kind.is_access() && !closed {
            return false;
        }
        let attributes = matches!(event.kind, EventKind::Modify(ModifyKind::Metadata(_)));
        let now = Instant::now();
        let mut matters = false;
        for path in event.paths.iter().filter(|path| self.interest.includes(path)) {
            matters = true;
            if written {
                self.writing.entry(path.clone()).or_insert(Writer { since: now, last: now }).last =
                    now;
            } else if let (true, Some(writer)) = (attributes, self.writing.get_mut(path)) {
                writer.last = now;
            } else if !attributes {
                // Closed, or something else is at this path now, be it a file or a folder.
                self.writing.retain(|file, _| !file.starts_with(path));
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
