//! The one count of open connections.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many client connections are open, by the worker that serves them. Clones are the same.
///
/// A worker counts in memory of its own, which others only read.
#[derive(Clone, Debug, Default)]
pub struct OpenConnections(Arc<Mutex<Vec<Arc<AtomicUsize>>>>);

impl OpenConnections {
    /// The counter of the worker with this number.
    pub fn of(&self, worker: usize) -> Arc<AtomicUsize> {
        let mut workers = self.lock();
        if workers.len() <= worker {
            workers.resize_with(worker + 1, Arc::default);
        }
        workers.get(worker).cloned().unwrap_or_default()
    }

    /// Those of each worker.
    pub fn by_worker(&self) -> Vec<usize> {
        self.lock().iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Those of all workers together.
    pub fn total(&self) -> usize {
        self.by_worker().into_iter().sum()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<AtomicUsize>>> {
        // Every change of it is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
