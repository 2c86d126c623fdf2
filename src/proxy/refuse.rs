//! What a client that is turned away is told.

use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};
use std::time::Duration;

use super::listener::Listener;
use super::socket::Socket;
use super::worker::Worker;
use crate::config::Protocol;
use crate::outcome::Outcome;
use crate::tls::{AlertDescription, alert};

/// How long a refused client may take to read its alert, and how much it may still send meanwhile.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// Tells the client why, on a listener that is set to, and gives it time to hear it: closing a
/// socket with bytes unread would reset the connection and take the alert with it.
pub(super) async fn refuse(
    worker: &Worker,
    listener: &Listener,
    downstream: &Socket,
    outcome: Outcome,
) {
    let Some(alert) = alert_of(listener, outcome) else { return };
    // Seven bytes into a connection that was sent nothing yet: they fit, or it is broken.
    if matches!(downstream.poll_send(&alert), Poll::Ready(Ok(_)))
        && downstream.shutdown_write().is_ok()
    {
        let mut most = LINGER_BYTES;
        let rest = poll_fn(|_| discard(worker, downstream, &mut most));
        // Whether the client listens to the end is its own affair.
        let _ = worker.reactor.within(LINGER, rest).await;
    }
}

/// What a client of this listener is sent about an outcome, if anything.
pub(super) fn alert_of(listener: &Listener, outcome: Outcome) -> Option<[u8; 7]> {
    let speaks_tls = listener.alerts && listener.protocol == Protocol::Tls;
    speaks_tls.then(|| description(outcome))?.map(alert)
}

/// Reads to the end, but not more than about `most` bytes, which it takes from that.
fn discard(worker: &Worker, downstream: &Socket, most: &mut usize) -> Poll<io::Result<()>> {
    let mut buffer = worker.buffer.borrow_mut();
    loop {
        match ready!(downstream.poll_recv(&mut buffer))? {
            0 => return Poll::Ready(Ok(())),
            read if read > *most => return Poll::Ready(Ok(())),
            read => *most -= read,
        }
    }
}

/// The alert that tells a client about an outcome (RFC 8446 §6.2), if there is one that does.
fn description(outcome: Outcome) -> Option<AlertDescription> {
    Some(match outcome {
        Outcome::NoSni => AlertDescription::MissingExtension,
        Outcome::NoRoute => AlertDescription::UnrecognizedName,
        Outcome::MalformedHello => AlertDescription::DecodeError,
        Outcome::HelloTooLarge => AlertDescription::RecordOverflow,
        Outcome::AccessDenied => AlertDescription::AccessDenied,
        Outcome::NotTls => AlertDescription::UnexpectedMessage,
        Outcome::HelloTimeout => AlertDescription::HandshakeFailure,
        Outcome::Loop
        | Outcome::LimitExceeded
        | Outcome::NoEndpoints
        | Outcome::ConnectFailed
        | Outcome::ConnectTimeout
        | Outcome::Drained => AlertDescription::InternalError,
        Outcome::Completed
        | Outcome::NoHello
        | Outcome::IdleTimeout
        | Outcome::Stalled
        | Outcome::DownstreamReset
        | Outcome::UpstreamReset => return None,
    })
}
