//! Manifests while sluice runs: every change is live within a second.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::mem;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap as HashMap;
use futures::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tracing::{Dispatch, dispatcher, info, warn};

use super::ManifestFault;
use super::manifest_paths::ManifestPaths;
use super::manifests::{Difference, Manifests};
use super::pace::Pace;
use super::parse::ManifestObject;
use super::snapshot::{DirSnapshot, FileRead, is_too_high};
use super::stability::{Stability, Verdict};
use super::watch_set::WatchSet;
use super::watcher::Watcher;
use crate::control::api::FILE_KINDS;
use crate::control::checks::{Authority, KnownAuthorities};
use crate::control::dns::{self, DnsAnswers, DnsFollower};
use crate::control::translate::{Builder, Delta, Installation};
use crate::control::{slices, warn_of_missing_services};
use crate::routing::{Kind, ObjectKey};

/// What to serve from now on.
#[derive(Clone, Debug)]
pub struct FilesUpdate {
    /// The changes, and the statuses of the routes that were looked at again. The first are of all
    /// routes.
    pub delta: Delta,
    /// The authorities of active health checks, if they have changed.
    pub authorities: Option<KnownAuthorities>,
    /// Whether every path and file could be read at some time, be it with faults. Once true, it
    /// stays so.
    pub complete: bool,
    /// How many objects of each kind are at fault now; under `File`, the files that are at fault
    /// and no object of them.
    pub faults: Vec<(&'static str, usize)>,
    /// When it was first noticed that anything changed.
    pub noticed: Instant,
}

/// Reads the manifests and calls `publish` with all that there is at once, then after every change
/// with what that comes to; `failed` is called whenever it looked and could not watch or read a
/// configured path. `names` resolves the names that routes lead to; the first call waits for them,
/// but not for long. `reread` has everything read again at once, whatever the file system tells.
///
/// Never returns; drop it to end it. It needs a tokio runtime with time enabled. The runtime's
/// blocking threads read and parse files; what that comes to is worked out here, in slices.
pub async fn watch(
    paths: Vec<PathBuf>,
    installation: Installation,
    names: (DnsFollower, DnsAnswers),
    reread: Arc<Notify>,
    publish: impl FnMut(FilesUpdate),
    failed: impl FnMut(),
) -> Infallible {
    watch_at(Pace::default(), paths, installation, names, reread, publish, failed).await
}

/// What counts as a kind where a file is at fault and no object of it.
const FILE: &str = "File";

/// How many times in a row the files that Secrets name may turn out to be others, until the next look finds them.
const MOST_LOOKS: usize = 3;

pub(super) async fn watch_at(
    pace: Pace,
    paths: Vec<PathBuf>,
    installation: Installation,
    (mut names, mut answers): (DnsFollower, DnsAnswers),
    reread: Arc<Notify>,
    mut publish: impl FnMut(FilesUpdate),
    mut failed: impl FnMut(),
) -> Infallible {
    let paths = Arc::new(ManifestPaths { paths, secrets: installation.termination.is_some() });
    let mut watcher = Watcher::new(pace.notify);
    let mut state = ActiveManifests::new(installation);
    let mut noticed = Instant::now();
    let mut applied = DirSnapshot::default();
    let mut next = read(&paths, &applied, &mut watcher).await;
    let mut held = BTreeSet::new();
    loop {
        let unread = next.roots.values().filter(|root| root.is_err()).count();
        (0..unread + usize::from(!watcher.healthy)).for_each(|_| failed());
        let first = !state.begun;
        let changed;
        (state, applied, changed) = aside(move || {
            let changed = state.take(&next);
            (state, next, changed)
        })
        .await;
        let has_news = state.builder.set_time(now());
        if changed || has_news {
            let mut update = state.update(noticed).await;
            names.change(mem::take(&mut update.delta.names));
            if first && state.builder.awaits_names() {
                first_answers(&mut state.builder, &mut answers).await;
                update = state.update(noticed).await;
            }
            if first {
                warn_of_missing_services(&state.builder);
            }
            publish(update);
        }
        let look = pace.next_look(watcher.healthy, !held.is_empty());
        let reason = wait(look, &watcher, &reread, &mut state, &mut answers, &mut publish).await;
        noticed = Instant::now();
        if reason != Reason::Time {
            tokio::time::sleep(pace.quiet).await;
        }
        let nothing = DirSnapshot::default();
        let known = if reason == Reason::Demand { &nothing } else { &applied };
        (next, held) = stable(pace, &paths, &applied, known, &held, &mut watcher).await;
    }
}

/// The time in seconds since 1970.
fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Why to look at the files again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// Something changed.
    Event,
    /// Everything is to be read anew.
    Demand,
    /// Nobody looked for a while.
    Time,
}

/// Waits until it is time to look at the files again; what becomes known of names meanwhile is published
/// at once.
async fn wait(
    longest: Duration,
    watcher: &Watcher,
    reread: &Notify,
    state: &mut ActiveManifests,
    answers: &mut DnsAnswers,
    publish: &mut impl FnMut(FilesUpdate),
) -> Reason {
    let deadline = tokio::time::Instant::now() + longest;
    loop {
        tokio::select! {
            () = watcher.events.changed.notified() => return Reason::Event,
            () = reread.notified() => return Reason::Demand,
            () = tokio::time::sleep_until(deadline) => return Reason::Time,
            Some((name, answer)) = answers.next() => {
                let noticed = Instant::now();
                state.builder.put_answer(&name, answer);
                while let Some(Some((name, answer))) = answers.next().now_or_never() {
                    state.builder.put_answer(&name, answer);
                }
                publish(state.update(noticed).await);
            }
        }
    }
}

/// Waits until something is known of every name that routes lead to, but not for long; has the next
/// update tell of all routes.
async fn first_answers(builder: &mut Builder, answers: &mut DnsAnswers) {
    let deadline = tokio::time::Instant::now() + dns::PATIENCE;
    while builder.awaits_names() {
        let Ok(Some((name, answer))) = tokio::time::timeout_at(deadline, answers.next()).await
        else {
            break;
        };
        builder.put_answer(&name, answer);
    }
    builder.tell_all();
}

/// Reads until two snapshots, some time apart, agree: a change counts when it is whole. Returns also
/// which files are held back: a file that is open for writing, or has just been emptied, keeps its
/// former content. It delays the other files only for a moment, and not if it was `held_before`.
async fn stable(
    pace: Pace,
    paths: &Arc<ManifestPaths>,
    applied: &DirSnapshot,
    known: &DirSnapshot,
    held_before: &BTreeSet<PathBuf>,
    watcher: &mut Watcher,
) -> (DirSnapshot, BTreeSet<PathBuf>) {
    let mut stability = Stability::until(Instant::now() + pace.longest);
    loop {
        let mut snapshot = read(paths, stability.last().unwrap_or(known), watcher).await;
        let open = watcher.events.open_files(pace.silence);
        let is_held = |now: Option<&FileRead>, before: Option<&FileRead>| {
            let emptied = |now: &FileRead| before.is_some_and(|file| now.was_just_emptied(file));
            let is_open = |now: &FileRead| now.and_data_files().any(|one| open.contains(&one.real));
            now.is_some_and(|now| is_open(now) || emptied(now))
        };
        let held = snapshot.hold_back(applied, |_, _, now, before| is_held(now, before));
        let has_begun = !held.is_subset(held_before);
        match stability.judge(snapshot, applied, has_begun, Instant::now()) {
            Verdict::Stable(snapshot) => return (snapshot, held),
            Verdict::Restless(snapshot) => {
                watcher.events.changed.notify_one();
                return (snapshot, held);
            }
            Verdict::Again => tokio::time::sleep(pace.quiet).await,
        }
    }
}

async fn read(
    paths: &Arc<ManifestPaths>,
    known: &DirSnapshot,
    watcher: &mut Watcher,
) -> DirSnapshot {
    let (wanted, known) = (Arc::clone(paths), known.clone());
    let mut renewed = std::mem::replace(watcher, Watcher::new(false));
    let snapshot;
    (*watcher, snapshot) = aside(move || {
        // Watch first, read then: what changes in between is reported. A folder with much coming and
        // going keeps the watcher busy, and delays every request to it.
        let mut data_files = known.data_paths();
        renewed.renew(WatchSet::of(&wanted.paths, &data_files));
        let mut snapshot = wanted.look(&known);
        for _ in 0..MOST_LOOKS {
            let named = snapshot.data_paths();
            if named.is_subset(&data_files) {
                break;
            }
            data_files = named;
            renewed.renew(WatchSet::of(&wanted.paths, &data_files));
            snapshot = wanted.look(&snapshot);
        }
        (renewed, snapshot)
    })
    .await;
    snapshot
}

/// Does work that takes time on a thread of its own: this one has to give signs of life.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let log = dispatcher::get_default(Dispatch::clone);
    match spawn_blocking(move || dispatcher::with_default(&log, work)).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime ends, and with it whoever waits for this.
            Err(_) => std::future::pending().await,
        },
    }
}

/// What is in force.
struct ActiveManifests {
    manifests: Manifests,
    builder: Builder,
    /// What each ConfigMap has.
    authorities: HashMap<ObjectKey, Authority>,
    /// Whether that has changed since the last update.
    new_authorities: bool,
    /// Whether there was any update yet.
    begun: bool,
    /// The configured folders of which it was said that the folders in them are not read.
    too_high: BTreeSet<PathBuf>,
}

impl ActiveManifests {
    fn new(installation: Installation) -> Self {
        ActiveManifests {
            manifests: Manifests::default(),
            builder: Builder::of_all_objects(installation),
            authorities: HashMap::new(),
            new_authorities: true,
            begun: false,
            too_high: BTreeSet::new(),
        }
    }

    /// Takes a snapshot over; returns whether it makes an update, as the first one always does.
    fn take(&mut self, snapshot: &DirSnapshot) -> bool {
        self.warn_of_sub_folders(snapshot);
        let changed = self.apply(snapshot);
        let first = !mem::replace(&mut self.begun, true);
        changed || first
    }

    /// Says, once for each folder, when it holds no manifest but folders.
    fn warn_of_sub_folders(&mut self, snapshot: &DirSnapshot) {
        for (folder, files) in &snapshot.roots {
            let empty = files.as_ref().is_ok_and(|files| files.is_empty());
            if empty && is_too_high(folder) && self.too_high.insert(folder.clone()) {
                let folder = folder.display();
                warn!(%folder, "no manifests are in this folder; the folders in it are not read");
            }
        }
    }

    /// Takes a snapshot over and says what is wrong with what changed; returns whether anything did.
    fn apply(&mut self, snapshot: &DirSnapshot) -> bool {
        let before = self.manifests.faults();
        let Difference { changed, gone, put } = self.manifests.apply(snapshot);
        let kinds = gone.iter().map(|(kind, _)| *kind).chain(put.iter().map(ManifestObject::kind));
        self.new_authorities |= kinds.into_iter().any(|kind| kind == Kind::ConfigMap);
        for (kind, key) in &gone {
            self.builder.remove(*kind, key);
            (*kind == Kind::ConfigMap).then(|| self.authorities.remove(key));
        }
        put.iter().for_each(|one| one.put_into(&mut self.builder, &mut self.authorities));
        let faults = self.manifests.faults();
        for fault in &faults {
            if changed.contains(&fault.file) || !before.contains(fault) {
                log_fault(fault);
            }
        }
        let faulty =
            |faults: &[ManifestFault], file: &Path| faults.iter().any(|fault| fault.file == file);
        for file in &changed {
            if faulty(&before, file) && !faulty(&faults, file) {
                info!(file = %file.display(), "a file of manifests is in order again");
            }
        }
        !changed.is_empty()
    }

    async fn update(&mut self, noticed: Instant) -> FilesUpdate {
        let delta = slices::settle(&mut self.builder).await;
        let faults = count(&self.manifests.faults());
        let authorities = mem::take(&mut self.new_authorities)
            .then(|| KnownAuthorities { by_config_map: self.authorities.clone(), complete: true });
        let complete = self.manifests.complete();
        FilesUpdate { delta, authorities, complete, faults, noticed }
    }
}

/// How many objects of each kind, and files, there are faults of.
fn count(faults: &[ManifestFault]) -> Vec<(&'static str, usize)> {
    let mut counts: BTreeMap<&str, usize> =
        FILE_KINDS.map(Kind::as_str).into_iter().chain([FILE]).map(|kind| (kind, 0)).collect();
    let faulty: BTreeSet<_> = faults.iter().map(|fault| (&fault.file, &fault.object)).collect();
    for (_, object) in faulty {
        let kind = object.as_deref().and_then(|object| object.split(' ').next());
        let kind = FILE_KINDS.map(Kind::as_str).into_iter().find(|known| Some(*known) == kind);
        *counts.entry(kind.unwrap_or(FILE)).or_default() += 1;
    }
    counts.into_iter().collect()
}

fn log_fault(fault: &ManifestFault) {
    let ManifestFault { file, line, object, field, message: detail } = fault;
    let (object, field) = (object.as_deref(), field.as_deref());
    warn!(
        file = %file.display(),
        line,
        object,
        field,
        detail,
        "a file of manifests is at fault and changes nothing"
    );
}
