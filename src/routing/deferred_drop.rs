//! Replaced values that readers may still hold.

use std::sync::Arc;

/// Values that are freed here, and not by the last reader: freeing a large table or set would block a worker
/// for too long.
#[derive(Debug)]
pub(super) struct DeferredDrop<T>(Vec<Arc<T>>);

impl<T> Default for DeferredDrop<T> {
    fn default() -> Self {
        DeferredDrop(Vec::new())
    }
}

impl<T> DeferredDrop<T> {
    /// Keeps a value that no new reader can get.
    pub(super) fn keep(&mut self, value: Arc<T>) {
        self.0.push(value);
    }

    /// Frees the values that no reader holds.
    pub(super) fn sweep(&mut self) {
        self.0.retain(|value| Arc::strong_count(value) > 1);
    }
}
