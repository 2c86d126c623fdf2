//! The periodic check of both peers of a connection that lasts.

use std::time::Duration;

use super::peer_watch::{PeerState, PeerWatch};
use super::{ByteCounts, Relay};
use crate::outcome::Outcome;
use crate::proxy::socket::Socket;

/// A peer that was sent this many bytes since the last check takes them: hardly any socket holds more
/// bytes that are not acknowledged.
const MUCH: u64 = 4 * 1024 * 1024;

/// Both peers of a connection, as of the last check.
#[derive(Default)]
pub(super) struct PeerWatches {
    passed: ByteCounts,
    downstream: KnownPeer,
    upstream: KnownPeer,
}

#[derive(Default)]
struct KnownPeer {
    /// Whether all bytes that it was sent are known to be acknowledged.
    settled: bool,
    /// For a peer that owes acknowledgements; few do when they are checked.
    watch: Option<Box<PeerWatch>>,
}

/// What one peer has done since the last check.
struct PeerActivity<'a> {
    socket: &'a Socket,
    /// All bytes that it was sent.
    sent: u64,
    /// The bytes that it was sent since the last check.
    lately: u64,
    /// Whether it has sent something since then.
    heard: bool,
    /// Whether there are unsent bytes for it.
    blocks: bool,
    /// Its stall timeout.
    patience: Option<Duration>,
}

impl PeerWatches {
    /// Starts the checks of a connection that lasts.
    pub(super) fn of(upstream: &Socket) -> Box<Self> {
        // If it cannot be set, the idle timeout still ends a connection whose server is gone.
        let _ = upstream.keep_alive();
        Box::default()
    }

    /// Checks a connection that has moved `passed` so far. Returns its outcome if a peer is gone or has
    /// stalled for too long.
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
        // A server may take nothing for hours for good reasons.
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
    /// Asks the kernel about the peer, unless the relayed bytes show that it is well.
    fn look(&mut self, peer: &PeerActivity<'_>, now: u64) -> PeerState {
        self.settled &= peer.lately == 0;
        let takes = peer.lately >= MUCH;
        if takes || peer.heard && peer.patience.is_none() {
            self.watch = None;
            return PeerState::Settled;
        }
        // A client that sends now and then may still take nothing.
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
