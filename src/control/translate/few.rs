//! A sorted map that mostly has one entry.

use std::collections::BTreeMap;
use std::mem;

/// A map that takes no memory of its own as long as it has no more than one entry. Most Services
/// have one slice and are named by one port of one route, and most hostnames are claimed by one
/// route; a B-tree for each is hundreds of bytes.
#[derive(Debug, Default)]
pub(super) enum Few<K, V = ()> {
    #[default]
    None,
    One(K, V),
    /// Perhaps fewer by now.
    Many(BTreeMap<K, V>),
}

impl<K: Ord, V> Few<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        match self {
            Few::One(only, value) if only == key => Some(value),
            Few::None | Few::One(..) => None,
            Few::Many(many) => many.get(key),
        }
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match self {
            Few::One(only, value) if only == key => Some(value),
            Few::None | Few::One(..) => None,
            Few::Many(many) => many.get_mut(key),
        }
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        *self = match mem::take(self) {
            Few::None => Few::One(key, value),
            Few::One(only, _) if only == key => Few::One(key, value),
            Few::One(first, before) => Few::Many(BTreeMap::from([(first, before), (key, value)])),
            Few::Many(mut many) => {
                many.insert(key, value);
                Few::Many(many)
            }
        };
    }

    pub(super) fn remove(&mut self, key: &K) {
        match self {
            Few::One(only, _) if only == key => *self = Few::None,
            Few::None | Few::One(..) => {}
            Few::Many(many) => _ = many.remove(key),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Few::None => 0,
            Few::One(..) => 1,
            Few::Many(many) => many.len(),
        }
    }

    /// By key.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> + Clone {
        let (one, many) = match self {
            Few::None => (None, None),
            Few::One(key, value) => (Some((key, value)), None),
            Few::Many(many) => (None, Some(many.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// By key.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        let (one, many) = match self {
            Few::None => (None, None),
            Few::One(key, value) => (Some((&*key, value)), None),
            Few::Many(many) => (None, Some(many.iter_mut())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    pub(super) fn last_key(&self) -> Option<&K> {
        match self {
            Few::None => None,
            Few::One(key, _) => Some(key),
            Few::Many(many) => many.last_key_value().map(|(key, _)| key),
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
        fn it_is_the_map_that_a_tree_is(
            steps in prop::collection::vec((0..4u8, prop::option::of(0..3u8)), 0..20)
        ) {
            let (mut few, mut tree) = (Few::default(), BTreeMap::new());
            for (key, value) in steps {
                match value {
                    Some(value) => {
                        few.insert(key, value);
                        tree.insert(key, value);
                    }
                    None => {
                        few.remove(&key);
                        tree.remove(&key);
                    }
                }
                prop_assert!(few.iter().eq(tree.iter()));
                prop_assert!(few.iter_mut().map(|(k, v)| (k, &*v)).eq(tree.iter()));
                prop_assert_eq!(few.last_key(), tree.keys().next_back());
                prop_assert!(few.keys().eq(tree.keys()) && few.values().eq(tree.values()));
                prop_assert_eq!((few.len(), few.is_empty()), (tree.len(), tree.is_empty()));
                for key in 0..4 {
                    prop_assert_eq!(few.get(&key), tree.get(&key));
                    prop_assert_eq!(few.get_mut(&key), tree.get_mut(&key));
                }
            }
        }
    }
}
