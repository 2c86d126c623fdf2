//! The timer that ends the reactor's sleep at the next deadline.

use std::cell::Cell;
use std::io;

use rustix::event::Timespec;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

/// A timerfd that is registered with the epoll, edge-triggered.
///
/// A timeout of `epoll_wait` would make the kernel set and cancel a timer at each sleep, while the next
/// deadline stays the same for thousands of sleeps.
pub(super) struct Alarm {
    fd: OwnedFd,
    /// The time at which it fires; `u64::MAX` means never.
    at: Cell<u64>,
}

impl Alarm {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Alarm { fd, at: Cell::new(u64::MAX) })
    }

    /// Sets the alarm to `at`, which is later than `now`, both in milliseconds. It is never moved to a later
    /// time: an early wake-up costs less than setting the timer each time.
    pub(super) fn set(&self, now: u64, at: u64) -> io::Result<()> {
        if at >= self.at.get() {
            return Ok(());
        }
        let it_value = timespec(at.saturating_sub(now));
        let once = Itimerspec { it_interval: timespec(0), it_value };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
        self.at.set(at);
        Ok(())
    }

    /// Records that the alarm has fired. The timer need not be read, because setting it again clears the
    /// event.
    pub(super) fn rang(&self) {
        self.at.set(u64::MAX);
    }
}

/// A number of milliseconds in the kernel's form.
pub(super) fn timespec(millis: u64) -> Timespec {
    Timespec { tv_sec: (millis / 1000) as i64, tv_nsec: ((millis % 1000) * 1_000_000) as i64 }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
