//! Ejection: an endpoint whose attempts fail several times in a row is tried last, for longer each time.
//!
//! An endpoint may belong to several routes with different rules. It keeps only what has happened to it: the
//! failures since the last success, how many times any route ejected it and when the last time began. Each route
//! judges that by its own rule: how many failures are too many, and how long a time lasts at most.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::health::{ENDPOINT_REST, Moment};
use super::mix;

/// The most failures in a row that a rule may ask for. As many clients are remembered of an endpoint that
/// closes early.
pub const MOST_FAILURES: u8 = 16;

/// How long a trial of an ejected endpoint keeps other attempts away, unless its result is known earlier.
const TRIAL: Duration = Duration::from_secs(5);

/// When endpoints are ejected, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EjectionRule {
    failures: u8,
    first: Duration,
    longest: Duration,
}

impl EjectionRule {
    /// No endpoint is ever ejected.
    pub const OFF: EjectionRule =
        EjectionRule { failures: 0, first: Duration::ZERO, longest: Duration::ZERO };

    /// `failures` in a row eject an endpoint, the first time for `first`, and never for more than `longest`.
    /// 0 failures is [`EjectionRule::OFF`].
    pub fn new(failures: u32, first: Duration, longest: Duration) -> Self {
        let failures = u8::try_from(failures).unwrap_or(MOST_FAILURES).min(MOST_FAILURES);
        EjectionRule { failures, first, longest }
    }

    /// How long the ejection that began at `since` lasts. Replicas that eject an endpoint together do not try
    /// it together.
    fn lasts(&self, times: u8, since: Moment) -> Duration {
        const PARTS: u64 = 200;
        let whole = self.first.saturating_mul(times.into()).min(self.longest);
        let shares = 900 + mix(since.millis()) % (PARTS + 1);
        (whole / 1000).saturating_mul(u32::try_from(shares).unwrap_or(1000)).min(self.longest)
    }
}

/// Why an attempt counts as failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The endpoint refused the connection, was unreachable or did not answer in time.
    Connect,
    /// It took the hello, and closed before its first byte while the client waited.
    EarlyClose,
}

impl FailureKind {
    /// All of them.
    pub const ALL: [FailureKind; 2] = [FailureKind::Connect, FailureKind::EarlyClose];

    /// The metric label and the word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::Connect => "connect",
            FailureKind::EarlyClose => "early_close",
        }
    }
}

/// An ejection that has just begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejected {
    /// The last failure.
    pub reason: FailureKind,
    /// How many times the endpoint was ejected without being well for long in between.
    pub times: u8,
    /// For how long.
    pub lasts: Duration,
}

/// The ejection of an endpoint, as one rule judges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ejection {
    /// It is not ejected.
    None,
    /// Its time is over, and the next attempt is a trial.
    Due,
    /// It is ejected, or a trial is running.
    Ejected,
}

/// The failures of an endpoint since its last success. Reading takes no lock.
#[derive(Debug, Default)]
pub(super) struct FailureRun {
    /// A [`RunState`].
    run: AtomicU64,
    /// Until when a trial keeps other attempts away, as a [`Moment`].
    trial_until: AtomicU64,
    /// The clients whose early closes count. Locked only for endpoints that close early.
    closed_on: Mutex<Vec<IpAddr>>,
}

impl FailureRun {
    /// How `rule` judges it.
    pub(super) fn judge(&self, rule: &EjectionRule, now: Moment) -> Ejection {
        match self.load().until(rule) {
            None => Ejection::None,
            Some(until) if until > now => Ejection::Ejected,
            Some(_) if self.trial_until.load(Ordering::Relaxed) > now.millis() => Ejection::Ejected,
            Some(_) => Ejection::Due,
        }
    }

    /// Starts an attempt. If the time of an ejection is over, it is a trial: returns the moment until which
    /// other attempts avoid the endpoint.
    pub(super) fn begin_trial(&self, rule: &EjectionRule, now: Moment) -> Option<Moment> {
        let until = self.load().until(rule)?;
        let trial = self.trial_until.load(Ordering::Relaxed);
        if until > now || trial > now.millis() {
            return None;
        }
        let end = now + TRIAL;
        self.exchange_trial(trial, end.millis()).then_some(end)
    }

    /// Ends the trial until `end` without a result.
    pub(super) fn abandon_trial(&self, end: Moment) {
        self.exchange_trial(end.millis(), 0);
    }

    /// Counts a failed attempt to connect. Returns the ejection that begins with it.
    pub(super) fn failed(&self, rule: &EjectionRule, now: Moment) -> Option<Ejected> {
        self.count(FailureKind::Connect, rule, now)
    }

    /// Counts an early close, once for each client: otherwise one client whose hello a server does not like
    /// could eject all servers. If it ends a trial, the next trial comes a little later.
    pub(super) fn closed_early(
        &self,
        client: IpAddr,
        is_trial: bool,
        rule: &EjectionRule,
        now: Moment,
    ) -> Option<Ejected> {
        let mut clients = self.clients();
        let prefix = prefix_of(client);
        if clients.len() >= MOST_FAILURES.into() || clients.contains(&prefix) {
            if is_trial {
                self.trial_until.store((now + ENDPOINT_REST).millis(), Ordering::Relaxed);
            }
            return None;
        }
        clients.push(prefix);
        self.count(FailureKind::EarlyClose, rule, now)
    }

    /// Records an open connection. It says nothing about early closes. Returns when an ejection ends with it.
    pub(super) fn connected(&self, now: impl FnOnce() -> Moment) -> Option<Moment> {
        // Nearly always there is none. Not writing keeps the cache line shared among the workers.
        if self.load().connects == 0 {
            return None;
        }
        let now = now();
        let (before, after) = self.change(now, |run, now| run.after_connect(now));
        (before.ejected && !after.ejected).then_some(now)
    }

    /// Records the first byte of the endpoint. Returns when an ejection ends with it.
    pub(super) fn answered(&self, now: impl FnOnce() -> Moment) -> Option<Moment> {
        if self.load().failures() == 0 {
            return None;
        }
        let (mut clients, now) = (self.clients(), now());
        let (before, after) = self.change(now, |run, now| run.after_answer(now));
        clients.clear();
        (before.ejected && !after.ejected).then_some(now)
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        let mut clients = self.clients();
        self.run.store(RunState::default().pack(), Ordering::Relaxed);
        self.trial_until.store(0, Ordering::Relaxed);
        clients.clear();
    }

    fn count(&self, reason: FailureKind, rule: &EjectionRule, now: Moment) -> Option<Ejected> {
        let (before, after) = self.change(now, |run, now| run.after_failure(reason, rule, now));
        if (before.times, before.since) == (after.times, after.since) {
            return None;
        }
        // What kept other attempts away until now ends; the new time follows.
        self.trial_until.store((now + ENDPOINT_REST).millis(), Ordering::Relaxed);
        let lasts = rule.lasts(after.times, now);
        Some(Ejected { reason, times: after.times, lasts })
    }

    fn load(&self) -> RunState {
        RunState::unpack(self.run.load(Ordering::Relaxed))
    }

    /// Changes the run. Returns it before and after.
    fn change(
        &self,
        now: Moment,
        next: impl Fn(RunState, Moment) -> RunState,
    ) -> (RunState, RunState) {
        let mut packed = self.run.load(Ordering::Relaxed);
        loop {
            let before = RunState::unpack(packed);
            let after = next(before, now);
            let stored = self.run.compare_exchange_weak(
                packed,
                after.pack(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match stored {
                Ok(_) => {
                    if after.failures() == 0 {
                        self.trial_until.store(0, Ordering::Relaxed);
                    }
                    return (before, after);
                }
                Err(other) => packed = other,
            }
        }
    }

    fn exchange_trial(&self, from: u64, to: u64) -> bool {
        let result =
            self.trial_until.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
        result.is_ok()
    }

    fn clients(&self) -> MutexGuard<'_, Vec<IpAddr>> {
        // No code panics while it holds the lock.
        self.closed_on.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has happened to an endpoint since its last success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct RunState {
    /// Failed attempts to connect.
    connects: u8,
    /// Early closes, of different clients.
    closes: u8,
    /// How many times it was ejected, without being well for long in between.
    times: u8,
    /// Whether one of these times was in this run.
    ejected: bool,
    /// When the last of these times began, or, without failures, when the last run ended. In milliseconds, as
    /// a [`Moment`].
    since: u64,
}

impl RunState {
    /// The bits of each count. 42 bits are left for the time, which is 139 years.
    const BITS: u32 = 7;
    const MOST: u8 = (1 << RunState::BITS) - 1;

    fn failures(self) -> u8 {
        self.connects.saturating_add(self.closes)
    }

    fn since(self) -> Moment {
        Moment::at(self.since)
    }

    /// The end of the ejection, if `rule` sees one.
    fn until(self, rule: &EjectionRule) -> Option<Moment> {
        let is_out = self.ejected && self.reaches(rule);
        is_out.then(|| self.since() + rule.lasts(self.times, self.since()))
    }

    fn reaches(self, rule: &EjectionRule) -> bool {
        rule.failures > 0 && self.failures() >= rule.failures
    }

    fn after_failure(self, kind: FailureKind, rule: &EjectionRule, now: Moment) -> RunState {
        let mut next = self;
        match kind {
            FailureKind::Connect => next.connects = more(next.connects),
            FailureKind::EarlyClose => next.closes = more(next.closes),
        }
        // Attempts that were under way when it was ejected, and those of clients that find nothing else, do
        // not make the time longer. There is a least time, so that no rule makes many ejections a second.
        let lasts = rule.lasts(self.times, self.since()).max(ENDPOINT_REST);
        let in_time = self.ejected && self.since() + lasts > now;
        if !next.reaches(rule) || in_time {
            return next;
        }
        let well_for_long = !self.ejected && self.since() + rule.longest <= now;
        next.times = more(if well_for_long { 0 } else { self.times });
        (next.ejected, next.since) = (true, now.millis());
        next
    }

    fn after_connect(self, now: Moment) -> RunState {
        match self.closes {
            0 => self.after_answer(now),
            _ => RunState { connects: 0, ..self },
        }
    }

    fn after_answer(self, now: Moment) -> RunState {
        match self.failures() {
            0 => self,
            _ if self.ejected => {
                RunState { times: self.times, since: now.millis(), ..RunState::default() }
            }
            _ => RunState { times: self.times, since: self.since, ..RunState::default() },
        }
    }

    fn pack(self) -> u64 {
        let RunState { connects, closes, times, ejected, since } = self;
        let counts = [connects, closes, times].into_iter();
        let flags = u64::from(ejected);
        counts.fold((since << 1) | flags, |packed, count| {
            (packed << RunState::BITS) | u64::from(count)
        })
    }

    fn unpack(packed: u64) -> Self {
        let count = |place: u32| (packed >> (place * RunState::BITS)) as u8 & RunState::MOST;
        let rest = packed >> (3 * RunState::BITS);
        RunState {
            connects: count(2),
            closes: count(1),
            times: count(0),
            ejected: rest & 1 == 1,
            since: rest >> 1,
        }
    }
}

fn more(count: u8) -> u8 {
    count.saturating_add(1).min(RunState::MOST)
}

/// The network that counts as one client: an IPv4 address, or the /64 of an IPv6 address.
fn prefix_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests;
