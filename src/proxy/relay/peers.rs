//! What is looked after from time to time on a connection that lasts.

use std::time::Duration;

use super::peer_watch::{PeerState, PeerWatch};
use super::{ByteCounts, Relay};
use crate::outcome::Outcome;
use crate::proxy::socket::Socket;

/// A peer that was sent so many bytes since the last look takes them: hardly a socket holds more that
/// nobody has acknowledged.
const MUCH: u64 = 4 * 1024 * 1024;

/// The peers of a connection, as they were at the last look.
#[derive(Default)]
pub(super) struct PeerWatches {
    passed: ByteCounts,
    downstream: KnownPeer,
    upstream: KnownPeer,
}

#[derive(Default)]
struct KnownPeer {
    /// Whether all that it was sent is known to be acknowledged.
    settled: bool,
    /// Of a peer that owes acknowledgements. Few do when they are looked at.
    watch: Option<Box<PeerWatch>>,
}

/// One peer, as the relay sees it.
struct PeerActivity<'a> {
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

impl PeerWatches {
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
        if let Some(outcome) = relay.maintain(ByteCounts { up, down }) {
            return Some(outcome);
        }
        let now = relay.context.reactor.now();
        let client = PeerActivity {
            socket: relay.downstream,
            sent: passed.down,
            lately: down,
            heard: up > 0,
            blocks: relay.down.has_unsent(),
            patience: relay.context.settings.timeouts.stall,
        };
        // A server may have its reasons to take nothing for hours.
        let server = PeerActivity {
            socket: relay.upstream,
            sent: passed.up,
            lately: up,
            heard: down > 0,
            blocks: relay.up.has_unsent(),
            patience: None,
        };
        match (self.downstream.look(&client, now), self.upstream.look(&server, now)) {
            (PeerState::Gone, _) => Some(Outcome::DownstreamReset),
            (_, PeerState::Gone) => Some(Outcome::UpstreamReset),
            (PeerState::Stalled, _) => Some(Outcome::Stalled),
            _ => None,
        }
    }
}

impl KnownPeer {
    /// Asks the kernel about the peer, but only if what was passed on leaves the question open.
    fn look(&mut self, peer: &PeerActivity<'_>, now: u64) -> PeerState {
        self.settled &= peer.lately == 0;
        let takes = peer.lately >= MUCH;
        if takes || peer.heard && peer.patience.is_none() {
            self.watch = None;
            return PeerState::Settled;
        }
        // A client that sends something now and then may still take nothing.
        let doubtful = !self.settled && (!peer.heard || peer.patience.is_some());
        if !doubtful && !peer.blocks && self.watch.is_none() {
            return PeerState::Settled;
        }
        let Ok(ack_state) = peer.socket.ack_state() else { return PeerState::Settled };
        let watch = self.watch.get_or_insert_default();
        if peer.heard {
            watch.heard();
        }
        let verdict = watch.judge(ack_state, peer.sent, peer.patience, now);
        if verdict == PeerState::Settled {
            self.settled = true;
            self.watch = None;
        }
        verdict
    }
}
