//! Signs of life of the threads that serve.
//!
//! A watcher asks, and the thread answers between two pieces of work, be it idle or busy. Nothing
//! that a thread may lawfully wait for (an API server, a disk, a log) keeps it from answering, so
//! one that does not answer has stopped.

use std::sync::atomic::{AtomicU64, Ordering};

/// Questions and answers of one thread.
#[derive(Debug, Default)]
pub struct Heartbeat {
    asked: AtomicU64,
    answered: AtomicU64,
}

impl Heartbeat {
    /// Asks for an answer. Whoever asks wakes the thread, too.
    pub fn ask(&self) {
        self.asked.fetch_add(1, Ordering::AcqRel);
    }

    /// Answers what was asked so far; called by the thread itself.
    pub fn answer(&self) {
        self.answered.store(self.asked.load(Ordering::Acquire), Ordering::Release);
    }

    /// Whether everything that was asked is answered.
    pub fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire) == self.asked.load(Ordering::Acquire)
    }
}

/// What waits while a thread does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Clients: the process is neither ready nor alive.
    Clients,
    /// Changes of routes and endpoints: the process is not alive, and serves clients meanwhile.
    Changes,
    /// Health checks. A restart would only take connections away, so that the probes do not fail.
    Checks,
}

/// A thread whose signs of life can be asked for.
pub trait Pulse {
    /// The name of the thread.
    fn name(&self) -> String;

    /// What it is for.
    fn duty(&self) -> Duty;

    /// Asks for an answer, without waiting for it.
    fn ask(&self);

    /// Whether it has answered, or has ended and is not to answer any more.
    fn is_answered(&self) -> bool;
}
