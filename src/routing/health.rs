//! The health of an endpoint, according to the last attempt to connect.
//!
//! A failure does not exclude an endpoint; it only changes the order in which endpoints are tried. What
//! several failures in a row lead to is in [`ejection`](super::ejection).

use std::num::NonZeroU64;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long an endpoint is tried last after a failed attempt.
pub const ENDPOINT_REST: Duration = Duration::from_secs(2);

/// How long the addresses of one family are tried last after the kernel had no route to one of them.
pub const FAMILY_REST: Duration = Duration::from_secs(10);

/// A time of this process in milliseconds, comparable between threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(NonZeroU64);

impl Moment {
    /// The earliest moment.
    const FIRST: Moment = Moment(NonZeroU64::MIN);

    /// The current time.
    pub fn now() -> Self {
        Moment::of(Instant::now())
    }

    /// The same moment as `instant`.
    pub fn of(instant: Instant) -> Self {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        Moment::FIRST + instant.saturating_duration_since(*START)
    }

    /// The moment with this number of milliseconds. The earliest one has 1.
    pub(super) fn at(millis: u64) -> Self {
        NonZeroU64::new(millis).map_or(Moment::FIRST, Moment)
    }

    /// Its number of milliseconds, which is not 0.
    pub(super) fn millis(self) -> u64 {
        self.0.get()
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

/// The rank of an endpoint in the order of preference; the lowest is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Availability {
    /// No recent failure.
    Well,
    /// Its rest is over, and no attempt has succeeded since.
    Due,
    /// The kernel recently had no route to an address of its family.
    Unrouted,
    /// An attempt has failed recently, or a trial is running.
    Resting,
    /// So many attempts in a row have failed that the route does not expect the next one to succeed.
    Ejected,
    /// The active checks of the route have failed.
    Unhealthy,
}

impl Availability {
    /// The states of endpoints, for pages and metrics.
    pub const STATES: [&'static str; 4] = ["serving", "resting", "ejected", "unhealthy"];

    /// One of [`Availability::STATES`]. `resting` is an endpoint that is tried last after a failure,
    /// `ejected` one that is so after several, and `unhealthy` one that is so after its active checks have failed.
    pub fn state(self) -> &'static str {
        let [serving, resting, ejected, unhealthy] = Availability::STATES;
        match self {
            Availability::Well | Availability::Due => serving,
            Availability::Unrouted | Availability::Resting => resting,
            Availability::Ejected => ejected,
            Availability::Unhealthy => unhealthy,
        }
    }
}

/// The result of the last attempt, as long as it matters.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// The end of the rest, as a [`Moment`]; 0 if the last attempt succeeded.
    rests_until: AtomicU64,
}

impl Health {
    pub(super) fn availability(&self, now: Moment) -> Availability {
        match self.rests_until.load(Ordering::Relaxed) {
            0 => Availability::Well,
            until if until <= now.millis() => Availability::Due,
            _ => Availability::Resting,
        }
    }

    /// Records a failed attempt. Other attempts avoid the endpoint for `rest`.
    pub(super) fn failed(&self, now: Moment, rest: Duration) {
        self.rests_until.store((now + rest).millis(), Ordering::Relaxed);
    }

    /// Starts an attempt. The first attempt after the rest is a trial: returns the moment until which other
    /// attempts avoid the endpoint, unless the result is known earlier.
    pub(super) fn begin_trial(&self, now: Moment) -> Option<Moment> {
        let until = self.rests_until.load(Ordering::Relaxed);
        if until == 0 || until > now.millis() {
            return None;
        }
        let end = now + ENDPOINT_REST;
        let begun = self.rests_until.compare_exchange(
            until,
            end.millis(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        begun.ok().map(|_| end)
    }

    /// Ends the trial until `end` without a result. The next attempt is a trial again.
    pub(super) fn abandon_trial(&self, end: Moment) {
        // Results of other attempts since then are kept.
        let _ = self.rests_until.compare_exchange(
            end.millis(),
            Moment::FIRST.millis(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    pub(super) fn succeeded(&self) {
        // Nearly always it is already 0. Not writing keeps the cache line shared among the workers.
        if self.rests_until.load(Ordering::Relaxed) != 0 {
            self.rests_until.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_causes_a_rest_and_a_success_ends_it() {
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
    fn other_attempts_avoid_an_endpoint_during_a_trial() {
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
        // The result of another attempt is kept.
        let trial = health.begin_trial(later).expect("another");
        health.failed(later + ENDPOINT_REST, ENDPOINT_REST);
        health.abandon_trial(trial);
        assert_eq!(health.availability(later), Availability::Resting);
    }
}
