//! Which routes wait for their status to be written, and when which of them has its turn.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::routing::ObjectRef;

/// How many writes are under way at once.
const MOST_IN_FLIGHT: usize = 4;
/// How many writes may come at once after a quiet time.
const BURST: u32 = 50;
/// One more write for each of these.
const PER_WRITE: Duration = Duration::from_millis(20);
/// The pause after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Each route is in it once, however often its status changes: what is written is what is to be
/// said when its turn comes. Pure: it is told what time it is.
#[derive(Debug)]
pub(super) struct Queue {
    places: HashMap<ObjectRef, Place>,
    /// Who waits, by lane, in the order of their turns.
    lanes: [BTreeMap<Turn, ObjectRef>; 3],
    /// Which lane comes first: each in turn, so that a route that never rests stops no other.
    first_lane: usize,
    tickets: u64,
    in_flight: usize,
    allowance: Allowance,
    outage: Outage,
}

/// Why a status is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// It has changed just now, and somebody may be waiting for it.
    Change,
    /// It has been different from what is written for who knows how long.
    Backlog,
    /// A write has failed.
    Retry,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Written, or there is nothing to write it to any more.
    Done,
    /// There was nothing to write.
    Idle,
    /// Refused for what it is: to be tried again.
    Refused,
    /// It failed as any other would have: to be tried again, as all others that failed.
    Failed,
}

type Turn = (Instant, u64);

#[derive(Debug)]
enum Place {
    Waiting { lane: Lane, turn: Turn, failures: u32 },
    // `again`: it has changed since.
    InFlight { failures: u32, again: bool },
}

impl Queue {
    pub(super) fn new(now: Instant) -> Self {
        Queue {
            places: HashMap::new(),
            lanes: Default::default(),
            first_lane: 0,
            tickets: 0,
            in_flight: 0,
            allowance: Allowance { full_at: now },
            outage: Outage { failures: 0, until: now },
        }
    }

    /// Puts a route in, unless it is. One that waits keeps its turn: after failures that is a
    /// while.
    pub(super) fn push(&mut self, key: ObjectRef, lane: Lane, now: Instant) {
        match self.places.get_mut(&key) {
            None => self.wait(key, lane, now, 0),
            Some(Place::InFlight { again, .. }) => *again = true,
            Some(Place::Waiting { lane: Lane::Backlog, turn, .. }) if lane == Lane::Change => {
                let turn = *turn;
                self.lane(Lane::Backlog).remove(&turn);
                self.wait(key, lane, now, 0);
            }
            Some(Place::Waiting { .. }) => {}
        }
    }

    /// The route whose turn it is, if there is one. It is in flight until [`Queue::end`].
    pub(super) fn next(&mut self, now: Instant) -> Option<ObjectRef> {
        if self.in_flight >= MOST_IN_FLIGHT || !self.allowance.pause(now).is_zero() {
            return None;
        }
        let mut order = [Lane::Change, Lane::Backlog, Lane::Retry];
        order.rotate_left(self.first_lane);
        let lane = order.into_iter().find(|lane| self.due(*lane).is_some_and(|at| at <= now))?;
        let (_, key) = self.lane(lane).pop_first()?;
        self.first_lane = (self.first_lane + 1) % order.len();
        let failures = self.failures(&key);
        self.places.insert(key.clone(), Place::InFlight { failures, again: false });
        self.in_flight += 1;
        self.allowance.take(now);
        Some(key)
    }

    /// When there may be a turn; nothing if that depends on what is in flight or comes.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        let lanes = [Lane::Change, Lane::Backlog, Lane::Retry];
        let first = lanes.into_iter().filter_map(|lane| self.due(lane)).min()?;
        (self.in_flight < MOST_IN_FLIGHT).then(|| first.max(now + self.allowance.pause(now)))
    }

    /// A turn has ended. `jitter` makes a pause a little shorter.
    pub(super) fn end(
        &mut self,
        key: &ObjectRef,
        how: Ended,
        now: Instant,
        jitter: impl Fn(Duration) -> Duration,
    ) {
        let Some(Place::InFlight { failures, again }) = self.places.remove(key) else { return };
        self.in_flight -= 1;
        match how {
            Ended::Done | Ended::Refused => self.outage = Outage { failures: 0, until: now },
            Ended::Idle => self.allowance.give_back(),
            // Those that were under way together count as one.
            Ended::Failed if self.outage.until <= now => {
                self.outage.until = now + jitter(pause(self.outage.failures));
                self.outage.failures = self.outage.failures.saturating_add(1);
            }
            Ended::Failed => {}
        }
        if matches!(how, Ended::Refused | Ended::Failed) {
            let at = now + jitter(pause(failures));
            self.wait(key.clone(), Lane::Retry, at, failures.saturating_add(1));
        } else if again {
            self.wait(key.clone(), Lane::Change, now, 0);
        }
    }

    /// How often the write that waits or is in flight for a route has failed before.
    pub(super) fn failures(&self, key: &ObjectRef) -> u32 {
        match self.places.get(key) {
            Some(Place::InFlight { failures, .. } | Place::Waiting { failures, .. }) => *failures,
            None => 0,
        }
    }

    /// When the first in a lane has its turn.
    fn due(&self, lane: Lane) -> Option<Instant> {
        let ((at, _), _) = self.lanes.get(lane as usize)?.first_key_value()?;
        // While nothing can be written, those that know it wait for one of them to get through. Who
        // does not know it yet finds out, for it may be that only some fail.
        Some(if lane == Lane::Retry { self.outage.until.max(*at) } else { *at })
    }

    fn wait(&mut self, key: ObjectRef, lane: Lane, at: Instant, failures: u32) {
        let turn = (at, self.tickets);
        self.tickets += 1;
        self.lane(lane).insert(turn, key.clone());
        self.places.insert(key, Place::Waiting { lane, turn, failures });
    }

    fn lane(&mut self, lane: Lane) -> &mut BTreeMap<Turn, ObjectRef> {
        let [change, backlog, retry] = &mut self.lanes;
        match lane {
            Lane::Change => change,
            Lane::Backlog => backlog,
            Lane::Retry => retry,
        }
    }
}

/// The pause after so many failures before this one.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE)
}

/// A time in which nothing can be written, as it seems.
#[derive(Debug)]
struct Outage {
    failures: u32,
    until: Instant,
}

/// A bucket of tokens, kept as the time at which it will be full.
#[derive(Debug)]
struct Allowance {
    full_at: Instant,
}

impl Allowance {
    /// How long until a token is there.
    fn pause(&self, now: Instant) -> Duration {
        let missing = self.full_at.saturating_duration_since(now);
        missing.saturating_sub(PER_WRITE * (BURST - 1))
    }

    fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + PER_WRITE;
    }

    fn give_back(&mut self) {
        self.full_at = self.full_at.checked_sub(PER_WRITE).unwrap_or(self.full_at);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::key;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn queue(names: &[&str], lane: Lane, now: Instant) -> Queue {
        let mut queue = Queue::new(now);
        names.iter().for_each(|name| queue.push(key(name), lane, now));
        queue
    }

    fn next(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.next(now).map(|key| key.name().to_owned())
    }

    fn end(queue: &mut Queue, name: &str, how: Ended, now: Instant) {
        queue.end(&key(name), how, now, |pause| pause);
    }

    #[test]
    fn a_route_waits_once_and_in_the_order_of_the_first_change() {
        let now = Instant::now();
        let mut queue = queue(&["b", "a", "b"], Lane::Change, now);
        assert_eq!(queue.wake(now), Some(now));
        assert_eq!(next(&mut queue, now).as_deref(), Some("b"));
        assert_eq!(next(&mut queue, now).as_deref(), Some("a"));
        assert_eq!((next(&mut queue, now), queue.wake(now)), (None, None));
        end(&mut queue, "b", Ended::Done, now);
        assert_eq!(next(&mut queue, now), None);
    }

    #[test]
    fn what_changes_while_it_is_written_is_written_again() {
        let now = Instant::now();
        for how in [Ended::Done, Ended::Idle, Ended::Refused, Ended::Failed] {
            let mut queue = queue(&["a"], Lane::Change, now);
            next(&mut queue, now).unwrap();
            queue.push(key("a"), Lane::Change, now);
            assert_eq!(next(&mut queue, now), None, "never twice at once");
            end(&mut queue, "a", how, now);
            assert_eq!(next(&mut queue, now + 100 * MS).as_deref(), Some("a"), "{how:?}");
        }
    }

    #[test]
    fn pauses_grow_with_each_failure_to_a_bound_and_end_with_a_success() {
        let mut now = Instant::now();
        let mut queue = queue(&["a"], Lane::Change, now);
        let mut pauses = Vec::new();
        for failures in 0..40 {
            next(&mut queue, now).unwrap();
            assert_eq!(queue.failures(&key("a")), failures);
            end(&mut queue, "a", Ended::Failed, now);
            // A change makes no difference to that.
            queue.push(key("a"), Lane::Change, now);
            assert_eq!(next(&mut queue, now), None);
            let wake = queue.wake(now).unwrap();
            pauses.push((wake - now).as_millis());
            now = wake;
        }
        assert_eq!(pauses[..5], [100, 200, 400, 800, 1600]);
        assert_eq!(pauses[8..], [[25_600].as_slice(), &[30_000; 31]].concat());
        next(&mut queue, now).unwrap();
        end(&mut queue, "a", Ended::Done, now);
        queue.push(key("a"), Lane::Change, now);
        assert!(next(&mut queue, now).is_some());
        assert_eq!(queue.failures(&key("a")), 0);
    }

    #[test]
    fn writes_come_in_bounded_bursts_and_few_at_once() {
        let now = Instant::now();
        let names: Vec<String> = (0..200).map(|number| number.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut crowd = queue(&names, Lane::Change, now);
        let at_once: Vec<_> = std::iter::from_fn(|| next(&mut crowd, now)).collect();
        assert_eq!((at_once.len(), crowd.wake(now)), (4, None), "the rest waits for one to end");

        let mut queue = queue(&names, Lane::Change, now);
        let mut write = |now, how| {
            let name = next(&mut queue, now)?;
            end(&mut queue, &name, how, now);
            Some(queue.wake(now).unwrap())
        };
        let burst = std::iter::from_fn(|| write(now, Ended::Done));
        assert_eq!(burst.last(), Some(now + 20 * MS));
        let count = |now, write: &mut dyn FnMut(Instant, Ended) -> Option<Instant>| {
            std::iter::from_fn(|| write(now, Ended::Done)).count()
        };
        assert_eq!(count(now + 19 * MS, &mut write), 0);
        assert_eq!(count(now + 20 * MS, &mut write), 1);
        assert_eq!(count(now + 220 * MS, &mut write), 10);
        // What needs no write costs no turn.
        let idle = (0..50).filter_map(|_| write(now + 240 * MS, Ended::Idle)).count();
        assert_eq!((idle, count(now + 240 * MS, &mut write)), (50, 1));
    }

    #[test]
    fn changes_share_the_turns_with_the_backlog() {
        let now = Instant::now();
        let mut queue = queue(&["a", "b", "c", "d"], Lane::Backlog, now);
        queue.push(key("x"), Lane::Change, now);
        queue.push(key("y"), Lane::Change, now);
        queue.push(key("d"), Lane::Change, now);
        let order: Vec<String> = std::iter::from_fn(|| {
            let name = next(&mut queue, now)?;
            end(&mut queue, &name, Ended::Done, now);
            Some(name)
        })
        .collect();
        assert_eq!(order, ["x", "a", "y", "d", "b", "c"]);
    }

    #[test]
    fn while_everything_fails_only_a_few_are_tried_again() {
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let names: Vec<String> = (0..300).map(|number| number.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut queue = queue(&names, Lane::Backlog, start);
        let fail = |queue: &mut Queue, mut now: Instant, until: Instant| {
            let mut tries = 0;
            while now < until {
                while let Some(name) = next(queue, now) {
                    end(queue, &name, Ended::Failed, now);
                    tries += 1;
                }
                now = queue.wake(now).unwrap();
            }
            tries
        };
        let tries = fail(&mut queue, start, start + minute);
        assert!((300..320).contains(&tries), "each once, and then a few: {tries}");
        let tries = fail(&mut queue, start + minute, start + 6 * minute);
        assert!((5..20).contains(&tries), "{tries}");
        // What is new is tried at once, and if that works, then so may all others.
        let now = start + 6 * minute;
        queue.push(key("new"), Lane::Change, now);
        assert_eq!(next(&mut queue, now).as_deref(), Some("new"));
        end(&mut queue, "new", Ended::Done, now);
        let later = now + LONGEST_PAUSE;
        let tried = std::iter::from_fn(|| {
            let name = next(&mut queue, later)?;
            end(&mut queue, &name, Ended::Done, later);
            Some(name)
        });
        assert_eq!(tried.count(), 50, "all that a burst may have");
    }

    #[test]
    fn one_route_that_is_refused_holds_up_no_other_that_has_failed() {
        let now = Instant::now();
        let mut queue = queue(&["a", "b"], Lane::Change, now);
        next(&mut queue, now).unwrap();
        next(&mut queue, now).unwrap();
        end(&mut queue, "a", Ended::Failed, now);
        end(&mut queue, "b", Ended::Refused, now);
        let first = next(&mut queue, now + 100 * MS).unwrap();
        assert_eq!(first, "a");
        end(&mut queue, "a", Ended::Refused, now + 100 * MS);
        assert_eq!(next(&mut queue, now + 100 * MS).as_deref(), Some("b"));
    }
}
