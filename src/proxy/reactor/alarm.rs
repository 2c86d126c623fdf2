//! What ends a sleep when a deadline has come.

use std::cell::Cell;
use std::io;

use rustix::event::Timespec;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

/// A timer that an epoll watches, edge-triggered.
///
/// `epoll_wait` has an end too, but the kernel sets and cancels a timer for that at each sleep, while
/// the next deadline is the same through thousands of them.
pub(super) struct Alarm {
    fd: OwnedFd,
    /// When it will ring; `u64::MAX` is never.
    at: Cell<u64>,
}

impl Alarm {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Alarm { fd, at: Cell::new(u64::MAX) })
    }

    /// Has it ring at `at`, which is later than `now`, in milliseconds of the same clock. Never puts
    /// it off: to be woken once too early costs less than to set it each time.
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

    /// Notes that it has rung. It need not be read, for to set it again forgets that.
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
