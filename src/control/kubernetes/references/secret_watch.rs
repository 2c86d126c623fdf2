//! The watches of the metadata of Secrets.

use std::collections::HashSet;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::stream::SelectAll;
use futures::{Stream, StreamExt};

use super::schedule::ReadSchedule;
use crate::control::kubernetes::health::{WatchHealth, is_forbidden};
use crate::control::kubernetes::list_watch::{WatchEvent, WatchEvents, WatchFailure};
use crate::routing::{Kind, ObjectKey, ObjectRef};

/// A watch that fails for so long is done without.
const FAILING: Duration = Duration::from_secs(60);
/// Failures so far apart are not of one outage: there was a watch between them, even if it has brought nothing.
const APART: Duration = Duration::from_secs(600);

/// The metadata of the Secrets of a namespace, or of all.
pub(in crate::control::kubernetes) struct SecretWatch {
    /// Nothing is all namespaces.
    pub(in crate::control::kubernetes) namespace: Option<String>,
    pub(in crate::control::kubernetes) events: WatchEvents,
    pub(in crate::control::kubernetes) health: WatchHealth,
}

pub(super) type SecretEvents =
    Pin<Box<dyn Stream<Item = (usize, Result<WatchEvent, WatchFailure>)> + Send>>;

/// The state of each watch, and the events of all, with the index of their watch.
pub(super) fn watched(secrets: Vec<SecretWatch>) -> (Vec<WatchedSecrets>, SelectAll<SecretEvents>) {
    let (mut watches, mut all) = (Vec::new(), SelectAll::<SecretEvents>::new());
    for (index, SecretWatch { namespace, events, health }) in secrets.into_iter().enumerate() {
        all.push(Box::pin(events.map(move |event| (index, event))));
        watches.push(WatchedSecrets {
            namespace,
            health,
            seen: HashSet::new(),
            refused: false,
            failing: None,
        });
    }
    (watches, all)
}

/// The state of one watch.
pub(super) struct WatchedSecrets {
    namespace: Option<String>,
    health: WatchHealth,
    /// The needed Secrets of the running list so far.
    seen: HashSet<ObjectKey>,
    /// Whether a missing permission was logged.
    refused: bool,
    /// The first and the last failure of an outage.
    failing: Option<(Instant, Instant)>,
}

impl WatchedSecrets {
    /// Handles an event.
    pub(super) fn follow(
        &mut self,
        event: Result<WatchEvent, WatchFailure>,
        schedule: &mut ReadSchedule,
        now: Instant,
    ) {
        match event {
            Ok(WatchEvent::Init) => self.seen.clear(),
            Ok(WatchEvent::InitApply(object)) => {
                let head = object.head();
                let secret = head.key();
                // Nothing is kept of those that no route names.
                if schedule.has(&ObjectRef::new(Kind::Secret, secret.clone())) {
                    schedule.seen(&secret, head.resource_version, now);
                    self.seen.insert(secret);
                }
            }
            Ok(WatchEvent::InitDone) => {
                (self.refused, self.failing) = (false, None);
                schedule.listed(&self.namespace, &std::mem::take(&mut self.seen), now);
            }
            Ok(WatchEvent::Apply(object)) => {
                self.goes_on(schedule);
                let head = object.head();
                schedule.seen(&head.key(), head.resource_version, now);
            }
            Ok(WatchEvent::Delete(object)) => {
                self.goes_on(schedule);
                schedule.seen(&object.head().key(), None, now);
            }
            Err(failure) if is_forbidden(&failure) => {
                self.forbidden(&failure);
                schedule.unwatched(&self.namespace, now);
            }
            Err(failure) => {
                self.health.failed(&failure);
                if self.fails_for_long(&failure, now) {
                    schedule.unwatched(&self.namespace, now);
                }
            }
        }
    }

    /// Notes an event of a watch, which has missed none since the last list.
    fn goes_on(&mut self, schedule: &mut ReadSchedule) {
        self.failing = None;
        schedule.watched(&self.namespace);
    }

    /// Notes a failure. Returns whether the watch has failed for so long that changes are looked for without it.
    fn fails_for_long(&mut self, failure: &WatchFailure, now: Instant) -> bool {
        // Whatever breaks off was on.
        if failure.is_end_of_watch() {
            return false;
        }
        let same = self.failing.filter(|(_, last)| now.saturating_duration_since(*last) < APART);
        let (since, _) = same.unwrap_or((now, now));
        self.failing = Some((since, now));
        now.saturating_duration_since(since) >= FAILING
    }

    /// Notes that sluice lacks the permission to list and watch. All else goes on without it.
    fn forbidden(&mut self, failure: &WatchFailure) {
        self.health.following();
        let namespace = &self.namespace;
        if !std::mem::replace(&mut self.refused, true) {
            let hint = "the service account needs the verbs list and watch on secrets, of which sluice \
                        reads the metadata; without them, it reads the Secrets that routes name every 20 s";
            tracing::warn!(namespace, error = %failure, hint, "cannot watch the Secrets that routes name");
        }
    }
}
