//! What the reactor polls, and when.

use std::future::Future;
use std::pin::Pin;
use std::task::Waker;

/// A future, and what it waits for besides its descriptors.
pub(super) struct Task {
    pub(super) serial: u32,
    /// `None` while it is being polled.
    pub(super) polled: Option<Polled>,
    /// Whether it is polled in this turn or the next.
    pub(super) queued: bool,
    /// Whether it waits with bulk.
    pub(super) awaits_bulk: bool,
    /// When it wants to be polled at the latest, as of its last poll; `u64::MAX` is never.
    pub(super) deadline: u64,
    /// When the wheel will hand it out; `u64::MAX` while it is not there.
    pub(super) scheduled: u64,
}

/// What a poll needs of a task.
pub(super) struct Polled {
    pub(super) future: Pin<Box<dyn Future<Output = ()>>>,
    /// Wakes the task from anywhere.
    pub(super) waker: Waker,
}

/// Names a task for as long as it lives, and nothing after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct TaskId {
    pub(super) index: u32,
    /// Tells it from those that had the same index before.
    pub(super) serial: u32,
}

impl Task {
    /// A task that waits for nothing yet.
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
            deadline: u64::MAX,
            scheduled: u64::MAX,
        }
    }
}

impl TaskId {
    /// Names no task.
    pub(super) const NONE: TaskId = TaskId { index: u32::MAX, serial: 0 };
    /// The first that a reactor has.
    pub(super) const MAIN: TaskId = TaskId { index: 0, serial: 1 };
}
