//! Preamble: reads the PROXY header that a trusted proxy sends before the bytes of its client.

use std::future::poll_fn;
use std::task::{Poll, ready};

use super::admit::admit_client;
use super::connection::{Connection, RefusedHeader};
use super::context::Context;
use super::listener::PeerRole;
use super::peek::receive;
use super::reactor::Interrupted;
use super::refuse::Refusal;
use super::socket::Socket;
use crate::proxy_protocol::{self, HeaderProgress};

/// Reads the header, if the peer is to send one. Returns the bytes that followed it: they are the client's.
///
/// # Errors
/// When the peer sends no valid header in time, or the client that it names is not admitted. A proxy that names
/// none, as with a health check, is judged once it wants a route.
pub(super) async fn preamble(
    context: &Context,
    connection: &mut Connection,
    downstream: &Socket,
) -> Result<Vec<u8>, Refusal> {
    let role = connection.listener.role_of(connection.source.ip());
    match role {
        PeerRole::Client => return Ok(Vec::new()),
        PeerRole::Refused => return Err(Refusal::AccessDenied),
        PeerRole::Proxy | PeerRole::ProxyOrClient => {}
    }
    // Boxed, so that connections without a header have no room reserved for it.
    let header = Box::pin(read_header(context, connection, downstream, role));
    let read = context.reactor.within(context.settings.timeouts.hello, header).await;
    let received = match read {
        Ok(received) => received?,
        Err(Interrupted::Elapsed) if role == PeerRole::Proxy => {
            return Err(refuse_header(
                connection,
                RefusedHeader::Missing { peer: connection.source },
            ));
        }
        Err(interrupted) => return Err(Refusal::of(interrupted, Refusal::HelloTimeout)),
    };
    let is_named = connection.proxied.as_ref().is_some_and(|proxied| proxied.destination.is_some());
    if is_named {
        admit_client(connection)?;
    }
    Ok(received)
}

fn refuse_header(connection: &mut Connection, cause: RefusedHeader) -> Refusal {
    connection.refused_header = Some(Box::new(cause));
    Refusal::BadPreamble
}

async fn read_header(
    context: &Context,
    connection: &mut Connection,
    downstream: &Socket,
    role: PeerRole,
) -> Result<Vec<u8>, Refusal> {
    let mut received = Vec::new();
    poll_fn(move |_| {
        loop {
            if let Err(refusal) = ready!(receive(context, downstream, &mut received)) {
                return Poll::Ready(Err(refusal));
            }
            match proxy_protocol::read(&received) {
                HeaderProgress::Incomplete => {}
                HeaderProgress::Header(header) => {
                    let mut received = std::mem::take(&mut received);
                    received.drain(..header.length.min(received.len()));
                    connection.proxied(header);
                    return Poll::Ready(Ok(received));
                }
                HeaderProgress::Other if role == PeerRole::ProxyOrClient => {
                    return Poll::Ready(Ok(std::mem::take(&mut received)));
                }
                HeaderProgress::Other => {
                    let cause = RefusedHeader::Missing { peer: connection.source };
                    return Poll::Ready(Err(refuse_header(connection, cause)));
                }
                HeaderProgress::Invalid(cause) => {
                    let cause = RefusedHeader::Invalid(cause);
                    return Poll::Ready(Err(refuse_header(connection, cause)));
                }
            }
        }
    })
    .await
}
