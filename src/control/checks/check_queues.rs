//! The checks that wait for the budget. Namespaces take turns, and each has its share of the running checks, so
//! that neither a namespace with many endpoints nor one whose endpoints do not answer delays the checks of others.
//! When all places are taken by endpoints that do not answer, each further namespace still gets a few.

use std::sync::Arc;

use crate::control::turns::{DistinctQueue, NamespaceQueue, Turns};

/// The most checks of one namespace, however few others have any.
const AT_ONCE_OF_A_NAMESPACE: usize = 64;
/// How many each namespace may have when its share is less, in places that are kept for that.
const ALWAYS: usize = 4;
/// The part of the places that namespaces share; the others are kept.
const SHARED_PART: usize = 2;

/// The queues of the namespaces.
#[derive(Debug)]
pub(super) struct CheckQueues {
    turns: Turns<CheckQueue>,
    /// The most checks that run at the same time.
    most: usize,
    running: usize,
}

#[derive(Debug, Default)]
struct CheckQueue {
    waiting: DistinctQueue<u64>,
    running: usize,
}

/// The places for checks at one moment.
struct Places {
    most: usize,
    taken: usize,
    /// How many a namespace may have.
    share: usize,
}

impl CheckQueues {
    /// At most so many checks run at the same time.
    pub(super) fn new(most: usize) -> Self {
        CheckQueues { turns: Turns::default(), most, running: 0 }
    }

    /// Queues a check, unless it waits there already. It may be queued for several namespaces.
    pub(super) fn add(&mut self, namespace: &str, check: u64) {
        self.turns.change(namespace, |queue| queue.waiting.push(check, ()));
    }

    /// Forgets the checks that wait and do not exist any more.
    pub(super) fn retain(&mut self, exists: impl Fn(u64) -> bool) {
        self.turns.change_all(|queue| queue.waiting.retain(|check| exists(*check)));
    }

    /// The next check and its namespace, if another one may run. It runs until [`CheckQueues::finish`].
    pub(super) fn next(&mut self) -> Option<(Arc<str>, u64)> {
        let places = self.places();
        let next = self.turns.next(|queue| queue.next(&places))?;
        self.running += 1;
        Some(next)
    }

    /// Whether a check could run now.
    pub(super) fn has_next(&self) -> bool {
        let places = self.places();
        self.turns.queues().any(|queue| queue.has_next(&places))
    }

    /// How many places in queues are taken.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.turns.queues().map(|queue| queue.waiting.len()).sum()
    }

    /// Records the end of a check that ran.
    pub(super) fn finish(&mut self, namespace: &str) {
        self.running = self.running.saturating_sub(1);
        self.turns.change(namespace, |queue| queue.running = queue.running.saturating_sub(1));
    }

    fn places(&self) -> Places {
        let namespaces = self.turns.queues().len().max(1);
        let share = (self.most / SHARED_PART / namespaces).clamp(ALWAYS, AT_ONCE_OF_A_NAMESPACE);
        Places { most: self.most, taken: self.running, share }
    }
}

impl CheckQueue {
    fn has_next(&self, places: &Places) -> bool {
        let part = if self.running < ALWAYS { 1 } else { SHARED_PART };
        let has_room = self.running < places.share && places.taken < places.most / part;
        has_room && !self.waiting.is_idle()
    }

    fn next(&mut self, places: &Places) -> Option<u64> {
        let (check, ()) = if self.has_next(places) { self.waiting.pop() } else { None }?;
        self.running += 1;
        Some(check)
    }
}

impl NamespaceQueue for CheckQueue {
    fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting.is_idle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 512;

    fn begun(queues: &mut CheckQueues) -> Vec<u64> {
        std::iter::from_fn(|| queues.next()).map(|(_, check)| check).collect()
    }

    #[test]
    fn namespaces_take_turns_and_none_has_more_than_its_share() {
        let (mut queues, a, b) = (CheckQueues::new(MOST), "a", "b");
        (0..100).chain(0..100).for_each(|check| queues.add(a, check));
        (100..102).for_each(|check| queues.add(b, check));
        let first = begun(&mut queues);
        assert_eq!(first[..5], [0, 100, 1, 101, 2]);
        assert_eq!(first.len(), AT_ONCE_OF_A_NAMESPACE + 2);
        assert!(!queues.has_next());
        queues.add(b, 102);
        assert!(queues.has_next());
        assert_eq!(begun(&mut queues), [102]);
        queues.finish(a);
        assert_eq!(begun(&mut queues), [64]);
    }

    #[test]
    fn endpoints_that_do_not_answer_take_no_namespace_all_places() {
        let mut queues = CheckQueues::new(MOST);
        for namespace in ["a", "b", "c", "d"] {
            (0..100).for_each(|check| queues.add(namespace, check));
        }
        assert_eq!(begun(&mut queues).len(), MOST / 2);
        (200..300).for_each(|check| queues.add("e", check));
        assert_eq!(begun(&mut queues), [200, 201, 202, 203]);
        assert!(!queues.has_next());
        queues.finish("e");
        assert_eq!(begun(&mut queues), [204]);
        // The others give way as their checks end.
        (0..20).for_each(|_| queues.finish("a"));
        let next = begun(&mut queues);
        let own = next.iter().filter(|check| **check < 200).count();
        assert_eq!((own, next.len()), (7, 16), "{next:?}");
        for number in 0..MOST {
            queues.add(&format!("n{number}"), 1);
        }
        begun(&mut queues);
        assert_eq!(queues.running, MOST);
    }

    #[test]
    fn checks_that_are_gone_do_not_wait() {
        let (mut queues, a, b) = (CheckQueues::new(MOST), "a", "b");
        (0..10).for_each(|check| queues.add(a, check));
        queues.add(b, 3);
        queues.retain(|check| check == 7);
        assert_eq!(queues.len(), 1);
        assert_eq!(begun(&mut queues), [7]);
        queues.finish(a);
        assert!(queues.turns.is_empty());
    }

    #[test]
    fn checks_that_have_ended_leave_no_state() {
        let (mut queues, a) = (CheckQueues::new(MOST), "a");
        queues.add(a, 1);
        assert_eq!(begun(&mut queues), [1]);
        queues.finish(a);
        assert!(queues.turns.is_empty() && queues.running == 0);
    }
}
