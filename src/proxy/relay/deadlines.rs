//! The deadlines of a relay that its route sets.

use std::time::Duration;

use crate::outcome::Outcome;
use crate::proxy::context::Context;
use crate::routing::TrafficPolicy;

/// The silence in both directions that counts as a pause.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a connection without a pause may go on after its lifetime.
const GRACE: Duration = Duration::from_secs(30);

/// The deadlines of a relay. Times are in milliseconds of one clock.
pub(super) struct Deadlines {
    /// The idle timeout.
    idle: u64,
    lifetime: Lifetime,
    /// When it is closed because its endpoint is gone; `u64::MAX` is never.
    pub(super) removal: u64,
    /// When the last byte moved.
    pub(super) moved: u64,
}

/// The end of a connection's lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lifetime {
    /// When it is over; `u64::MAX` is never.
    over: u64,
}

impl Deadlines {
    /// The deadlines of a connection that begins now.
    pub(super) fn begin(context: &Context, policy: &TrafficPolicy) -> Self {
        let moved = context.reactor.now();
        let lifetime = policy.lifetime().map_or(Lifetime::UNLIMITED, |lifetime| {
            Lifetime::new(lifetime, moved, context.random())
        });
        let idle = millis(policy.idle_timeout());
        Deadlines { idle, lifetime, removal: u64::MAX, moved }
    }

    /// Whether nothing has moved for as long as a pause is.
    pub(super) fn is_pause(&self, now: u64) -> bool {
        now >= self.moved.saturating_add(millis(PAUSE))
    }

    /// Closes the connection within `over`, at a time that depends on `random`.
    pub(super) fn removed(&mut self, now: u64, over: Duration, random: u64) {
        let spread = random % (millis(over).saturating_add(1));
        self.removal = self.removal.min(now.saturating_add(spread));
    }

    /// The next deadline, and the outcome of reaching it. `unsent` is whether a peer has not taken all bytes
    /// yet: then there is no pause.
    pub(super) fn next(&self, now: u64, unsent: bool) -> (u64, Outcome) {
        let idle = self.moved.saturating_add(self.idle);
        let lifetime = self.lifetime.end(if unsent { now } else { self.moved });
        match idle.min(self.removal) {
            sooner if lifetime < sooner => (lifetime, Outcome::Lifetime),
            removal if removal < idle => (removal, Outcome::EndpointRemoved),
            _ => (idle, Outcome::IdleTimeout),
        }
    }
}

impl Lifetime {
    const UNLIMITED: Lifetime = Lifetime { over: u64::MAX };

    /// A lifetime from `now` on, by `random` up to a tenth shorter or longer than `most`: clients that came
    /// together must not return together.
    fn new(most: Duration, now: u64, random: u64) -> Self {
        let most = millis(most);
        let shortest = most - most / 10;
        let spread = random % (most / 5 + 1);
        Lifetime { over: now.saturating_add(shortest).saturating_add(spread) }
    }

    /// When the connection is to be closed if no byte moves until then: in a pause, in which least is cut
    /// off. The last byte moved at `moved`.
    fn end(self, moved: u64) -> u64 {
        let pause = moved.saturating_add(millis(PAUSE));
        pause.min(self.over.saturating_add(millis(GRACE))).max(self.over)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn lifetime(random: u64) -> Lifetime {
        Lifetime::new(Duration::from_millis(HOUR), 5, random)
    }

    #[test]
    fn a_lifetime_is_a_tenth_shorter_or_longer() {
        let over = |random: u64| lifetime(random).over - 5;
        assert_eq!(over(0), HOUR / 10 * 9);
        assert_eq!(over(HOUR / 5), HOUR / 10 * 11);
        assert_eq!(over(HOUR / 5 + 1), HOUR / 10 * 9);
        let shortest = Lifetime::new(Duration::from_millis(1), 5, u64::MAX);
        assert_eq!(shortest.over, 6);
    }

    #[test]
    fn it_ends_in_the_first_pause_or_half_a_minute_later() {
        let over = HOUR + 5;
        let end = |moved: u64| lifetime(HOUR / 10).end(moved);
        assert_eq!(end(7), over, "it has paused long before");
        assert_eq!(end(over - 500), over);
        assert_eq!(end(over - 499), over + 1);
        assert_eq!(end(over + 9_000), over + 9_500);
        assert_eq!(end(over + 29_500), over + 30_000);
        assert_eq!(end(over + 29_999), over + 30_000);
    }

    #[test]
    fn the_nearer_deadline_counts_and_bytes_that_wait_are_no_pause() {
        let idle = 2 * HOUR;
        let next = |lifetime: Lifetime, now: u64, unsent: bool| {
            Deadlines { idle, lifetime, removal: u64::MAX, moved: 1000 }.next(now, unsent)
        };
        let unlimited = (idle + 1000, Outcome::IdleTimeout);
        assert_eq!(next(Lifetime::UNLIMITED, 1000, false), unlimited);
        let over = Lifetime { over: HOUR };
        assert_eq!(next(over, HOUR, false), (HOUR, Outcome::Lifetime));
        assert_eq!(next(over, HOUR, true), (HOUR + 500, Outcome::Lifetime));
        assert_eq!(next(over, HOUR + 29_900, true), (HOUR + 30_000, Outcome::Lifetime));
        assert_eq!(next(Lifetime { over: 3 * HOUR }, HOUR, false), unlimited);
    }

    #[test]
    fn connections_of_a_removed_endpoint_are_spread() {
        let removed = |random: u64| {
            let lifetime = Lifetime::UNLIMITED;
            let mut deadlines = Deadlines { idle: HOUR, lifetime, removal: u64::MAX, moved: 0 };
            deadlines.removed(1000, Duration::from_secs(30), random);
            deadlines.next(1000, false)
        };
        assert_eq!(removed(0), (1000, Outcome::EndpointRemoved));
        assert_eq!(removed(30_000), (31_000, Outcome::EndpointRemoved));
        assert_eq!(removed(30_001), (1000, Outcome::EndpointRemoved));
    }
}
