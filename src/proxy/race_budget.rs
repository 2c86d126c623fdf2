//! The budget of races: how many clients may have several attempts to connect at the same time.
//!
//! If all endpoints of a busy route are slow, each client would otherwise connect to several of them and make
//! them slower. The budget is a share of the clients that wait for an endpoint, over all workers. A few clients
//! of each route may always race, whatever those of others do. Clients without a permit stand in a line, and the
//! end of a race calls the next one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::reactor::{Reactor, TaskId};
use crate::metrics::ConnectionCount;

/// So many clients of a route may always race, unless its budget is 0.
const LEAST: usize = 3;

/// The number of races of all workers.
#[derive(Debug, Default)]
pub(super) struct RaceCount(AtomicUsize);

/// A client that waits for an endpoint, until this is dropped.
pub(super) struct Connecting<'a>(Option<&'a ConnectionCount>);

impl<'a> Connecting<'a> {
    /// Counts one client of a worker.
    pub(super) fn count(of_worker: Option<&'a ConnectionCount>) -> Self {
        of_worker.into_iter().for_each(|count| count.add(1));
        Connecting(of_worker)
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.into_iter().for_each(|count| count.subtract(1));
    }
}

impl RaceCount {
    /// Counts one more race of a route, of which there are `own`. There may be a few, and further ones up to
    /// `percent` of the clients that wait, over all routes.
    fn take(&self, own: &AtomicUsize, percent: u32, connecting: usize) -> bool {
        let most = connecting.saturating_mul(percent as usize) / 100;
        let one_more = |most: usize| move |races: usize| (races < most).then_some(races + 1);
        let add = |count: &AtomicUsize, most| {
            count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more(most)).is_ok()
        };
        if add(own, LEAST) {
            return add(&self.0, usize::MAX);
        }
        add(&self.0, most) && add(own, usize::MAX)
    }

    fn give_back(&self, own: &AtomicUsize) {
        for count in [&self.0, own] {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The clients of one worker that wait for a permit, in their order.
#[derive(Default)]
pub(super) struct RaceLine {
    waiting: RefCell<BTreeMap<u64, TaskId>>,
    next: Cell<u64>,
}

/// A place in the line, until this is dropped.
pub(super) struct RaceTurn<'a> {
    line: &'a RaceLine,
    number: u64,
}

/// The permit for one client to race, until this is dropped.
pub(super) struct RacePermit<'a> {
    count: &'a RaceCount,
    own: &'a AtomicUsize,
    line: &'a RaceLine,
    reactor: Rc<Reactor>,
}

impl RaceLine {
    /// Takes a permit of a route with `own` races, and a budget of `percent` of the clients that wait, which
    /// are `connecting`.
    pub(super) fn take<'a>(
        &'a self,
        (count, own): (&'a RaceCount, &'a AtomicUsize),
        reactor: &Rc<Reactor>,
        percent: u32,
        connecting: usize,
    ) -> Option<RacePermit<'a>> {
        let taken = count.take(own, percent, connecting);
        taken.then(|| RacePermit { count, own, line: self, reactor: Rc::clone(reactor) })
    }

    /// Puts a task at the end of the line.
    pub(super) fn join(&self, task: TaskId) -> RaceTurn<'_> {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        self.waiting.borrow_mut().insert(number, task);
        RaceTurn { line: self, number }
    }
}

impl RaceTurn<'_> {
    /// Whether it has been called.
    pub(super) fn has_come(&self) -> bool {
        !self.line.waiting.borrow().contains_key(&self.number)
    }
}

impl Drop for RaceTurn<'_> {
    fn drop(&mut self) {
        self.line.waiting.borrow_mut().remove(&self.number);
    }
}

impl Drop for RacePermit<'_> {
    fn drop(&mut self) {
        self.count.give_back(self.own);
        let next = self.line.waiting.borrow_mut().pop_first();
        next.into_iter().for_each(|(_, task)| self.reactor.wake(task));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_waiting_clients_may_race_and_a_few_of_each_route_always() {
        for (percent, connecting, most) in
            [(20, 0, 3), (20, 15, 3), (20, 20, 4), (1, 1000, 10), (100, 50, 50)]
        {
            let (count, one, other) =
                (RaceCount::default(), AtomicUsize::default(), AtomicUsize::default());
            let take = |own| count.take(own, percent, connecting);
            assert_eq!(
                (0..200).filter(|_| take(&one)).count(),
                most,
                "{percent} % of {connecting}"
            );
            count.give_back(&one);
            assert!(take(&one) && !take(&one));
            assert_eq!((0..200).filter(|_| take(&other)).count(), LEAST);
            assert_eq!(one.into_inner() + other.into_inner(), count.0.into_inner());
        }
    }

    #[test]
    fn whoever_leaves_the_line_is_not_called() {
        let line = RaceLine::default();
        let turns: Vec<_> = (0..3).map(|_| line.join(TaskId::NONE)).collect();
        let mut turns = turns.into_iter();
        drop(turns.next());
        line.waiting.borrow_mut().pop_first();
        assert_eq!(turns.map(|turn| turn.has_come()).collect::<Vec<_>>(), [true, false]);
        assert!(line.waiting.borrow().is_empty());
    }
}
