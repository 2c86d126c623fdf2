//! How other threads wake a reactor's tasks.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

use super::TaskId;

/// The tasks that were woken from outside of their reactor, and the event that ends its sleep.
///
/// A reactor wakes its tasks by itself for their sockets and deadlines. What goes through here is
/// all else: a future that waits for another thread, or for another task.
#[derive(Debug)]
pub(in crate::proxy) struct Inbox {
    woken: Mutex<Vec<TaskId>>,
    event: OwnedFd,
}

/// The waker of one task.
pub(super) struct TaskWaker {
    pub(super) task: TaskId,
    pub(super) inbox: Arc<Inbox>,
}

impl Inbox {
    /// An inbox for one reactor.
    ///
    /// # Errors
    /// When there is no descriptor to be had.
    pub(in crate::proxy) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Inbox { woken: Mutex::default(), event })
    }

    /// Wakes the main task of the reactor. Returns whether that has come about.
    pub(in crate::proxy) fn wake_main(&self) -> bool {
        self.wake(TaskId::MAIN)
    }

    fn wake(&self, task: TaskId) -> bool {
        self.with_woken(|woken| {
            if woken.last() != Some(&task) {
                woken.push(task);
            }
        });
        self.ring()
    }

    /// The tasks that were woken since the last time.
    pub(super) fn take(&self) -> Vec<TaskId> {
        self.with_woken(std::mem::take)
    }

    /// Ends the sleep of the reactor. The event's counter need not be read for the next time: watched
    /// edge-triggered, each write is an event, and it holds more of them than will ever be.
    fn ring(&self) -> bool {
        loop {
            match rustix::io::write(&self.event, &1u64.to_ne_bytes()) {
                Err(Errno::INTR) => {}
                // A full counter has rung already.
                Ok(_) | Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
    }

    fn with_woken<T>(&self, act: impl FnOnce(&mut Vec<TaskId>) -> T) -> T {
        // Nothing that panics is done with the lock held.
        act(&mut self.woken.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.inbox.wake(self.task);
    }
}
