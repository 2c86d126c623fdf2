//! How long a worker keeps its core.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long a worker works without sleep before the scheduler decides anew who has its core. With
/// tasks in the background, it is one turn: whoever was woken by a message has waited for a share
/// of bulk then, and would wait for several.
///
/// One that finds something at each wait never sleeps, and the scheduler looks only at its next
/// tick (4 ms, at 250 Hz). Meanwhile those who want the core wait; they may be the very ones that
/// the worker works for.
const LONGEST: Duration = Duration::from_millis(1);
/// A wait that takes this long was a sleep, or as good as one: others had the core. To fetch what
/// is there already takes a few microseconds.
const SLEEP: Duration = Duration::from_micros(50);

/// The time since a worker last slept, or offered its core.
pub(super) struct Stint {
    since: Cell<Instant>,
    /// How many have ended by being long enough.
    #[cfg(test)]
    pub(super) ended: Cell<usize>,
}

impl Stint {
    pub(super) fn new(now: Instant) -> Self {
        Stint {
            since: Cell::new(now),
            #[cfg(test)]
            ended: Cell::new(0),
        }
    }

    /// Ends the stint if it has been long enough `now`, and begins another. Says whether it did: the
    /// worker is to offer its core. `background` says that there is more to do there.
    pub(super) fn end_if_over(&self, now: Instant, background: bool) -> bool {
        let over = background || now.saturating_duration_since(self.since.get()) >= LONGEST;
        if over {
            self.since.set(now);
            #[cfg(test)]
            self.ended.set(self.ended.get() + 1);
        }
        over
    }

    /// Notes a wait for events, and what others did with the core if it was offered just before.
    pub(super) fn waited(&self, begin: Instant, end: Instant) {
        if end.saturating_duration_since(begin) >= SLEEP {
            self.since.set(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stint_ends_after_its_time_and_the_next_begins() {
        let start = Instant::now();
        let stint = Stint::new(start);
        let times = [LONGEST / 2, LONGEST, LONGEST * 3 / 2, LONGEST * 2];
        let over = times.map(|time| stint.end_if_over(start + time, false));
        assert_eq!(over, [false, true, false, true]);
    }

    #[test]
    fn a_turn_of_bulk_is_a_stint() {
        let start = Instant::now();
        let stint = Stint::new(start);
        assert!(stint.end_if_over(start, true));
        assert!(!stint.end_if_over(start + LONGEST / 2, false));
    }

    #[test]
    fn a_sleep_begins_a_new_stint_and_a_short_wait_does_not() {
        let start = Instant::now();
        let over_after = |wait: Duration| {
            let stint = Stint::new(start);
            let begin = start + LONGEST - wait;
            assert!(!stint.end_if_over(begin, false));
            stint.waited(begin, start + LONGEST);
            stint.end_if_over(start + LONGEST, false)
        };
        assert!(over_after(SLEEP / 2));
        assert!(!over_after(SLEEP));
    }
}
