//! An immutable set that is cheap to change a little: a new version shares unchanged parts with the old one.

use std::cmp::Ordering;
use std::sync::Arc;

/// The number of bits of a hash that select the shard. A change copies 2¹⁰ pointers and the affected shards;
/// a lookup searches one shard. With a million items, each takes microseconds.
const SHARD_BITS: u32 = 10;

/// An item of a set. It stores its own hash, so that finding and sorting items rarely reads the memory that
/// they point to.
pub(super) trait ShardItem: Clone {
    /// The hash of its key. All bits are used, the upper ones first.
    fn hash(&self) -> u32;

    /// The order of items with the same hash. Items with the same key must be adjacent.
    fn order(&self, other: &Self) -> Ordering;

    /// Whether both have the same key.
    fn shares_key(&self, other: &Self) -> bool;

    /// Whether both are the same item.
    fn is(&self, other: &Self) -> bool;
}

/// An immutable set of items, found by the hashes of their keys. Several items may have the same key. Clones
/// are cheap.
#[derive(Clone, Debug)]
pub(super) struct Shards<T> {
    /// Each shard is sorted by hash, then by [`ShardItem::order`]. Empty shards share one allocation.
    shards: Arc<[Arc<[T]>]>,
    keys: usize,
}

impl<T> Default for Shards<T> {
    fn default() -> Self {
        let empty: Arc<[T]> = Arc::new([]);
        Shards { shards: std::iter::repeat_n(empty, 1 << SHARD_BITS).collect(), keys: 0 }
    }
}

impl<T: ShardItem> Shards<T> {
    /// The items with this hash, sorted.
    pub(super) fn with_hash(&self, hash: u32) -> &[T] {
        self.shards.get(shard_of(hash)).map_or(&[], |shard| with_hash(shard, hash))
    }

    /// All items, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// The number of different keys.
    pub(super) fn keys(&self) -> usize {
        self.keys
    }

    /// A set without the items of `gone`, and with those of `new`. It sorts both.
    pub(super) fn with(&self, gone: &mut [T], new: &mut [T]) -> Self {
        if gone.is_empty() && new.is_empty() {
            return self.clone();
        }
        gone.sort_by(order);
        new.sort_by(order);
        let (mut gone, mut new) = (&*gone, &*new);
        let mut keys = self.keys;
        let shards = self.shards.iter().enumerate().map(|(index, shard)| {
            let (gone, new) = (take_shard(&mut gone, index), take_shard(&mut new, index));
            if gone.is_empty() && new.is_empty() {
                return Arc::clone(shard);
            }
            let merged = merge(shard, gone, new);
            keys = keys - count_keys(shard) + count_keys(&merged);
            merged
        });
        Shards { shards: shards.collect(), keys }
    }
}

fn shard_of(hash: u32) -> usize {
    (hash >> (u32::BITS - SHARD_BITS)) as usize
}

fn with_hash<T: ShardItem>(sorted: &[T], hash: u32) -> &[T] {
    let start = first_from(sorted, hash, u64::from(hash << SHARD_BITS), T::hash);
    let rest = sorted.get(start..).unwrap_or_default();
    let length = rest.iter().take_while(|item| item.hash() == hash).count();
    rest.get(..length).unwrap_or_default()
}

/// The index of the first item whose hash is at least this one.
///
/// Hashes are evenly distributed, so the search begins where the hash is expected (`place` of 2³²), and
/// widens from there. Among a thousand items it reads only a few neighbours, and so few cache lines.
pub(super) fn first_from<T>(
    sorted: &[T],
    hash: u32,
    place: u64,
    hash_of: impl Fn(&T) -> u32,
) -> usize {
    let length = sorted.len();
    let guess = ((place * length as u64) >> u32::BITS) as usize;
    let is_before = |index: usize| sorted.get(index).is_some_and(|item| hash_of(item) < hash);
    let (mut low, mut high, mut step) = (guess, guess, 1);
    while is_before(high) {
        (low, high, step) = (high + 1, (high + step).min(length), step * 2);
    }
    while low > 0 && !is_before(low - 1) {
        (high, low, step) = (low - 1, low.saturating_sub(step), step * 2);
    }
    let between = sorted.get(low..high).unwrap_or_default();
    low + between.partition_point(|item| hash_of(item) < hash)
}

fn order<T: ShardItem>(a: &T, b: &T) -> Ordering {
    a.hash().cmp(&b.hash()).then_with(|| a.order(b))
}

/// Takes the items of one shard from the front.
fn take_shard<'i, T: ShardItem>(items: &mut &'i [T], index: usize) -> &'i [T] {
    let length = items.partition_point(|item| shard_of(item.hash()) <= index);
    let (shard, rest) = items.split_at(length);
    *items = rest;
    shard
}

fn merge<T: ShardItem>(old: &[T], gone: &[T], new: &[T]) -> Arc<[T]> {
    let stays = |item: &&T| !with_hash(gone, item.hash()).iter().any(|gone| gone.is(item));
    let mut merged: Vec<T> = old.iter().filter(stays).chain(new).cloned().collect();
    // Both parts are sorted, and this sort merges them.
    merged.sort_by(order);
    merged.into()
}

fn count_keys<T: ShardItem>(shard: &[T]) -> usize {
    let same = |a: &T, b: &T| a.hash() == b.hash() && a.shares_key(b);
    shard.chunk_by(same).count()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// A key and a value. Keys are few, and their hashes fewer.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Pair(u8, u16);

    impl ShardItem for Pair {
        fn hash(&self) -> u32 {
            u32::from(self.0 % 5).wrapping_mul(0x4000_0001)
        }

        fn order(&self, other: &Self) -> Ordering {
            self.cmp(other)
        }

        fn shares_key(&self, other: &Self) -> bool {
            self.0 == other.0
        }

        fn is(&self, other: &Self) -> bool {
            self == other
        }
    }

    fn pairs() -> impl Strategy<Value = BTreeSet<Pair>> {
        let pair = (0..12u8, 0..4u16).prop_map(|(key, value)| Pair(key, value));
        prop::collection::btree_set(pair, 0..20)
    }

    proptest! {
        #[test]
        fn shards_behave_like_a_tree(steps in prop::collection::vec((pairs(), pairs()), 0..6)) {
            let (mut shards, mut tree) = (Shards::default(), BTreeSet::new());
            for (gone, new) in steps {
                // Only existing items are removed, and only missing ones are added.
                let mut gone: Vec<Pair> = gone.intersection(&tree).cloned().collect();
                tree.retain(|pair| !gone.contains(pair));
                let mut new: Vec<Pair> = new.difference(&tree).cloned().collect();
                tree.extend(new.iter().cloned());
                shards = shards.with(&mut gone, &mut new);

                let mut by_key: BTreeMap<u8, Vec<Pair>> = BTreeMap::new();
                tree.iter().for_each(|pair| by_key.entry(pair.0).or_default().push(pair.clone()));
                prop_assert_eq!(shards.keys(), by_key.len());
                prop_assert_eq!(shards.iter().cloned().collect::<BTreeSet<_>>(), tree.clone());
                for key in 0..12 {
                    let hash = Pair(key, 0).hash();
                    let found = shards.with_hash(hash).iter().filter(|pair| pair.0 == key).cloned();
                    let values = by_key.remove(&key).unwrap_or_default();
                    prop_assert_eq!(found.collect::<Vec<_>>(), values);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_hash_is_found_at_any_position(
            mut hashes in prop::collection::vec(prop_oneof![any::<u32>(), 0..9u32], 0..300),
            hash in prop_oneof![any::<u32>(), 0..9u32],
        ) {
            hashes.sort_unstable();
            for wanted in hashes.iter().copied().chain([hash]) {
                let expected = hashes.partition_point(|hash| *hash < wanted);
                let place = u64::from(wanted << SHARD_BITS);
                prop_assert_eq!(first_from(&hashes, wanted, place, |hash| *hash), expected);
            }
        }
    }

    #[test]
    fn a_change_shares_the_other_shards() {
        let mut many: Vec<Pair> = (0..5).map(|key| Pair(key, 0)).collect();
        let before = Shards::default().with(&mut [], &mut many);
        let after = before.with(&mut [Pair(1, 0)], &mut [Pair(1, 1)]);
        let changed = before.shards.iter().zip(&*after.shards).filter(|(a, b)| !Arc::ptr_eq(a, b));
        assert_eq!(changed.count(), 1);
    }
}
