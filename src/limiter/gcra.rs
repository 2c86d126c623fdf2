//! A rate with a burst, by the generic cell rate algorithm (ITU-T I.371): one number for each thing that is
//! counted, and no timer.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::policy::Rate;

/// A time in nanoseconds since the process began to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub(super) u64);

impl Tick {
    /// The current time.
    pub fn now() -> Self {
        Tick::of(Instant::now())
    }

    /// The same time as `instant`.
    pub fn of(instant: Instant) -> Self {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let nanos = instant.saturating_duration_since(*START).as_nanos();
        Tick(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    pub(super) fn after(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Tick(self.0.saturating_add(nanos))
    }
}

/// A rate with a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gcra {
    /// Nanoseconds from one arrival to the next.
    interval: u64,
    /// How far ahead of its time a burst may be, in nanoseconds.
    burst: u64,
}

/// When the next arrival would be if all came at the rate. If that is in the past, the whole burst is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NextArrival(pub(super) Tick);

impl Gcra {
    pub(super) fn of(rate: &Rate) -> Self {
        let per = u64::try_from(rate.per().as_nanos()).unwrap_or(u64::MAX);
        let interval = per.div_ceil(u64::from(rate.rate.get())).max(1);
        Gcra { interval, burst: interval.saturating_mul(rate.burst().get().into()) }
    }

    /// The state after one more arrival at `now`; `None` if that is one too many.
    pub(super) fn admit(self, next: NextArrival, now: Tick) -> Option<NextArrival> {
        let next = next.0.max(now).0.saturating_add(self.interval);
        (next - now.0 <= self.burst).then_some(NextArrival(Tick(next)))
    }

    /// The state without an arrival that was admitted.
    pub(super) fn withdraw(self, next: NextArrival) -> NextArrival {
        NextArrival(Tick(next.0.0.saturating_sub(self.interval)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::policy::Number;

    fn gcra(rate: u32, burst: u32) -> Gcra {
        Gcra::of(&Rate { rate: Number::new(rate), per: None, burst: Some(Number::new(burst)) })
    }

    #[test]
    fn a_burst_is_free_and_then_the_rate_holds() {
        let gcra = gcra(10, 3);
        let mut next = NextArrival::default();
        let mut admitted = |now: u64| match gcra.admit(next, Tick(now)) {
            Some(after) => {
                next = after;
                true
            }
            None => false,
        };
        let start = 5_000_000_000;
        assert_eq!([0; 4].map(|_| admitted(start)), [true, true, true, false]);
        assert!(!admitted(start + 99_999_999));
        assert!(admitted(start + 100_000_000));
        assert!(!admitted(start + 100_000_000));
        assert_eq!([0; 4].map(|_| admitted(start + 60_000_000_000)), [true, true, true, false]);
    }

    #[test]
    fn the_extremes_do_not_overflow() {
        let slow = Gcra::of(&Rate {
            rate: Number::new(1),
            per: Some("1h".parse().unwrap()),
            burst: Some(Number::new(1_000_000)),
        });
        let mut next = NextArrival::default();
        let year = Tick(365 * 24 * 3600 * 1_000_000_000);
        let admitted = (0..1_000_001)
            .filter(|_| slow.admit(next, year).inspect(|after| next = *after).is_some())
            .count();
        assert_eq!(admitted, 1_000_000);
    }

    proptest! {
        /// The slow truth: a bucket of `burst` tokens that gains one each interval.
        #[test]
        fn it_decides_as_a_bucket_of_tokens_does(
            rate in 1_u32..1000,
            burst in 1_u32..20,
            pauses in vec((0_u64..50_000_000, any::<bool>()), 1..200),
        ) {
            let gcra = gcra(rate, burst);
            let interval = u128::from(gcra.interval);
            let full = interval * u128::from(burst);
            // In parts of a token, of which one takes `interval`.
            let (mut tokens, mut next, mut now) = (full, NextArrival::default(), 0_u64);
            for (pause, is_withdrawn) in pauses {
                now += pause;
                tokens = full.min(tokens + u128::from(pause));
                let after = gcra.admit(next, Tick(now));
                prop_assert_eq!(after.is_some(), tokens >= interval, "at {}", now);
                if let Some(after) = after {
                    next = if is_withdrawn { gcra.withdraw(after) } else { after };
                    tokens -= if is_withdrawn { 0 } else { interval };
                }
            }
        }
    }
}
