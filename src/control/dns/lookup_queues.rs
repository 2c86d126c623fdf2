//! The queues of waiting lookups. Namespaces take turns, and each has its own limit on concurrent lookups.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::control::api::DnsName;

/// The expected result of a lookup, the best first. The number of concurrent lookups is limited for each
/// class, both in total and for each namespace; a lookup of a worse class also counts towards the limits of
/// the better ones. So failing lookups leave room for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookupClass {
    /// The previous lookup got an answer.
    Answered,
    /// There was no previous lookup.
    New,
    /// The previous lookup got no answer.
    Failing,
}

const CLASSES: [LookupClass; 3] = [LookupClass::Answered, LookupClass::New, LookupClass::Failing];
const AT_ONCE: [usize; 3] = [32, 24, 12];
const AT_ONCE_OF_A_NAMESPACE: [usize; 3] = [8, 6, 4];

/// The position of a name in the queues. Lower tickets are older.
pub(super) type Ticket = u64;

/// The waiting lookups of one address family, and the number of running ones.
#[derive(Debug, Default)]
pub(super) struct LookupQueues {
    /// The namespaces with waiting lookups, each once.
    ring: VecDeque<Arc<str>>,
    queues: HashMap<Arc<str>, NamespaceQueue>,
    running: [usize; 3],
}

#[derive(Debug, Default)]
struct NamespaceQueue {
    waiting: [BTreeMap<Ticket, DnsName>; 3],
    running: [usize; 3],
    /// Whether the namespace is in the ring.
    in_ring: bool,
}

impl LookupQueues {
    /// Queues a name for a turn of `namespace`. A name may be queued for several namespaces.
    pub(super) fn add(
        &mut self,
        namespace: &Arc<str>,
        class: LookupClass,
        ticket: Ticket,
        name: DnsName,
    ) {
        let queue = self.queues.entry(Arc::clone(namespace)).or_default();
        if let Some(waiting) = queue.waiting.get_mut(class as usize) {
            waiting.insert(ticket, name);
        }
        if !std::mem::replace(&mut queue.in_ring, true) {
            self.ring.push_back(Arc::clone(namespace));
        }
    }

    /// Removes a name from the queue of `namespace`.
    pub(super) fn withdraw(&mut self, namespace: &str, ticket: Ticket) {
        if let Some(queue) = self.queues.get_mut(namespace) {
            queue.waiting.iter_mut().for_each(|waiting| _ = waiting.remove(&ticket));
        }
        self.forget(namespace);
    }

    /// Starts the next lookup, if the limits allow another one. The caller removes the name from the queues
    /// of other namespaces.
    pub(super) fn next(&mut self) -> Option<(Arc<str>, LookupClass, DnsName)> {
        for _ in 0..self.ring.len() {
            let namespace = self.ring.pop_front()?;
            let Some(queue) = self.queues.get_mut(&namespace) else { continue };
            if queue.waiting.iter().all(BTreeMap::is_empty) {
                queue.in_ring = false;
                self.forget(&namespace);
                continue;
            }
            self.ring.push_back(Arc::clone(&namespace));
            if let Some((class, name)) = queue.next(&self.running) {
                self.count(class, |count| *count += 1);
                return Some((namespace, class, name));
            }
        }
        None
    }

    /// Records the end of a lookup.
    pub(super) fn finish(&mut self, namespace: &str, class: LookupClass) {
        self.count(class, |count| *count = count.saturating_sub(1));
        if let Some(count) =
            self.queues.get_mut(namespace).and_then(|queue| queue.running.get_mut(class as usize))
        {
            *count = count.saturating_sub(1);
        }
        self.forget(namespace);
    }

    fn count(&mut self, class: LookupClass, change: impl FnMut(&mut usize)) {
        self.running.get_mut(class as usize).into_iter().for_each(change);
    }

    /// Removes the queue of a namespace that has neither waiting nor running lookups.
    fn forget(&mut self, namespace: &str) {
        let idle = |queue: &NamespaceQueue| {
            !queue.in_ring
                && queue.running.iter().all(|count| *count == 0)
                && queue.waiting.iter().all(BTreeMap::is_empty)
        };
        if self.queues.get(namespace).is_some_and(idle) {
            self.queues.remove(namespace);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.queues.values().all(|queue| queue.waiting.iter().all(BTreeMap::is_empty))
            && self.running == [0; 3]
    }
}

impl NamespaceQueue {
    /// Takes the first name of the best class below its limits.
    fn next(&mut self, all_running: &[usize; 3]) -> Option<(LookupClass, DnsName)> {
        for class in CLASSES {
            let from = class as usize;
            let count = |running: &[usize; 3]| running.iter().skip(from).sum::<usize>();
            let full = count(all_running) >= *AT_ONCE.get(from)?
                || count(&self.running) >= *AT_ONCE_OF_A_NAMESPACE.get(from)?;
            if full {
                continue;
            }
            if let Some((_, name)) = self.waiting.get_mut(from)?.pop_first() {
                *self.running.get_mut(from)? += 1;
                return Some((class, name));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(
        turns: &mut LookupQueues,
        namespace: &str,
        class: LookupClass,
        tickets: std::ops::Range<u64>,
    ) {
        for ticket in tickets {
            turns.add(&namespace.into(), class, ticket, format!("{namespace}{ticket}").into());
        }
    }

    fn begun(turns: &mut LookupQueues) -> Vec<String> {
        std::iter::from_fn(|| turns.next()).map(|(_, _, name)| name.to_string()).collect()
    }

    #[test]
    fn namespaces_take_turns_and_none_exceeds_its_limit() {
        let mut turns = LookupQueues::default();
        add(&mut turns, "a", LookupClass::New, 0..1000);
        add(&mut turns, "b", LookupClass::New, 1000..1002);
        assert_eq!(begun(&mut turns), ["a0", "b1000", "a1", "b1001", "a2", "a3", "a4", "a5"]);
        // The lookups of `a` take long. A namespace that is added later still gets the next turn.
        add(&mut turns, "c", LookupClass::New, 2000..2001);
        assert_eq!(begun(&mut turns), ["c2000"]);
        turns.finish("a", LookupClass::New);
        assert_eq!(begun(&mut turns), ["a6"]);
    }

    #[test]
    fn failing_lookups_leave_room_for_others() {
        let mut turns = LookupQueues::default();
        for number in 0..50 {
            add(&mut turns, &format!("f{number}"), LookupClass::Failing, 0..10);
        }
        assert_eq!(begun(&mut turns).len(), 12);
        for number in 0..50 {
            add(&mut turns, &format!("n{number}"), LookupClass::New, 0..10);
        }
        assert_eq!(begun(&mut turns).len(), 12);
        add(&mut turns, "a", LookupClass::Answered, 0..100);
        add(&mut turns, "b", LookupClass::Answered, 0..100);
        assert_eq!(begun(&mut turns), ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3"]);
    }

    #[test]
    fn ended_lookups_leave_no_state() {
        let mut turns = LookupQueues::default();
        add(&mut turns, "a", LookupClass::New, 0..3);
        let (namespace, class, _) = turns.next().expect("the first");
        turns.withdraw("a", 1);
        turns.withdraw("a", 2);
        turns.finish(&namespace, class);
        assert!(turns.next().is_none());
        assert!(turns.queues.is_empty() && turns.ring.is_empty() && turns.is_empty());
    }
}
