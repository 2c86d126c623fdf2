//! The budget of races: how many clients may have several attempts to connect at the same time.
//!
//! If all endpoints of a busy route are slow, each client would otherwise connect to several of them and make
//! them slower. The budget is a share of the clients that wait for an endpoint, over all workers. A few clients
//! of each route may always race, whatever those of others do. Clients without a permit stand in a line. The end of
//! a race calls the first one, which goes to the end if it still gets none.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::reactor::{Reactor, TaskId};
use crate::metrics::ConnectionCount;

/// So many clients of a route may always race, unless its budget is 0.
const LEAST: usize = 3;

/// The number of races of all workers, beyond the few of each route.
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
    /// Counts one more race of a route, of which there are `own`. There may be a few, and over all routes further ones
    /// up to `percent` of the clients that wait. Returns whether it is one of the further ones, if there may be one.
    fn take(&self, own: &AtomicUsize, percent: u32, connecting: usize) -> Option<bool> {
        let most = (connecting.saturating_mul(percent as usize) / 100).saturating_sub(LEAST);
        let one_more = |most: usize| move |races: usize| (races < most).then_some(races + 1);
        let add = |count: &AtomicUsize, most| {
            count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more(most)).is_ok()
        };
        if add(own, LEAST) {
            return Some(false);
        }
        (add(&self.0, most) && add(own, usize::MAX)).then_some(true)
    }

    fn give_back(&self, own: &AtomicUsize, is_further: bool) {
        own.fetch_sub(1, Ordering::Relaxed);
        if is_further {
            self.0.fetch_sub(1, Ordering::Relaxed);
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
    /// Whether it is beyond the few of its route.
    is_further: bool,
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
        let is_further = count.take(own, percent, connecting)?;
        Some(RacePermit { count, own, is_further, line: self, reactor: Rc::clone(reactor) })
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
        self.count.give_back(self.own, self.is_further);
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
                (0..200).filter_map(|_| take(&one)).count(),
                most,
                "{percent} % of {connecting}"
            );
            let is_further = most > LEAST;
            count.give_back(&one, is_further);
            assert_eq!((take(&one), take(&one)), (Some(is_further), None));
            // Those of another route take nothing from these few.
            assert_eq!((0..200).filter_map(|_| take(&other)).count(), LEAST);
            assert_eq!(count.0.into_inner(), most - LEAST);
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
