//! The scheduling of bulk.
//!
//! A direction that carries bulk moves at most one [`QUANTUM`] at a time. Bulk runs after messages: each
//! turn of the worker first polls all tasks that have an event, and then one task of the bulk queue. A
//! connection gets up to [`QUANTA`] quanta in a row before the bulk of other connections. After each
//! quantum, and whenever the worker has not slept for [`TIME_SLICE`], it calls `sched_yield`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::TaskId;

/// Bytes that a direction may move before the worker handles other tasks.
pub(in crate::proxy) const QUANTUM: u64 = 1024 * 1024;
/// The maximum number of consecutive quanta for one connection. Together they are about as much as the
/// kernel buffers for one stream; moving all of it at once wakes both ends less often.
const QUANTA: u8 = 8;
/// A worker that has not slept for this long calls `sched_yield`.
///
/// A worker that finds new events at each wait never sleeps, and the scheduler switches threads only at
/// its next tick (4 ms at 250 Hz). Meanwhile other threads wait for the core, perhaps the very clients and
/// servers of the worker's connections.
const TIME_SLICE: Duration = Duration::from_millis(1);
/// A wait of this length counts as a sleep, in which other threads had the core. A wait with available
/// events takes a few microseconds.
const SLEEP: Duration = Duration::from_micros(50);

/// The number of consecutive quanta of a connection.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Quanta(u8);

/// The queue of tasks that wait for bulk's turn.
#[derive(Default)]
pub(super) struct BulkQueue {
    tasks: RefCell<VecDeque<TaskId>>,
    /// Whether a task is being polled in bulk's turn.
    running: Cell<bool>,
}

/// The time since the worker last slept or yielded.
pub(super) struct TimeSlice {
    since: Cell<Instant>,
    /// How many slices have ended with a yield.
    #[cfg(test)]
    pub(super) ended: Cell<usize>,
}

/// The end of the bulk queue at which a task is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueEnd {
    Front,
    Back,
}

impl Quanta {
    /// The end of the queue for a task that has `more` bulk to move; `None` if it has none. `had_one` is
    /// whether it has just had bulk's turn.
    pub(super) fn next(&mut self, had_one: bool, more: bool) -> Option<QueueEnd> {
        if had_one {
            self.0 = if more { (self.0 + 1) % QUANTA } else { 0 };
        }
        more.then_some(if had_one && self.0 > 0 { QueueEnd::Front } else { QueueEnd::Back })
    }
}

impl BulkQueue {
    pub(super) fn push(&self, task: TaskId, place: QueueEnd) {
        match place {
            QueueEnd::Front => self.tasks.borrow_mut().push_front(task),
            QueueEnd::Back => self.tasks.borrow_mut().push_back(task),
        }
    }

    pub(super) fn pop(&self) -> Option<TaskId> {
        self.tasks.borrow_mut().pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.borrow().is_empty()
    }

    /// Runs `act` in bulk's turn.
    pub(super) fn run(&self, act: impl FnOnce()) {
        self.running.set(true);
        act();
        self.running.set(false);
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.get()
    }
}

impl TimeSlice {
    pub(super) fn new(now: Instant) -> Self {
        TimeSlice {
            since: Cell::new(now),
            #[cfg(test)]
            ended: Cell::new(0),
        }
    }

    /// Starts a new slice if the current one is over `now`. Returns whether the worker should yield. With
    /// bulk, each turn is a slice, because a thread that was woken by a message may have waited for a whole
    /// quantum.
    pub(super) fn end_if_over(&self, now: Instant, bulk: bool) -> bool {
        let over = bulk || now.saturating_duration_since(self.since.get()) >= TIME_SLICE;
        if over {
            self.since.set(now);
            #[cfg(test)]
            self.ended.set(self.ended.get() + 1);
        }
        over
    }

    /// Records a wait for events. A long one counts as a sleep.
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
    fn a_connection_gets_consecutive_quanta_before_the_others() {
        let mut quanta = Quanta::default();
        assert_eq!(quanta.next(false, true), Some(QueueEnd::Back), "it joins them at the end");
        for _ in 0..3 {
            // Polls for an event do not count.
            assert_eq!(quanta.next(false, true), Some(QueueEnd::Back));
            let firsts = (0..100).take_while(|_| quanta.next(true, true) == Some(QueueEnd::Front));
            let mib = ((firsts.count() as u64 + 1) * QUANTUM) >> 20;
            assert!((4..=16).contains(&mib), "{mib} MiB are not about what the kernel holds");
        }
        assert_eq!(quanta.next(true, true), Some(QueueEnd::Front));
        // After a pause, the count starts again.
        assert_eq!(quanta.next(true, false), None);
        assert_eq!(quanta.next(false, false), None);
        let firsts = (0..100).take_while(|_| quanta.next(true, true) == Some(QueueEnd::Front));
        assert_eq!(firsts.count() + 1, usize::from(QUANTA));
    }

    #[test]
    fn a_slice_ends_after_its_time_and_the_next_begins() {
        let start = Instant::now();
        let slice = TimeSlice::new(start);
        let times = [TIME_SLICE / 2, TIME_SLICE, TIME_SLICE * 3 / 2, TIME_SLICE * 2];
        let over = times.map(|time| slice.end_if_over(start + time, false));
        assert_eq!(over, [false, true, false, true]);
    }

    #[test]
    fn a_turn_of_bulk_is_a_slice() {
        let start = Instant::now();
        let slice = TimeSlice::new(start);
        assert!(slice.end_if_over(start, true));
        assert!(!slice.end_if_over(start + TIME_SLICE / 2, false));
    }

    #[test]
    fn a_sleep_begins_a_new_slice_and_a_short_wait_does_not() {
        let start = Instant::now();
        let over_after = |wait: Duration| {
            let slice = TimeSlice::new(start);
            let begin = start + TIME_SLICE - wait;
            assert!(!slice.end_if_over(begin, false));
            slice.waited(begin, start + TIME_SLICE);
            slice.end_if_over(start + TIME_SLICE, false)
        };
        assert!(over_after(SLEEP / 2));
        assert!(!over_after(SLEEP));
    }
}
