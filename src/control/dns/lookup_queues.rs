//! The queues of waiting lookups. Namespaces take turns, and each has its own limit on concurrent lookups.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::control::api::DnsName;
use crate::control::turns::{NamespaceQueue, Turns};

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
    turns: Turns<LookupQueue>,
    running: [usize; 3],
}

#[derive(Debug, Default)]
struct LookupQueue {
    waiting: [BTreeMap<Ticket, DnsName>; 3],
    running: [usize; 3],
}

impl LookupQueues {
    /// Queues a name for a turn of `namespace`. A name may be queued for several namespaces.
    pub(super) fn add(
        &mut self,
        namespace: &str,
        class: LookupClass,
        ticket: Ticket,
        name: DnsName,
    ) {
        self.turns.change(namespace, |queue| {
            if let Some(waiting) = queue.waiting.get_mut(class as usize) {
                waiting.insert(ticket, name);
            }
        });
    }

    /// Removes a name from the queue of `namespace`.
    pub(super) fn withdraw(&mut self, namespace: &str, ticket: Ticket) {
        self.turns.change(namespace, |queue| {
            queue.waiting.iter_mut().for_each(|waiting| _ = waiting.remove(&ticket));
        });
    }

    /// Starts the next lookup, if the limits allow another one. The caller removes the name from the queues
    /// of other namespaces.
    pub(super) fn next(&mut self) -> Option<(Arc<str>, LookupClass, DnsName)> {
        let (namespace, (class, name)) = self.turns.next(|queue| queue.next(&self.running))?;
        count(&mut self.running, class, |count| count + 1);
        Some((namespace, class, name))
    }

    /// Records the end of a lookup.
    pub(super) fn finish(&mut self, namespace: &str, class: LookupClass) {
        let end = |running: &mut _| count(running, class, |count| count.saturating_sub(1));
        end(&mut self.running);
        self.turns.change(namespace, |queue| end(&mut queue.running));
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.turns.queues().all(|queue| queue.waiting.iter().all(BTreeMap::is_empty))
            && self.running == [0; 3]
    }
}

/// Changes the number of running lookups of a class.
fn count(running: &mut [usize; 3], class: LookupClass, change: impl Fn(usize) -> usize) {
    if let Some(count) = running.get_mut(class as usize) {
        *count = change(*count);
    }
}

impl LookupQueue {
    /// Takes the first name of the best class below its limits.
    fn next(&mut self, all_running: &[usize; 3]) -> Option<(LookupClass, DnsName)> {
        for class in CLASSES {
            let from = class as usize;
            let count_from = |running: &[usize; 3]| running.iter().skip(from).sum::<usize>();
            let full = count_from(all_running) >= *AT_ONCE.get(from)?
                || count_from(&self.running) >= *AT_ONCE_OF_A_NAMESPACE.get(from)?;
            if full {
                continue;
            }
            if let Some((_, name)) = self.waiting.get_mut(from)?.pop_first() {
                count(&mut self.running, class, |count| count + 1);
                return Some((class, name));
            }
        }
        None
    }
}

impl NamespaceQueue for LookupQueue {
    fn is_idle(&self) -> bool {
        self.running == [0; 3] && self.waiting.iter().all(BTreeMap::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(
        queues: &mut LookupQueues,
        namespace: &str,
        class: LookupClass,
        tickets: std::ops::Range<u64>,
    ) {
        for ticket in tickets {
            queues.add(namespace, class, ticket, format!("{namespace}{ticket}").into());
        }
    }

    fn begun(queues: &mut LookupQueues) -> Vec<String> {
        std::iter::from_fn(|| queues.next()).map(|(_, _, name)| name.to_string()).collect()
    }

    #[test]
    fn namespaces_take_turns_and_none_exceeds_its_limit() {
        let mut queues = LookupQueues::default();
        add(&mut queues, "a", LookupClass::New, 0..1000);
        add(&mut queues, "b", LookupClass::New, 1000..1002);
        assert_eq!(begun(&mut queues), ["a0", "b1000", "a1", "b1001", "a2", "a3", "a4", "a5"]);
        // The lookups of `a` take long. A namespace that is added later still gets the next turn.
        add(&mut queues, "c", LookupClass::New, 2000..2001);
        assert_eq!(begun(&mut queues), ["c2000"]);
        queues.finish("a", LookupClass::New);
        assert_eq!(begun(&mut queues), ["a6"]);
    }

    #[test]
    fn failing_lookups_leave_room_for_others() {
        let mut queues = LookupQueues::default();
        for number in 0..50 {
            add(&mut queues, &format!("f{number}"), LookupClass::Failing, 0..10);
        }
        assert_eq!(begun(&mut queues).len(), 12);
        for number in 0..50 {
            add(&mut queues, &format!("n{number}"), LookupClass::New, 0..10);
        }
        assert_eq!(begun(&mut queues).len(), 12);
        add(&mut queues, "a", LookupClass::Answered, 0..100);
        add(&mut queues, "b", LookupClass::Answered, 0..100);
        assert_eq!(begun(&mut queues), ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3"]);
    }

    #[test]
    fn ended_lookups_leave_no_state() {
        let mut queues = LookupQueues::default();
        add(&mut queues, "a", LookupClass::New, 0..3);
        let (namespace, class, _) = queues.next().expect("the first");
        queues.withdraw("a", 1);
        queues.withdraw("a", 2);
        queues.finish(&namespace, class);
        assert!(queues.next().is_none());
        assert!(queues.is_empty() && queues.turns.is_empty());
    }
}
