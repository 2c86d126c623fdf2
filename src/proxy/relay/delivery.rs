//! The end of a connection one of whose peers has ended without `close_notify`.
//!
//! What has arrived of that peer is intact, and belongs to the other one, which is then to see that more may be missing:
//! by a FIN without `close_notify`, or without TLS by a reset. A reset discards what is not acknowledged, and so does the
//! close of a socket whose peer goes on sending. So the connection lasts until the receiver has acknowledged everything.
//! The deadlines of the relay go on meanwhile.

use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};
use std::time::Duration;

use super::direction::{Direction, Farewell, Stage};
use super::io_context::IoContext;
use super::parting::MOST_LOST;
use super::{ByteCounts, Relay, RelayState};
use crate::outcome::Outcome;
use crate::proxy::reactor::QUANTUM;
use crate::proxy::socket::Socket;
use crate::proxy::stream::Stream;
use crate::routing::Route;

/// How soon acknowledgements are looked for again, of which the kernel does not tell. The longer there was none, the
/// longer it takes.
const SOONEST: Duration = Duration::from_millis(20);
const LATEST: Duration = Duration::from_secs(1);

/// The progress of a delivery.
struct Delivery {
    /// Whether it goes to the endpoint.
    is_up: bool,
    /// Bytes that the receiver has sent meanwhile, for nobody.
    lost: u64,
    /// Whether the receiver has ended, too.
    has_ended: bool,
    /// The bytes that the receiver had acknowledged at the last look.
    acked: u64,
}

impl Relay<'_> {
    /// Sends both peers what was read for them, and then the end of what one of them has cut. Nothing more is read for
    /// that one. Returns [`Outcome::Completed`] when the receiver has acknowledged everything, else why it has not.
    pub(super) async fn deliver(
        &mut self,
        route: &Route,
        state: &mut RelayState,
        report: &mut impl FnMut(ByteCounts),
    ) -> Outcome {
        let is_up = self.downstream.is_cut();
        let other = if is_up { &self.down } else { &self.up };
        let has_ended = matches!(other.stage(), Stage::Ended | Stage::Done);
        let receiver = if is_up { self.upstream } else { self.downstream };
        if has_ended && receiver.socket().is_broken() && !self.has_unsent() {
            // It has left after its own end, and misses nothing.
            return Outcome::Completed;
        }
        let mut delivery = Delivery { is_up, lost: 0, has_ended, acked: 0 };
        self.up.finish(false);
        self.down.finish(false);
        poll_fn(|_| match self.poll_delivery(&mut delivery, state) {
            Poll::Ready(outcome) => Poll::Ready(outcome),
            Poll::Pending => self.go_on(route, state, report),
        })
        .await
    }

    fn poll_delivery(&mut self, delivery: &mut Delivery, state: &mut RelayState) -> Poll<Outcome> {
        let context = self.context;
        let mut buffer = context.buffer.borrow_mut();
        let mut io = IoContext::of(context, &mut buffer, true);
        let (downstream, upstream) = (self.downstream, self.upstream);
        // The one that is cut may be gone, or come to be: the receiver gets its bytes all the same.
        poll_end(&mut self.up, downstream, upstream, &mut io);
        poll_end(&mut self.down, upstream, downstream, &mut io);
        let (stage, receiver, reset) = match delivery.is_up {
            true => (self.up.stage(), upstream.socket(), Outcome::UpstreamReset),
            false => (self.down.stage(), downstream.socket(), Outcome::DownstreamReset),
        };
        if stage == Stage::Refused || receiver.is_broken() {
            return Poll::Ready(reset);
        }
        if !delivery.has_ended {
            match discard(receiver, io.buffer, &mut delivery.lost) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => delivery.has_ended = true,
                Poll::Ready(Err(_)) => return Poll::Ready(reset),
            }
        }
        if stage != Stage::Done {
            return Poll::Pending;
        }
        let Ok(peer) = receiver.ack_state() else { return Poll::Ready(reset) };
        if !peer.owed {
            return Poll::Ready(Outcome::Completed);
        }
        let now = context.reactor.now();
        if peer.acked != delivery.acked {
            delivery.acked = peer.acked;
            state.deadlines.moved = now;
        }
        let since = Duration::from_millis(now.saturating_sub(state.deadlines.moved));
        let again = context.reactor.after((since / 2).clamp(SOONEST, LATEST));
        context.reactor.wake_at(context.reactor.current(), again);
        Poll::Pending
    }
}

/// Sends what a direction holds, and then its end.
fn poll_end(direction: &mut Direction, from: &Stream, to: &Stream, io: &mut IoContext<'_>) {
    if direction.stage() == Stage::Ended {
        // It reads no more, so only the kernel can refuse something, and then the deadlines end it.
        let _ = direction.poll(from, to, io, QUANTUM, Farewell::Parting);
    }
}

/// Reads until the end, or until [`MOST_LOST`] bytes are `lost`: then the peer is blocked. A peer that cannot write may
/// not read either.
fn discard(from: &Socket, buffer: &mut [u8], lost: &mut u64) -> Poll<io::Result<()>> {
    while *lost < MOST_LOST {
        match ready!(from.poll_recv(buffer))? {
            0 => return Poll::Ready(Ok(())),
            read => *lost = lost.saturating_add(read as u64),
        }
    }
    from.watch_reads(false)?;
    Poll::Pending
}
