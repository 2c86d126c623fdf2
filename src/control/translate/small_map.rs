//! A sorted map that mostly has one entry.

use std::collections::BTreeMap;
use std::mem;

/// A map that allocates nothing while it has at most one entry. Most Services have one slice and are named
/// by one port of one route, and most hostnames are claimed by one route; a B-tree for each would take
/// hundreds of bytes.
#[derive(Debug, Default)]
pub(super) enum SmallMap<K, V = ()> {
    #[default]
    None,
    One(K, V),
    /// Usually several entries, but entries may have been removed.
    Many(BTreeMap<K, V>),
}

impl<K: Ord, V> SmallMap<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        match self {
            SmallMap::One(only, value) if only == key => Some(value),
            SmallMap::None | SmallMap::One(..) => None,
            SmallMap::Many(many) => many.get(key),
        }
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match self {
            SmallMap::One(only, value) if only == key => Some(value),
            SmallMap::None | SmallMap::One(..) => None,
            SmallMap::Many(many) => many.get_mut(key),
        }
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        *self = match mem::take(self) {
            SmallMap::None => SmallMap::One(key, value),
            SmallMap::One(only, _) if only == key => SmallMap::One(key, value),
            SmallMap::One(first, before) => {
                SmallMap::Many(BTreeMap::from([(first, before), (key, value)]))
            }
            SmallMap::Many(mut many) => {
                many.insert(key, value);
                SmallMap::Many(many)
            }
        };
    }

    pub(super) fn remove(&mut self, key: &K) {
        match self {
            SmallMap::One(only, _) if only == key => *self = SmallMap::None,
            SmallMap::None | SmallMap::One(..) => {}
            SmallMap::Many(many) => _ = many.remove(key),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        match self {
            SmallMap::None => 0,
            SmallMap::One(..) => 1,
            SmallMap::Many(many) => many.len(),
        }
    }

    /// The entries by key.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> + Clone {
        let (one, many) = match self {
            SmallMap::None => (None, None),
            SmallMap::One(key, value) => (Some((key, value)), None),
            SmallMap::Many(many) => (None, Some(many.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// The entries by key.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        let (one, many) = match self {
            SmallMap::None => (None, None),
            SmallMap::One(key, value) => (Some((&*key, value)), None),
            SmallMap::Many(many) => (None, Some(many.iter_mut())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    pub(super) fn last_key(&self) -> Option<&K> {
        match self {
            SmallMap::None => None,
            SmallMap::One(key, _) => Some(key),
            SmallMap::Many(many) => many.last_key_value().map(|(key, _)| key),
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_small_map_behaves_like_a_tree(
            steps in prop::collection::vec((0..4u8, prop::option::of(0..3u8)), 0..20)
        ) {
            let (mut small_map, mut tree) = (SmallMap::default(), BTreeMap::new());
            for (key, value) in steps {
                match value {
                    Some(value) => {
                        small_map.insert(key, value);
                        tree.insert(key, value);
                    }
                    None => {
                        small_map.remove(&key);
                        tree.remove(&key);
                    }
                }
                prop_assert!(small_map.iter().eq(tree.iter()));
                prop_assert!(small_map.iter_mut().map(|(k, v)| (k, &*v)).eq(tree.iter()));
                prop_assert_eq!(small_map.last_key(), tree.keys().next_back());
                prop_assert!(small_map.keys().eq(tree.keys()) && small_map.values().eq(tree.values()));
                prop_assert_eq!((small_map.len(), small_map.is_empty()), (tree.len(), tree.is_empty()));
                for key in 0..4 {
                    prop_assert_eq!(small_map.get(&key), tree.get(&key));
                    prop_assert_eq!(small_map.get_mut(&key), tree.get_mut(&key));
                }
            }
        }
    }
}
