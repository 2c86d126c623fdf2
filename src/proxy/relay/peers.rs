//! The periodic check of both peers of a long connection.

use std::time::Duration;

use super::peer_watch::{PeerState, PeerWatch};
use super::{ByteCounts, Relay};
use crate::outcome::Outcome;
use crate::proxy::reactor::Reactor;
use crate::proxy::socket::Socket;

/// A peer to which this many bytes were sent since the last check is alive: hardly any socket holds more
/// unacknowledged bytes.
const MUCH: u64 = 4 * 1024 * 1024;
/// How often a server is checked that is probably gone.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// After this time, such a server has proved that it lives.
const PROBED_FOR: Duration = Duration::from_secs(30);

/// Both peers of a connection, as of the last check.
#[derive(Default)]
pub(super) struct PeerWatches {
    passed: ByteCounts,
    downstream: KnownPeer,
    upstream: KnownPeer,
    /// When the probes of the server end, if it is probably gone.
    probed_until: Option<u64>,
}

#[derive(Default)]
struct KnownPeer {
    /// Whether it is known to have acknowledged everything.
    settled: bool,
    /// Exists only while the peer owes acknowledgements, which few do at a check.
    watch: Option<Box<PeerWatch>>,
}

/// The activity of one peer since the last check.
struct PeerActivity<'a> {
    socket: &'a Socket,
    /// The total of bytes sent to it.
    sent: u64,
    /// The bytes sent to it since the last check.
    lately: u64,
    /// Whether it has sent something since the last check.
    heard: bool,
    /// Whether there are unsent bytes for it.
    blocks: bool,
    /// Its stall timeout.
    patience: Option<Duration>,
    /// Whether it is probably gone.
    urgent: bool,
}

impl PeerWatches {
    /// Starts the checks of a long connection.
    pub(super) fn of(upstream: &Socket) -> Box<Self> {
        // If this fails, the idle timeout still ends a connection whose server is gone.
        let _ = upstream.keep_alive();
        Box::default()
    }

    /// Probes the server, because its endpoint has disappeared.
    pub(super) fn probe(&mut self, upstream: &Socket, reactor: &Reactor) {
        // If this fails, the server is found gone later.
        let _ = upstream.probe();
        self.probed_until = Some(reactor.after(PROBED_FOR));
    }

    /// The time to the next check, if that is not the usual one.
    pub(super) fn next_look(&self) -> Option<Duration> {
        self.probed_until.map(|_| PROBE_EVERY)
    }

    /// Ends the probes of a server that lives.
    fn end_probes(&mut self, upstream: &Socket, now: u64) {
        let owes = self.upstream.watch.is_some();
        if self.probed_until.is_some_and(|until| now >= until && !owes) {
            self.probed_until = None;
            let _ = upstream.keep_alive();
        }
    }

    /// Checks a connection that has relayed `passed` so far. Returns its outcome if a peer is gone or
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
            socket: relay.downstream.socket(),
            sent: relay.downstream.sent(passed.down),
            lately: down,
            heard: up > 0,
            blocks: relay.down.has_unsent(relay.downstream),
            patience: relay.context.settings.timeouts.stall,
            urgent: false,
        };
        // A server may accept nothing for hours for good reasons.
        let server = PeerActivity {
            socket: relay.upstream.socket(),
            sent: relay.upstream.sent(passed.up),
            lately: up,
            heard: down > 0,
            blocks: relay.up.has_unsent(relay.upstream),
            patience: None,
            urgent: self.probed_until.is_some(),
        };
        self.end_probes(relay.upstream.socket(), now);
        // Whoever has left gets nothing more, and has no say in what the other one gets.
        let client = match relay.downstream.is_cut() {
            true => PeerState::Settled,
            false => self.downstream.look(&client, now),
        };
        let server = match relay.upstream.is_cut() {
            true => PeerState::Settled,
            false => self.upstream.look(&server, now),
        };
        match (client, server) {
            (PeerState::Gone, _) => Some(Outcome::DownstreamReset),
            (_, PeerState::Gone) => Some(Outcome::UpstreamReset),
            (PeerState::Stalled, _) => Some(Outcome::Stalled),
            _ => None,
        }
    }
}

impl KnownPeer {
    /// Queries the kernel about the peer, unless the relayed bytes show that it is alive.
    fn look(&mut self, peer: &PeerActivity<'_>, now: u64) -> PeerState {
        self.settled &= peer.lately == 0;
        let takes = peer.lately >= MUCH;
        if takes || peer.heard && peer.patience.is_none() {
            self.watch = None;
            return PeerState::Settled;
        }
        // A client that sends something may still accept nothing.
        let doubtful = !self.settled && (!peer.heard || peer.patience.is_some());
        if !doubtful && !peer.blocks && self.watch.is_none() {
            return PeerState::Settled;
        }
        let Ok(ack_state) = peer.socket.ack_state() else { return PeerState::Settled };
        let watch = self.watch.get_or_insert_default();
        watch.urgent = peer.urgent;
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
