//! The checks that wait for the budget. Namespaces take turns, and each has its share of the running checks, so
//! that neither a namespace with many endpoints nor one whose endpoints do not answer delays the checks of others.
//! When all places are taken by endpoints that do not answer, each further namespace still gets a few.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// The most checks of one namespace, however few others have any.
const AT_ONCE_OF_A_NAMESPACE: usize = 64;
/// How many each namespace may have when its share is less, in places that are kept for that.
const ALWAYS: usize = 4;
/// The part of the places that namespaces share; the others are kept.
const SHARED_PART: usize = 2;

/// The queues of the namespaces.
#[derive(Debug)]
pub(super) struct Turns {
    /// The most checks that run at the same time.
    most: usize,
    /// The namespaces with waiting checks, each once.
    ring: VecDeque<Arc<str>>,
    queues: HashMap<Arc<str>, NamespaceQueue>,
    running: usize,
}

#[derive(Debug, Default)]
struct NamespaceQueue {
    waiting: VecDeque<u64>,
    /// Those that wait.
    known: HashSet<u64>,
    running: usize,
}

impl NamespaceQueue {
    /// Whether another check may run, while `running` of at most `most` run, and each namespace may have `share`.
    fn has_room(&self, running: usize, most: usize, share: usize) -> bool {
        let most = if self.running < ALWAYS { most } else { most / SHARED_PART };
        self.running < share && running < most
    }
}

impl Turns {
    /// At most so many checks run at the same time.
    pub(super) fn new(most: usize) -> Self {
        Turns { most, ring: VecDeque::new(), queues: HashMap::new(), running: 0 }
    }

    /// Queues a check, unless it waits there already. It may be queued for several namespaces.
    pub(super) fn add(&mut self, namespace: &Arc<str>, check: u64) {
        let queue = self.queues.entry(Arc::clone(namespace)).or_default();
        if !queue.known.insert(check) {
            return;
        }
        if queue.waiting.is_empty() {
            self.ring.push_back(Arc::clone(namespace));
        }
        queue.waiting.push_back(check);
    }

    /// How many checks of a namespace may run, by the number of those that have any.
    fn share(&self) -> usize {
        (self.most / SHARED_PART / self.queues.len().max(1)).clamp(ALWAYS, AT_ONCE_OF_A_NAMESPACE)
    }

    /// Forgets the checks that wait and do not exist any more.
    pub(super) fn retain(&mut self, exists: impl Fn(u64) -> bool) {
        for queue in self.queues.values_mut() {
            queue.known.retain(|check| exists(*check));
            let known = &queue.known;
            queue.waiting.retain(|check| known.contains(check));
        }
        self.queues.retain(|_, queue| queue.running > 0 || !queue.waiting.is_empty());
        let queues = &self.queues;
        self.ring.retain(|namespace| {
            queues.get(namespace).is_some_and(|queue| !queue.waiting.is_empty())
        });
    }

    /// The next check and its namespace, if another one may run. It runs until [`Turns::finish`].
    pub(super) fn next(&mut self) -> Option<(Arc<str>, u64)> {
        let share = self.share();
        for _ in 0..self.ring.len() {
            let namespace = self.ring.pop_front()?;
            let Some(queue) = self.queues.get_mut(&namespace) else { continue };
            let check = match queue.has_room(self.running, self.most, share) {
                true => queue.waiting.pop_front(),
                false => None,
            };
            if let Some(check) = check {
                queue.known.remove(&check);
                queue.running += 1;
            }
            if !queue.waiting.is_empty() {
                self.ring.push_back(Arc::clone(&namespace));
            }
            if let Some(check) = check {
                self.running += 1;
                return Some((namespace, check));
            }
        }
        None
    }

    /// Whether a check could run now.
    pub(super) fn has_next(&self) -> bool {
        let share = self.share();
        let has_room = |namespace: &Arc<str>| {
            self.queues
                .get(namespace)
                .is_some_and(|queue| queue.has_room(self.running, self.most, share))
        };
        self.running < self.most && self.ring.iter().any(has_room)
    }

    /// How many places in queues are taken.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queues.values().map(|queue| queue.waiting.len()).sum()
    }

    /// Records the end of a check that ran.
    pub(super) fn finish(&mut self, namespace: &Arc<str>) {
        self.running = self.running.saturating_sub(1);
        if let Some(queue) = self.queues.get_mut(namespace) {
            queue.running = queue.running.saturating_sub(1);
            if queue.running == 0 && queue.waiting.is_empty() {
                self.queues.remove(namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 512;

    fn begun(turns: &mut Turns) -> Vec<u64> {
        std::iter::from_fn(|| turns.next()).map(|(_, check)| check).collect()
    }

    #[test]
    fn namespaces_take_turns_and_none_has_more_than_its_share() {
        let (mut turns, a, b) = (Turns::new(MOST), Arc::from("a"), Arc::from("b"));
        (0..100).chain(0..100).for_each(|check| turns.add(&a, check));
        (100..102).for_each(|check| turns.add(&b, check));
        let first = begun(&mut turns);
        assert_eq!(first[..5], [0, 100, 1, 101, 2]);
        assert_eq!(first.len(), AT_ONCE_OF_A_NAMESPACE + 2);
        assert!(!turns.has_next());
        turns.add(&b, 102);
        assert!(turns.has_next());
        assert_eq!(begun(&mut turns), [102]);
        turns.finish(&a);
        assert_eq!(begun(&mut turns), [64]);
    }

    #[test]
    fn endpoints_that_do_not_answer_take_no_namespace_all_places() {
        let mut turns = Turns::new(MOST);
        for namespace in ["a", "b", "c", "d"].map(Arc::from) {
            (0..100).for_each(|check| turns.add(&namespace, check));
        }
        assert_eq!(begun(&mut turns).len(), MOST / 2);
        let other = Arc::from("e");
        (200..300).for_each(|check| turns.add(&other, check));
        assert_eq!(begun(&mut turns), [200, 201, 202, 203]);
        assert!(!turns.has_next());
        turns.finish(&other);
        assert_eq!(begun(&mut turns), [204]);
        // The others give way as their checks end.
        let silent = Arc::from("a");
        (0..20).for_each(|_| turns.finish(&silent));
        let next = begun(&mut turns);
        let own = next.iter().filter(|check| **check < 200).count();
        assert_eq!((own, next.len()), (7, 16), "{next:?}");
        for number in 0..MOST {
            turns.add(&Arc::from(format!("n{number}")), 1);
        }
        begun(&mut turns);
        assert_eq!(turns.running, MOST);
    }

    #[test]
    fn checks_that_are_gone_do_not_wait() {
        let (mut turns, a, b) = (Turns::new(MOST), Arc::from("a"), Arc::from("b"));
        (0..10).for_each(|check| turns.add(&a, check));
        turns.add(&b, 3);
        turns.retain(|check| check == 7);
        assert_eq!(turns.len(), 1);
        assert_eq!(begun(&mut turns), [7]);
        turns.finish(&a);
        assert!(turns.queues.is_empty() && turns.ring.is_empty());
    }

    #[test]
    fn checks_that_have_ended_leave_no_state() {
        let (mut turns, a) = (Turns::new(MOST), Arc::from("a"));
        turns.add(&a, 1);
        assert_eq!(begun(&mut turns), [1]);
        turns.finish(&a);
        assert!(turns.queues.is_empty() && turns.ring.is_empty() && turns.running == 0);
    }
}
