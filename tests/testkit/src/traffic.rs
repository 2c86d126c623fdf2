//! Connections that keep coming while something is done to sluice.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What threads do again and again until they are stopped, and how often it was done.
#[derive(Default)]
pub struct Traffic {
    stop: AtomicBool,
    done: AtomicUsize,
}

/// Stops the threads when it is dropped, so that a test that fails does not wait for them.
pub struct StopAtEnd<'a>(&'a Traffic);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

impl Traffic {
    /// What stops the threads at the end of a test.
    pub fn stop_at_end(&self) -> StopAtEnd<'_> {
        StopAtEnd(self)
    }

    /// How often it was done so far, by all threads together.
    pub fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Does it once in each `interval`, or as often as it can be done. Panics if it fails.
    pub fn run<E: Debug>(&self, interval: Duration, mut once: impl FnMut() -> Result<(), E>) {
        while !self.stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            once().unwrap();
            self.done.fetch_add(1, Ordering::Relaxed);
            thread::sleep(interval.saturating_sub(started.elapsed()));
        }
    }
}
