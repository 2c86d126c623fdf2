//! The queue of routes whose status is to be written.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::control::token_bucket::TokenBucket;
use crate::control::turns::{DistinctQueue, Turns};
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
    /// The routes that may be written, by lane. One that has changed its lane is still in the former one as well.
    lanes: [Turns<DistinctQueue<ObjectRef>>; WriteLane::ALL.len()],
    /// The lane that comes first. It changes with each write, so one busy route cannot block others.
    first_lane: usize,
    /// The routes whose write has failed, until their pause ends.
    pausing: BTreeMap<(Instant, u64), ObjectRef>,
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

impl WriteLane {
    const ALL: [WriteLane; 3] = [WriteLane::Change, WriteLane::Backlog, WriteLane::Retry];
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

#[derive(Debug)]
enum WriteState {
    Waiting { lane: WriteLane, failures: u32 },
    // `again`: it has changed since.
    InFlight { failures: u32, again: bool },
}

impl WriteQueue {
    pub(super) fn new(now: Instant) -> Self {
        WriteQueue {
            states: HashMap::new(),
            lanes: Default::default(),
            first_lane: 0,
            pausing: BTreeMap::new(),
            tickets: 0,
            in_flight: 0,
            bucket: TokenBucket::full(BURST, PER_WRITE, now),
            outage: WriteOutage { failures: 0, until: now },
        }
    }

    /// Queues a route, unless it is queued. A waiting route keeps its turn, which may be late after failures.
    pub(super) fn push(&mut self, key: ObjectRef, lane: WriteLane) {
        match self.states.get_mut(&key) {
            Some(WriteState::InFlight { again, .. }) => *again = true,
            Some(WriteState::Waiting { lane: WriteLane::Backlog, .. })
                if lane == WriteLane::Change =>
            {
                self.wait(key, lane);
            }
            Some(WriteState::Waiting { .. }) => {}
            None => self.wait(key, lane),
        }
    }

    /// The route whose turn it is, if any. It is in flight until [`WriteQueue::end`].
    pub(super) fn next(&mut self, now: Instant) -> Option<ObjectRef> {
        while let Some((at, _)) = self.pausing.first_key_value().map(|(turn, _)| *turn)
            && at <= now
        {
            let (_, key) = self.pausing.pop_first()?;
            self.lane(WriteLane::Retry).push(key.namespace(), key.clone(), ());
        }
        if self.in_flight >= MOST_IN_FLIGHT || !self.bucket.pause(now).is_zero() {
            return None;
        }
        let (key, failures) = self.pop(now)?;
        self.first_lane = (self.first_lane + 1) % WriteLane::ALL.len();
        self.states.insert(key.clone(), WriteState::InFlight { failures, again: false });
        self.in_flight += 1;
        self.bucket.take(now);
        Some(key)
    }

    /// When the next turn may come; `None` if that depends on writes in flight or new changes.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        let lanes = WriteLane::ALL.into_iter().filter_map(|lane| self.due(lane, now));
        let pausing = self.pausing.first_key_value();
        let pausing = pausing.map(|((at, _), _)| self.outage.until.max(*at));
        let first = lanes.chain(pausing).min()?;
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
            let turn = (now + jitter(pause(failures)), self.tickets);
            self.tickets += 1;
            self.pausing.insert(turn, key.clone());
            let state = WriteState::Waiting {
                lane: WriteLane::Retry,
                failures: failures.saturating_add(1),
            };
            self.states.insert(key.clone(), state);
        } else if again {
            self.wait(key.clone(), WriteLane::Change);
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

    /// The route whose turn it is, and how often its write has failed.
    fn pop(&mut self, now: Instant) -> Option<(ObjectRef, u32)> {
        let mut order = WriteLane::ALL;
        order.rotate_left(self.first_lane);
        for lane in order {
            let is_due = self.due(lane, now).is_some_and(|at| at <= now);
            while is_due && let Some((key, ())) = self.lane(lane).pop() {
                match self.states.get(&key) {
                    Some(WriteState::Waiting { lane: own, failures }) if *own == lane => {
                        return Some((key, *failures));
                    }
                    // It waits in another lane by now, or has been written from there.
                    _ => {}
                }
            }
        }
        None
    }

    /// When the first in a lane has its turn.
    fn due(&self, lane: WriteLane, now: Instant) -> Option<Instant> {
        let has_any = !self.lanes.get(lane as usize)?.is_empty();
        // During an outage, failed writes wait until one of them succeeds. Other routes are still tried,
        // because only some writes may fail.
        has_any.then(|| if lane == WriteLane::Retry { self.outage.until.max(now) } else { now })
    }

    fn wait(&mut self, key: ObjectRef, lane: WriteLane) {
        self.states.insert(key.clone(), WriteState::Waiting { lane, failures: 0 });
        self.lane(lane).push(key.namespace(), key.clone(), ());
    }

    fn lane(&mut self, lane: WriteLane) -> &mut Turns<DistinctQueue<ObjectRef>> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
