//! Refusals: why a connection ends before the relay, and the TLS alert that its client gets.

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
use super::stream::Stream;
use crate::config::Protocol;
use crate::outcome::{Limit, Outcome};
use crate::tls::{self, AlertDescription, alert};

/// The time for a refused client to read its alert, and the bytes that it may still send meanwhile.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// Why a connection ends before the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The client left without sending a byte.
    NoHello,
    /// A trusted proxy sent no valid PROXY header.
    BadPreamble,
    /// A peer that is not trusted sent a PROXY header.
    UntrustedProxyHeader,
    /// The client's address is not admitted.
    AccessDenied,
    /// The route is suspended.
    Suspended,
    /// The client sent no valid hello.
    Hello(tls::InvalidHello),
    /// The hello was not complete in time.
    HelloTimeout,
    /// The hello has no server name, and no route takes such a connection.
    NoSni,
    /// No route takes the connection.
    NoRoute,
    /// The route serves TLS, and has no certificate for it.
    NoCertificate,
    /// The TLS handshake with the client has failed.
    HandshakeFailed,
    /// The connection is part of a loop through sluice.
    Loop,
    /// A limit on connections is exceeded.
    LimitExceeded(Limit),
    /// The route has no endpoints.
    NoEndpoints,
    /// No endpoint could be connected to.
    ConnectFailed,
    /// The last endpoint did not answer in time.
    ConnectTimeout,
    /// The client has closed or reset the connection.
    ClientGone,
    /// The drain has ended the connection.
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
            Refusal::BadPreamble => Outcome::BadPreamble,
            Refusal::UntrustedProxyHeader => Outcome::UntrustedProxyHeader,
            Refusal::AccessDenied => Outcome::AccessDenied,
            Refusal::Suspended => Outcome::Suspended,
            Refusal::HelloTimeout => Outcome::HelloTimeout,
            Refusal::NoSni => Outcome::NoSni,
            Refusal::NoRoute => Outcome::NoRoute,
            Refusal::NoCertificate => Outcome::NoCertificate,
            Refusal::HandshakeFailed => Outcome::HandshakeFailed,
            Refusal::Loop => Outcome::Loop,
            Refusal::LimitExceeded(_) => Outcome::LimitExceeded,
            Refusal::NoEndpoints => Outcome::NoEndpoints,
            Refusal::ConnectFailed => Outcome::ConnectFailed,
            Refusal::ConnectTimeout => Outcome::ConnectTimeout,
            Refusal::ClientGone => Outcome::DownstreamReset,
            Refusal::Drained => Outcome::Drained,
        }
    }
}

impl Refusal {
    /// The refusal for an interrupted step. `elapsed` is the refusal if the time limit was reached.
    pub(super) fn of(interrupted: Interrupted, elapsed: Refusal) -> Self {
        match interrupted {
            Interrupted::Elapsed => elapsed,
            Interrupted::Cancelled => Refusal::Drained,
        }
    }

    /// The alert for the client (RFC 8446 §6.2), if there is one for this refusal.
    fn alert(self) -> Option<AlertDescription> {
        Some(match self {
            Refusal::NoSni => AlertDescription::MissingExtension,
            Refusal::NoRoute => AlertDescription::UnrecognizedName,
            Refusal::Hello(tls::InvalidHello::Malformed(_)) => AlertDescription::DecodeError,
            Refusal::Hello(tls::InvalidHello::TooLarge | tls::InvalidHello::TooManyRecords) => {
                AlertDescription::RecordOverflow
            }
            Refusal::Hello(tls::InvalidHello::NotTls) | Refusal::UntrustedProxyHeader => {
                AlertDescription::UnexpectedMessage
            }
            Refusal::AccessDenied => AlertDescription::AccessDenied,
            Refusal::HelloTimeout => AlertDescription::HandshakeFailure,
            Refusal::Loop
            | Refusal::Suspended
            | Refusal::NoCertificate
            | Refusal::LimitExceeded(_)
            | Refusal::NoEndpoints
            | Refusal::ConnectFailed
            | Refusal::ConnectTimeout
            | Refusal::Drained => AlertDescription::InternalError,
            // A proxy does not speak TLS.
            Refusal::BadPreamble | Refusal::NoHello | Refusal::ClientGone => return None,
            // TLS itself has sent one.
            Refusal::HandshakeFailed => return None,
        })
    }
}

/// Sends an alert to the client, if the listener is configured for that, and gives the client time to read
/// it: closing a socket with unread bytes would reset the connection, and the alert would be lost. A client whose
/// handshake has failed gets the alert of TLS.
///
/// A client with which TLS was spoken gets no other alert: it would have to be encrypted. Without a `close_notify`, it
/// knows that this is no orderly end.
pub(super) async fn refuse(connection: &Connection, downstream: &Stream, refusal: Refusal) {
    let socket = downstream.socket();
    let is_sent = match downstream.tls() {
        Some(tls) => {
            let mut tls = tls.borrow_mut();
            let is_flushed = matches!(tls.poll_flush(socket), Poll::Ready(Ok(())));
            refusal == Refusal::HandshakeFailed && tls.has_failed() && is_flushed
        }
        None => {
            let Some(alert) = alert_of(&connection.listener, refusal) else { return };
            // Seven bytes, the first ones on this connection: they fit, or the connection is broken.
            matches!(socket.poll_send(&alert), Poll::Ready(Ok(_)))
        }
    };
    if is_sent && socket.shutdown_write().is_ok() {
        let context = &*connection.context;
        let mut most = LINGER_BYTES;
        let rest = poll_fn(|_| discard(context, socket, &mut most));
        // The result does not matter.
        let _ = context.reactor.within(LINGER, rest).await;
    }
}

/// Ends a connection that was refused.
pub(super) fn close_refused(mut connection: Connection, refusal: Refusal) {
    if let Refusal::LimitExceeded(limit) = refusal {
        connection.is_refused_by(limit);
    }
    connection.close(refusal.into());
}

/// Sends an alert to a client from which nothing was read.
pub(super) fn refuse_at_once(listener: &Listener, client: &OwnedFd, refusal: Refusal) {
    if let Some(alert) = alert_of(listener, refusal) {
        // The alert fits into the empty send buffer, so there is no second try.
        let _ = rustix::net::send(client, &alert, SendFlags::NOSIGNAL);
    }
}

/// The alert that a client of this listener gets for a refusal, if any.
fn alert_of(listener: &Listener, refusal: Refusal) -> Option<[u8; 7]> {
    let speaks_tls = listener.alerts && listener.protocol == Protocol::Tls;
    speaks_tls.then(|| refusal.alert())?.map(alert)
}

/// Reads until the end, but at most about `most` bytes. Subtracts the bytes from `most`.
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
