//! What recent attempts to connect have shown of an endpoint.
//!
//! A failure forbids nothing: it is a place in the order in which endpoints are tried. A rule that
//! takes more than the last attempt into account belongs into [`Health::failed`].

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long an endpoint comes last after an attempt to connect to it has failed.
pub const ENDPOINT_REST: Duration = Duration::from_secs(2);

/// How long the addresses of one family come last after the kernel had no route to one of them.
pub const FAMILY_REST: Duration = Duration::from_secs(10);

/// A moment of this process, to the millisecond, which all threads share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// Before all others.
    const FIRST: Moment = Moment(1);

    /// The present.
    pub fn now() -> Self {
        Moment::of(Instant::now())
    }

    /// The same moment as `instant`.
    pub fn of(instant: Instant) -> Self {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        Moment(millis(instant.saturating_duration_since(*START)).saturating_add(1))
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(millis(duration)))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Where an endpoint stands in the order of preference; the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Availability {
    /// Nothing is known against it.
    Well,
    /// Its rest is over, and no attempt has shown yet whether it is well again.
    Due,
    /// The kernel has lately had no route to an address of its family.
    Unrouted,
    /// An attempt has failed lately, or one after its rest is still going on.
    Resting,
}

impl Availability {
    /// The states of endpoints, as pages and metrics show them.
    pub const STATES: [&'static str; 2] = ["serving", "resting"];

    /// One of [`Availability::STATES`]: `resting` is what comes last after a failure.
    pub fn state(self) -> &'static str {
        let [serving, resting] = Availability::STATES;
        match self {
            Availability::Well | Availability::Due => serving,
            Availability::Unrouted | Availability::Resting => resting,
        }
    }
}

/// The outcome of the last attempt, as far as it still counts.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// When the rest is over, as a [`Moment`]; 0 if the last attempt succeeded.
    rests_until: AtomicU64,
}

impl Health {
    pub(super) fn availability(&self, now: Moment) -> Availability {
        match self.rests_until.load(Ordering::Relaxed) {
            0 => Availability::Well,
            until if until <= now.0 => Availability::Due,
            _ => Availability::Resting,
        }
    }

    /// An attempt has failed: for so much time, others keep away.
    pub(super) fn failed(&self, now: Moment, rest: Duration) {
        self.rests_until.store((now + rest).0, Ordering::Relaxed);
    }

    /// An attempt begins. If it is the first after the rest, it is a trial: others keep away until
    /// this moment, or until it is known how the trial ends.
    pub(super) fn begin_trial(&self, now: Moment) -> Option<Moment> {
        let until = self.rests_until.load(Ordering::Relaxed);
        if until == 0 || until > now.0 {
            return None;
        }
        let end = now + ENDPOINT_REST;
        let begun =
            self.rests_until.compare_exchange(until, end.0, Ordering::Relaxed, Ordering::Relaxed);
        begun.ok().map(|_| end)
    }

    /// The trial until `end` has come to nothing, and shown nothing: the next attempt is another.
    pub(super) fn abandon_trial(&self, end: Moment) {
        // What others have found out meanwhile counts.
        let _ = self.rests_until.compare_exchange(
            end.0,
            Moment::FIRST.0,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    pub(super) fn succeeded(&self) {
        // Nearly always it is 0 already, and then the cache line stays shared among the workers.
        if self.rests_until.load(Ordering::Relaxed) != 0 {
            self.rests_until.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_rests_is_due_and_is_forgotten_by_a_success() {
        let (health, now) = (Health::default(), Moment::now());
        assert_eq!(health.availability(now), Availability::Well);
        health.failed(now, ENDPOINT_REST);
        assert_eq!(health.availability(now), Availability::Resting);
        let later = now + ENDPOINT_REST;
        assert_eq!(health.availability(later), Availability::Due);
        health.succeeded();
        assert_eq!(health.availability(later), Availability::Well);
    }

    #[test]
    fn a_trial_keeps_the_others_away_until_it_ends() {
        let (health, now) = (Health::default(), Moment::now());
        assert_eq!(health.begin_trial(now), None);
        health.failed(now, ENDPOINT_REST);
        assert_eq!(health.begin_trial(now), None);
        let later = now + ENDPOINT_REST;
        let trial = health.begin_trial(later).expect("a trial");
        assert_eq!(health.availability(later), Availability::Resting);
        assert_eq!(health.begin_trial(later), None, "one at a time");
        health.abandon_trial(trial);
        assert_eq!(health.availability(later), Availability::Due);
        // What is known by others is not taken back.
        let trial = health.begin_trial(later).expect("another");
        health.failed(later + ENDPOINT_REST, ENDPOINT_REST);
        health.abandon_trial(trial);
        assert_eq!(health.availability(later), Availability::Resting);
    }
}
