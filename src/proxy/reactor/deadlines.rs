//! When tasks are polled though nothing has happened: deadlines.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::task::Task;
use super::{Reactor, TaskId};

/// Why [`Reactor::within`] gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Interrupted {
    /// The time was up.
    Elapsed,
    /// Every connection is being ended.
    Cancelled,
}

impl Reactor {
    /// Has `task` polled once `at` (in the time of [`Reactor::now`]) has come, unless it is polled
    /// before. Of several such times the nearest counts.
    ///
    /// A poll forgets them all, so what still waits then has to name its time again. That is what
    /// lets deadlines nest or stand side by side in one task, and end in any order, without a list
    /// of them.
    pub(in crate::proxy) fn wake_at(&self, task: TaskId, at: u64) {
        let mut tasks = self.tasks.borrow_mut();
        let Some(entry) = tasks.get_mut(task.index as usize) else { return };
        if entry.serial != task.serial || at >= entry.deadline {
            return;
        }
        entry.deadline = at;
        self.schedule(entry, task);
    }

    /// Sees to it that the wheel hands `task` out at its deadline. One that is there for this time
    /// or an earlier one is put back when that comes: a task is told of a new deadline far more
    /// often than it meets one.
    fn schedule(&self, entry: &mut Task, task: TaskId) {
        let mut wheel = self.wheel.borrow_mut();
        if wheel.due(entry.deadline) < entry.scheduled {
            entry.scheduled = wheel.insert(entry.deadline, task);
        }
    }

    /// The time, in that of [`Reactor::now`], after `duration`.
    pub(in crate::proxy) fn after(&self, duration: Duration) -> u64 {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.now.get().saturating_add(millis)
    }

    /// Awaits `future`, which belongs to the current task, for at most `limit`. Limits may nest: the
    /// nearest end comes first, and an outer one ends what is inside.
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
            if self.cancelled.get() {
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

    /// Queues the tasks whose time has come; puts those back that have more of it by now.
    pub(super) fn expire(&self) {
        let now = self.now.get();
        let mut early = Vec::new();
        self.wheel.borrow_mut().expire(now, |id| {
            let mut tasks = self.tasks.borrow_mut();
            let task = tasks.get_mut(id.index as usize).filter(|task| task.serial == id.serial);
            let Some(task) = task else { return };
            if task.scheduled > now {
                // It was put in again for an earlier time, and since then for a later one. Without
                // this, such a task would be in the wheel twice for as long as it lives.
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
