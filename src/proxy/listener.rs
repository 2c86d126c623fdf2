//! Where clients come in.

use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketFlags, acceptfrom_with};

use super::bind::ListeningSocket;
use super::connection::serve;
use super::crew::Given;
use super::reactor::Ready;
use super::record::Record;
use super::refuse::alert_of;
use super::socket::Socket;
use super::tcp;
use super::worker::Worker;
use crate::config::{self, Protocol};
use crate::metrics::OF_ONE_CLIENT;
use crate::outcome::Outcome;

/// Connections that are accepted before those that are there have their turn.
const ACCEPTS_A_TURN: usize = 64;
/// How long a listener rests when it cannot accept, for want of descriptors or memory, say.
const REST: Duration = Duration::from_millis(100);
/// How many clients in a row may fail, each by itself, before that is taken for the listener's fault.
const FAILURES_IN_A_ROW: usize = 16;

/// A listener, as connections see it.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) protocol: Protocol,
    pub(super) alerts: bool,
}

impl Listener {
    /// The one that is configured.
    pub(super) fn of(config: &config::Listener) -> Self {
        Listener { name: config.name.clone(), protocol: config.protocol, alerts: config.alerts }
    }
}

/// Accepts clients until the worker stops accepting, and then those that are waiting already.
/// `place` is the listener's among all listeners.
pub(super) async fn accept(
    worker: Rc<Worker>,
    place: usize,
    listener: Rc<Listener>,
    socket: ListeningSocket,
) {
    let reactor = &worker.reactor;
    // However this ends, the worker is told.
    let _open = OpenListener(&worker);
    let mut interest = EventFlags::IN;
    // Of those who accept from the same socket, in this process or another, one is woken.
    interest.set(EventFlags::EXCLUSIVE, socket.is_shared());
    let id = match reactor.register(&socket, interest, Ready::READ) {
        Ok(id) => id,
        Err(error) => {
            tracing::error!(listener = listener.name, %error, "cannot watch the listener");
            return;
        }
    };
    // Those who were waiting when it was to stop. Without that number, clients that never stop coming
    // would keep it open.
    let mut waiting = None;
    loop {
        if worker.is_closing() && waiting.is_none() {
            // Some sandboxes do not count them: those of one turn are accepted in any case.
            let known = tcp::waiting(socket.as_fd()).unwrap_or(usize::MAX);
            waiting = Some(known.max(ACCEPTS_A_TURN));
        }
        let most = waiting.map_or(ACCEPTS_A_TURN, |waiting| waiting.min(ACCEPTS_A_TURN));
        let accepted = accept_some(&worker, place, &listener, &socket, most);
        waiting = waiting.map(|waiting| waiting - most);
        match accepted {
            Ok(true) if reactor.is_cancelled() || waiting == Some(0) => break,
            Ok(true) => {
                reactor.wake_current();
                yield_now().await;
            }
            Ok(false) if worker.is_closing() => break,
            Ok(false) => {
                reactor.clear(id, Ready::READ);
                poll_fn(|_| match reactor.ready(id).has(Ready::READ) || worker.is_closing() {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                })
                .await;
            }
            Err(_) if worker.is_closing() => break,
            Err(_) => {
                let _ = reactor.within(REST, pending::<()>()).await;
            }
        }
    }
    if socket.is_shared() {
        // It stays open elsewhere, and here it would go on taking the turns of others.
        reactor.unregister(id, &socket);
    } else {
        reactor.forget(id);
    }
}

struct OpenListener<'a>(&'a Worker);

impl Drop for OpenListener<'_> {
    fn drop(&mut self) {
        self.0.listener_closed();
    }
}

/// Accepts up to `most` clients; tells whether there may be more.
///
/// # Errors
/// When trying again at once would only fail again: the system is out of something, or nothing but
/// errors comes. Every error is counted.
fn accept_some(
    worker: &Rc<Worker>,
    place: usize,
    listener: &Rc<Listener>,
    socket: &ListeningSocket,
    most: usize,
) -> io::Result<bool> {
    let mut failures = 0;
    for _ in 0..most {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        match acceptfrom_with(socket, flags) {
            Ok((client, address)) => {
                failures = 0;
                let source = address.and_then(|address| SocketAddr::try_from(address).ok());
                let Some(source) = source.map(unmapped) else { continue };
                let given = Given { listener: place, client, source };
                if let Some(Given { client, source, .. }) = worker.hand_over(given) {
                    admit(worker, listener, client, source);
                }
            }
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => {
                worker.accept_failed(&listener.name, &error.into());
                failures += 1;
                if failures == FAILURES_IN_A_ROW || !OF_ONE_CLIENT.contains(&error) {
                    return Err(error.into());
                }
            }
        }
    }
    Ok(true)
}

/// The address of an IPv4 client as that, also where it came through a socket of both families.
fn unmapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => SocketAddr::from((ip, v6.port())),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// Serves a client, unless there are too many.
pub(super) fn admit(
    worker: &Rc<Worker>,
    listener: &Rc<Listener>,
    client: OwnedFd,
    source: SocketAddr,
) {
    let record = Record::open(worker, listener, source);
    if worker.is_full() {
        worker.refused_for_want_of_descriptors();
        if let Some(alert) = alert_of(listener, Outcome::LimitExceeded) {
            // A connection that was sent nothing yet takes it at once; more is not done for it.
            let _ = rustix::net::send(&client, &alert, SendFlags::NOSIGNAL);
        }
        return record.close(Outcome::LimitExceeded);
    }
    worker.reactor.spawn(begin(Rc::clone(worker), Rc::clone(listener), client, record));
}

/// The task of a connection.
#[allow(clippy::manual_async_fn, reason = "an async fn keeps what it is given twice")]
fn begin(
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    client: OwnedFd,
    record: Record,
) -> impl Future<Output = ()> {
    async move {
        match Socket::accepted(&worker.reactor, client) {
            Ok(downstream) => serve(worker, listener, downstream, record).await,
            // The user's epoll watches are used up (`fs.epoll.max_user_watches`).
            Err(_) => record.close(Outcome::LimitExceeded),
        }
    }
}

async fn yield_now() {
    let mut yielded = false;
    poll_fn(|_| match std::mem::replace(&mut yielded, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nearly all that a connection keeps while it is idle. What an `.await` is held across,
    /// counts.
    const MOST_BYTES: usize = 1344;

    #[test]
    fn a_connection_is_small() {
        fn size<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
            size_of::<F>()
        }
        let (whole, served) = (size(begin), size(serve));
        assert!(whole <= MOST_BYTES, "{whole} bytes, of which {served} serve it");
    }
}
