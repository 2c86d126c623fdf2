//! Deadlines of tasks.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::task::Task;
use super::{Reactor, TaskId};

/// Why [`Reactor::within`] gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Interrupted {
    /// The time limit was reached.
    Elapsed,
    /// The waits of the task are interrupted, or all, at the end of a drain.
    Cancelled,
}

impl Reactor {
    /// Sets a deadline of `task` at `at` (in the time of [`Reactor::now`]): the task is polled then, unless
    /// it is polled before. Of several deadlines, the nearest counts.
    ///
    /// Each poll clears the deadlines, and futures that still wait set theirs again. So deadlines of one
    /// task can nest and end in any order, without a list.
    pub(in crate::proxy) fn wake_at(&self, task: TaskId, at: u64) {
        let mut tasks = self.tasks.borrow_mut();
        let Some(entry) = tasks.get_mut(task.index as usize) else { return };
        if entry.serial != task.serial || at >= entry.deadline {
            return;
        }
        entry.deadline = at;
        self.schedule(entry, task);
    }

    /// Inserts `task` into the wheel for its deadline, unless it has an entry for the same time or earlier;
    /// that entry is then inserted again when it expires. Deadlines are moved far more often than they are
    /// reached.
    fn schedule(&self, entry: &mut Task, task: TaskId) {
        let mut wheel = self.wheel.borrow_mut();
        if wheel.due(entry.deadline) < entry.scheduled {
            entry.scheduled = wheel.insert(entry.deadline, task);
        }
    }

    /// The time `duration` from now, in the time of [`Reactor::now`].
    pub(in crate::proxy) fn after(&self, duration: Duration) -> u64 {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.now.get().saturating_add(millis)
    }

    /// Awaits `future`, in the current task, for at most `limit`. Limits may nest: the nearest counts, and
    /// an outer one also ends the inner future.
    pub(in crate::proxy) async fn within<T>(
        &self,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, Interrupted> {
        let mut future = pin!(future);
        let end = self.after(limit);
        poll_fn(|context| {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(value));
            }
            if self.is_cancelled() {
                return Poll::Ready(Err(Interrupted::Cancelled));
            }
            if self.now.get() >= end {
                return Poll::Ready(Err(Interrupted::Elapsed));
            }
            self.wake_at(self.current.get(), end);
            Poll::Pending
        })
        .await
    }

    /// Queues tasks whose deadline is reached. Inserts tasks again whose deadline has moved.
    pub(super) fn expire(&self) {
        let now = self.now.get();
        let mut early = Vec::new();
        self.wheel.borrow_mut().expire(now, |id| {
            let mut tasks = self.tasks.borrow_mut();
            let task = tasks.get_mut(id.index as usize).filter(|task| task.serial == id.serial);
            let Some(task) = task else { return };
            if task.scheduled > now {
                // A second entry, from a time when the deadline had moved to an earlier time. It is dropped;
                // otherwise the wheel would have two entries for the task.
                return;
            }
            task.scheduled = u64::MAX;
            if task.deadline <= now {
                task.deadline = u64::MAX;
                if !std::mem::replace(&mut task.queued, true) {
                    self.runnable.borrow_mut().push_back(id);
                }
            } else if task.deadline < u64::MAX {
                early.push(id);
            }
        });
        let mut tasks = self.tasks.borrow_mut();
        for id in early {
            if let Some(task) = tasks.get_mut(id.index as usize) {
                self.schedule(task, id);
            }
        }
    }
}
