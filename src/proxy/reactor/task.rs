//! What the reactor polls, and when.

use std::future::Future;
use std::pin::Pin;

/// A future, and what it waits for besides its descriptors.
pub(super) struct Task {
    pub(super) serial: u32,
    /// `None` while it is being polled.
    pub(super) future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// Whether it is polled in this turn or the next.
    pub(super) queued: bool,
    /// Whether it is among those in the background.
    pub(super) backgrounded: bool,
    /// When it wants to be polled at the latest, as of its last poll; `u64::MAX` is never.
    pub(super) deadline: u64,
    /// When the wheel will hand it out; `u64::MAX` while it is not there.
    pub(super) scheduled: u64,
}

/// Names a task for as long as it lives, and nothing after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct TaskId {
    pub(super) index: u32,
    /// Tells it from those that had the same index before.
    pub(super) serial: u32,
}

/// Where a task goes in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Place {
    First,
    Last,
}

impl Task {
    /// A task that waits for nothing yet.
    pub(super) fn new(serial: u32, future: impl Future<Output = ()> + 'static) -> Self {
        Task {
            serial,
            future: Some(Box::pin(future)),
            queued: false,
            backgrounded: false,
            deadline: u64::MAX,
            scheduled: u64::MAX,
        }
    }
}

impl TaskId {
    /// Names no task.
    pub(super) const NONE: TaskId = TaskId { index: u32::MAX, serial: 0 };
}
