//! Peek: reads the ClientHello of a connection.

use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};

use rustix::io::Errno;

use super::connection::{Connection, RefusedHello};
use super::context::Context;
use super::refuse::Refusal;
use super::socket::Socket;
use crate::config::Protocol;
use crate::tls::{HelloReader, Progress};

/// The size of one read of a client's first bytes. A hello has 200 to 2,000 bytes. The bytes after it are
/// kept in memory while the upstream connection is opened, so this also limits that memory.
const CHUNK: usize = 8 * 1024;

/// Reads until the hello is complete, if the listener's protocol has one. Returns all bytes that were
/// read, which the relay sends to the endpoint first.
///
/// # Errors
/// When the client sends no valid hello in time.
pub(super) async fn peek(
    context: &Context,
    connection: &mut Connection,
    downstream: &Socket,
) -> Result<Vec<u8>, Refusal> {
    if connection.listener.protocol == Protocol::Tcp {
        return Ok(Vec::new());
    }
    let hello = read_hello(context, connection, downstream);
    let read = context.reactor.within(context.settings.timeouts.hello, hello).await;
    let received =
        read.map_err(|interrupted| Refusal::of(interrupted, Refusal::HelloTimeout))??;
    connection.record.peeked(context);
    Ok(received)
}

async fn read_hello(
    context: &Context,
    connection: &mut Connection,
    downstream: &Socket,
) -> Result<Vec<u8>, Refusal> {
    let mut reader = HelloReader::new(context.settings.max_hello);
    let mut received = Vec::new();
    poll_fn(move |_| {
        loop {
            let mut buffer = context.buffer.borrow_mut();
            let chunk = buffer.get_mut(..CHUNK).unwrap_or_default();
            let read = match ready!(downstream.poll_recv(chunk)) {
                Err(error) if !is_of_client(&error) => {
                    return Poll::Ready(Err(Refusal::LimitExceeded));
                }
                Ok(0) | Err(_) if received.is_empty() => {
                    return Poll::Ready(Err(Refusal::NoHello));
                }
                Ok(0) | Err(_) => return Poll::Ready(Err(Refusal::ClientGone)),
                Ok(read) => read,
            };
            received.extend_from_slice(chunk.get(..read).unwrap_or_default());
            match reader.read(&received) {
                Progress::Incomplete => {}
                Progress::Hello(hello) => {
                    connection.hello_key = Some(context.hellos().key(reader.random()));
                    connection.hello = Some(hello);
                    return Poll::Ready(Ok(std::mem::take(&mut received)));
                }
                Progress::Refused(cause) => {
                    let name = reader.name_in_refused();
                    connection.refused_hello = Some(Box::new(RefusedHello { cause, name }));
                    return Poll::Ready(Err(Refusal::Hello(cause)));
                }
            }
        }
    })
    .await
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
