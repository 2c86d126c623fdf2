//! Which Secrets and ConfigMaps are read, and when. Pure: the caller passes the time.
//!
//! A Secret is read when a route first names it, and when its metadata is seen to have another version. Whatever is not
//! watched is read again from time to time. Namespaces take turns, and an object that changes all the time is read once
//! a second.

mod removed_reads;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use removed_reads::RemovedReads;

use crate::control::random::jitter;
use crate::control::token_bucket::TokenBucket;
use crate::control::turns::{DistinctQueue, NamespaceQueue, Turns};
use crate::routing::{Kind, ObjectKey, ObjectRef};

/// How long after it was read an object that is not watched is read again, or a little sooner.
pub(super) const AGAIN: Duration = Duration::from_secs(20);
/// The same after a failure.
const AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// The longest pause after several failures in a row.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The least time between two reads of an object.
const GAP: Duration = Duration::from_secs(1);
/// The most reads at a time, and those of them for one namespace.
const AT_ONCE: usize = 8;
const AT_ONCE_OF_A_NAMESPACE: usize = 4;
/// So many failures in a row are told of an object that was read before. Fewer say little: what was read is in use.
const TOLD_FAILURES: u32 = 3;
/// How many reads may begin at once, and the time after which another one may.
const BURST: u32 = 1000;
const PER_READ: Duration = Duration::from_millis(10);

/// Who needs an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ReferenceUser {
    /// Routes that serve TLS.
    Routes,
    /// Active health checks.
    Checks,
}

/// A read that begins.
#[derive(Debug)]
pub(super) struct ReadJob {
    pub(super) object: ObjectRef,
    /// The id of the object's entry. The entry may have been removed, and a new one added.
    id: u64,
}

/// How a read has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReadEnd {
    /// The object has this version.
    Read(Option<String>),
    /// It does not exist.
    Missing,
    /// It could not be read.
    Failed,
}

/// All objects.
#[derive(Debug)]
pub(super) struct ReadSchedule {
    objects: HashMap<ObjectRef, FollowedObject>,
    /// When the last reads of removed objects began.
    left: RemovedReads,
    /// The namespaces whose Secrets are watched; `None` is all.
    watched: HashSet<Option<String>>,
    /// The planned reads by time, each once.
    due: BTreeMap<(Instant, u64), ObjectRef>,
    turns: Turns<ReadQueue>,
    running: usize,
    /// Bounds how often reads begin. The first table waits for many of them, and is not kept waiting by this.
    rate: Option<TokenBucket>,
    last_id: u64,
}

#[derive(Debug)]
struct FollowedObject {
    id: u64,
    users: HashSet<ReferenceUser>,
    stage: ReadStage,
    /// What a watch has shown since the last read began.
    seen: Option<SeenVersion>,
    /// The version of the last read.
    version: Option<String>,
    begun: Option<Instant>,
    /// How many times in a row it could not be read, or did not exist.
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadStage {
    /// It is watched, and the last read has its newest version.
    Current,
    Due(Instant),
    Waiting,
    Running,
}

/// The version of an object that a watch has shown; `None` if it is gone.
type SeenVersion = Option<String>;

#[derive(Debug, Default)]
struct ReadQueue {
    waiting: DistinctQueue<ObjectRef>,
    running: usize,
}

impl ReadSchedule {
    pub(super) fn new() -> Self {
        ReadSchedule {
            objects: HashMap::new(),
            left: RemovedReads::default(),
            watched: HashSet::new(),
            due: BTreeMap::new(),
            turns: Turns::default(),
            running: 0,
            rate: None,
            last_id: 0,
        }
    }

    /// A user needs an object.
    pub(super) fn want(&mut self, object: &ObjectRef, user: ReferenceUser, now: Instant) {
        match self.objects.get_mut(object) {
            Some(followed) => {
                if followed.users.insert(user) {
                    // The new user has not heard of it, so nothing counts as read before.
                    followed.version = None;
                    self.plan(object, now);
                }
            }
            None => self.add(object, user, now),
        }
    }

    /// A user no longer needs an object.
    pub(super) fn unwant(&mut self, object: &ObjectRef, user: ReferenceUser, now: Instant) {
        let Some(followed) = self.objects.get_mut(object) else { return };
        followed.users.remove(&user);
        if followed.users.is_empty() {
            if let (ReadStage::Due(due), id) = (followed.stage, followed.id) {
                self.due.remove(&(due, id));
            }
            let begun = self.objects.remove(object).and_then(|followed| followed.begun);
            self.left.add(object, begun, now);
        }
    }

    /// A watch has shown this version of a Secret, or, with `None`, that it is gone.
    pub(super) fn seen(&mut self, secret: &ObjectKey, version: SeenVersion, now: Instant) {
        let object = ObjectRef::new(Kind::Secret, secret.clone());
        let Some(followed) = self.objects.get_mut(&object) else { return };
        if followed.stage == ReadStage::Running {
            followed.seen = Some(version);
        } else if followed.version != version {
            self.plan(&object, now);
        }
    }

    /// All Secrets of a namespace, or with `None` of all, have been listed. Those that are not among `seen` are gone.
    /// What could not be read is read again soon.
    pub(super) fn listed(
        &mut self,
        namespace: &Option<String>,
        seen: &HashSet<ObjectKey>,
        now: Instant,
    ) {
        self.watched(namespace);
        for secret in self.secrets(namespace) {
            let Some(followed) = self.objects.get(&secret) else { continue };
            let is_there = seen.contains(&secret.key);
            let is_gone = followed.version.is_some() && !is_there;
            if is_gone || followed.failures > 0 && is_there {
                self.plan(&secret, now);
            }
        }
    }

    /// The Secrets of a namespace, or with `None` of all, are watched.
    pub(super) fn watched(&mut self, namespace: &Option<String>) {
        if !self.watched.contains(namespace) {
            self.watched.insert(namespace.clone());
        }
    }

    /// The Secrets of a namespace, or with `None` of all, cannot be watched. They are read again from time to time.
    pub(super) fn unwatched(&mut self, namespace: &Option<String>, now: Instant) {
        self.watched.remove(namespace);
        for secret in self.secrets(namespace) {
            let is_current = |followed: &FollowedObject| followed.stage == ReadStage::Current;
            if self.objects.get(&secret).is_some_and(is_current) {
                self.set_due(&secret, now + jitter(AGAIN));
            }
        }
    }

    /// From now on, the rate of the reads is bounded.
    pub(super) fn bound_rate(&mut self, now: Instant) {
        self.rate.get_or_insert_with(|| TokenBucket::full(BURST, PER_READ, now));
    }

    fn pause(&self, now: Instant) -> Duration {
        self.rate.as_ref().map_or(Duration::ZERO, |rate| rate.pause(now))
    }

    /// Whether an object is needed.
    pub(super) fn has(&self, object: &ObjectRef) -> bool {
        self.objects.contains_key(object)
    }

    /// Whether a user needs an object.
    pub(super) fn is_wanted_by(&self, object: &ObjectRef, user: ReferenceUser) -> bool {
        self.objects.get(object).is_some_and(|followed| followed.users.contains(&user))
    }

    /// Whether those who need an object get the failure to read it: where they have what was read of it before, or where
    /// the first table waits for it, only after several in a row. A permission that is `forbidden` is not back so soon.
    pub(super) fn tells_of_failure(&self, object: &ObjectRef, forbidden: bool) -> bool {
        let waits = self.rate.is_none() && !forbidden;
        self.objects.get(object).is_some_and(|followed| {
            let can_wait = followed.version.is_some() || waits;
            !can_wait || !(1..TOLD_FAILURES).contains(&followed.failures)
        })
    }

    /// The next read to begin.
    pub(super) fn next(&mut self, now: Instant) -> Option<ReadJob> {
        self.left.forget(now);
        while let Some(entry) = self.due.first_entry()
            && entry.key().0 <= now
        {
            let object = entry.remove();
            if let Some(followed) = self.objects.get_mut(&object) {
                followed.stage = ReadStage::Waiting;
            }
            self.turns
                .change(object.key.namespace(), |queue| queue.waiting.push(object.clone(), ()));
        }
        while self.running < AT_ONCE && self.pause(now).is_zero() {
            let (namespace, object) = self.turns.next(ReadQueue::begin)?;
            let followed = self.objects.get_mut(&object);
            let waiting = followed.filter(|followed| followed.stage == ReadStage::Waiting);
            let Some(followed) = waiting else {
                self.turns.change(&namespace, |queue| queue.running -= 1);
                continue;
            };
            (followed.stage, followed.begun, followed.seen) = (ReadStage::Running, Some(now), None);
            let id = followed.id;
            self.running += 1;
            self.rate.iter_mut().for_each(|rate| rate.take(now));
            return Some(ReadJob { object, id });
        }
        None
    }

    /// When [`ReadSchedule::next`] may return another read, if no other ends before.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let due = self.due.keys().next().map(|(due, _)| *due);
        let pause = self.pause(now);
        let refilled = (!self.turns.is_empty() && !pause.is_zero()).then(|| now + pause);
        [due, refilled].into_iter().flatten().min()
    }

    /// Records the end of a read. Returns whether its object is still needed.
    pub(super) fn finish(&mut self, job: &ReadJob, end: ReadEnd, now: Instant) -> bool {
        self.running = self.running.saturating_sub(1);
        let namespace = job.object.key.namespace();
        self.turns.change(namespace, |queue| queue.running = queue.running.saturating_sub(1));
        let is_watched = self.is_watched(&job.object);
        let Some(followed) = self.objects.get_mut(&job.object) else { return false };
        if followed.id != job.id {
            return false;
        }
        let version = match &end {
            ReadEnd::Read(version) => Some(version.clone()),
            ReadEnd::Missing => Some(None),
            ReadEnd::Failed => None,
        };
        let is_read = matches!(end, ReadEnd::Read(_));
        followed.failures = if is_read { 0 } else { followed.failures.saturating_add(1) };
        let is_outdated = followed.seen.take().is_some_and(|seen| version.as_ref() != Some(&seen));
        if let Some(version) = version {
            followed.version = version;
        }
        let pause = match self.rate {
            Some(_) => AGAIN_AFTER_FAILURE.saturating_mul(followed.failures).min(LONGEST_PAUSE),
            None => GAP,
        };
        followed.stage = ReadStage::Current;
        match end {
            _ if is_outdated => self.plan(&job.object, now),
            ReadEnd::Read(_) | ReadEnd::Missing if is_watched => {}
            ReadEnd::Read(_) => self.set_due(&job.object, now + jitter(AGAIN)),
            ReadEnd::Missing | ReadEnd::Failed => self.set_due(&job.object, now + jitter(pause)),
        }
        true
    }

    fn add(&mut self, object: &ObjectRef, user: ReferenceUser, now: Instant) {
        self.last_id += 1;
        let followed = FollowedObject {
            id: self.last_id,
            users: [user].into(),
            stage: ReadStage::Current,
            seen: None,
            version: None,
            begun: self.left.take(object),
            failures: 0,
        };
        self.objects.insert(object.clone(), followed);
        self.plan(object, now);
    }

    /// Plans a read as soon as the last one is long enough ago.
    fn plan(&mut self, object: &ObjectRef, now: Instant) {
        let Some(followed) = self.objects.get_mut(object) else { return };
        let soon = followed.begun.map_or(now, |begun| now.max(begun + GAP));
        match followed.stage {
            ReadStage::Due(due) if due <= soon => {}
            ReadStage::Waiting => {}
            // Whatever it brings, it is read once more.
            ReadStage::Running => followed.seen = Some(Some(String::new())),
            ReadStage::Current | ReadStage::Due(_) => self.set_due(object, soon),
        }
    }

    fn set_due(&mut self, object: &ObjectRef, due: Instant) {
        let Some(followed) = self.objects.get_mut(object) else { return };
        if let ReadStage::Due(before) = followed.stage {
            self.due.remove(&(before, followed.id));
        }
        followed.stage = ReadStage::Due(due);
        self.due.insert((due, followed.id), object.clone());
    }

    fn is_watched(&self, object: &ObjectRef) -> bool {
        object.kind == Kind::Secret
            && (self.watched.contains(&None)
                || self.watched.contains(&Some(object.key.namespace().to_owned())))
    }

    /// The needed Secrets of a namespace, or with `None` of all.
    fn secrets(&self, namespace: &Option<String>) -> Vec<ObjectRef> {
        let is_there = |object: &&ObjectRef| {
            object.kind == Kind::Secret
                && namespace.as_ref().is_none_or(|namespace| namespace == object.key.namespace())
        };
        self.objects.keys().filter(is_there).cloned().collect()
    }
}

impl ReadQueue {
    fn begin(&mut self) -> Option<ObjectRef> {
        if self.running >= AT_ONCE_OF_A_NAMESPACE {
            return None;
        }
        let (object, ()) = self.waiting.pop()?;
        self.running += 1;
        Some(object)
    }
}

impl NamespaceQueue for ReadQueue {
    fn is_idle(&self) -> bool {
        self.waiting.is_idle() && self.running == 0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
