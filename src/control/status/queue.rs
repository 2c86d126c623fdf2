//! The queue of routes whose status is to be written.

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

/// The queue of status writes. Each route is queued at most once; the status is read when the write starts,
/// so several changes become one write. Pure: the caller passes the time.
#[derive(Debug)]
pub(super) struct WriteQueue {
    states: HashMap<ObjectRef, WriteState>,
    /// The waiting routes by lane, in the order of their turns.
    lanes: [BTreeMap<Turn, ObjectRef>; 3],
    /// The lane that comes first. It changes with each write, so one busy route cannot block others.
    first_lane: usize,
    tickets: u64,
    in_flight: usize,
    bucket: TokenBucket,
    outage: WriteOutage,
}

/// Why a status is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteLane {
    /// It has just changed, and a user may be waiting for it.
    Change,
    /// It differed from the written status when this replica became the leader.
    Backlog,
    /// A write has failed.
    Retry,
}

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteResult {
    /// It is written, or the object is gone.
    Done,
    /// There was nothing to write.
    Idle,
    /// The API server has refused this status. It is tried again.
    Refused,
    /// No status could be written. It is tried again, with all others that failed.
    Failed,
}

type Turn = (Instant, u64);

#[derive(Debug)]
enum WriteState {
    Waiting { lane: WriteLane, turn: Turn, failures: u32 },
    // `again`: it has changed since.
    InFlight { failures: u32, again: bool },
}

impl WriteQueue {
    pub(super) fn new(now: Instant) -> Self {
        WriteQueue {
            states: HashMap::new(),
            lanes: Default::default(),
            first_lane: 0,
            tickets: 0,
            in_flight: 0,
            bucket: TokenBucket { full_at: now },
            outage: WriteOutage { failures: 0, until: now },
        }
    }

    /// Queues a route, unless it is queued. A waiting route keeps its turn, which may be late after failures.
    pub(super) fn push(&mut self, key: ObjectRef, lane: WriteLane, now: Instant) {
        match self.states.get_mut(&key) {
            None => self.wait(key, lane, now, 0),
            Some(WriteState::InFlight { again, .. }) => *again = true,
            Some(WriteState::Waiting { lane: WriteLane::Backlog, turn, .. })
                if lane == WriteLane::Change =>
            {
                let turn = *turn;
                self.lane(WriteLane::Backlog).remove(&turn);
                self.wait(key, lane, now, 0);
            }
            Some(WriteState::Waiting { .. }) => {}
        }
    }

    /// The route whose turn it is, if any. It is in flight until [`WriteQueue::end`].
    pub(super) fn next(&mut self, now: Instant) -> Option<ObjectRef> {
        if self.in_flight >= MOST_IN_FLIGHT || !self.bucket.pause(now).is_zero() {
            return None;
        }
        let mut order = [WriteLane::Change, WriteLane::Backlog, WriteLane::Retry];
        order.rotate_left(self.first_lane);
        let lane = order.into_iter().find(|lane| self.due(*lane).is_some_and(|at| at <= now))?;
        let (_, key) = self.lane(lane).pop_first()?;
        self.first_lane = (self.first_lane + 1) % order.len();
        let failures = self.failures(&key);
        self.states.insert(key.clone(), WriteState::InFlight { failures, again: false });
        self.in_flight += 1;
        self.bucket.take(now);
        Some(key)
    }

    /// When the next turn may come; `None` if that depends on writes in flight or new changes.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        let lanes = [WriteLane::Change, WriteLane::Backlog, WriteLane::Retry];
        let first = lanes.into_iter().filter_map(|lane| self.due(lane)).min()?;
        (self.in_flight < MOST_IN_FLIGHT).then(|| first.max(now + self.bucket.pause(now)))
    }

    /// Ends a write. `jitter` makes a pause a little shorter.
    pub(super) fn end(
        &mut self,
        key: &ObjectRef,
        how: WriteResult,
        now: Instant,
        jitter: impl Fn(Duration) -> Duration,
    ) {
        let Some(WriteState::InFlight { failures, again }) = self.states.remove(key) else {
            return;
        };
        self.in_flight -= 1;
        match how {
            WriteResult::Done | WriteResult::Refused => {
                self.outage = WriteOutage { failures: 0, until: now }
            }
            WriteResult::Idle => self.bucket.give_back(),
            // Those that were under way together count as one.
            WriteResult::Failed if self.outage.until <= now => {
                self.outage.until = now + jitter(pause(self.outage.failures));
                self.outage.failures = self.outage.failures.saturating_add(1);
            }
            WriteResult::Failed => {}
        }
        if matches!(how, WriteResult::Refused | WriteResult::Failed) {
            let at = now + jitter(pause(failures));
            self.wait(key.clone(), WriteLane::Retry, at, failures.saturating_add(1));
        } else if again {
            self.wait(key.clone(), WriteLane::Change, now, 0);
        }
    }

    /// How often the write that waits or is in flight for a route has failed before.
    pub(super) fn failures(&self, key: &ObjectRef) -> u32 {
        match self.states.get(key) {
            Some(WriteState::InFlight { failures, .. } | WriteState::Waiting { failures, .. }) => {
                *failures
            }
            None => 0,
        }
    }

    /// When the first in a lane has its turn.
    fn due(&self, lane: WriteLane) -> Option<Instant> {
        let ((at, _), _) = self.lanes.get(lane as usize)?.first_key_value()?;
        // During an outage, failed writes wait until one of them succeeds. Other routes are still tried,
        // because only some writes may fail.
        Some(if lane == WriteLane::Retry { self.outage.until.max(*at) } else { *at })
    }

    fn wait(&mut self, key: ObjectRef, lane: WriteLane, at: Instant, failures: u32) {
        let turn = (at, self.tickets);
        self.tickets += 1;
        self.lane(lane).insert(turn, key.clone());
        self.states.insert(key, WriteState::Waiting { lane, turn, failures });
    }

    fn lane(&mut self, lane: WriteLane) -> &mut BTreeMap<Turn, ObjectRef> {
        let [change, backlog, retry] = &mut self.lanes;
        match lane {
            WriteLane::Change => change,
            WriteLane::Backlog => backlog,
            WriteLane::Retry => retry,
        }
    }
}

/// The pause after so many failures before this one.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE)
}

/// A time in which nothing can be written, as it seems.
#[derive(Debug)]
struct WriteOutage {
    failures: u32,
    until: Instant,
}

/// A bucket of tokens, kept as the time at which it will be full.
#[derive(Debug)]
struct TokenBucket {
    full_at: Instant,
}

impl TokenBucket {
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

    fn queue(names: &[&str], lane: WriteLane, now: Instant) -> WriteQueue {
        let mut queue = WriteQueue::new(now);
        names.iter().for_each(|name| queue.push(key(name), lane, now));
        queue
    }

    fn next(queue: &mut WriteQueue, now: Instant) -> Option<String> {
        queue.next(now).map(|key| key.name().to_owned())
    }

    fn end(queue: &mut WriteQueue, name: &str, how: WriteResult, now: Instant) {
        queue.end(&key(name), how, now, |pause| pause);
    }

    #[test]
    fn a_route_waits_once_and_in_the_order_of_the_first_change() {
        let now = Instant::now();
        let mut queue = queue(&["b", "a", "b"], WriteLane::Change, now);
        assert_eq!(queue.wake(now), Some(now));
        assert_eq!(next(&mut queue, now).as_deref(), Some("b"));
        assert_eq!(next(&mut queue, now).as_deref(), Some("a"));
        assert_eq!((next(&mut queue, now), queue.wake(now)), (None, None));
        end(&mut queue, "b", WriteResult::Done, now);
        assert_eq!(next(&mut queue, now), None);
    }

    #[test]
    fn what_changes_while_it_is_written_is_written_again() {
        let now = Instant::now();
        for how in [WriteResult::Done, WriteResult::Idle, WriteResult::Refused, WriteResult::Failed]
        {
            let mut queue = queue(&["a"], WriteLane::Change, now);
            next(&mut queue, now).unwrap();
            queue.push(key("a"), WriteLane::Change, now);
            assert_eq!(next(&mut queue, now), None, "never twice at once");
            end(&mut queue, "a", how, now);
            assert_eq!(next(&mut queue, now + 100 * MS).as_deref(), Some("a"), "{how:?}");
        }
    }

    #[test]
    fn pauses_grow_with_each_failure_to_a_bound_and_end_with_a_success() {
        let mut now = Instant::now();
        let mut queue = queue(&["a"], WriteLane::Change, now);
        let mut pauses = Vec::new();
        for failures in 0..40 {
            next(&mut queue, now).unwrap();
            assert_eq!(queue.failures(&key("a")), failures);
            end(&mut queue, "a", WriteResult::Failed, now);
            // A change makes no difference to that.
            queue.push(key("a"), WriteLane::Change, now);
            assert_eq!(next(&mut queue, now), None);
            let wake = queue.wake(now).unwrap();
            pauses.push((wake - now).as_millis());
            now = wake;
        }
        assert_eq!(pauses[..5], [100, 200, 400, 800, 1600]);
        assert_eq!(pauses[8..], [[25_600].as_slice(), &[30_000; 31]].concat());
        next(&mut queue, now).unwrap();
        end(&mut queue, "a", WriteResult::Done, now);
        queue.push(key("a"), WriteLane::Change, now);
        assert!(next(&mut queue, now).is_some());
        assert_eq!(queue.failures(&key("a")), 0);
    }

    #[test]
    fn writes_come_in_bounded_bursts_and_few_at_once() {
        let now = Instant::now();
        let names: Vec<String> = (0..200).map(|number| number.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut crowd = queue(&names, WriteLane::Change, now);
        let at_once: Vec<_> = std::iter::from_fn(|| next(&mut crowd, now)).collect();
        assert_eq!((at_once.len(), crowd.wake(now)), (4, None), "the rest waits for one to end");

        let mut queue = queue(&names, WriteLane::Change, now);
        let mut write = |now, how| {
            let name = next(&mut queue, now)?;
            end(&mut queue, &name, how, now);
            Some(queue.wake(now).unwrap())
        };
        let burst = std::iter::from_fn(|| write(now, WriteResult::Done));
        assert_eq!(burst.last(), Some(now + 20 * MS));
        let count = |now, write: &mut dyn FnMut(Instant, WriteResult) -> Option<Instant>| {
            std::iter::from_fn(|| write(now, WriteResult::Done)).count()
        };
        assert_eq!(count(now + 19 * MS, &mut write), 0);
        assert_eq!(count(now + 20 * MS, &mut write), 1);
        assert_eq!(count(now + 220 * MS, &mut write), 10);
        // What needs no write costs no turn.
        let idle = (0..50).filter_map(|_| write(now + 240 * MS, WriteResult::Idle)).count();
        assert_eq!((idle, count(now + 240 * MS, &mut write)), (50, 1));
    }

    #[test]
    fn changes_share_the_turns_with_the_backlog() {
        let now = Instant::now();
        let mut queue = queue(&["a", "b", "c", "d"], WriteLane::Backlog, now);
        queue.push(key("x"), WriteLane::Change, now);
        queue.push(key("y"), WriteLane::Change, now);
        queue.push(key("d"), WriteLane::Change, now);
        let order: Vec<String> = std::iter::from_fn(|| {
            let name = next(&mut queue, now)?;
            end(&mut queue, &name, WriteResult::Done, now);
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
        let mut queue = queue(&names, WriteLane::Backlog, start);
        let fail = |queue: &mut WriteQueue, mut now: Instant, until: Instant| {
            let mut tries = 0;
            while now < until {
                while let Some(name) = next(queue, now) {
                    end(queue, &name, WriteResult::Failed, now);
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
        queue.push(key("new"), WriteLane::Change, now);
        assert_eq!(next(&mut queue, now).as_deref(), Some("new"));
        end(&mut queue, "new", WriteResult::Done, now);
        let later = now + LONGEST_PAUSE;
        let tried = std::iter::from_fn(|| {
            let name = next(&mut queue, later)?;
            end(&mut queue, &name, WriteResult::Done, later);
            Some(name)
        });
        assert_eq!(tried.count(), 50, "all that a burst may have");
    }

    #[test]
    fn one_route_that_is_refused_holds_up_no_other_that_has_failed() {
        let now = Instant::now();
        let mut queue = queue(&["a", "b"], WriteLane::Change, now);
        next(&mut queue, now).unwrap();
        next(&mut queue, now).unwrap();
        end(&mut queue, "a", WriteResult::Failed, now);
        end(&mut queue, "b", WriteResult::Refused, now);
        let first = next(&mut queue, now + 100 * MS).unwrap();
        assert_eq!(first, "a");
        end(&mut queue, "a", WriteResult::Refused, now + 100 * MS);
        assert_eq!(next(&mut queue, now + 100 * MS).as_deref(), Some("b"));
    }
}
