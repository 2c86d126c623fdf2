//! Which Events of hostnames that changed their owner are still to be written.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::HostnameMove;
use super::warning::Warning;
use crate::routing::ObjectRef;

/// How many may wait.
pub(super) const MOST_WAITING: usize = 2048;
/// How long a replica remembers what the leader was to tell, for the time in which nobody leads.
const REMEMBERED: Duration = Duration::from_secs(30);
/// After so long, one is given up.
const GIVEN_UP: Duration = Duration::from_secs(600);
/// The pause after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The Events that wait, and those that are being written. Pure: it is told what time it is.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// In the order of their turns.
    waiting: BTreeMap<MoveTurn, MoveEvent>,
    under_way: HashMap<u64, MoveEvent>,
    tickets: u64,
}

/// When it is its turn, and its ticket.
type MoveTurn = (Instant, u64);

/// One side of a move.
#[derive(Clone, Debug)]
pub(super) struct MoveEvent {
    pub(super) route: ObjectRef,
    pub(super) uid: Arc<str>,
    pub(super) warning: Warning,
    since: Instant,
    failures: u32,
}

impl Moves {
    /// Remembers moves that the leader tells of, for a short while: it may be about to end. What does
    /// not fit is forgotten, the oldest first.
    pub(super) fn remember(&mut self, moves: &[HostnameMove], now: Instant) {
        self.forget(now);
        for event in sides(moves, now) {
            if self.waiting.len() >= MOST_WAITING {
                self.waiting.pop_first();
            }
            self.wait(event, now);
        }
    }

    /// This replica leads from now on. What others have told since is not told again.
    pub(super) fn lead(&mut self, now: Instant) {
        for (_, event) in std::mem::take(&mut self.under_way) {
            self.wait(event, now);
        }
        self.forget(now);
    }

    /// Puts in what is to be told of moves. Returns how many find no room.
    pub(super) fn push(&mut self, moves: &[HostnameMove], now: Instant) -> usize {
        let mut dropped = 0;
        for event in sides(moves, now) {
            match self.waiting.len() < MOST_WAITING {
                true => self.wait(event, now),
                false => dropped += 1,
            }
        }
        dropped
    }

    /// The next one, if it is its turn, with its ticket. It is under way until [`Moves::end`] or
    /// [`Moves::retry`].
    pub(super) fn next(&mut self, now: Instant) -> Option<(u64, MoveEvent)> {
        let first = self.waiting.first_entry().filter(|first| first.key().0 <= now)?;
        let ((_, ticket), event) = first.remove_entry();
        self.under_way.insert(ticket, event.clone());
        Some((ticket, event))
    }

    /// When there is a turn.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// How many are being written.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// One is written, or given up.
    pub(super) fn end(&mut self, ticket: u64) {
        self.under_way.remove(&ticket);
    }

    /// One has failed, and comes again after a pause, which `jitter` makes a little shorter. Returns
    /// whether it does.
    pub(super) fn retry(
        &mut self,
        ticket: u64,
        now: Instant,
        jitter: impl Fn(Duration) -> Duration,
    ) -> bool {
        let Some(mut event) = self.under_way.remove(&ticket) else { return false };
        if now.saturating_duration_since(event.since) >= GIVEN_UP {
            return false;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << event.failures.min(16)).min(LONGEST_PAUSE);
        event.failures = event.failures.saturating_add(1);
        self.wait(event, now + jitter(pause));
        true
    }

    fn wait(&mut self, event: MoveEvent, at: Instant) {
        self.waiting.insert((at, self.tickets), event);
        self.tickets = self.tickets.wrapping_add(1);
    }

    fn forget(&mut self, now: Instant) {
        self.waiting.retain(|_, event| {
            let age = now.saturating_duration_since(event.since);
            age <= REMEMBERED || event.failures > 0 && age <= GIVEN_UP
        });
    }
}

/// What is to be told on both sides, where there is somebody to tell.
fn sides(moves: &[HostnameMove], since: Instant) -> impl Iterator<Item = MoveEvent> {
    moves.iter().flat_map(Warning::of_move).filter_map(move |(route, warning)| {
        let uid = route.uid.clone()?;
        Some(MoveEvent { route: route.object.clone(), uid, warning, since, failures: 0 })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::super::MovedRoute;
    use super::*;

    /// A move of one name between two routes of this number.
    pub(in super::super) fn moved(number: usize) -> HostnameMove {
        let route = |namespace: &str| MovedRoute {
            object: ObjectRef::sni_route(namespace, &format!("r{number}")),
            uid: Some("uid".into()),
        };
        let hostnames = vec![format!("n{number}.test").parse().unwrap()];
        HostnameMove { hostnames, from: route("a"), to: route("b") }
    }

    fn moved_to(count: usize) -> Vec<HostnameMove> {
        (0..count).map(moved).collect()
    }

    fn all(moves: &mut Moves, now: Instant) -> Vec<(u64, String)> {
        let next = || moves.next(now).map(|(ticket, event)| (ticket, event.route.to_string()));
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn both_sides_of_all_moves_have_their_turn_and_again_after_a_failure() {
        let now = Instant::now();
        let mut moves = Moves::default();
        assert_eq!(moves.push(&moved_to(100), now), 0);
        let first = all(&mut moves, now);
        assert_eq!((first.len(), moves.under_way(), moves.wake()), (200, 200, None));
        assert_eq!((first[0].1.as_str(), first[1].1.as_str()), ("a/r0", "b/r0"));
        assert!(moves.retry(first[7].0, now, |pause| pause));
        first.iter().for_each(|(ticket, _)| moves.end(*ticket));
        assert!(all(&mut moves, now).is_empty());
        let mut at = now;
        let mut pauses = Vec::new();
        loop {
            let wake = moves.wake().unwrap();
            pauses.push((wake - at).as_secs());
            at = wake;
            let again = all(&mut moves, at);
            assert_eq!(again[0].1, first[7].1);
            if !moves.retry(again[0].0, at, |pause| pause) {
                break;
            }
        }
        assert_eq!(pauses[..7], [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(pauses.iter().sum::<u64>(), 601, "given up after ten minutes");
        assert_eq!((moves.under_way(), moves.wake()), (0, None));
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let now = Instant::now();
        let mut moves = Moves::default();
        assert_eq!(moves.push(&moved_to(MOST_WAITING), now), MOST_WAITING);
        // Who does not lead forgets the oldest in place of the newest.
        moves.remember(&[moved(MOST_WAITING)], now);
        let left = all(&mut moves, now);
        assert_eq!(left.len(), MOST_WAITING);
        assert_eq!((left[0].1.as_str(), left[MOST_WAITING - 1].1.as_str()), ("a/r1", "b/r2048"));
    }

    #[test]
    fn who_begins_to_lead_tells_of_what_came_shortly_before() {
        let start = Instant::now();
        let mut moves = Moves::default();
        moves.remember(&[moved(0)], start);
        moves.remember(&[moved(1)], start + REMEMBERED);
        let now = start + REMEMBERED + Duration::from_secs(1);
        moves.lead(now);
        let event = all(&mut moves, now);
        assert_eq!(
            event.iter().map(|(_, route)| route.as_str()).collect::<Vec<_>>(),
            ["a/r1", "b/r1"]
        );
        // What was under way when the lead was lost is told when it is back.
        moves.lead(now);
        assert_eq!(all(&mut moves, now).len(), 2);
    }
}
