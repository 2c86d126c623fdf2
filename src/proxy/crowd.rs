//! The connections of one worker by client, so that one of the client that has most can give way. A client is an
//! IPv4 address, or the first 64 bits of an IPv6 address.

use std::cell::RefCell;
use std::net::IpAddr;

use ahash::AHashMap as HashMap;
use slab::Slab;

use super::linked::{Linked, List};
use super::reactor::TaskId;

/// How many bits of an IPv6 address tell one client from another: a host can have all addresses of such a network.
const IPV6_PREFIX: u32 = 64;

/// Connections by client. Those of one client are in order: the first is the one that has rested the longest.
/// Each operation takes the same time, however many there are.
#[derive(Debug, Default)]
pub(super) struct Crowd(RefCell<Members>);

#[derive(Debug, Default)]
struct Members {
    members: Slab<Linked<Member>>,
    clients: Slab<Linked<Client>>,
    known: HashMap<u128, usize>,
    /// The clients that have so many connections, by that number less one. Those that came to it by one more are in
    /// their order, after those that came by one less.
    by_count: Vec<List>,
}

#[derive(Debug)]
struct Member {
    task: TaskId,
    client: usize,
    /// When it became the last of its client, in milliseconds of the reactor.
    moved: u64,
}

#[derive(Debug)]
struct Client {
    prefix: u128,
    count: usize,
    members: List,
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
        known.and_then(|client| members.clients.get(*client)).map_or(0, |client| client.value.count)
    }

    /// How many connections the client has that has most.
    pub(super) fn most(&self) -> usize {
        self.0.borrow().by_count.len()
    }

    /// Removes the connection that has rested the longest of the client that has most. Of several such clients, it is
    /// the one that has had so many for the longest.
    pub(super) fn remove_of_most(&self) -> Option<TaskId> {
        let mut members = self.0.borrow_mut();
        let client = members.by_count.last()?.first?;
        let key = members.clients.get(client)?.value.members.first?;
        members.remove(key)
    }
}

impl Membership<'_> {
    /// Records that the connection has moved bytes. It keeps its place if that was recorded less than a second ago.
    pub(super) fn touch(&self, now: u64) {
        let mut members = self.crowd.0.borrow_mut();
        let Some(member) = members.members.get_mut(self.key) else { return };
        if member.value.task != self.task || now < member.value.moved.saturating_add(1000) {
            return;
        }
        member.value.moved = now;
        members.detach(self.key);
        members.append(self.key);
    }
}

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        let mut members = self.crowd.0.borrow_mut();
        // It may have been removed, and its key given to another one.
        if members.members.get(self.key).is_some_and(|member| member.value.task == self.task) {
            members.remove(self.key);
        }
    }
}

/// What tells a client from others.
pub(super) fn prefix_of(client: IpAddr) -> u128 {
    match client.to_canonical() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits() & (u128::MAX << (128 - IPV6_PREFIX)),
    }
}

impl Members {
    fn insert(&mut self, prefix: u128, task: TaskId, now: u64) -> usize {
        let client = *self.known.entry(prefix).or_insert_with(|| {
            self.clients.insert(Linked::new(Client { prefix, count: 0, members: List::default() }))
        });
        let key = self.members.insert(Linked::new(Member { task, client, moved: now }));
        self.append(key);
        self.change_count(client, 1);
        key
    }

    fn remove(&mut self, key: usize) -> Option<TaskId> {
        self.detach(key);
        let Member { task, client, .. } = self.members.try_remove(key)?.value;
        self.change_count(client, -1);
        if self.clients.get(client).is_some_and(|client| client.value.count == 0) {
            self.known.remove(&self.clients.remove(client).value.prefix);
        }
        Some(task)
    }

    /// Puts a member that is in no list to the end of its client.
    fn append(&mut self, key: usize) {
        let client = self.members.get(key).map(|member| member.value.client);
        if let Some(client) = client.and_then(|client| self.clients.get_mut(client)) {
            client.value.members.push_back(key, &mut self.members);
        }
    }

    /// Takes a member out of the list of its client.
    fn detach(&mut self, key: usize) {
        let client = self.members.get(key).map(|member| member.value.client);
        if let Some(client) = client.and_then(|client| self.clients.get_mut(client)) {
            client.value.members.remove(key, &mut self.members);
        }
    }

    /// Counts one connection of a client more, or less. With one more, it becomes the last of those that have as many;
    /// with one less, the first.
    fn change_count(&mut self, key: usize, by: isize) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let before = client.value.count;
        client.value.count = before.saturating_add_signed(by);
        let now = client.value.count;
        if let Some(list) = before.checked_sub(1).and_then(|place| self.by_count.get_mut(place)) {
            list.remove(key, &mut self.clients);
        }
        if self.by_count.len() < now {
            self.by_count.push(List::default());
        }
        if let Some(list) = now.checked_sub(1).and_then(|place| self.by_count.get_mut(place)) {
            match by > 0 {
                true => list.push_back(key, &mut self.clients),
                false => list.push_front(key, &mut self.clients),
            }
        }
        // Only the greatest number can have lost its last client for good.
        self.by_count.pop_if(|list| list.first.is_none());
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

    /// The slow truth: all connections in the order of their last movement, and the clients in that of their counts'
    /// changes, those with one more to the end and those with one less to the beginning.
    #[derive(Default)]
    struct Truth {
        connections: Vec<(u8, TaskId)>,
        clients: Vec<u8>,
    }

    impl Truth {
        fn count(&self, client: u8) -> usize {
            self.connections.iter().filter(|(other, _)| *other == client).count()
        }

        fn most(&self) -> usize {
            self.clients.iter().map(|client| self.count(*client)).max().unwrap_or_default()
        }

        fn enter(&mut self, client: u8, task: TaskId) {
            self.connections.push((client, task));
            self.clients.retain(|other| *other != client);
            self.clients.push(client);
        }

        fn leave(&mut self, task: TaskId) {
            let found = self.connections.iter().position(|(_, other)| *other == task);
            let Some((client, _)) = found.map(|place| self.connections.remove(place)) else {
                return;
            };
            self.clients.retain(|other| *other != client);
            if self.count(client) > 0 {
                self.clients.insert(0, client);
            }
        }

        fn touch(&mut self, task: TaskId) {
            let found = self.connections.iter().position(|(_, other)| *other == task);
            let moved = found.map(|place| self.connections.remove(place));
            self.connections.extend(moved);
        }

        fn first_of_most(&self) -> Option<TaskId> {
            let client = self.clients.iter().find(|client| self.count(**client) == self.most())?;
            self.connections.iter().find(|(other, _)| other == client).map(|(_, task)| *task)
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
                        truth.enter(client, task);
                    }
                    Step::Leave(which) if !members.is_empty() => {
                        truth.leave(members.swap_remove(which % members.len()).task);
                    }
                    Step::Touch(which) if !members.is_empty() => {
                        let member = &members[which % members.len()];
                        member.touch(now);
                        truth.touch(member.task);
                    }
                    Step::RemoveOfMost => {
                        let first = truth.first_of_most();
                        prop_assert_eq!(crowd.remove_of_most(), first);
                        first.into_iter().for_each(|task| truth.leave(task));
                    }
                    _ => {}
                }
                prop_assert_eq!((crowd.len(), crowd.most()), (truth.connections.len(), truth.most()));
                for client in 0..6 {
                    prop_assert_eq!(crowd.count_of(address(client)), truth.count(client));
                }
            }
            drop(members);
            let left = crowd.0.borrow();
            prop_assert!(left.clients.is_empty() && left.known.is_empty() && left.by_count.is_empty());
        }
    }

    /// Otherwise each newcomer of an attack from many addresses would push out the one before it, and the oldest stay.
    #[test]
    fn of_clients_with_as_many_the_one_that_came_first_gives_way() {
        let crowd = Crowd::default();
        let mut members: Vec<_> =
            (0..4).map(|n| crowd.enter(address(n), task(n.into()), 0)).collect();
        for n in 4..10 {
            assert_eq!(crowd.remove_of_most(), Some(task(u32::from(n) - 4)));
            members.push(crowd.enter(address(n), task(n.into()), 0));
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
