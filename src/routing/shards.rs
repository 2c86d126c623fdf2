//! A map that is cheap to change a little: a new version shares with the old all that is the same.

use std::borrow::Borrow;

use std::hash::Hash;
use std::sync::Arc;

use ahash::{AHashMap as HashMap, RandomState};

/// How many parts. A change copies this many pointers and the one part that it concerns; a lookup
/// searches one part. With a million items, either is a matter of microseconds.
const SHARDS: usize = 1024;

/// Something that can be found by a key of its own.
pub(super) trait Keyed {
    /// By what it is found.
    type Key: Ord + Hash + ?Sized;

    fn key(&self) -> &Self::Key;
}

/// An immutable set of items by their keys.
#[derive(Debug)]
pub(super) struct Shards<T> {
    /// Each is sorted by key. Empty ones are all the same.
    shards: Box<[Arc<[T]>]>,
    /// Keyed, so that nobody can choose names that meet in one shard.
    hasher: RandomState,
    len: usize,
}

impl<T> Default for Shards<T> {
    fn default() -> Self {
        let empty: Arc<[T]> = Arc::new([]);
        let shards = std::iter::repeat_n(empty, SHARDS).collect();
        Shards { shards, hasher: RandomState::new(), len: 0 }
    }
}

impl<T: Keyed + Clone> Shards<T> {
    /// The item with this key.
    pub(super) fn get(&self, key: &T::Key) -> Option<&T> {
        let shard = self.shards.get(self.shard(key))?;
        let index = shard.binary_search_by(|item| item.key().cmp(key)).ok()?;
        shard.get(index)
    }

    /// All items, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// How many items there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The same set but for `changes`: for each key, the item that is to be there, or `None`. Of
    /// several changes with one key, the last holds.
    pub(super) fn with<K: Borrow<T::Key>>(
        &self,
        changes: impl IntoIterator<Item = (K, Option<T>)>,
    ) -> Self {
        let mut by_shard: HashMap<usize, Vec<(K, Option<T>)>> = HashMap::new();
        for (key, item) in changes {
            by_shard.entry(self.shard(key.borrow())).or_default().push((key, item));
        }
        let mut shards = self.shards.clone();
        let mut len = self.len;
        for (index, changes) in by_shard {
            let Some(shard) = shards.get_mut(index) else { continue };
            let new = merge(shard, changes);
            len = len - shard.len() + new.len();
            *shard = new;
        }
        Shards { shards, hasher: self.hasher.clone(), len }
    }

    fn shard(&self, key: &T::Key) -> usize {
        self.hasher.hash_one(key) as usize % SHARDS
    }
}

/// The items of `old` but for `changes`, sorted.
fn merge<T: Keyed + Clone, K: Borrow<T::Key>>(
    old: &[T],
    mut changes: Vec<(K, Option<T>)>,
) -> Arc<[T]> {
    // Stable: changes with one key stay in their order, and the last of them is taken.
    changes.sort_by(|(a, _), (b, _)| a.borrow().cmp(b.borrow()));
    let mut new = Vec::with_capacity(old.len() + changes.len());
    let mut old = old.iter().peekable();
    let mut changes = changes.into_iter().peekable();
    while let Some((key, item)) = changes.next() {
        while let Some(before) = old.next_if(|item| item.key() < key.borrow()) {
            new.push(before.clone());
        }
        if changes.peek().is_some_and(|(next, _)| next.borrow() == key.borrow()) {
            continue;
        }
        old.next_if(|item| item.key() == key.borrow());
        new.extend(item);
    }
    new.extend(old.cloned());
    new.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Item(u16, u32);

    impl Keyed for Item {
        type Key = u16;

        fn key(&self) -> &u16 {
            &self.0
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_map(steps in prop::collection::vec(
            prop::collection::vec((0u16..3000, prop::option::of(any::<u32>())), 0..200), 1..8,
        )) {
            let mut shards = Shards::<Item>::default();
            let mut map = BTreeMap::new();
            for changes in steps {
                let before: Vec<Item> = shards.iter().cloned().collect();
                let next = shards.with(changes.iter().map(|(key, value)| (*key, value.map(|v| Item(*key, v)))));
                prop_assert_eq!(shards.iter().cloned().collect::<Vec<_>>(), before);
                shards = next;
                for (key, value) in changes {
                    match value {
                        Some(value) => map.insert(key, value),
                        None => map.remove(&key),
                    };
                }
                prop_assert_eq!(shards.len(), map.len());
                for key in 0..3000 {
                    prop_assert_eq!(shards.get(&key).map(|item| item.1), map.get(&key).copied());
                }
                let mut all: Vec<u16> = shards.iter().map(|item| item.0).collect();
                all.sort_unstable();
                prop_assert!(all.iter().eq(map.keys()));
            }
        }
    }

    #[test]
    fn what_did_not_change_is_shared() {
        let all = Shards::<Item>::default().with((0..3000).map(|key| (key, Some(Item(key, 0)))));
        let next = all.with([(7, Some(Item(7, 1)))]);
        let same = all.shards.iter().zip(&next.shards).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!(same, SHARDS - 1);
    }
}
