//! What is looked after from time to time on a connection that lasts.

use std::time::Duration;

use super::watch::{Verdict, Watch};
use super::{ByteCounts, Relay};
use crate::outcome::Outcome;
use crate::proxy::socket::Socket;

/// A peer that was sent so many bytes since the last look takes them: hardly a socket holds more that
/// nobody has acknowledged.
const MUCH: u64 = 4 * 1024 * 1024;

/// The peers of a connection, as they were at the last look.
#[derive(Default)]
pub(super) struct Watches {
    passed: ByteCounts,
    downstream: Side,
    upstream: Side,
}

#[derive(Default)]
struct Side {
    /// Whether all that it was sent is known to be acknowledged.
    settled: bool,
    /// Of a peer that owes acknowledgements. Few do when they are looked at.
    watch: Option<Box<Watch>>,
}

/// One peer, as the relay sees it.
struct Look<'a> {
    socket: &'a Socket,
    /// Bytes that it was sent.
    sent: u64,
    /// Those among them that it was sent since the last look.
    lately: u64,
    /// Whether something came from it since then.
    heard: bool,
    /// Whether it does not take what there is for it.
    blocks: bool,
    /// How long it may stall.
    patience: Option<Duration>,
}

impl Watches {
    /// Begins, which only connections that last are worth.
    pub(super) fn of(upstream: &Socket) -> Box<Self> {
        // If it cannot be set, the idle timeout still ends a connection whose server is gone.
        let _ = upstream.keep_alive();
        Box::default()
    }

    /// Looks after a connection that has passed on `passed` so far; returns how it ended, if a peer
    /// is gone or has stalled for too long.
    pub(super) fn look(&mut self, relay: &mut Relay<'_>, passed: ByteCounts) -> Option<Outcome> {
        let before = std::mem::replace(&mut self.passed, passed);
        let up = passed.up.saturating_sub(before.up);
        let down = passed.down.saturating_sub(before.down);
        if let Some(outcome) = relay.tend(ByteCounts { up, down }) {
            return Some(outcome);
        }
        let now = relay.context.reactor.now();
        let client = Look {
            socket: relay.downstream,
            sent: passed.down,
            lately: down,
            heard: up > 0,
            blocks: relay.down.holds_any(),
            patience: relay.context.settings.timeouts.stall,
        };
        // A server may have its reasons to take nothing for hours.
        let server = Look {
            socket: relay.upstream,
            sent: passed.up,
            lately: up,
            heard: down > 0,
            blocks: relay.up.holds_any(),
            patience: None,
        };
        match (self.downstream.look(&client, now), self.upstream.look(&server, now)) {
            (Verdict::Gone, _) => Some(Outcome::DownstreamReset),
            (_, Verdict::Gone) => Some(Outcome::UpstreamReset),
            (Verdict::Stalled, _) => Some(Outcome::Stalled),
            _ => None,
        }
    }
}

impl Side {
    /// Asks the kernel about the peer, but only if what was passed on leaves the question open.
    fn look(&mut self, peer: &Look<'_>, now: u64) -> Verdict {
        self.settled &= peer.lately == 0;
        let takes = peer.lately >= MUCH;
        if takes || peer.heard && peer.patience.is_none() {
            self.watch = None;
            return Verdict::Settled;
        }
        // A client that sends something now and then may still take nothing.
        let doubtful = !self.settled && (!peer.heard || peer.patience.is_some());
        if !doubtful && !peer.blocks && self.watch.is_none() {
            return Verdict::Settled;
        }
        let Ok(standing) = peer.socket.standing() else { return Verdict::Settled };
        let watch = self.watch.get_or_insert_default();
        if peer.heard {
            watch.heard();
        }
        let verdict = watch.judge(standing, peer.sent, peer.patience, now);
        if verdict == Verdict::Settled {
            self.settled = true;
            self.watch = None;
        }
        verdict
    }
}
