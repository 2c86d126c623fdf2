//! The workers among themselves: how another thread speaks to one, how busy each is, and the
//! connections that one hands to another.
//!
//! The kernel spreads clients over the listening sockets by chance, so with few and long
//! connections one worker may have twice as many as another, and its clients wait twice as long. A
//! worker that has clearly more than the least busy one hands it what it accepts.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use rustix::fd::OwnedFd;

use super::descriptors::Descriptors;
use super::hellos::Hellos;
use super::reactor::Inbox;
use crate::heartbeat::Heartbeat;

/// How many connections more than the least busy worker are no reason to hand one over: with short
/// connections the counts always differ a little.
const SLACK: i64 = 2;
/// Beside the slack, this part of the least busy worker's connections.
const SLACK_PART: i64 = 16;

/// How often it is tried to wake a worker for the end: nobody would do it later.
const RINGS: usize = 10;

/// All workers of a process.
#[derive(Debug)]
pub(super) struct Crew {
    /// Those of the connections of all of them.
    pub(super) descriptors: Descriptors,
    /// The hellos of these.
    pub(super) hellos: Hellos,
    start: Instant,
    members: Box<[Member]>,
}

/// A worker, as other threads see it.
#[derive(Debug)]
pub(super) struct Member {
    phase: AtomicU8,
    /// Its connections, those included that it was given and has not taken yet.
    load: IntGauge,
    /// When its last connection was accepted, in milliseconds since the crew's start.
    accepted: AtomicU64,
    /// What it was given; `None` once it takes nothing more.
    given: Mutex<Option<Vec<Given>>>,
    inbox: Arc<Inbox>,
    heartbeat: Heartbeat,
}

/// How far the end of the data plane has come. It only goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    /// Serving.
    Open = 0,
    /// No new connections; those that are there go on.
    Closing = 1,
    /// Every connection is ended.
    Aborting = 2,
}

/// A connection that was accepted by another worker.
#[derive(Debug)]
pub(super) struct Given {
    /// The listener's place among the listeners, which is the same for all workers.
    pub(super) listener: usize,
    pub(super) client: OwnedFd,
    pub(super) source: SocketAddr,
}

impl Crew {
    /// A crew with a member for each of `loads`.
    pub(super) fn new(
        loads: impl IntoIterator<Item = IntGauge>,
        descriptors: Descriptors,
    ) -> io::Result<Self> {
        let members: io::Result<Box<[Member]>> = loads.into_iter().map(Member::new).collect();
        Ok(Crew { descriptors, hellos: Hellos::new(), start: Instant::now(), members: members? })
    }

    /// The member of a worker.
    pub(super) fn member(&self, number: usize) -> Option<&Member> {
        self.members.get(number)
    }

    /// Moves all workers on to `phase`.
    pub(super) fn advance(&self, phase: Phase) {
        self.members.iter().for_each(|member| member.advance(phase));
    }

    /// How long ago the last connection of all of them was accepted.
    pub(super) fn quiet_for(&self) -> Duration {
        let last = self.members.iter().map(|member| member.accepted.load(Ordering::Relaxed)).max();
        let last = Duration::from_millis(last.unwrap_or_default());
        self.start.elapsed().saturating_sub(last)
    }

    /// Notes that `member` has a connection that was accepted at `at`.
    pub(super) fn accepted(&self, member: &Member, at: Instant) {
        let at = at.saturating_duration_since(self.start).as_millis();
        member.accepted.store(u64::try_from(at).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Who is to have the next connection of `number` in its place, if anybody.
    pub(super) fn less_busy_than(&self, number: usize) -> Option<&Member> {
        let own = self.members.get(number)?.load.get();
        let least = self.members.iter().min_by_key(|member| member.load.get())?;
        is_clearly_more(own, least.load.get()).then_some(least)
    }
}

fn is_clearly_more(own: i64, least: i64) -> bool {
    own >= least + SLACK + least / SLACK_PART
}

impl Member {
    fn new(load: IntGauge) -> io::Result<Self> {
        let inbox = Arc::new(Inbox::new()?);
        let phase = AtomicU8::new(Phase::Open as u8);
        let given = Mutex::new(Some(Vec::new()));
        let (accepted, heartbeat) = (AtomicU64::new(0), Heartbeat::default());
        Ok(Member { phase, load, accepted, given, inbox, heartbeat })
    }

    fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Release);
        let _rung = (0..RINGS).any(|_| self.ring());
    }

    pub(super) fn has_reached(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Acquire) >= phase as u8
    }

    /// Counts a connection in.
    pub(super) fn opened(&self) {
        self.load.inc();
    }

    /// Counts a connection out.
    pub(super) fn closed(&self) {
        self.load.dec();
    }

    /// Gives the worker a connection; has it back if that takes nothing any more, or cannot be woken.
    pub(super) fn give(&self, given: Given) -> Result<(), Given> {
        let mut all = self.given();
        let Some(waiting) = all.as_mut() else { return Err(given) };
        // With the lock held: what waits has been rung for, always.
        if waiting.is_empty() && !self.ring() {
            return Err(given);
        }
        waiting.push(given);
        self.load.inc();
        Ok(())
    }

    /// What the worker was given since the last time. It is no longer counted.
    pub(super) fn take(&self) -> Vec<Given> {
        let taken = self.given().as_mut().map(std::mem::take).unwrap_or_default();
        self.load.sub(taken.len() as i64);
        taken
    }

    /// What the worker was given and has not taken; it is given nothing more.
    pub(super) fn take_last(&self) -> Vec<Given> {
        let taken = self.given().take().unwrap_or_default();
        self.load.sub(taken.len() as i64);
        taken
    }

    /// How the worker's reactor is woken.
    pub(super) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Asks for a sign of life.
    pub(super) fn ask(&self) {
        self.heartbeat.ask();
        self.ring();
    }

    /// Whether the worker has given one since it was asked.
    pub(super) fn has_answered(&self) -> bool {
        self.heartbeat.is_answered()
    }

    /// Gives a sign of life.
    pub(super) fn answer(&self) {
        self.heartbeat.answer();
    }

    /// Wakes the worker; tells whether that has come about.
    fn ring(&self) -> bool {
        self.inbox.wake_main()
    }

    fn given(&self) -> MutexGuard<'_, Option<Vec<Given>>> {
        // Nothing that panics is done with the lock held.
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn crew(loads: &[i64]) -> Crew {
        let gauge = |load: &i64| {
            let gauge = IntGauge::new("load", "a load").expect("a gauge");
            gauge.set(*load);
            gauge
        };
        Crew::new(loads.iter().map(gauge), Descriptors::of_connections(1)).expect("events")
    }

    fn given(listener: usize) -> Given {
        let client = eventfd(0, EventfdFlags::CLOEXEC).expect("some descriptor");
        Given { listener, client, source: ([127, 0, 0, 1], 1).into() }
    }

    #[test]
    fn who_has_clearly_more_hands_over_to_who_has_least() {
        for (loads, by, to) in [
            (&[1, 0][..], 0, None),
            (&[2, 0], 0, Some(1)),
            (&[2, 0], 1, None),
            (&[33, 32], 0, None),
            (&[35, 32], 0, None),
            (&[36, 32], 0, Some(1)),
            (&[9, 7, 5, 8], 0, Some(2)),
            (&[9, 7, 5, 8], 1, Some(2)),
            (&[9, 7, 5, 8], 2, None),
            (&[100_000, 90_000], 0, Some(1)),
            (&[50], 0, None),
        ] {
            let crew = crew(loads);
            let chosen = crew.less_busy_than(by);
            let place = chosen.and_then(|chosen| {
                crew.members.iter().position(|member| std::ptr::eq(member, chosen))
            });
            assert_eq!(place, to, "{loads:?} by {by}");
        }
    }

    #[test]
    fn what_is_given_counts_and_is_taken_once() {
        let crew = crew(&[0]);
        let member = crew.member(0).expect("a member");
        for listener in [0, 1] {
            member.give(given(listener)).expect("it takes");
        }
        assert_eq!(member.load.get(), 2);
        let taken: Vec<usize> = member.take().into_iter().map(|given| given.listener).collect();
        assert_eq!((taken, member.load.get()), (vec![0, 1], 0));
        assert!(member.take().is_empty());
        member.give(given(2)).expect("it still takes");
        assert_eq!(member.take_last().len(), 1);
        assert_eq!(member.give(given(3)).expect_err("it is over").listener, 3);
        assert_eq!(member.load.get(), 0);
    }
}
