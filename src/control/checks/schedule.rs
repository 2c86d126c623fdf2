//! When each check is made. Pure: the caller passes the time.
//!
//! A check is due after its interval, then waits for a turn of one of its namespaces and for the budget of the process.
//! If the budget is too small for all checks, their intervals become longer.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::certificates::{CertificateView, ServerCertificate};
use super::check_queues::CheckQueues;
use super::plan::{CheckKey, CheckedEndpoints, PlannedCheck};
use super::result_run::ResultRun;
use crate::control::random::random;
use crate::routing::{CheckState, CheckVerdict, Interned, Moment};

/// The time between two checks while results differ from the state.
const TRANSITION: Duration = Duration::from_secs(1);
/// The least time between two checks while no client uses the backend.
const UNUSED: Duration = Duration::from_secs(60);
/// The first checks of all endpoints are spread over this time.
const FIRST: Duration = Duration::from_millis(100);

/// A check to make.
#[derive(Debug)]
pub(super) struct CheckJob {
    pub(super) key: CheckKey,
    /// The namespace whose turn it uses.
    namespace: Arc<str>,
    id: u64,
}

/// All checks, with their states and times.
#[derive(Debug)]
pub(super) struct CheckSchedule {
    ids: HashMap<CheckKey, u64>,
    checks: HashMap<u64, ScheduledCheck>,
    endpoints: CheckedEndpoints,
    /// The checks that wait for their time, each once.
    due: BTreeSet<(Instant, u64)>,
    /// The checks that wait for a turn and the budget, each once, by the time when they were due.
    waiting: BTreeSet<(Instant, u64)>,
    queues: CheckQueues,
    budget: Budget,
    last_id: u64,
    /// The certificates that were seen: most endpoints show the same as others.
    certificates: Interned<ServerCertificate>,
}

#[derive(Debug)]
struct ScheduledCheck {
    planned: PlannedCheck,
    state: Arc<CheckState>,
    run: ResultRun,
    /// What was last seen of the certificate.
    seen: Option<CertificateView>,
    /// When it is due, or was due the last time.
    due: Instant,
    /// When it last began.
    begun: Instant,
}

impl CheckSchedule {
    /// Without checks. At most so many begin in a second, and `at_once` run at the same time.
    pub(super) fn new(per_second: NonZeroU32, at_once: usize, now: Instant) -> Self {
        CheckSchedule {
            ids: HashMap::new(),
            checks: HashMap::new(),
            endpoints: CheckedEndpoints::default(),
            due: BTreeSet::new(),
            waiting: BTreeSet::new(),
            queues: CheckQueues::new(at_once),
            budget: Budget { pause: Duration::from_secs(1) / per_second.get(), next: now },
            last_id: 0,
            certificates: Interned::default(),
        }
    }

    /// Makes exactly these checks. Those that were made before keep their states and times.
    pub(super) fn replace(&mut self, checks: Vec<PlannedCheck>, now: Instant) {
        let mut before = std::mem::take(&mut self.ids);
        for planned in checks {
            let id = before.remove(&planned.key).unwrap_or_else(|| self.new_id());
            self.ids.insert(planned.key.clone(), id);
            match self.checks.get_mut(&id) {
                Some(check) => check.planned = planned,
                None => self.add(id, planned, now),
            }
        }
        for id in before.into_values() {
            // If it runs, its id means nothing then.
            if let Some(check) = self.checks.remove(&id) {
                self.due.remove(&(check.due, id));
                self.waiting.remove(&(check.due, id));
            }
        }
        let checks = &self.checks;
        self.queues.retain(|id| checks.contains_key(&id));
        self.endpoints.attach(self.checks.values().map(|check| (&check.planned, &check.state)));
    }

    /// The next check to make now.
    pub(super) fn next(&mut self, now: Instant) -> Option<CheckJob> {
        while let Some((due, id)) = self.due.first().copied()
            && due <= now
        {
            self.due.remove(&(due, id));
            if let Some(check) = self.checks.get_mut(&id) {
                if check.rests(now) {
                    check.due = now + spread(check.planned.key.params.interval);
                    self.due.insert((check.due, id));
                    continue;
                }
                self.waiting.insert((due, id));
                let namespaces = check.planned.namespaces.iter();
                namespaces.for_each(|namespace| self.queues.add(namespace, id));
            }
        }
        while self.budget.allows(now) {
            let (namespace, id) = self.queues.next()?;
            let waiting = &mut self.waiting;
            let waited = |check: &&mut ScheduledCheck| waiting.remove(&(check.due, id));
            let Some(check) = self.checks.get_mut(&id).filter(waited) else {
                // It was made in the turn of another namespace.
                self.queues.finish(&namespace);
                continue;
            };
            self.budget.spend(now);
            check.begun = now;
            return Some(CheckJob { key: check.planned.key.clone(), namespace, id });
        }
        None
    }

    /// When [`CheckSchedule::next`] may return a check, if no other check ends before.
    pub(super) fn wake(&self) -> Option<Instant> {
        let waiting = self.queues.has_next().then(|| self.budget.allows_at());
        let due = self.due.first().map(|(due, _)| *due);
        waiting.into_iter().chain(due).min()
    }

    /// Records the end of a check, and whether the endpoint passed, if the check has shown that. Returns the new
    /// verdict about its address, if that changes.
    pub(super) fn finish(
        &mut self,
        job: &CheckJob,
        passed: Option<bool>,
        now: Instant,
    ) -> Option<CheckVerdict> {
        self.queues.finish(&job.namespace);
        let check = self.checks.get_mut(&job.id)?;
        let changed = passed.and_then(|passed| check.take(passed, now));
        check.due = check.next_due(now);
        self.due.insert((check.due, job.id));
        changed
    }

    /// Records what a check has seen of a certificate. Returns whether that is new.
    pub(super) fn saw(&mut self, job: &CheckJob, mut seen: CertificateView) -> bool {
        seen.certificate = seen.certificate.map(|one| self.certificates.shared(one));
        let Some(check) = self.checks.get_mut(&job.id) else { return false };
        let is_new = check.seen.as_ref() != Some(&seen);
        check.seen = Some(seen);
        is_new
    }

    /// Forgets the results of a check, which cannot be judged any more.
    pub(super) fn forget(&mut self, job: &CheckJob) {
        if let Some(check) = self.checks.get_mut(&job.id) {
            check.run = ResultRun::default();
            check.state.set(CheckVerdict::Unknown);
        }
    }

    /// What was last seen of the certificate of an address.
    pub(super) fn seen(&self, check: &CheckKey) -> Option<&CertificateView> {
        self.checks.get(self.ids.get(check)?)?.seen.as_ref()
    }

    /// How long the check that waits longest has waited for a turn and the budget.
    pub(super) fn delay(&self, now: Instant) -> Duration {
        let first = self.waiting.first();
        first.map_or(Duration::ZERO, |(due, _)| now.saturating_duration_since(*due))
    }

    /// The number of checks.
    pub(super) fn len(&self) -> usize {
        self.checks.len()
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn add(&mut self, id: u64, planned: PlannedCheck, now: Instant) {
        let due = now + part_of(FIRST);
        let (state, run) = (Arc::default(), ResultRun::default());
        let check = ScheduledCheck { planned, state, run, seen: None, due, begun: now };
        self.checks.insert(id, check);
        self.due.insert((due, id));
    }
}

impl ScheduledCheck {
    fn take(&mut self, passed: bool, now: Instant) -> Option<CheckVerdict> {
        let before = self.run.verdict();
        let changed = self.run.take(passed, &self.planned.key.params)?;
        self.state.set(changed);
        if (before, changed) == (CheckVerdict::Unhealthy, CheckVerdict::Healthy) {
            self.state.recovered(Moment::of(now));
        }
        Some(changed)
    }

    /// An interval after it began, a tenth more or less, so that replicas do not check together.
    fn next_due(&self, now: Instant) -> Instant {
        let interval = self.planned.key.params.interval;
        let interval = match self.run.in_transition() {
            true => interval.min(TRANSITION),
            false => interval,
        };
        (self.begun + spread(interval)).max(now)
    }

    /// Whether it is not made although it is due, because no client needs the result yet.
    fn rests(&self, now: Instant) -> bool {
        let is_known = self.run.verdict() != CheckVerdict::Unknown && !self.run.in_transition();
        is_known && now < self.begun + UNUSED && !self.planned.is_used()
    }
}

/// A tenth more or less than this time.
fn spread(time: Duration) -> Duration {
    time * 9 / 10 + part_of(time / 5)
}

/// A random part of a time.
fn part_of(whole: Duration) -> Duration {
    const PARTS: u32 = 1024;
    let part = u32::try_from(random() % u64::from(PARTS)).unwrap_or_default();
    whole / PARTS * part
}

/// How many checks may begin in a second.
#[derive(Debug)]
struct Budget {
    /// The time between two checks.
    pause: Duration,
    /// When the next check is due if all budget is used.
    next: Instant,
}

impl Budget {
    /// How much of the budget may be used at once.
    const BURST: Duration = Duration::from_millis(100);

    fn allows(&self, now: Instant) -> bool {
        self.allows_at() <= now
    }

    fn allows_at(&self) -> Instant {
        self.next.checked_sub(Budget::BURST).unwrap_or(self.next)
    }

    fn spend(&mut self, now: Instant) {
        // Of a budget that nobody has used, nothing is left.
        self.next = self.next.max(now) + self.pause;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
