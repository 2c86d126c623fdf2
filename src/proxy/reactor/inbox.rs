//! The inbox of a reactor, through which other threads wake its tasks.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

use super::TaskId;

/// The tasks that wakers have woken, and the eventfd that ends the reactor's sleep.
///
/// Sockets and deadlines do not use the inbox. It is for futures that wait for another thread or task.
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
    /// When the process has no descriptors left.
    pub(in crate::proxy) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Inbox { woken: Mutex::default(), event })
    }

    /// Wakes the main task of the reactor. Returns whether that succeeded.
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

    /// Takes the tasks that were woken since the last call.
    pub(super) fn take(&self) -> Vec<TaskId> {
        self.with_woken(std::mem::take)
    }

    /// Ends the reactor's sleep. The eventfd is never read: it is registered edge-triggered, so each write
    /// is an event, and its counter never overflows in practice.
    fn ring(&self) -> bool {
        loop {
            match rustix::io::write(&self.event, &1u64.to_ne_bytes()) {
                Err(Errno::INTR) => {}
                // If the counter is full, there is already an event.
                Ok(_) | Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
    }

    fn with_woken<T>(&self, act: impl FnOnce(&mut Vec<TaskId>) -> T) -> T {
        // No code panics while it holds the lock.
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
