//! What the kernel reports of manifests: that something changed, and which files are open for writing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::watch_set::WatchSet;

/// The kernel's watches over the folders of a [`WatchSet`].
pub(super) struct Watcher {
    pub(super) events: Arc<WatcherEvents>,
    enabled: bool,
    inner: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    /// Whether every folder is watched.
    pub(super) healthy: bool,
}

/// What the thread of the kernel's watches and the control plane both see.
#[derive(Default)]
pub(super) struct WatcherEvents {
    /// Something changed.
    pub(super) changed: Notify,
    seen: Mutex<WatchedFiles>,
}

#[derive(Default)]
struct WatchedFiles {
    watch_set: WatchSet,
    /// Files that were written to and not closed since, by their real paths, each with the time of its
    /// last event.
    open_files: HashMap<PathBuf, Instant>,
}

impl Watcher {
    pub(super) fn new(enabled: bool) -> Self {
        let events = Arc::new(WatcherEvents::default());
        // Whatever changes while the first watches are set up: another look finds it.
        events.changed.notify_one();
        Watcher { events, enabled, inner: None, watched: BTreeSet::new(), healthy: true }
    }

    /// Watches this set and nothing else.
    ///
    /// Folders that are watched already are watched again: another folder may have taken the place
    /// of the former one. For the same folder, the kernel does nothing.
    pub(super) fn renew(&mut self, watch_set: WatchSet) {
        let wanted = watch_set.watched();
        self.events.lock().look_at(watch_set);
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
        let inner = match &mut self.inner {
            Some(inner) => inner,
            none => {
                let events = Arc::clone(&self.events);
                let handler = move |event| events.receive(event);
                none.insert(RecommendedWatcher::new(handler, notify::Config::default())?)
            }
        };
        for gone in self.watched.difference(wanted) {
            // It fails where the folder itself is gone, and the watch with it.
            let _ = inner.unwatch(gone);
        }
        // All that can be watched, even if one cannot.
        let results: Vec<_> =
            wanted.iter().map(|folder| inner.watch(folder, RecursiveMode::NonRecursive)).collect();
        results.into_iter().collect()
    }
}

impl WatcherEvents {
    fn lock(&self) -> MutexGuard<'_, WatchedFiles> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files that are open for writing. Those to which nothing has happened for `silence` are given
    /// up.
    pub(super) fn open_files(&self, silence: Duration) -> HashSet<PathBuf> {
        let mut seen = self.lock();
        seen.open_files.retain(|file, last| {
            let is_silent = last.elapsed() >= silence;
            if is_silent {
                let file = file.display();
                warn!(%file, ?silence, "a file is left open for writing; it is read as it is");
            }
            !is_silent
        });
        seen.open_files.keys().cloned().collect()
    }

    /// Called by the thread of the kernel's watches. An event is only a reason to look: what happened,
    /// the files show.
    fn receive(&self, event: notify::Result<Event>) {
        let matters = match event {
            Ok(event) if event.need_rescan() => {
                self.lock().open_files.clear();
                true
            }
            Ok(event) => self.lock().note(&event),
            Err(_) => true,
        };
        if matters {
            self.changed.notify_one();
        }
    }
}

impl WatchedFiles {
    /// There will be no more events of files outside the set.
    fn look_at(&mut self, watch_set: WatchSet) {
        self.open_files.retain(|file, _| watch_set.includes(file));
        self.watch_set = watch_set;
    }

    /// Keeps track of open files; returns whether the event may mean a change.
    fn note(&mut self, event: &Event) -> bool {
        let closed = matches!(event.kind, EventKind::Access(AccessKind::Close(AccessMode::Write)));
        // Each snapshot opens files: that is no change, and would go on for ever.
        if event.kind.is_access() && !closed {
            return false;
        }
        let mut matters = false;
        for path in event.paths.iter().filter(|path| self.watch_set.includes(path)) {
            matters = true;
            match event.kind {
                EventKind::Modify(ModifyKind::Data(_)) => {
                    self.open_files.insert(path.clone(), Instant::now());
                }
                EventKind::Modify(ModifyKind::Metadata(_)) => {
                    self.open_files.entry(path.clone()).and_modify(|last| *last = Instant::now());
                }
                // Closed, or something else is at this path now, be it a file or a folder.
                _ => self.open_files.retain(|file, _| !file.starts_with(path)),
            }
        }
        matters
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::control::files::snapshot::DirSnapshot;

    #[tokio::test]
    async fn reading_is_no_change_and_writing_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, "").expect("written");
        let paths = [folder.path().to_owned()];
        let mut watcher = Watcher::new(true);
        watcher.events.changed.notified().await;
        watcher.renew(WatchSet::of(&paths, &BTreeSet::new()));
        assert!(watcher.healthy);

        DirSnapshot::of(&paths, &DirSnapshot::default());
        std::fs::write(folder.path().with_extension("beside"), "").expect("written");
        let told = watcher.events.changed.notified();
        assert!(tokio::time::timeout(Duration::from_millis(200), told).await.is_err());
        std::fs::write(&file, "x").expect("written");
        let told = watcher.events.changed.notified();
        assert!(tokio::time::timeout(Duration::from_secs(60), told).await.is_ok());
        let _ = std::fs::remove_file(folder.path().with_extension("beside"));
    }
}
