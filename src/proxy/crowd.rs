//! The connections of one worker by client, so that one of the client that has most can give way. A client is an
//! IPv4 address, or the first 64 bits of an IPv6 address.

use std::cell::RefCell;
use std::net::IpAddr;

use ahash::AHashMap as HashMap;
use slab::Slab;

use super::reactor::TaskId;

/// How many bits of an IPv6 address tell one client from another: a host can have all addresses of such a network.
const IPV6_PREFIX: u32 = 64;

/// Connections by client. Those of one client are in order: the first is the one that has rested the longest.
/// Each operation takes the same time, however many there are.
#[derive(Debug, Default)]
pub(super) struct Crowd(RefCell<Members>);

#[derive(Debug, Default)]
struct Members {
    members: Slab<Member>,
    clients: Slab<Client>,
    known: HashMap<u128, usize>,
    /// The clients, those with most connections first.
    ranking: Vec<usize>,
    /// How many clients have at least so many connections, by that number less one.
    with_at_least: Vec<usize>,
}

#[derive(Debug)]
struct Member {
    task: TaskId,
    client: usize,
    before: Option<usize>,
    after: Option<usize>,
    /// When it became the last of its client, in milliseconds of the reactor.
    moved: u64,
}

#[derive(Debug)]
struct Client {
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
    pub(super) fn enter(&self, client: IpAddr, task: TaskId, now: u64) -> Membership<'_> {
        let key = self.0.borrow_mut().insert(prefix_of(client), task, now);
        Membership { crowd: self, key, task }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.borrow().members.len()
    }

    /// How many connections a client has.
    pub(super) fn count_of(&self, client: IpAddr) -> usize {
        let members = self.0.borrow();
        let known = members.known.get(&prefix_of(client));
        known.and_then(|client| members.clients.get(*client)).map_or(0, |client| client.count)
    }

    /// How many connections the client has that has most.
    pub(super) fn most(&self) -> usize {
        self.0.borrow().with_at_least.len()
    }

    /// Removes the connection that has rested the longest of the client that has most.
    pub(super) fn remove_of_most(&self) -> Option<TaskId> {
        let mut members = self.0.borrow_mut();
        let key = members.clients.get(*members.ranking.first()?)?.first?;
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

fn prefix_of(client: IpAddr) -> u128 {
    match client.to_canonical() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits() & (u128::MAX << (128 - IPV6_PREFIX)),
    }
}

impl Members {
    fn insert(&mut self, prefix: u128, task: TaskId, now: u64) -> usize {
        let client = *self.known.entry(prefix).or_insert_with(|| {
            let rank = self.ranking.len();
            let new = Client { prefix, count: 0, first: None, last: None, rank };
            let client = self.clients.insert(new);
            self.ranking.push(client);
            client
        });
        let member = Member { task, client, before: None, after: None, moved: now };
        let key = self.members.insert(member);
        self.append(key);
        self.raise(client);
        key
    }

    fn remove(&mut self, key: usize) -> Option<TaskId> {
        self.detach(key);
        let Member { task, client, .. } = self.members.try_remove(key)?;
        self.lower(client);
        if self.clients.get(client).is_some_and(|client| client.count == 0) {
            // The only one without connections, so it is the last.
            self.ranking.pop();
            self.known.remove(&self.clients.remove(client).prefix);
        }
        Some(task)
    }

    /// Puts a member that is in no list to the end of its client.
    fn append(&mut self, key: usize) {
        let Some(member) = self.members.get_mut(key) else { return };
        let Some(client) = self.clients.get_mut(member.client) else { return };
        let last = client.last.replace(key);
        (member.before, member.after) = (last, None);
        match last.and_then(|last| self.members.get_mut(last)) {
            Some(last) => last.after = Some(key),
            None => client.first = Some(key),
        }
    }

    /// Takes a member out of the list of its client.
    fn detach(&mut self, key: usize) {
        let Some(Member { client, before, after, .. }) = self.members.get(key) else { return };
        let (client, before, after) = (*client, *before, *after);
        let Some(client) = self.clients.get_mut(client) else { return };
        match before.and_then(|before| self.members.get_mut(before)) {
            Some(before) => before.after = after,
            None => client.first = after,
        }
        match after.and_then(|after| self.members.get_mut(after)) {
            Some(after) => after.before = before,
            None => client.last = before,
        }
    }

    /// Counts one more connection of a client. It becomes the last of those that have as many.
    fn raise(&mut self, client: usize) {
        let Some(count) = self.clients.get(client).map(|client| client.count) else { return };
        if self.with_at_least.len() == count {
            self.with_at_least.push(0);
        }
        let Some(with_more) = self.with_at_least.get_mut(count) else { return };
        let rank = *with_more;
        *with_more += 1;
        self.swap(client, rank, count + 1);
    }

    /// Counts one connection of a client less. It becomes the first of those that have as many.
    fn lower(&mut self, client: usize) {
        let Some(count) = self.clients.get(client).map(|client| client.count) else { return };
        let Some(fewer) = count.checked_sub(1) else { return };
        let Some(with_as_many) = self.with_at_least.get_mut(fewer) else { return };
        *with_as_many = with_as_many.saturating_sub(1);
        let rank = *with_as_many;
        if rank == 0 {
            self.with_at_least.pop();
        }
        self.swap(client, rank, fewer);
    }

    /// Gives a client this rank, in exchange for its own.
    fn swap(&mut self, client: usize, rank: usize, count: usize) {
        let Some(own) = self.clients.get_mut(client) else { return };
        let before = std::mem::replace(&mut own.rank, rank);
        own.count = count;
        let Some(other) = self.ranking.get(rank).copied().filter(|other| *other != client) else {
            return;
        };
        self.ranking.swap(before, rank);
        if let Some(other) = self.clients.get_mut(other) {
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
        fn count(&self, client: u8) -> usize {
            self.0.iter().filter(|(other, _)| *other == client).count()
        }

        fn most(&self) -> usize {
            self.0.iter().map(|(client, _)| self.count(*client)).max().unwrap_or_default()
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
                    Step::Enter(client) => {
                        let task = task(number as u32);
                        members.push(crowd.enter(address(client), task, now));
                        truth.0.push((client, task));
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
                        let client = of.map(|(client, _)| *client);
                        prop_assert_eq!(client.map(|client| truth.count(client)).unwrap_or_default(), truth.most());
                        // Its first one.
                        let first = truth.0.iter().position(|(other, _)| Some(*other) == client);
                        prop_assert_eq!(first.map(|place| truth.0.remove(place).1), removed);
                    }
                    _ => {}
                }
                prop_assert_eq!((crowd.len(), crowd.most()), (truth.0.len(), truth.most()));
                for client in 0..6 {
                    prop_assert_eq!(crowd.count_of(address(client)), truth.count(client));
                }
            }
            drop(members);
            let left = crowd.0.borrow();
            prop_assert!(left.clients.is_empty() && left.known.is_empty() && left.ranking.is_empty());
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
