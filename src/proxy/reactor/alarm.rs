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
    /// When it fires; `u64::MAX` is never.
    at: Cell<u64>,
}

impl Alarm {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Alarm { fd, at: Cell::new(u64::MAX) })
    }

    /// Sets it to `at`, which is later than `now`, in milliseconds of the same clock. It is never moved to a
    /// later time: one early wake-up costs less than setting it each time.
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

    /// Records that it has fired. It need not be read, because setting it again clears that.
    pub(super) fn rang(&self) {
        self.at.set(u64::MAX);
    }
}

/// Milliseconds as the kernel takes them.
pub(super) fn timespec(millis: u64) -> Timespec {
    Timespec { tv_sec: (millis / 1000) as i64, tv_nsec: ((millis % 1000) * 1_000_000) as i64 }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
