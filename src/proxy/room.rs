//! Room for connections: which one gives way when there are too many. A worker judges by its own connections.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use ahash::AHashMap as HashMap;

use super::crowd::{Crowd, Membership};
use super::reactor::{Reactor, TaskId};
use crate::outcome::Limit;

/// How many times as many connections the client must have that has most, so that one of them gives way to a
/// newcomer.
const TIMES_MORE: usize = 4;
/// How many connections give way at a time. They have their descriptors for a moment still, and there is only a
/// small reserve of these.
const MOST_DISPLACED: usize = 16;

/// The connections of a worker, by client.
pub(super) struct Room {
    reactor: Rc<Reactor>,
    /// Those whose client is known.
    known: Crowd,
    /// Those of them whose hello is not complete.
    hellos: Crowd,
    /// Those of them whose TLS handshake is not complete.
    handshakes: Crowd,
    /// The tasks of connections that give way to others.
    displaced: RefCell<HashMap<TaskId, Displaced>>,
}

/// Why a connection gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Displaced {
    /// There are too many incomplete hellos.
    Hello,
    /// There are too many incomplete handshakes.
    Handshake,
    /// The process is full, and a newcomer takes its place, which is of this client if that is known.
    Newcomer(Option<IpAddr>),
}

impl Room {
    /// Without connections.
    pub(super) fn new(reactor: &Rc<Reactor>) -> Self {
        let reactor = Rc::clone(reactor);
        let (known, hellos, handshakes) = <(Crowd, Crowd, Crowd)>::default();
        Room { reactor, known, hellos, handshakes, displaced: RefCell::default() }
    }

    /// Adds the connection of the current task to those of its client.
    pub(super) fn enter(&self, client: IpAddr) -> Membership<'_> {
        self.known.enter(client, self.reactor.current(), self.reactor.now())
    }

    /// Adds the connection of the current task to those whose hello is not complete. If there are more than `most`,
    /// the oldest of the client that has most gives way.
    pub(super) fn enter_hello(&self, client: IpAddr, most: usize) -> Membership<'_> {
        let entered = self.hellos.enter(client, self.reactor.current(), self.reactor.now());
        if self.hellos.len() > most {
            self.displace(self.hellos.remove_of_most(), Displaced::Hello);
        }
        entered
    }

    /// The hello of the current task's connection is complete: it need not give way to other hellos.
    pub(super) fn has_hello(&self, waiting: Membership<'_>) {
        self.spare(waiting, Displaced::Hello);
    }

    /// Adds the connection of the current task to those whose handshake is not complete. If there are more than
    /// `most`, the oldest of the client that has most gives way.
    pub(super) fn enter_handshake(&self, client: IpAddr, most: usize) -> Membership<'_> {
        let entered = self.handshakes.enter(client, self.reactor.current(), self.reactor.now());
        if self.handshakes.len() > most {
            self.displace(self.handshakes.remove_of_most(), Displaced::Handshake);
        }
        entered
    }

    /// The handshake of the current task's connection is complete: it need not give way to other handshakes.
    pub(super) fn has_handshake(&self, waiting: Membership<'_>) {
        self.spare(waiting, Displaced::Handshake);
    }

    fn spare(&self, waiting: Membership<'_>, why: Displaced) {
        drop(waiting);
        let (mut displaced, task) = (self.displaced.borrow_mut(), self.reactor.current());
        if displaced.get(&task) == Some(&why) {
            displaced.remove(&task);
            self.reactor.spare_current();
        }
    }

    /// Makes room for a newcomer, if that is fair: the connection gives way that has rested the longest of the
    /// client that has most, if that one has [`TIMES_MORE`] as many as the newcomer's client would have. Returns
    /// whether there is room.
    pub(super) fn make_for(&self, newcomer: Option<IpAddr>) -> bool {
        let by = Displaced::Newcomer(newcomer);
        // Newcomers of this turn are not known yet.
        let of_this_turn = self.displaced.borrow().values().filter(|other| **other == by).count();
        let own = newcomer.map_or(0, |client| self.known.count_of(client)) + of_this_turn + 1;
        self.displaced.borrow().len() < MOST_DISPLACED
            && own.saturating_mul(TIMES_MORE) <= self.known.most()
            && self.displace(self.known.remove_of_most(), by)
    }

    fn displace(&self, task: Option<TaskId>, why: Displaced) -> bool {
        let Some(task) = task else { return false };
        let mut displaced = self.displaced.borrow_mut();
        let known = displaced.entry(task).or_insert(why);
        // A newcomer has its place already, whatever becomes of its hello or its handshake.
        if let Displaced::Newcomer(_) = why {
            *known = why;
        }
        drop(displaced);
        self.reactor.cancel_task(task);
        true
    }

    /// The limit for which the connection of the current task has to give way, if it has to. To be called once, at
    /// its end.
    pub(super) fn take_displaced(&self) -> Option<Limit> {
        let displaced = self.displaced.borrow_mut().remove(&self.reactor.current())?;
        Some(match displaced {
            Displaced::Hello => Limit::Hellos,
            Displaced::Handshake => Limit::Handshakes,
            Displaced::Newcomer(_) => Limit::Process,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::proxy::reactor::Inbox;

    /// How many newcomers of one client come in in one turn of the worker, beside a client with this many connections.
    fn admitted(held: u32, newcomer: Option<IpAddr>) -> usize {
        let reactor = Reactor::new(Arc::new(Inbox::new().unwrap()), || {}).unwrap();
        let room = Room::new(&reactor);
        let holder = IpAddr::from([192, 0, 2, 1]);
        let enter = |number| room.known.enter(holder, TaskId::of_test(number), 0);
        let _held: Vec<_> = (0..held).map(enter).collect();
        (0..100).take_while(|_| room.make_for(newcomer)).count()
    }

    #[test]
    fn newcomers_of_one_turn_count_as_connections_of_their_client() {
        let client = Some(IpAddr::from([192, 0, 2, 2]));
        assert_eq!(admitted(3, client), 0);
        assert_eq!(admitted(4, client), 1);
        // One more each time for 4 times as many as it then has, of those that are left.
        assert_eq!(admitted(12, client), 2);
        assert_eq!(admitted(12, None), 2, "clients that a proxy has not named yet count together");
    }

    #[test]
    fn not_many_give_way_at_a_time() {
        assert_eq!(admitted(1000, Some(IpAddr::from([192, 0, 2, 2]))), MOST_DISPLACED);
    }
}
