//! Values of which equal ones are the same.

use std::hash::Hash;
use std::sync::Arc;

use ahash::AHashSet as HashSet;

/// Values that are in use somewhere, each once.
#[derive(Debug)]
pub struct Interned<T> {
    known: HashSet<Arc<T>>,
    /// The unused ones are removed when there are this many.
    most: usize,
}

/// How many there are at least before the unused ones are removed.
const FEW: usize = 64;

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Interned { known: HashSet::new(), most: FEW }
    }
}

impl<T: Eq + Hash> Interned<T> {
    /// The one that equals `value`.
    pub fn shared(&mut self, value: impl Into<Arc<T>>) -> Arc<T> {
        let value = value.into();
        if let Some(known) = self.known.get(&value) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.most {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.most = FEW.max(2 * self.known.len());
        }
        self.known.insert(Arc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_the_same_and_unused_ones_are_removed() {
        let mut known = Interned::<usize>::default();
        let used = known.shared(0);
        for value in 1..1000 {
            known.shared(value);
        }
        assert!(known.known.len() <= FEW, "{}", known.known.len());
        assert!(Arc::ptr_eq(&used, &known.shared(0)));
    }
}
