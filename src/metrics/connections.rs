//! The counters of open connections.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The number of open client connections of each worker. Clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct OpenConnections(Arc<Mutex<Vec<Arc<ConnectionCount>>>>);

/// The number of open connections of one worker. Other workers rarely change it, and it has its own cache
/// line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ConnectionCount(AtomicUsize);

impl ConnectionCount {
    /// Adds connections.
    pub fn add(&self, connections: usize) {
        self.0.fetch_add(connections, Ordering::Relaxed);
    }

    /// Subtracts connections.
    pub fn subtract(&self, connections: usize) {
        self.0.fetch_sub(connections, Ordering::Relaxed);
    }

    /// The number of connections.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl OpenConnections {
    /// The count of the worker with this number.
    pub fn of(&self, worker: usize) -> Arc<ConnectionCount> {
        let mut workers = self.lock();
        if workers.len() <= worker {
            workers.resize_with(worker + 1, Arc::default);
        }
        workers.get(worker).cloned().unwrap_or_default()
    }

    /// The counts of all workers, by their numbers.
    pub fn by_worker(&self) -> Vec<usize> {
        self.lock().iter().map(|count| count.get()).collect()
    }

    /// The sum over all workers.
    pub fn total(&self) -> usize {
        self.by_worker().into_iter().sum()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<ConnectionCount>>> {
        // Nothing panics with the lock held, so the counts are complete.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
