//! Endpoints, and the connections that they count.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::Ring;
use super::checks::{CheckEntry, CheckParams, CheckVerdict, EndpointChecks};
use super::ejection::{Ejected, Ejection, EjectionRule, FailureRun};
use super::health::{Availability, ENDPOINT_REST, FAMILY_REST, Health, Moment};
use super::slow_start::{Arrival, WeightPart};

/// One address of a backend.
#[derive(Debug)]
pub struct Endpoint {
    /// Where to connect to.
    pub address: SocketAddr,
    active: AtomicUsize,
    quick: AtomicBool,
    health: Health,
    failures: FailureRun,
    /// The health of its address family, shared with the other endpoints of its backend.
    family: Arc<Health>,
    arrival: Arrival,
    checks: EndpointChecks,
}

impl Endpoint {
    /// An endpoint of a backend whose addresses of the same family share `family`. It arrives at `arrival`; `None` is
    /// the start.
    pub(super) fn new(address: SocketAddr, family: Arc<Health>, arrival: Option<Moment>) -> Self {
        Endpoint {
            address,
            active: AtomicUsize::new(0),
            quick: AtomicBool::new(true),
            health: Health::default(),
            failures: FailureRun::default(),
            family,
            arrival: Arrival::new(arrival),
            checks: EndpointChecks::default(),
        }
    }

    /// The part of its weight that it has for a route with these active checks, if endpoints that come back start
    /// slowly over this time.
    pub(super) fn part(
        &self,
        now: Moment,
        slow_start: Option<Duration>,
        check: Option<&Arc<CheckParams>>,
    ) -> WeightPart {
        let Some(over) = slow_start else { return WeightPart::WHOLE };
        let checked = check.map_or(WeightPart::WHOLE, |check| self.checks.part(check, now, over));
        // The part since the later of both.
        self.arrival.part(now, over).min(checked)
    }

    /// How many connections this process has to it, including those that are being opened.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Starts an attempt to connect, and counts the connection until the returned value is dropped. If the
    /// pause after a failure has just ended, the attempt is a trial: other attempts avoid the endpoint until
    /// its result is known. The same holds if the time of an ejection by `rule` has just ended.
    pub fn begin(self: &Arc<Self>, now: Moment, rule: &EjectionRule) -> ActiveConnection {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.begun(now, rule)
    }

    /// The same, if it has fewer than `most` connections.
    pub(super) fn begin_below(
        self: &Arc<Self>,
        most: Option<usize>,
        now: Moment,
        rule: &EjectionRule,
    ) -> Option<ActiveConnection> {
        let Some(most) = most else { return Some(self.begin(now, rule)) };
        let one_more = |active: usize| (active < most).then_some(active + 1);
        self.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(self.begun(now, rule))
    }

    /// An attempt that is counted.
    fn begun(self: &Arc<Self>, now: Moment, rule: &EjectionRule) -> ActiveConnection {
        let (own, family) = (self.health.begin_trial(now), self.family.begin_trial(now));
        let trial = Cell::new(own.or(family));
        let ejection_trial = self.failures.begin_trial(rule, now);
        ActiveConnection { endpoint: Arc::clone(self), trial, ejection_trial, ring: None }
    }

    /// Whether the endpoint answers as fast as on the same machine, so that polling again is cheaper than a
    /// timer.
    pub fn is_quick(&self) -> bool {
        self.quick.load(Ordering::Relaxed)
    }

    /// Sets this, after the last attempt.
    pub fn set_quick(&self, quick: bool) {
        // Written only on a change, so that the cache line stays shared among the workers.
        if self.is_quick() != quick {
            self.quick.store(quick, Ordering::Relaxed);
        }
    }

    /// Its state by these active checks.
    pub fn check_verdict(&self, params: &Arc<CheckParams>) -> CheckVerdict {
        self.checks.verdict(params)
    }

    /// Replaces its active checks. The states are shared with whoever makes the checks.
    pub fn set_checks(&self, checks: &[CheckEntry]) {
        self.checks.set(checks);
    }

    /// Its availability to a route with this rule, apart from active checks.
    pub fn availability(&self, now: Moment, rule: &EjectionRule) -> Availability {
        let resting = match (self.health.availability(now), self.family.availability(now)) {
            (Availability::Resting, _) => Availability::Resting,
            (_, Availability::Resting) => Availability::Unrouted,
            (own, family) => own.max(family),
        };
        match self.failures.judge(rule, now) {
            Ejection::None => resting,
            Ejection::Due => resting.max(Availability::Due),
            Ejection::Ejected => Availability::Ejected,
        }
    }

    /// Records an attempt that was silent for too long, or one that failed. The kernel had a route.
    pub fn failed(&self, now: Moment) {
        self.health.failed(now, ENDPOINT_REST);
        self.family.succeeded();
    }

    /// Records a failed attempt of a route with this rule, and counts it. Returns the ejection that begins
    /// with it.
    pub fn count_failure(&self, now: Moment, rule: &EjectionRule) -> Option<Ejected> {
        self.failed(now);
        self.failures.failed(rule, now)
    }

    /// Records that the kernel has no route to it, and so probably none to other endpoints of its family.
    pub fn unrouted(&self, now: Moment) {
        self.health.failed(now, ENDPOINT_REST);
        self.family.failed(now, FAMILY_REST);
    }

    /// Records that it is forbidden. This does not affect its family.
    pub fn refused(&self, now: Moment) {
        self.health.failed(now, ENDPOINT_REST);
    }

    /// Records a successful attempt.
    pub fn succeeded(&self) {
        self.health.succeeded();
        self.family.succeeded();
        self.failures.connected(Moment::now).into_iter().for_each(|now| self.arrival.begin(now));
    }

    /// Records the first byte from it.
    pub fn answered(&self) {
        self.failures.answered(Moment::now).into_iter().for_each(|now| self.arrival.begin(now));
    }

    /// It is used again, without failures; it arrives `now`, unless that is a start.
    pub(super) fn comes_back(&self, now: Option<Moment>) {
        self.health.succeeded();
        self.failures.clear();
        now.into_iter().for_each(|now| self.arrival.begin(now));
    }

    /// Records that a trial was dropped before its result was known.
    fn abandon_trial(&self, end: Moment) {
        self.health.abandon_trial(end);
        self.family.abandon_trial(end);
    }
}

/// A connection that its endpoint counts as active, until this is dropped.
///
/// If a trial is dropped before its result is known, for example because the client has left, the next
/// attempt is a trial instead.
#[derive(Debug)]
pub struct ActiveConnection {
    endpoint: Arc<Endpoint>,
    /// When the trial ends, if this is one without a result.
    trial: Cell<Option<Moment>>,
    /// When the trial after an ejection ends, if this is one.
    ejection_trial: Option<Moment>,
    ring: Option<Ring>,
}

impl ActiveConnection {
    /// Records the ring of the endpoint, if that had a part in its choice.
    pub(super) fn in_ring(mut self, ring: Option<Ring>) -> Self {
        self.ring = ring;
        self
    }

    /// How near the endpoint is, if that had a part in its choice.
    pub fn ring(&self) -> Option<Ring> {
        self.ring
    }

    /// The endpoint that counts it.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Records the result of the attempt.
    pub fn settle<T>(&self, note: impl FnOnce(&Endpoint) -> T) -> T {
        self.trial.set(None);
        note(&self.endpoint)
    }

    /// Records that the endpoint closed it before the first byte, while `client` waited. Returns the ejection
    /// that begins with it.
    pub fn closed_early(
        &self,
        client: IpAddr,
        now: Moment,
        rule: &EjectionRule,
    ) -> Option<Ejected> {
        let is_trial = self.ejection_trial.is_some();
        self.endpoint.failures.closed_early(client, is_trial, rule, now)
    }
}

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        self.endpoint.active.fetch_sub(1, Ordering::Relaxed);
        if let Some(end) = self.trial.get() {
            self.endpoint.abandon_trial(end);
        }
        if let Some(end) = self.ejection_trial {
            // If there was a result, no trial lasts until then.
            self.endpoint.failures.abandon_trial(end);
        }
    }
}
