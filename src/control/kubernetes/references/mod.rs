//! The Secrets and ConfigMaps that routes name, and the ConfigMaps that their active health checks name.
//!
//! Each is read by name, so sluice needs no permission to list ConfigMaps, and never sees any that no route names. Of
//! Secrets, it lists and watches the metadata alone, which shows when one that a route names has changed. Without the
//! permission for that, it reads Secrets again from time to time, like ConfigMaps.
//!
//! * `schedule` knows what is to be read, and when;
//! * `secret_watch` follows the metadata of Secrets;
//! * `read` reads one object;
//! * `checks` has what is for the health checks.

mod checks;
mod read;
mod schedule;
mod secret_watch;

use std::collections::HashSet;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::Client;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use self::checks::CheckedConfigMaps;
use self::read::ReferenceContent;
use self::schedule::{ReadEnd, ReadJob, ReadSchedule, ReferenceUser};
pub(super) use self::secret_watch::SecretWatch;
use self::secret_watch::{WatchedSecrets, watched};
use super::list_watch::{WatchEvent, WatchFailure};
use crate::control::checks::Authorities;
use crate::control::task_stream::TaskStream;
use crate::control::translate::{Builder, ReferenceChanges};
use crate::routing::{Kind, ObjectRef, TableReader};

/// How long nothing is read until the first table no longer waits for the Secrets and ConfigMaps that its routes name.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits at most.
const LONGEST_PATIENCE: Duration = Duration::from_secs(120);
/// The least time between two looks at a changed table.
const PAUSE: Duration = Duration::from_millis(50);
/// How many contents may wait for the builder.
const MOST_UNTAKEN: usize = 32;
/// The most namespaces whose refusals are remembered, so that each is logged once.
const MOST_REFUSALS: usize = 1000;

/// What active health checks need, and where it is published.
#[derive(Clone, Debug)]
pub struct CheckedReferences {
    /// The routes with these checks.
    pub table: TableReader,
    /// The authorities that are read.
    pub authorities: Authorities,
}

/// Reads what is named, and keeps it up to date, in a task that ends when this is dropped.
#[derive(Debug)]
pub(super) struct ReferenceFollower {
    orders: mpsc::UnboundedSender<ReferenceOrder>,
}

/// What the task is told.
enum ReferenceOrder {
    /// Routes name other objects.
    Change(ReferenceChanges),
    /// The first table is published.
    Published,
}

/// News of an object that routes name.
#[derive(Debug)]
pub(super) struct ReferenceNews {
    object: ObjectRef,
    content: ReferenceContent,
    /// Its place among those that wait for the builder.
    _room: Option<OwnedSemaphorePermit>,
}

impl ReferenceFollower {
    /// Starts it. Needs a tokio runtime.
    pub(super) fn start(
        client: Client,
        secrets: Vec<SecretWatch>,
        checked: CheckedReferences,
    ) -> (Self, TaskStream<ReferenceNews>) {
        let (tell, told) = mpsc::unbounded_channel();
        let (orders, ordered) = mpsc::unbounded_channel();
        let task = tokio::spawn(follow(client, secrets, checked, ordered, tell));
        (ReferenceFollower { orders }, TaskStream::new(told, task))
    }

    /// Adds and removes what routes name.
    pub(super) fn change(&mut self, changes: ReferenceChanges) {
        if changes != ReferenceChanges::default() {
            // Fails only when the runtime ends.
            let _ = self.orders.send(ReferenceOrder::Change(changes));
        }
    }

    /// Nothing waits for the reads any more: from now on, their rate is bounded.
    pub(super) fn published(&mut self) {
        let _ = self.orders.send(ReferenceOrder::Published);
    }
}

impl ReferenceNews {
    /// Whether it is about what an object has.
    pub(super) fn is_read(&self) -> bool {
        !matches!(self.content, ReferenceContent::Unread { .. })
    }

    /// Tells it to the builder.
    pub(super) fn tell(&self, builder: &mut Builder) {
        let key = &self.object.key;
        match &self.content {
            ReferenceContent::Secret(data) => builder.put_secret(key, data),
            ReferenceContent::ConfigMap(data) => builder.put_config_map(key, data.as_ref()),
            ReferenceContent::Missing => builder.remove(self.object.kind, key),
            ReferenceContent::Unread { cause, .. } => {
                builder.reference_unread(&self.object, cause);
            }
        }
    }
}

/// Ends when the first table is to wait no longer: `read` is notified when an object was read.
pub(super) async fn impatience(read: Arc<Notify>) {
    let reads = async { while timeout(PATIENCE, read.notified()).await.is_ok() {} };
    // However it ends, it has been long enough.
    let _ = timeout(LONGEST_PATIENCE, reads).await;
}

async fn follow(
    client: Client,
    secrets: Vec<SecretWatch>,
    checked: CheckedReferences,
    mut orders: mpsc::UnboundedReceiver<ReferenceOrder>,
    tell: mpsc::UnboundedSender<ReferenceNews>,
) {
    let table_changed = changes_of(&checked.table);
    let (watches, mut events) = watched(secrets);
    let mut following = Following::new(checked, watches, tell);
    let mut reads =
        Reads { client, room: Arc::new(Semaphore::new(MOST_UNTAKEN)), running: JoinSet::new() };
    // The table is looked at when it has changed, but not all the time.
    let mut look_at = Some(now());
    loop {
        let at = now();
        if look_at.is_some_and(|due| due <= at) {
            look_at = None;
            following.look(at);
        }
        while let Some(job) = following.schedule.next(at) {
            reads.begin(job);
        }
        let due = [following.schedule.next_due(at), look_at].into_iter().flatten().min();
        tokio::select! {
            order = orders.recv() => match order {
                Some(ReferenceOrder::Change(changes)) => following.change(&changes, now()),
                Some(ReferenceOrder::Published) => following.schedule.bound_rate(now()),
                None => return,
            },
            () = table_changed.notified(), if look_at.is_none() => look_at = Some(at + PAUSE),
            Some((watch, event)) = events.next() => following.follow(watch, event, now()),
            Some(done) = reads.running.join_next() => match done.map_err(JoinError::try_into_panic) {
                Ok(done) => following.finish(done),
                Err(Ok(panic)) => resume_unwind(panic),
                Err(Err(_)) => return,
            },
            () = until(due) => {}
        }
    }
}

/// Notified when the table has changed.
fn changes_of(table: &TableReader) -> Arc<Notify> {
    let changed = Arc::new(Notify::new());
    let notify = Arc::downgrade(&changed);
    table.on_change(move |_| notify.upgrade().into_iter().for_each(|notify| notify.notify_one()));
    changed
}

/// The reads that run.
struct Reads {
    client: Client,
    /// Places for what waits for the builder.
    room: Arc<Semaphore>,
    running: JoinSet<DoneRead>,
}

/// A read that has ended.
struct DoneRead {
    job: ReadJob,
    end: ReadEnd,
    content: ReferenceContent,
    room: Option<OwnedSemaphorePermit>,
}

impl Reads {
    fn begin(&mut self, job: ReadJob) {
        let (client, room) = (self.client.clone(), Arc::clone(&self.room));
        self.running.spawn(async move {
            // Never closed.
            let room = room.acquire_owned().await.ok();
            let (end, content) = read::read(&client, &job.object).await;
            DoneRead { job, end, content, room }
        });
    }
}

/// The time by the clock of the runtime.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Sleeps until `due`; for ever without a time.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// The state of the task.
struct Following {
    schedule: ReadSchedule,
    table: TableReader,
    checked: CheckedConfigMaps,
    watches: Vec<WatchedSecrets>,
    /// Where sluice lacks a permission to read.
    refused: HashSet<(Kind, Box<str>)>,
    tell: mpsc::UnboundedSender<ReferenceNews>,
}

impl Following {
    fn new(
        checked: CheckedReferences,
        watches: Vec<WatchedSecrets>,
        tell: mpsc::UnboundedSender<ReferenceNews>,
    ) -> Self {
        let CheckedReferences { table, authorities } = checked;
        Following {
            schedule: ReadSchedule::new(),
            table,
            checked: CheckedConfigMaps::new(authorities),
            watches,
            refused: HashSet::new(),
            tell,
        }
    }

    /// Looks at the table for the ConfigMaps that checks need.
    fn look(&mut self, now: Instant) {
        let changes = self.checked.name(&self.table.table());
        let object = |key| ObjectRef::new(Kind::ConfigMap, key);
        for key in changes.unwanted {
            self.schedule.unwant(&object(key), ReferenceUser::Checks, now);
        }
        for key in changes.wanted {
            self.schedule.want(&object(key), ReferenceUser::Checks, now);
        }
        self.checked.publish();
    }

    /// Adds and removes what routes name.
    fn change(&mut self, changes: &ReferenceChanges, now: Instant) {
        for object in &changes.unwanted {
            self.schedule.unwant(object, ReferenceUser::Routes, now);
        }
        for object in &changes.wanted {
            self.schedule.want(object, ReferenceUser::Routes, now);
        }
    }

    /// Handles the end of a read.
    fn finish(&mut self, done: DoneRead) {
        let DoneRead { job, end, content, room } = done;
        if !self.schedule.finish(&job, end, now()) {
            return;
        }
        self.log(&job.object, &content);
        if let ReferenceContent::Unread { forbidden, .. } = content
            && !self.schedule.tells_of_failure(&job.object, forbidden)
        {
            return;
        }
        if self.schedule.is_wanted_by(&job.object, ReferenceUser::Checks) {
            self.checked.take(&job.object.key, &content);
            self.checked.publish();
        }
        if self.schedule.is_wanted_by(&job.object, ReferenceUser::Routes) {
            // Fails only when nobody listens any more.
            let _ = self.tell.send(ReferenceNews { object: job.object, content, _room: room });
        }
    }

    /// Handles an event of a watch.
    fn follow(&mut self, watch: usize, event: Result<WatchEvent, WatchFailure>, now: Instant) {
        if let Some(watch) = self.watches.get_mut(watch) {
            watch.follow(event, &mut self.schedule, now);
        }
    }

    /// Logs the permissions that sluice lacks, once for each kind and namespace.
    fn log(&mut self, object: &ObjectRef, content: &ReferenceContent) {
        let ObjectRef { kind, key } = object;
        let (namespace, name) = (key.namespace(), key.name());
        let place = (*kind, Box::from(namespace));
        let ReferenceContent::Unread { cause, detail, forbidden } = content else {
            self.refused.remove(&place);
            return;
        };
        let is_news =
            *forbidden && self.refused.len() < MOST_REFUSALS && self.refused.insert(place);
        if is_news {
            tracing::warn!(%kind, namespace, name, detail, hint = cause, "cannot read what a route names");
        } else {
            tracing::debug!(%kind, namespace, name, detail, cause, "cannot read what a route names");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
