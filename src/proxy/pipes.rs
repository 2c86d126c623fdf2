//! The pipes that a worker splices through.

use std::cell::{Cell, RefCell};
use std::io;

use prometheus::IntGauge;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use crate::metrics::Metrics;

/// The maximum and minimum size of a pipe in bytes, depending on whether the quota allows [`ENOUGH`] large
/// pipes. Larger moves wake both ends less often. The kernel allows no larger pipes by default (pipe(7),
/// `pipe-max-size`).
const LARGEST: usize = 1024 * 1024;
const SMALLEST: usize = 256 * 1024;
/// A worker prefers this number of pipes over larger pipes.
const ENOUGH: usize = 16;
/// Splicing through a smaller pipe is slower than copying. The kernel makes such pipes (8 KiB) for a user
/// who exceeds the quota.
const LEAST_SIZE: usize = 64 * 1024;
/// How many idle pipes are kept.
const IDLE: usize = 16;
/// After the kernel has refused a useful size, this number of requests get no pipe before the next try.
const WISHES_BETWEEN_TRIES: u32 = 1024;
/// The share of the user's quota that this process takes, in percent.
const QUOTA_SHARE: u64 = 75;
/// The kernel's default quota of a user, in pages (pipe(7), `pipe-user-pages-soft`).
const DEFAULT_QUOTA: u64 = 16 * 1024;
const PAGE: u64 = 4096;

/// A pool of pipes. A pipe is borrowed while bytes are in flight, and returned empty.
pub(super) struct Pipes {
    idle: RefCell<Vec<Pipe>>,
    /// The number of existing pipes, including borrowed ones.
    count: Cell<usize>,
    quota: PipeQuota,
    /// How many requests get no pipe before the next try; `u32::MAX` means all.
    pause: Cell<u32>,
    idle_gauge: IntGauge,
    busy_gauge: IntGauge,
}

/// A pipe. It is empty when it is borrowed.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// The size in bytes.
    pub(super) size: usize,
}

impl Pipe {
    /// Reads `size` bytes, or as many as there are.
    pub(super) fn take(&self, size: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; size];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match rustix::io::read(self.read(), rest)? {
                0 => break,
                read => filled += read,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    pub(super) fn read(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }

    pub(super) fn write(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }
}

/// The share of the kernel's quota for one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PipeQuota {
    /// The size of each pipe, in bytes.
    size: usize,
    /// The maximum number of pipes.
    pub(super) pipes: usize,
}

impl PipeQuota {
    /// The share of one of `workers` in the quota of this machine.
    pub(super) fn of(workers: usize) -> Self {
        let quota = std::fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            // 0 means no limit.
            .filter(|pages| *pages > 0)
            .unwrap_or(DEFAULT_QUOTA);
        Self::within(quota, workers)
    }

    fn within(quota: u64, workers: usize) -> Self {
        let bytes = quota.saturating_mul(PAGE).saturating_mul(QUOTA_SHARE) / 100;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX) / workers.max(1);
        // The kernel rounds up to a power of two.
        let size = (bytes / ENOUGH).clamp(SMALLEST, LARGEST);
        let size = if size.is_power_of_two() { size } else { size.next_power_of_two() / 2 };
        PipeQuota { size, pipes: (bytes / size).max(1) }
    }
}

impl Pipes {
    /// A pool of pipes within `quota`.
    pub(super) fn new(quota: PipeQuota, metrics: &Metrics) -> Self {
        Pipes {
            idle: RefCell::default(),
            count: Cell::new(0),
            quota,
            pause: Cell::new(0),
            idle_gauge: metrics.pipes.idle.clone(),
            busy_gauge: metrics.pipes.busy.clone(),
        }
    }

    /// Borrows an empty pipe. `None` if there is none; the caller should then copy.
    pub(super) fn borrow(&self) -> Option<Pipe> {
        let idle = self.idle.borrow_mut().pop();
        let pipe = match idle {
            Some(pipe) => {
                self.idle_gauge.dec();
                pipe
            }
            None => self.add()?,
        };
        self.busy_gauge.inc();
        Some(pipe)
    }

    /// Returns an empty pipe to the pool.
    pub(super) fn give_back(&self, pipe: Pipe) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= IDLE || self.pause.get() == u32::MAX {
            return self.close(pipe);
        }
        self.busy_gauge.dec();
        self.idle_gauge.inc();
        idle.push(pipe);
    }

    /// Closes a borrowed pipe that may contain bytes: these must never reach the next borrower.
    pub(super) fn close(&self, pipe: Pipe) {
        drop(pipe);
        self.busy_gauge.dec();
        self.count.set(self.count.get().saturating_sub(1));
    }

    /// Whether most pipes are borrowed. A direction that waits for its receiver should then return its pipe.
    pub(super) fn are_scarce(&self) -> bool {
        let busy = self.count.get().saturating_sub(self.idle.borrow().len());
        busy > self.quota.pipes - self.quota.pipes / 4
    }

    /// Disables the pool, because the kernel does not support splicing here.
    pub(super) fn disable(&self) {
        self.pause.set(u32::MAX);
        for _ in self.idle.take() {
            self.idle_gauge.dec();
            self.count.set(self.count.get().saturating_sub(1));
        }
    }

    /// Makes another pipe, unless the limit is reached or the kernel has recently made one that is too small.
    fn add(&self) -> Option<Pipe> {
        match self.pause.get() {
            0 => {}
            u32::MAX => return None,
            pause => {
                self.pause.set(pause - 1);
                return None;
            }
        }
        if self.count.get() >= self.quota.pipes {
            return None;
        }
        let pipe = make(self.quota.size);
        match pipe {
            Some(_) => self.count.set(self.count.get() + 1),
            None => self.pause.set(WISHES_BETWEEN_TRIES),
        }
        pipe
    }
}

fn make(size: usize) -> Option<Pipe> {
    let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
    // The kernel may refuse this because of the quota; the actual size is checked next.
    let _ = fcntl_setpipe_size(&write, size);
    let size = fcntl_getpipe_size(&write).ok()?;
    (size >= LEAST_SIZE).then_some(Pipe { read, write, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        let (_, reader) = crate::routing::channel();
        Metrics::new(reader).expect("metrics")
    }

    fn counts(metrics: &Metrics) -> (i64, i64) {
        (metrics.pipes.idle.get(), metrics.pipes.busy.get())
    }

    #[test]
    fn pipes_are_reused_and_limited() {
        let metrics = metrics();
        let pipes = Pipes::new(PipeQuota { size: SMALLEST, pipes: 2 }, &metrics);
        let first = pipes.borrow().expect("a pipe");
        let second = pipes.borrow().expect("a pipe");
        assert!(first.size >= LEAST_SIZE);
        assert!(pipes.borrow().is_none());
        assert_eq!(counts(&metrics), (0, 2));
        pipes.give_back(first);
        assert_eq!(counts(&metrics), (1, 1));
        let again = pipes.borrow().expect("the same pipe");
        pipes.close(again);
        assert_eq!(counts(&metrics), (0, 1));
        let third = pipes.borrow().expect("a new pipe");
        pipes.give_back(third);
        pipes.disable();
        pipes.give_back(second);
        assert_eq!(counts(&metrics), (0, 0));
        assert!(pipes.borrow().is_none());
    }

    #[test]
    fn all_workers_together_stay_under_the_quota() {
        for workers in [1, 2, 3, 7, 64, 1000] {
            let PipeQuota { size, pipes } = PipeQuota::within(DEFAULT_QUOTA, workers);
            let bytes = (pipes * workers * size) as u64;
            assert!(bytes <= DEFAULT_QUOTA * PAGE || pipes == 1, "{workers}: {pipes} of {size}");
            assert!(size.is_power_of_two() && (SMALLEST..=LARGEST).contains(&size), "{size}");
        }
    }

    #[test]
    fn pipes_are_large_as_long_as_there_are_enough() {
        let of = |workers| {
            let PipeQuota { size, pipes } = PipeQuota::within(DEFAULT_QUOTA, workers);
            (size >> 10, pipes)
        };
        assert_eq!(
            [1, 2, 4, 8, 16].map(of),
            [(1024, 48), (1024, 24), (512, 24), (256, 24), (256, 12)]
        );
    }
}
