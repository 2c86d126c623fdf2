//! What the kernel tells of manifests: that something changed, and what is being written.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::interest::Interest;
use super::watch::Pace;

/// The kernel's watches over the folders of interest.
pub(super) struct Watches {
    pub(super) shared: Arc<Shared>,
    enabled: bool,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    /// Whether every folder of interest is watched.
    pub(super) healthy: bool,
}

/// What the watcher's thread and the control plane both see.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) wake: Notify,
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
pub(super) struct Writing {
    pub(super) files: HashSet<PathBuf>,
    /// Whether any of them has not been so for long, and so will probably be whole in a moment.
    pub(super) fresh: bool,
}

impl Watches {
    pub(super) fn new(enabled: bool) -> Self {
        let shared = Arc::new(Shared::default());
        // Whatever changes while the first watches are being set up: one more look shows it.
        shared.wake.notify_one();
        Watches { shared, enabled, watcher: None, watched: BTreeSet::new(), healthy: true }
    }

    /// Watches what is of interest now and nothing else.
    ///
    /// Folders that are watched already are watched again: another folder may have taken the place
    /// of the former one. For the same folder, the kernel does nothing.
    pub(super) fn renew(&mut self, interest: Interest) {
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
    pub(super) fn writing(&self, pace: Pace) -> Writing {
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
    pub(super) fn until_silence(&self, silence: Duration) -> Option<Duration> {
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
    use crate::control::files::read::Reading;

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

        Reading::of(&paths, &Reading::default());
        std::fs::write(folder.path().with_extension("beside"), "").expect("written");
        let told = watches.shared.wake.notified();
        assert!(tokio::time::timeout(Duration::from_millis(200), told).await.is_err());
        std::fs::write(&file, "x").expect("written");
        let told = watches.shared.wake.notified();
        assert!(tokio::time::timeout(Duration::from_secs(60), told).await.is_ok());
        let _ = std::fs::remove_file(folder.path().with_extension("beside"));
    }
}
