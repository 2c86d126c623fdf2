//! Why a connection is refused, and what its client is told.

use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::net::SendFlags;

use super::connection::Connection;
use super::context::Context;
use super::listener::Listener;
use super::reactor::Interrupted;
use super::socket::Socket;
use crate::config::Protocol;
use crate::outcome::Outcome;
use crate::tls::{self, AlertDescription, alert};

/// How long a refused client may take to read its alert, and how much it may still send meanwhile.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// Why a connection ends before anything is relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The client went away without a byte.
    NoHello,
    /// What the client sent is no hello that can be read.
    Hello(tls::InvalidHello),
    /// The hello was not whole in time.
    HelloTimeout,
    /// The hello names no server, and no route takes it.
    NoSni,
    /// No route takes the connection.
    NoRoute,
    /// The connection came back to sluice.
    Loop,
    /// There are too many connections, or no memory for one more.
    LimitExceeded,
    /// The route leads nowhere.
    NoEndpoints,
    /// No endpoint could be connected to.
    ConnectFailed,
    /// The last endpoint did not answer in time.
    ConnectTimeout,
    /// The client is gone.
    ClientGone,
    /// sluice is ending.
    Drained,
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoHello => Outcome::NoHello,
            Refusal::Hello(tls::InvalidHello::NotTls) => Outcome::NotTls,
            Refusal::Hello(tls::InvalidHello::Malformed(_)) => Outcome::MalformedHello,
            Refusal::Hello(tls::InvalidHello::TooLarge | tls::InvalidHello::TooManyRecords) => {
                Outcome::HelloTooLarge
            }
            Refusal::HelloTimeout => Outcome::HelloTimeout,
            Refusal::NoSni => Outcome::NoSni,
            Refusal::NoRoute => Outcome::NoRoute,
            Refusal::Loop => Outcome::Loop,
            Refusal::LimitExceeded => Outcome::LimitExceeded,
            Refusal::NoEndpoints => Outcome::NoEndpoints,
            Refusal::ConnectFailed => Outcome::ConnectFailed,
            Refusal::ConnectTimeout => Outcome::ConnectTimeout,
            Refusal::ClientGone => Outcome::DownstreamReset,
            Refusal::Drained => Outcome::Drained,
        }
    }
}

impl Refusal {
    /// Why a step did not come to its end, where `elapsed` is what it means that its time is up.
    pub(super) fn of(interrupted: Interrupted, elapsed: Refusal) -> Self {
        match interrupted {
            Interrupted::Elapsed => elapsed,
            Interrupted::Cancelled => Refusal::Drained,
        }
    }

    /// The alert that tells a client (RFC 8446 §6.2), if there is one that does.
    fn alert(self) -> Option<AlertDescription> {
        Some(match self {
            Refusal::NoSni => AlertDescription::MissingExtension,
            Refusal::NoRoute => AlertDescription::UnrecognizedName,
            Refusal::Hello(tls::InvalidHello::Malformed(_)) => AlertDescription::DecodeError,
            Refusal::Hello(tls::InvalidHello::TooLarge | tls::InvalidHello::TooManyRecords) => {
                AlertDescription::RecordOverflow
            }
            Refusal::Hello(tls::InvalidHello::NotTls) => AlertDescription::UnexpectedMessage,
            Refusal::HelloTimeout => AlertDescription::HandshakeFailure,
            Refusal::Loop
            | Refusal::LimitExceeded
            | Refusal::NoEndpoints
            | Refusal::ConnectFailed
            | Refusal::ConnectTimeout
            | Refusal::Drained => AlertDescription::InternalError,
            Refusal::NoHello | Refusal::ClientGone => return None,
        })
    }
}

/// Tells the client why, on a listener that is set to, and gives it time to hear it: closing a
/// socket with bytes unread would reset the connection and take the alert with it.
pub(super) async fn refuse(connection: &Connection, downstream: &Socket, refusal: Refusal) {
    let Some(alert) = alert_of(&connection.listener, refusal) else { return };
    // Seven bytes into a connection that was sent nothing yet: they fit, or it is broken.
    if matches!(downstream.poll_send(&alert), Poll::Ready(Ok(_)))
        && downstream.shutdown_write().is_ok()
    {
        let context = &*connection.context;
        let mut most = LINGER_BYTES;
        let rest = poll_fn(|_| discard(context, downstream, &mut most));
        // Whether the client listens to the end is its own affair.
        let _ = context.reactor.within(LINGER, rest).await;
    }
}

/// Tells a client why that is not even read from.
pub(super) fn refuse_at_once(listener: &Listener, client: &OwnedFd, refusal: Refusal) {
    if let Some(alert) = alert_of(listener, refusal) {
        // A connection that was sent nothing yet takes it at once; more is not done for it.
        let _ = rustix::net::send(client, &alert, SendFlags::NOSIGNAL);
    }
}

/// What a client of this listener is sent about a refusal, if anything.
fn alert_of(listener: &Listener, refusal: Refusal) -> Option<[u8; 7]> {
    let speaks_tls = listener.alerts && listener.protocol == Protocol::Tls;
    speaks_tls.then(|| refusal.alert())?.map(alert)
}

/// Reads to the end, but not more than about `most` bytes, which it takes from that.
fn discard(context: &Context, downstream: &Socket, most: &mut usize) -> Poll<io::Result<()>> {
    let mut buffer = context.buffer.borrow_mut();
    loop {
        match ready!(downstream.poll_recv(&mut buffer))? {
            0 => return Poll::Ready(Ok(())),
            read if read > *most => return Poll::Ready(Ok(())),
            read => *most -= read,
        }
    }
}
