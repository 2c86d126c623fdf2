//! A task of the reactor.

use std::future::Future;
use std::pin::Pin;
use std::task::Waker;

/// A future with its scheduling state.
pub(super) struct Task {
    pub(super) serial: u32,
    /// `None` while it is being polled.
    pub(super) polled: Option<Polled>,
    /// Whether it is in the run queue.
    pub(super) queued: bool,
    /// Whether it is in the bulk queue.
    pub(super) awaits_bulk: bool,
    /// Whether it is in the queue for expensive steps.
    pub(super) awaits_step: bool,
    /// Whether its waits are interrupted.
    pub(super) is_cancelled: bool,
    /// Its nearest deadline, as of its last poll; `u64::MAX` means none.
    pub(super) deadline: u64,
    /// The time of its entry in the wheel; `u64::MAX` if it has none.
    pub(super) scheduled: u64,
}

/// The parts of a task that a poll needs.
pub(super) struct Polled {
    pub(super) future: Pin<Box<dyn Future<Output = ()>>>,
    /// Wakes the task from anywhere.
    pub(super) waker: Waker,
}

/// The id of a task, which is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::proxy) struct TaskId {
    pub(super) index: u32,
    /// Distinguishes it from earlier tasks with the same index.
    pub(super) serial: u32,
}

impl Task {
    /// A new task that waits for nothing.
    pub(super) fn new(
        serial: u32,
        future: impl Future<Output = ()> + 'static,
        waker: Waker,
    ) -> Self {
        Task {
            serial,
            polled: Some(Polled { future: Box::pin(future), waker }),
            queued: false,
            awaits_bulk: false,
            awaits_step: false,
            is_cancelled: false,
            deadline: u64::MAX,
            scheduled: u64::MAX,
        }
    }
}

impl TaskId {
    /// An id that no task has.
    pub(in crate::proxy) const NONE: TaskId = TaskId { index: u32::MAX, serial: 0 };
    /// The first task of a reactor.
    pub(super) const MAIN: TaskId = TaskId { index: 0, serial: 1 };

    /// An id for tests.
    #[cfg(test)]
    pub(in crate::proxy) const fn of_test(index: u32) -> Self {
        TaskId { index, serial: 0 }
    }
}
