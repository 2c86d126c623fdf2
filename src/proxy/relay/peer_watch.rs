//! Detects peers that accept no more bytes, because they are gone or stalled.

use std::time::Duration;

use crate::proxy::tcp::AckState;

/// A peer that owes acknowledgements and sends none for this long is gone. A silent peer that owes none is
/// detected by keepalive within the same time (`KeepAlive`).
const GONE_AFTER: Duration = Duration::from_secs(100);
/// The same for a peer that is probably gone.
const URGENT_GONE_AFTER: Duration = Duration::from_secs(15);
/// The minimum number of the kernel's retries without an answer in that time. A peer with a closed window
/// answers each retry, but they may be two minutes apart.
const LEAST_TRIES: u8 = 2;
/// The bytes that a client must acknowledge within the stall timeout.
const LEAST_ACKED: u64 = 64 * 1024;
/// The tolerance between the kernel's clock and the reactor's.
const SLACK: Duration = Duration::from_millis(50);

/// The state of a peer, as of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerState {
    /// It has acknowledged everything.
    Settled,
    /// It owes acknowledgements, and still has time.
    Owing,
    /// It has answered nothing for too long.
    Gone,
    /// It answers, but has acknowledged too little for too long.
    Stalled,
}

/// The state of a peer that owes acknowledgements, between two checks. Times are in milliseconds of one
/// clock.
#[derive(Debug, Default)]
pub(super) struct PeerWatch {
    silence: Option<Silence>,
    goal: Option<Goal>,
    /// Whether the peer is probably gone.
    pub(super) urgent: bool,
}

/// A time without an answer of the peer.
#[derive(Debug)]
struct Silence {
    since: u64,
    retransmits: u8,
    backoff: u8,
}

/// A number of bytes to acknowledge, and the deadline.
#[derive(Debug)]
struct Goal {
    acked: u64,
    by: u64,
}

impl PeerWatch {
    /// Judges a peer to which `sent` bytes were sent in total. It is [`PeerState::Stalled`] if it stalls for
    /// `patience`.
    pub(super) fn judge(
        &mut self,
        peer: AckState,
        sent: u64,
        patience: Option<Duration>,
        now: u64,
    ) -> PeerState {
        if !peer.owed {
            *self = PeerWatch { urgent: self.urgent, ..PeerWatch::default() };
            return PeerState::Settled;
        }
        if self.is_gone(peer, now) {
            return PeerState::Gone;
        }
        match patience.is_some_and(|patience| self.is_stalled(peer, sent, patience, now)) {
            true => PeerState::Stalled,
            false => PeerState::Owing,
        }
    }

    /// Records that the peer has sent something.
    pub(super) fn heard(&mut self) {
        self.silence = None;
    }

    fn is_gone(&mut self, peer: AckState, now: u64) -> bool {
        let unheard = millis(peer.heard + SLACK);
        match &self.silence {
            Some(silence) if now.saturating_sub(silence.since) <= unheard => {
                let gone_after = if self.urgent { URGENT_GONE_AFTER } else { GONE_AFTER };
                let again = peer.retransmits.saturating_sub(silence.retransmits);
                let later = peer.backoff.saturating_sub(silence.backoff);
                let tries = again.max(later).max(peer.unanswered);
                now.saturating_sub(silence.since) >= millis(gone_after) && tries >= LEAST_TRIES
            }
            // Silence from a time when the peer owed nothing does not count.
            _ => {
                let AckState { retransmits, backoff, .. } = peer;
                self.silence = Some(Silence { since: now, retransmits, backoff });
                false
            }
        }
    }

    fn is_stalled(&mut self, peer: AckState, sent: u64, patience: Duration, now: u64) -> bool {
        match &self.goal {
            Some(goal) if peer.acked < goal.acked => now >= goal.by,
            _ => {
                // If it owes little, it must acknowledge all of it; later bytes do not count.
                let acked = peer.acked.saturating_add(LEAST_ACKED).min(sent);
                self.goal = Some(Goal { acked, by: now.saturating_add(millis(patience)) });
                false
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: u64 = 15_000;
    const STALL: Option<Duration> = Some(Duration::from_secs(300));

    /// The kernel's view, at `now`, of a peer that is retried after 0.2 s, 0.4 s and so on up to 120 s.
    /// `answers` is whether it answers from time 0 on.
    fn tried(now: u64, answers: bool, window: bool) -> AckState {
        let (mut at, mut pause, mut backoff, mut last) = (0, 200, 0, 0);
        while at + pause <= now {
            at += pause;
            pause = (pause * 2).min(120_000);
            backoff = (backoff + 1).min(15);
            last = at;
        }
        let heard = Duration::from_millis(now - if answers { last } else { 0 });
        let unanswered = if answers || window { 0 } else { backoff };
        AckState { acked: 10, owed: true, heard, retransmits: 0, backoff, unanswered }
    }

    /// The time at which a peer is given up that was sent 100 bytes, with checks from `first` on.
    fn given_up(
        first: u64,
        patience: Option<Duration>,
        peer: impl Fn(u64) -> AckState,
    ) -> Option<(u64, PeerState)> {
        let mut watch = PeerWatch::default();
        (0..400).map(|tick| first + tick * TICK).find_map(|now| {
            match watch.judge(peer(now), 100, patience, now) {
                PeerState::Settled | PeerState::Owing => None,
                end => Some((now, end)),
            }
        })
    }

    #[test]
    fn a_peer_that_answers_nothing_is_gone_after_about_two_minutes() {
        for window in [true, false] {
            for first in [10, 1_000, 7_000, TICK - 1, 2 * TICK - 1] {
                let (at, end) = given_up(first, STALL, |now| tried(now, false, window)).unwrap();
                assert_eq!(end, PeerState::Gone);
                assert!((100_000..=150_000).contains(&at), "looked at from {first} on: {at}");
            }
        }
    }

    #[test]
    fn a_peer_that_is_probably_gone_is_given_up_after_a_quarter_of_a_minute() {
        for (answers, gone) in [(false, Some(PeerState::Gone)), (true, None)] {
            let mut watch = PeerWatch { urgent: true, ..PeerWatch::default() };
            let looks = (0..=8).map(|look| 300 + look * 2000);
            let mut judged =
                looks.map(|now| watch.judge(tried(now, answers, false), 100, None, now));
            assert_eq!(judged.find(|state| *state != PeerState::Owing), gone);
        }
    }

    #[test]
    fn a_peer_with_a_closed_window_is_not_gone_but_may_stall() {
        for window in [true, false] {
            for first in (0..2 * TICK).step_by(500) {
                let closed = |now| tried(now, true, window);
                assert_eq!(given_up(first, None, closed), None);
                let (at, end) = given_up(first, STALL, closed).unwrap();
                assert_eq!((at - first, end), (300_000, PeerState::Stalled));
            }
        }
    }

    /// After ICMP "unreachable" messages, the kernel retries as often as before.
    #[test]
    fn an_unreachable_peer_is_gone_after_the_same_time() {
        let unreachable = |now: u64| {
            let heard = Duration::from_millis(now);
            let retransmits = (now / 26_000 + 8).min(255) as u8;
            AckState { owed: true, heard, retransmits, backoff: 6, ..AckState::default() }
        };
        let (at, end) = given_up(TICK, STALL, unreachable).unwrap();
        assert_eq!(end, PeerState::Gone);
        assert!((100_000..=150_000).contains(&at), "{at}");
    }

    #[test]
    fn silence_counts_only_while_a_peer_owes_acknowledgements() {
        let mut watch = PeerWatch::default();
        let hour = Duration::from_secs(3600);
        let owing = AckState { owed: true, heard: hour, unanswered: 9, ..AckState::default() };
        let now = 5_000_000;
        assert_eq!(watch.judge(owing, 100, STALL, now), PeerState::Owing);
        let later = now + millis(GONE_AFTER);
        assert_eq!(watch.judge(owing, 100, STALL, later - 1), PeerState::Owing);
        watch.heard();
        assert_eq!(watch.judge(owing, 100, STALL, later), PeerState::Owing);
        assert_eq!(watch.judge(owing, 100, STALL, later + millis(GONE_AFTER)), PeerState::Gone);
    }

    #[test]
    fn a_client_that_takes_enough_or_everything_does_not_stall() {
        let reads = |rate: u64, owed: u64| {
            given_up(1, STALL, |now| {
                let acked = now * rate / 1000;
                let heard = Duration::from_millis(now % 1000);
                AckState { acked, owed: owed > 0, heard, ..AckState::default() }
            })
        };
        // After 100 bytes, it soon acknowledges all of them, and the connection continues.
        assert_eq!(reads(1, 1), None);
        assert_eq!(reads(0, 0), None);
        let stalls = |rate: u64| {
            let mut watch = PeerWatch::default();
            (0..100).map(|tick| tick * TICK).any(|now| {
                let acked = now * rate / 1000;
                let peer = AckState { acked, owed: true, ..AckState::default() };
                watch.judge(peer, u64::MAX, STALL, now) == PeerState::Stalled
            })
        };
        assert!(!stalls(LEAST_ACKED / 300 * 11 / 10));
        assert!(stalls(LEAST_ACKED / 300 * 9 / 10));
        assert!(stalls(1));
    }
}
