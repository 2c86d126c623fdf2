//! The limit on fast directions, because the bytes that a fast direction holds are not bounded.

use std::cell::Cell;
use std::rc::Rc;

/// The maximum number of fast directions of a worker.
const MOST_FAST: usize = 16;

/// The slots for fast directions of a worker.
pub(super) struct FastSlots(Rc<Cell<usize>>);

/// The slot of one fast direction; given back on drop.
pub(super) struct FastSlot(Rc<Cell<usize>>);

impl FastSlots {
    /// The slots of a worker, all of them free.
    pub(super) fn new() -> Self {
        FastSlots(Rc::new(Cell::new(MOST_FAST)))
    }

    /// Takes a slot, if one is left.
    pub(super) fn take(&self) -> Option<FastSlot> {
        let left = self.0.get().checked_sub(1)?;
        self.0.set(left);
        Some(FastSlot(Rc::clone(&self.0)))
    }
}

impl Drop for FastSlot {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_fast_directions_is_limited() {
        let slots = FastSlots::new();
        let mut taken: Vec<_> = (0..MOST_FAST).map(|_| slots.take().expect("a slot")).collect();
        assert!(slots.take().is_none());
        drop(taken.pop());
        assert!(slots.take().is_some());
    }
}
