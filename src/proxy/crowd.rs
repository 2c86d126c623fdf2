//! The connections of one worker by source, so that one of the source that has most can give way.

use std::cell::RefCell;
use std::net::IpAddr;

use ahash::AHashMap as HashMap;
use slab::Slab;

use super::reactor::TaskId;

/// How many bits of an IPv6 address make a source: a host can have all addresses of such a network.
const IPV6_PREFIX: u32 = 64;

/// Connections by source. Those of one source are in order: the first is the one that has rested the longest.
/// Each operation takes the same time, however many there are.
#[derive(Debug, Default)]
pub(super) struct Crowd(RefCell<Members>);

#[derive(Debug, Default)]
struct Members {
    members: Slab<Member>,
    sources: Slab<Source>,
    known: HashMap<u128, usize>,
    /// The sources, those with most connections first.
    ranking: Vec<usize>,
    /// How many sources have at least so many connections, by that number less one.
    with_at_least: Vec<usize>,
}

#[derive(Debug)]
struct Member {
    task: TaskId,
    source: usize,
    before: Option<usize>,
    after: Option<usize>,
    /// When it was put to the end of its source, in milliseconds of the reactor.
    moved: u64,
}

#[derive(Debug)]
struct Source {
    prefix: u128,
    count: usize,
    first: Option<usize>,
    last: Option<usize>,
    /// Its place in the ranking.
    rank: usize,
}

/// A connection in a [`Crowd`], until this is dropped.
#[derive(Debug)]
pub(super) struct Membership<'a> {
    crowd: &'a Crowd,
    key: usize,
    task: TaskId,
}

impl Crowd {
    /// Adds the connection of `task`.
    pub(super) fn enter(&self, source: IpAddr, task: TaskId, now: u64) -> Membership<'_> {
        let key = self.0.borrow_mut().insert(prefix_of(source), task, now);
        Membership { crowd: self, key, task }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.borrow().members.len()
    }

    /// How many connections a source has.
    pub(super) fn count_of(&self, source: IpAddr) -> usize {
        let members = self.0.borrow();
        let known = members.known.get(&prefix_of(source));
        known.and_then(|source| members.sources.get(*source)).map_or(0, |source| source.count)
    }

    /// How many connections the source has that has most.
    pub(super) fn most(&self) -> usize {
        self.0.borrow().with_at_least.len()
    }

    /// Removes the connection that has rested the longest of the source that has most.
    pub(super) fn remove_of_most(&self) -> Option<TaskId> {
        let mut members = self.0.borrow_mut();
        let key = members.sources.get(*members.ranking.first()?)?.first?;
        members.remove(key)
    }
}

impl Membership<'_> {
    /// Records that the connection has moved bytes. It keeps its place if that was recorded less than a second ago.
    pub(super) fn touch(&self, now: u64) {
        let mut members = self.crowd.0.borrow_mut();
        let Some(member) = members.members.get_mut(self.key) else { return };
        if member.task != self.task || now < member.moved.saturating_add(1000) {
            return;
        }
        member.moved = now;
        members.detach(self.key);
        members.append(self.key);
    }
}

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        let mut members = self.crowd.0.borrow_mut();
        // It may have been removed, and its key given to another one.
        if members.members.get(self.key).is_some_and(|member| member.task == self.task) {
            members.remove(self.key);
        }
    }
}

fn prefix_of(source: IpAddr) -> u128 {
    match source.to_canonical() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits() & (u128::MAX << (128 - IPV6_PREFIX)),
    }
}

impl Members {
    fn insert(&mut self, prefix: u128, task: TaskId, now: u64) -> usize {
        let source = *self.known.entry(prefix).or_insert_with(|| {
            let rank = self.ranking.len();
            let new = Source { prefix, count: 0, first: None, last: None, rank };
            let source = self.sources.insert(new);
            self.ranking.push(source);
            source
        });
        let member = Member { task, source, before: None, after: None, moved: now };
        let key = self.members.insert(member);
        self.append(key);
        self.raise(source);
        key
    }

    fn remove(&mut self, key: usize) -> Option<TaskId> {
        self.detach(key);
        let Member { task, source, .. } = self.members.try_remove(key)?;
        self.lower(source);
        if self.sources.get(source).is_some_and(|source| source.count == 0) {
            // The only one without connections, so it is the last.
            self.ranking.pop();
            self.known.remove(&self.sources.remove(source).prefix);
        }
        Some(task)
    }

    /// Puts a member that is in no list to the end of its source.
    fn append(&mut self, key: usize) {
        let Some(member) = self.members.get_mut(key) else { return };
        let Some(source) = self.sources.get_mut(member.source) else { return };
        let last = source.last.replace(key);
        (member.before, member.after) = (last, None);
        match last.and_then(|last| self.members.get_mut(last)) {
            Some(last) => last.after = Some(key),
            None => source.first = Some(key),
        }
    }

    /// Takes a member out of the list of its source.
    fn detach(&mut self, key: usize) {
        let Some(Member { source, before, after, .. }) = self.members.get(key) else { return };
        let (source, before, after) = (*source, *before, *after);
        let Some(source) = self.sources.get_mut(source) else { return };
        match before.and_then(|before| self.members.get_mut(before)) {
            Some(before) => before.after = after,
            None => source.first = after,
        }
        match after.and_then(|after| self.members.get_mut(after)) {
            Some(after) => after.before = before,
            None => source.last = before,
        }
    }

    /// Counts one more connection of a source. It becomes the last of those that have as many.
    fn raise(&mut self, source: usize) {
        let Some(count) = self.sources.get(source).map(|source| source.count) else { return };
        if self.with_at_least.len() == count {
            self.with_at_least.push(0);
        }
        let Some(with_more) = self.with_at_least.get_mut(count) else { return };
        let rank = *with_more;
        *with_more += 1;
        self.swap(source, rank, count + 1);
    }

    /// Counts one connection of a source less. It becomes the first of those that have as many.
    fn lower(&mut self, source: usize) {
        let Some(count) = self.sources.get(source).map(|source| source.count) else { return };
        let Some(fewer) = count.checked_sub(1) else { return };
        let Some(with_as_many) = self.with_at_least.get_mut(fewer) else { return };
        *with_as_many = with_as_many.saturating_sub(1);
        let rank = *with_as_many;
        if rank == 0 {
            self.with_at_least.pop();
        }
        self.swap(source, rank, fewer);
    }

    /// Gives a source this rank, in exchange for its own.
    fn swap(&mut self, source: usize, rank: usize, count: usize) {
        let Some(own) = self.sources.get_mut(source) else { return };
        let before = std::mem::replace(&mut own.rank, rank);
        own.count = count;
        let Some(other) = self.ranking.get(rank).copied().filter(|other| *other != source) else {
            return;
        };
        self.ranking.swap(before, rank);
        if let Some(other) = self.sources.get_mut(other) {
            other.rank = before;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn address(number: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, number).into()
    }

    fn task(number: u32) -> TaskId {
        TaskId::of_test(number)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Enter(u8),
        Leave(usize),
        Touch(usize),
        RemoveOfMost,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..6_u8).prop_map(Step::Enter),
            2 => any::<usize>().prop_map(Step::Leave),
            2 => any::<usize>().prop_map(Step::Touch),
            1 => Just(Step::RemoveOfMost),
        ];
        vec(step, 1..200)
    }

    /// The slow truth: all connections in the order of their last movement.
    #[derive(Default)]
    struct Truth(Vec<(u8, TaskId)>);

    impl Truth {
        fn count(&self, source: u8) -> usize {
            self.0.iter().filter(|(other, _)| *other == source).count()
        }

        fn most(&self) -> usize {
            self.0.iter().map(|(source, _)| self.count(*source)).max().unwrap_or_default()
        }
    }

    proptest! {
        #[test]
        fn a_crowd_decides_as_the_slow_truth(steps in steps()) {
            let crowd = Crowd::default();
            let (mut truth, mut members) = (Truth::default(), Vec::new());
            for (number, step) in steps.into_iter().enumerate() {
                let now = 1000 * number as u64;
                match step {
                    Step::Enter(source) => {
                        let task = task(number as u32);
                        members.push(crowd.enter(address(source), task, now));
                        truth.0.push((source, task));
                    }
                    Step::Leave(which) if !members.is_empty() => {
                        let member = members.swap_remove(which % members.len());
                        truth.0.retain(|(_, task)| *task != member.task);
                    }
                    Step::Touch(which) if !members.is_empty() => {
                        let member = &members[which % members.len()];
                        member.touch(now);
                        let found = truth.0.iter().position(|(_, task)| *task == member.task);
                        let moved = found.map(|place| truth.0.remove(place));
                        truth.0.extend(moved);
                    }
                    Step::RemoveOfMost => {
                        let removed = crowd.remove_of_most();
                        let of = removed.and_then(|task| truth.0.iter().find(|(_, other)| *other == task));
                        let source = of.map(|(source, _)| *source);
                        prop_assert_eq!(source.map(|source| truth.count(source)).unwrap_or_default(), truth.most());
                        // Its first one.
                        let first = truth.0.iter().position(|(other, _)| Some(*other) == source);
                        prop_assert_eq!(first.map(|place| truth.0.remove(place).1), removed);
                    }
                    _ => {}
                }
                prop_assert_eq!((crowd.len(), crowd.most()), (truth.0.len(), truth.most()));
                for source in 0..6 {
                    prop_assert_eq!(crowd.count_of(address(source)), truth.count(source));
                }
            }
            drop(members);
            let left = crowd.0.borrow();
            prop_assert!(left.sources.is_empty() && left.known.is_empty() && left.ranking.is_empty());
        }
    }

    #[test]
    fn a_connection_that_was_removed_leaves_its_successor_alone() {
        let crowd = Crowd::default();
        let first = crowd.enter(address(1), task(1), 0);
        assert_eq!(crowd.remove_of_most(), Some(task(1)));
        let second = crowd.enter(address(1), task(2), 0);
        first.touch(5000);
        drop(first);
        assert_eq!(crowd.len(), 1);
        drop(second);
        assert_eq!(crowd.len(), 0);
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let crowd = Crowd::default();
        let of = |text: &str| text.parse().unwrap();
        let _one = crowd.enter(of("2001:db8::1"), task(1), 0);
        let _two = crowd.enter(of("2001:db8::2:0:0:1"), task(2), 0);
        assert_eq!(crowd.count_of(of("2001:db8::3")), 2);
        assert_eq!(crowd.count_of(of("2001:db8:0:1::1")), 0);
        let _mapped = crowd.enter(of("::ffff:10.0.0.1"), task(3), 0);
        assert_eq!(crowd.count_of(address(1)), 1);
    }
}
