//! The first bytes of a client: who does it want to speak to?

use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};

use rustix::io::Errno;

use super::listener::Listener;
use super::reactor::Interrupted;
use super::record::Record;
use super::socket::Socket;
use super::worker::Worker;
use crate::config::Protocol;
use crate::outcome::Outcome;
use crate::tls::{ClientHello, HelloReader, Progress, Refusal};

/// What one read of a client's first bytes takes. A hello has 200 to 2,000 bytes; of what comes
/// behind it, no more than this waits here while the upstream is connected.
const CHUNK: usize = 8 * 1024;

/// What was read, and what it says.
#[derive(Default)]
pub(super) struct Peeked {
    /// `None` where the listener does not look.
    pub(super) hello: Option<ClientHello>,
    /// What [`Hellos`](super::hellos::Hellos) knows it by.
    pub(super) key: Option<u64>,
    /// Every byte that was read: what the upstream has to see first.
    pub(super) received: Vec<u8>,
}

/// Reads until the hello is whole, on a listener that looks for one.
pub(super) async fn peek(
    worker: &Worker,
    listener: &Listener,
    downstream: &Socket,
    record: &mut Record,
) -> Result<Peeked, Outcome> {
    if listener.protocol == Protocol::Tcp {
        return Ok(Peeked::default());
    }
    let hello = read_hello(worker, downstream, record);
    match worker.reactor.within(worker.settings.timeouts.hello, hello).await {
        Ok(result) => result,
        Err(Interrupted::Elapsed) => Err(Outcome::HelloTimeout),
        Err(Interrupted::Cancelled) => Err(Outcome::Drained),
    }
}

async fn read_hello(
    worker: &Worker,
    downstream: &Socket,
    record: &mut Record,
) -> Result<Peeked, Outcome> {
    let mut reader = HelloReader::new(worker.settings.max_hello);
    let mut received = Vec::new();
    poll_fn(move |_| {
        loop {
            let mut buffer = worker.buffer.borrow_mut();
            let chunk = buffer.get_mut(..CHUNK).unwrap_or_default();
            let read = match ready!(downstream.poll_recv(chunk)) {
                Err(error) if !is_of_client(&error) => {
                    return Poll::Ready(Err(Outcome::LimitExceeded));
                }
                Ok(0) | Err(_) if received.is_empty() => {
                    return Poll::Ready(Err(Outcome::NoHello));
                }
                Ok(0) | Err(_) => return Poll::Ready(Err(Outcome::DownstreamReset)),
                Ok(read) => read,
            };
            received.extend_from_slice(chunk.get(..read).unwrap_or_default());
            match reader.read(&received) {
                Progress::Incomplete => {}
                Progress::Hello(hello) => {
                    let received = std::mem::take(&mut received);
                    let key = Some(worker.hellos().key(reader.random()));
                    return Poll::Ready(Ok(Peeked { hello: Some(hello), key, received }));
                }
                Progress::Refused(refusal) => {
                    record.refused(refusal, reader.name_in_refused());
                    return Poll::Ready(Err(refusal.into()));
                }
            }
        }
    })
    .await
}

/// Whether a read failed because the client is gone, or out of reach; and not because this machine
/// is out of something.
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

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotTls => Outcome::NotTls,
            Refusal::Malformed(_) => Outcome::MalformedHello,
            Refusal::TooLarge | Refusal::TooManyRecords => Outcome::HelloTooLarge,
        }
    }
}
