//! The statuses of all routes, shared by the builder, the admin port and the status writer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{CertificateStatus, Condition, HostnameMove, RouteStatus};
use crate::routing::ObjectRef;

/// The statuses of all routes of this installation. Clones share them. A change costs what it
/// changes.
#[derive(Clone, Debug, Default)]
pub struct Statuses(Arc<Mutex<SharedStatuses>>);

#[derive(Debug, Default)]
struct SharedStatuses {
    by_route: BTreeMap<ObjectRef, Arc<RouteStatus>>,
    /// What the checks have seen of the certificates of routes.
    certificates: BTreeMap<ObjectRef, Condition>,
    /// Whether there was any [`StatusGuard::update`].
    begun: bool,
    follower: Option<UnboundedSender<StatusEvent>>,
}

/// A change, as the follower receives it.
#[derive(Debug, PartialEq)]
pub(super) enum StatusEvent {
    /// The routes whose status has changed.
    Changed(Vec<ObjectRef>),
    /// The hostnames that changed their owner.
    Moved(Vec<HostnameMove>),
}

/// The locked statuses. The lock is held while the table is changed or read, so that both are consistent.
#[derive(Debug)]
pub struct StatusGuard<'a>(MutexGuard<'a, SharedStatuses>);

impl StatusGuard<'_> {
    /// Replaces the statuses of the routes that were processed again by those of `now`; the others are
    /// deleted. Returns the former statuses.
    pub fn update<'k>(
        &mut self,
        looked_at: impl Iterator<Item = &'k ObjectRef>,
        now: &[Arc<RouteStatus>],
    ) -> Vec<Arc<RouteStatus>> {
        let shared = &mut *self.0;
        let before: Vec<_> = looked_at.filter_map(|key| shared.by_route.remove(key)).collect();
        let mut changed: BTreeMap<&ObjectRef, &Arc<RouteStatus>> =
            before.iter().map(|status| (&status.object, status)).collect();
        let now: Vec<_> = now.iter().map(|status| shared.with_certificate(status)).collect();
        for status in &now {
            let former = changed.insert(&status.object, status);
            if former.is_some_and(|former| former.agrees_with(status)) {
                changed.remove(&status.object);
            }
            shared.by_route.insert(status.object.clone(), Arc::clone(status));
        }
        shared.begun = true;
        let changed = changed.into_keys().cloned().collect();
        shared.tell(StatusEvent::Changed(changed));
        before
    }

    /// Replaces what the checks have seen of the certificates of routes. Routes that are missing were not seen.
    pub fn set_certificates(&mut self, certificates: BTreeMap<ObjectRef, Condition>) {
        let shared = &mut *self.0;
        let before = std::mem::replace(&mut shared.certificates, certificates);
        let mut changed = Vec::new();
        for route in before.keys().chain(shared.certificates.keys()) {
            let (former, now) = (before.get(route), shared.certificates.get(route));
            let status = shared.by_route.get_mut(route).filter(|_| former != now);
            let Some(status) = status.filter(|one| one.certificate != CertificateStatus::NotAsked)
            else {
                continue;
            };
            let certificate =
                now.cloned().map_or(CertificateStatus::Unknown, CertificateStatus::Known);
            // A route that both have is met twice.
            if status.certificate == certificate {
                continue;
            }
            *status = Arc::new(RouteStatus { certificate, ..(**status).clone() });
            changed.push(route.clone());
        }
        if !changed.is_empty() {
            shared.tell(StatusEvent::Changed(changed));
        }
    }

    /// Reports hostnames that changed their owner to the follower.
    pub fn moved(&mut self, moves: Vec<HostnameMove>) {
        if !moves.is_empty() {
            self.0.tell(StatusEvent::Moved(moves));
        }
    }

    /// All statuses, in the order of their keys.
    pub fn snapshot(&self) -> Vec<Arc<RouteStatus>> {
        self.0.by_route.values().cloned().collect()
    }
}

impl Statuses {
    /// Locks the statuses.
    pub fn hold(&self) -> StatusGuard<'_> {
        StatusGuard(self.lock())
    }

    /// The status of one route; `None` if it is deleted or not of this installation.
    pub fn get(&self, key: &ObjectRef) -> Option<Arc<RouteStatus>> {
        self.lock().by_route.get(key).cloned()
    }

    /// How many routes there are.
    pub fn count(&self) -> usize {
        self.lock().by_route.len()
    }

    /// From now on tells which routes each [`StatusGuard::update`] changes, be it none; if there was one
    /// already, none at once. There is one follower: the last who asked.
    pub(super) fn follow(&self) -> UnboundedReceiver<StatusEvent> {
        let (follower, changes) = unbounded_channel();
        let mut shared = self.lock();
        shared.follower = Some(follower);
        if shared.begun {
            shared.tell(StatusEvent::Changed(Vec::new()));
        }
        changes
    }

    /// Nothing panics with the lock held, so the statuses are consistent.
    fn lock(&self) -> MutexGuard<'_, SharedStatuses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedStatuses {
    /// A status with what is known of certificates, if its route asks for it.
    fn with_certificate(&self, status: &Arc<RouteStatus>) -> Arc<RouteStatus> {
        match (&status.certificate, self.certificates.get(&status.object)) {
            (CertificateStatus::Unknown, Some(known)) => Arc::new(RouteStatus {
                certificate: CertificateStatus::Known(known.clone()),
                ..(**status).clone()
            }),
            _ => Arc::clone(status),
        }
    }

    fn tell(&mut self, news: StatusEvent) {
        let Some(follower) = &self.follower else { return };
        // Fails when nobody follows any more.
        if follower.send(news).is_err() {
            self.follower = None;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{key, status};
    use super::*;

    fn update(statuses: &Statuses, looked_at: &[&str], now: &[RouteStatus]) -> Vec<String> {
        let looked_at: Vec<ObjectRef> = looked_at.iter().map(|name| key(name)).collect();
        let now: Vec<_> = now.iter().cloned().map(Arc::new).collect();
        let before = statuses.hold().update(looked_at.iter(), &now);
        before.iter().map(|status| status.object.name().to_owned()).collect()
    }

    #[test]
    fn what_was_looked_at_again_is_taken_over_and_the_rest_stays() {
        let statuses = Statuses::default();
        let first = [status("a", None), status("b", None), status("c", None)];
        assert_eq!(update(&statuses, &["a", "b", "c"], &first), [""; 0]);
        let now = [status("b", Some("bad")), status("d", None)];
        assert_eq!(update(&statuses, &["b", "c", "d"], &now), ["b", "c"]);
        let names: Vec<_> =
            statuses.hold().snapshot().iter().map(|one| one.object.name().to_owned()).collect();
        assert_eq!(names, ["a", "b", "d"]);
        assert!(!statuses.get(&key("b")).unwrap().conditions[0].status);
        assert_eq!(statuses.get(&key("c")), None);
        assert_eq!(statuses.count(), 3);
    }

    #[test]
    fn what_checks_have_seen_is_told_of_routes_that_ask_for_it_and_outlives_their_changes() {
        let statuses = Statuses::default();
        let asking = |name, bad| RouteStatus {
            certificate: CertificateStatus::Unknown,
            ..status(name, bad)
        };
        update(&statuses, &["a", "b"], &[asking("a", None), status("b", None)]);
        let mut changes = statuses.follow();
        changes.try_recv().unwrap();
        let expired = Condition {
            kind: super::super::BACKEND_CERTIFICATE,
            status: false,
            reason: "Bad",
            message: "expired".to_owned(),
        };
        let seen = || ["a", "b", "gone"].map(|name| (key(name), expired.clone())).into();
        statuses.hold().set_certificates(seen());
        assert_eq!(changes.try_recv().unwrap(), changed(&[key("a")]));
        statuses.hold().set_certificates(seen());
        assert!(changes.try_recv().is_err());
        let of = |name| statuses.get(&key(name)).unwrap().certificate.clone();
        let known = CertificateStatus::Known(expired.clone());
        assert_eq!((of("a"), of("b")), (known.clone(), CertificateStatus::NotAsked));
        // The same as before, then another status of the same route.
        update(&statuses, &["a"], &[asking("a", None)]);
        assert_eq!(changes.try_recv().unwrap(), changed(&[]));
        update(&statuses, &["a"], &[asking("a", Some("bad"))]);
        assert_eq!(changes.try_recv().unwrap(), changed(&[key("a")]));
        assert_eq!(of("a"), known);
        statuses.hold().set_certificates(BTreeMap::new());
        assert_eq!(of("a"), CertificateStatus::Unknown);
    }

    fn changed(keys: &[ObjectRef]) -> StatusEvent {
        StatusEvent::Changed(keys.to_vec())
    }

    #[test]
    fn who_follows_late_hears_at_once_that_there_are_statuses() {
        let statuses = Statuses::default();
        assert!(statuses.follow().try_recv().is_err());
        update(&statuses, &[], &[]);
        let mut changes = statuses.follow();
        assert_eq!(changes.try_recv().unwrap(), changed(&[]));
        assert!(changes.try_recv().is_err());
    }

    #[test]
    fn a_follower_hears_of_what_changed_and_of_nothing_else() {
        let statuses = Statuses::default();
        let mut changes = statuses.follow();
        update(&statuses, &["a", "b", "c"], &[status("a", None), status("b", None)]);
        assert_eq!(changes.try_recv().unwrap(), changed(&[key("a"), key("b")]));
        // Looked at again; only b is different, for another version of an object is no news.
        let newer = RouteStatus { resource_version: Some("2".into()), ..status("a", None) };
        update(&statuses, &["a", "b"], &[newer.clone(), status("b", Some("bad"))]);
        assert_eq!(changes.try_recv().unwrap(), changed(&[key("b")]));
        assert_eq!(*statuses.get(&key("a")).unwrap(), newer);
        update(&statuses, &["a"], &[]);
        assert_eq!(changes.try_recv().unwrap(), changed(&[key("a")]));
        let other = RouteStatus { uid: Some("other".into()), ..status("b", Some("bad")) };
        update(&statuses, &["b"], &[other]);
        assert_eq!(changes.try_recv().unwrap(), changed(&[key("b")]));
    }
}
