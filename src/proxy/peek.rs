//! Peek: reads the ClientHello of a connection.

use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};

use rustix::io::Errno;

use super::connection::{Connection, RefusedHeader, RefusedHello};
use super::context::Context;
use super::refuse::Refusal;
use super::socket::Socket;
use crate::config::Protocol;
use crate::outcome::Limit;
use crate::proxy_protocol;
use crate::tls::{HelloReader, InvalidHello, Progress, SentName};

/// The size of one read of a client's first bytes. A hello has 200 to 2,000 bytes. The bytes after it are
/// kept in memory while the upstream connection is opened, so this also limits that memory.
const CHUNK: usize = 8 * 1024;

/// Reads until the hello is complete, if the listener's protocol has one. `received` was read before; returns
/// that and all other bytes that were read, which the relay sends to the endpoint first.
///
/// # Errors
/// When the client sends no valid hello in time.
pub(super) async fn peek(
    context: &Context,
    connection: &mut Connection,
    downstream: &Socket,
    received: Vec<u8>,
) -> Result<Vec<u8>, Refusal> {
    if connection.listener.protocol == Protocol::Tcp {
        return Ok(received);
    }
    let mut limit = context.settings.timeouts.hello;
    if connection.listener.proxies.is_some() {
        // One deadline for the header and the hello.
        limit = limit.saturating_sub(connection.record.opened().elapsed());
    }
    let waiting = context.room.enter_hello(connection.source.ip(), context.most_hellos());
    let hello = read_hello(context, connection, downstream, received);
    let read = context.reactor.within(limit, hello).await;
    let received =
        read.map_err(|interrupted| Refusal::of(interrupted, Refusal::HelloTimeout))??;
    context.room.has_hello(waiting);
    connection.record.peeked(context);
    Ok(received)
}

async fn read_hello(
    context: &Context,
    connection: &mut Connection,
    downstream: &Socket,
    mut received: Vec<u8>,
) -> Result<Vec<u8>, Refusal> {
    let mut reader = HelloReader::new(context.settings.max_hello);
    let mut refused = None;
    poll_fn(move |_| {
        loop {
            match if received.is_empty() { Progress::Incomplete } else { reader.read(&received) } {
                Progress::Incomplete => {}
                Progress::Hello(hello) => {
                    connection.hello_key = Some(context.hellos().key(reader.random()));
                    connection.hello = Some(hello);
                    return Poll::Ready(Ok(std::mem::take(&mut received)));
                }
                Progress::Refused(cause) => match looks_like_header(connection, &received) {
                    // The next bytes decide.
                    None => refused = Some(cause),
                    Some(true) => return Poll::Ready(Err(untrusted_header(connection))),
                    Some(false) => {
                        let name = reader.name_in_refused();
                        return Poll::Ready(Err(refuse_hello(connection, cause, name)));
                    }
                },
            }
            match (ready!(receive(context, downstream, &mut received)), refused) {
                (Ok(()), _) => {}
                (Err(_), Some(cause)) => {
                    return Poll::Ready(Err(refuse_hello(connection, cause, None)));
                }
                (Err(refusal), None) => return Poll::Ready(Err(refusal)),
            }
        }
    })
    .await
}

/// Reads once, and adds what was read.
pub(super) fn receive(
    context: &Context,
    downstream: &Socket,
    received: &mut Vec<u8>,
) -> Poll<Result<(), Refusal>> {
    let mut buffer = context.buffer.borrow_mut();
    let chunk = buffer.get_mut(..CHUNK).unwrap_or_default();
    Poll::Ready(match ready!(downstream.poll_recv(chunk)) {
        Err(error) if !is_of_client(&error) => Err(Refusal::LimitExceeded(Limit::Process)),
        Ok(0) | Err(_) if received.is_empty() => Err(Refusal::NoHello),
        Ok(0) | Err(_) => Err(Refusal::ClientGone),
        Ok(read) => {
            received.extend_from_slice(chunk.get(..read).unwrap_or_default());
            Ok(())
        }
    })
}

fn refuse_hello(
    connection: &mut Connection,
    cause: InvalidHello,
    name: Option<SentName>,
) -> Refusal {
    connection.refused_hello = Some(Box::new(RefusedHello { cause, name }));
    Refusal::Hello(cause)
}

/// Whether a peer whose header nobody reads begins with one; `None` if the next bytes decide. It is never
/// believed, but the operator is told.
fn looks_like_header(connection: &Connection, received: &[u8]) -> Option<bool> {
    match connection.proxied {
        Some(_) => Some(false),
        None => proxy_protocol::begins_header(received),
    }
}

fn untrusted_header(connection: &mut Connection) -> Refusal {
    let (peer, listener) = (connection.source, connection.listener.name.clone());
    connection.refused_header = Some(Box::new(RefusedHeader::Untrusted { peer, listener }));
    Refusal::UntrustedProxyHeader
}

/// Whether a read failed because the client is gone or unreachable, and not because this machine lacks a
/// resource.
fn is_of_client(error: &io::Error) -> bool {
    const OF_CLIENT: [Errno; 8] = [
        Errno::CONNRESET,
        Errno::CONNABORTED,
        Errno::PIPE,
        Errno::TIMEDOUT,
        Errno::HOSTUNREACH,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::NOTCONN,
    ];
    Errno::from_io_error(error).is_some_and(|errno| OF_CLIENT.contains(&errno))
}
