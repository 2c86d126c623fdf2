//! The end of a connection that sluice ends by itself although both peers are well.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use super::Relay;
use super::direction::{Farewell, Stage};
use super::io_context::IoContext;
use crate::proxy::reactor::QUANTUM;
use crate::proxy::stream::Stream;

/// The time for the peers to close after they have got the end.
const PARTING: Duration = Duration::from_secs(5);
/// About how many bytes a peer may still send meanwhile. They are lost, as nobody is left to take them.
pub(super) const MOST_LOST: u64 = 256 * 1024;

/// The progress of a parting.
#[derive(Default)]
struct Parting {
    /// Bytes that the client, and the endpoint, have sent in vain.
    lost: [u64; 2],
    /// Whether the client, and the endpoint, have closed.
    closed: [bool; 2],
}

impl Relay<'_> {
    /// Sends both peers what was read for them, and then the end: in TLS by a `close_notify` only in a `pause`, because
    /// in the middle of a stream that would say that nothing is missing. Waits until both have closed, too, but not
    /// for long; what is open then is reset. Returns whether both have closed.
    pub(super) async fn part(&mut self, pause: bool) -> bool {
        self.up.finish(pause);
        self.down.finish(pause);
        let mut parting = Parting::default();
        let context = self.context;
        let over = poll_fn(|_| self.poll_parting(&mut parting));
        context.reactor.within(PARTING, over).await.is_ok_and(|parted| parted)
    }

    /// Ready with `false` if a peer is gone, so that waiting is no use.
    fn poll_parting(&mut self, parting: &mut Parting) -> Poll<bool> {
        let context = self.context;
        let mut buffer = context.buffer.borrow_mut();
        let mut io = IoContext::of(context, &mut buffer, true);
        let (downstream, upstream) = (self.downstream, self.upstream);
        let [client_lost, server_lost] = &mut parting.lost;
        let [client_closed, server_closed] = &mut parting.closed;
        for (direction, from, to, lost, closed) in [
            (&mut self.up, downstream, upstream, client_lost, client_closed),
            (&mut self.down, upstream, downstream, server_lost, server_closed),
        ] {
            if direction.stage() == Stage::Ended
                && direction.poll(from, to, &mut io, QUANTUM, Farewell::Parting).is_err()
            {
                return Poll::Ready(false);
            }
            match direction.stage() {
                Stage::Done if !*closed => match discard(from, io.buffer, lost) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => *closed = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(false),
                },
                Stage::Refused => return Poll::Ready(false),
                Stage::Done | Stage::Open | Stage::Ended => {}
            }
        }
        match parting.closed {
            [true, true] => Poll::Ready(true),
            _ => Poll::Pending,
        }
    }
}

/// Reads until the end, or until [`MOST_LOST`] bytes are `lost`: then the peer is blocked.
fn discard(from: &Stream, buffer: &mut [u8], lost: &mut u64) -> Poll<io::Result<()>> {
    while *lost < MOST_LOST {
        let read = from.poll_recv(buffer);
        *lost = lost.saturating_add(from.take_work());
        match read {
            Poll::Pending if from.has_received() => {}
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
            Poll::Ready(Ok(read)) => *lost = lost.saturating_add(read as u64),
        }
    }
    from.socket().watch_reads(false)?;
    Poll::Pending
}
