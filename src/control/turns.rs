//! Turns of namespaces: one that has much to do does not delay what others have to do.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

/// What a namespace has to do.
pub(super) trait NamespaceQueue: Default {
    /// Whether nothing waits and nothing runs. Such a queue is forgotten.
    fn is_idle(&self) -> bool;
}

/// The queues of the namespaces, which take turns. The limits on what runs are those of the queues.
#[derive(Debug, Default)]
pub(super) struct Turns<Q> {
    /// Those that are not idle, in the order of their turns.
    queues: BTreeMap<u64, (Arc<str>, Q)>,
    /// The place of each in that order.
    places: HashMap<Arc<str>, u64>,
    last_place: u64,
}

impl<Q: NamespaceQueue> Turns<Q> {
    /// Changes the queue of a namespace, which keeps its place. If that was idle, it comes last.
    pub(super) fn change(&mut self, namespace: &str, change: impl FnOnce(&mut Q)) {
        let place = self.places.get(namespace).copied().unwrap_or_else(|| self.new_place());
        let known = self.queues.remove(&place);
        let (namespace, mut queue) = known.unwrap_or_else(|| (namespace.into(), Q::default()));
        change(&mut queue);
        self.put(place, namespace, queue);
    }

    /// Changes the queues of all namespaces.
    pub(super) fn change_all(&mut self, mut change: impl FnMut(&mut Q)) {
        self.queues.retain(|_, (namespace, queue)| {
            change(queue);
            if queue.is_idle() {
                self.places.remove(namespace);
            }
            !queue.is_idle()
        });
    }

    /// Gives the turn to the first namespace that takes something, which then comes last. The others keep their places.
    pub(super) fn next<T>(
        &mut self,
        mut take: impl FnMut(&mut Q) -> Option<T>,
    ) -> Option<(Arc<str>, T)> {
        let mut queues = self.queues.iter_mut();
        let (place, taken) = queues.find_map(|(place, (_, queue))| Some((*place, take(queue)?)))?;
        let (namespace, queue) = self.queues.remove(&place)?;
        let last = self.new_place();
        self.put(last, Arc::clone(&namespace), queue);
        Some((namespace, taken))
    }

    /// Whether no namespace has anything to do.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// The queues that are not idle.
    pub(super) fn queues(&self) -> impl ExactSizeIterator<Item = &Q> {
        self.queues.values().map(|(_, queue)| queue)
    }

    fn new_place(&mut self) -> u64 {
        self.last_place += 1;
        self.last_place
    }

    fn put(&mut self, place: u64, namespace: Arc<str>, queue: Q) {
        if queue.is_idle() {
            self.places.remove(&namespace);
        } else {
            self.places.insert(Arc::clone(&namespace), place);
            self.queues.insert(place, (namespace, queue));
        }
    }
}

impl<K: Clone + Eq + Hash, V> Turns<DistinctQueue<K, V>> {
    /// Queues a key for a namespace, unless it waits there already.
    pub(super) fn push(&mut self, namespace: &str, key: K, value: V) {
        self.change(namespace, |queue| queue.push(key, value));
    }

    /// The next key, with its value.
    pub(super) fn pop(&mut self) -> Option<(K, V)> {
        self.next(DistinctQueue::pop).map(|(_, next)| next)
    }
}

/// Keys with values, in the order in which they came. Each key waits at most once.
#[derive(Debug)]
pub(super) struct DistinctQueue<K, V = ()> {
    waiting: VecDeque<(K, V)>,
    keys: HashSet<K>,
}

impl<K, V> Default for DistinctQueue<K, V> {
    fn default() -> Self {
        DistinctQueue { waiting: VecDeque::new(), keys: HashSet::new() }
    }
}

impl<K, V> NamespaceQueue for DistinctQueue<K, V> {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl<K: Clone + Eq + Hash, V> DistinctQueue<K, V> {
    pub(super) fn push(&mut self, key: K, value: V) {
        if self.keys.insert(key.clone()) {
            self.waiting.push_back((key, value));
        }
    }

    pub(super) fn pop(&mut self) -> Option<(K, V)> {
        let next = self.waiting.pop_front()?;
        self.keys.remove(&next.0);
        Some(next)
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.keys.retain(|key| keep(key));
        self.waiting.retain(|(key, _)| self.keys.contains(key));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that wait, and how many run.
    #[derive(Debug, Default)]
    struct Numbers {
        waiting: Vec<u32>,
        running: usize,
    }

    impl NamespaceQueue for Numbers {
        fn is_idle(&self) -> bool {
            self.waiting.is_empty() && self.running == 0
        }
    }

    impl Numbers {
        fn begin(&mut self, most: usize) -> Option<u32> {
            let number = if self.running < most { self.waiting.pop() } else { None }?;
            self.running += 1;
            Some(number)
        }
    }

    fn add(turns: &mut Turns<Numbers>, namespace: &str, number: u32) {
        turns.change(namespace, |queue| queue.waiting.insert(0, number));
    }

    fn begun(turns: &mut Turns<Numbers>, most: usize) -> Vec<String> {
        let next = || turns.next(|queue| queue.begin(most));
        std::iter::from_fn(next).map(|(namespace, number)| format!("{namespace}{number}")).collect()
    }

    fn finish(turns: &mut Turns<Numbers>, namespace: &str) {
        turns.change(namespace, |queue| queue.running -= 1);
    }

    #[test]
    fn namespaces_take_turns_and_a_newcomer_comes_after_those_that_wait() {
        let mut turns = Turns::default();
        (1..=4).for_each(|number| add(&mut turns, "a", number));
        (1..=2).for_each(|number| add(&mut turns, "b", number));
        let first = turns.next(|queue| queue.begin(9));
        assert_eq!(first, Some(("a".into(), 1)));
        add(&mut turns, "c", 1);
        assert_eq!(begun(&mut turns, 9), ["b1", "a2", "c1", "b2", "a3", "a4"]);
    }

    #[test]
    fn a_namespace_without_room_keeps_its_place() {
        let mut turns = Turns::default();
        (1..=3).for_each(|number| add(&mut turns, "a", number));
        (1..=4).for_each(|number| add(&mut turns, "b", number));
        assert_eq!(begun(&mut turns, 2), ["a1", "b1", "a2", "b2"]);
        finish(&mut turns, "b");
        assert_eq!(begun(&mut turns, 2), ["b3"]);
        finish(&mut turns, "b");
        finish(&mut turns, "a");
        assert_eq!(begun(&mut turns, 2), ["a3", "b4"]);
    }

    #[test]
    fn namespaces_with_nothing_to_do_are_forgotten() {
        let mut turns = Turns::default();
        ["a", "b", "c"].into_iter().for_each(|namespace| add(&mut turns, namespace, 1));
        assert_eq!(begun(&mut turns, 1), ["a1", "b1", "c1"]);
        finish(&mut turns, "a");
        assert_eq!((turns.queues().len(), turns.places.len()), (2, 2));
        turns.change_all(|queue| queue.running = 0);
        turns.change("d", |_| ());
        assert!(turns.is_empty() && turns.places.is_empty());
    }

    #[test]
    fn a_key_waits_once_and_may_come_again() {
        let mut turns = Turns::<DistinctQueue<u32, char>>::default();
        for (namespace, key, value) in [("a", 1, 'x'), ("a", 2, 'y'), ("a", 1, 'z'), ("b", 1, 'b')]
        {
            turns.push(namespace, key, value);
        }
        assert_eq!((turns.pop(), turns.pop()), (Some((1, 'x')), Some((1, 'b'))));
        turns.push("a", 1, 'z');
        turns.push("a", 3, 'u');
        turns.change_all(|queue| queue.retain(|key| *key != 2));
        assert_eq!((turns.pop(), turns.pop(), turns.pop()), (Some((1, 'z')), Some((3, 'u')), None));
    }
}
