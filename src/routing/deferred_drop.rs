//! Values that were replaced and that readers may still hold.

use std::sync::Arc;

/// Values that are freed here, and not by whichever reader lets go of them last: of a large table or
/// set, that takes longer than a worker may be away.
#[derive(Debug)]
pub(super) struct DeferredDrop<T>(Vec<Arc<T>>);

impl<T> Default for DeferredDrop<T> {
    fn default() -> Self {
        DeferredDrop(Vec::new())
    }
}

impl<T> DeferredDrop<T> {
    /// Keeps what nobody can come to hold any more who does not yet.
    pub(super) fn keep(&mut self, value: Arc<T>) {
        self.0.push(value);
    }

    /// Frees what nobody else holds.
    pub(super) fn sweep(&mut self) {
        self.0.retain(|value| Arc::strong_count(value) > 1);
    }
}
