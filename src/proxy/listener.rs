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
use socket2::{Domain, Socket as Socket2, Type};

use super::connection::serve;
use super::crew::Given;
use super::reactor::Ready;
use super::record::Record;
use super::refuse::alert_of;
use super::socket::{Socket, set_keep_alive};
use super::worker::Worker;
use crate::config::{self, Protocol};
use crate::outcome::Outcome;
use crate::reach::Listening;

/// Connections that may wait to be accepted; the kernel cuts it down to `net.core.somaxconn`.
const BACKLOG: i32 = 16 * 1024;
/// Connections that are accepted before those that are there have their turn.
const ACCEPTS_A_TURN: usize = 64;
/// How long a listener rests after the system was out of descriptors or memory.
const REST: Duration = Duration::from_millis(100);

/// A listener, as connections see it.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) protocol: Protocol,
    pub(super) alerts: bool,
}

/// A bound address: one listening socket for each worker, among which the kernel spreads the
/// clients.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listener: Listener,
    pub(super) address: SocketAddr,
    pub(super) sockets: Vec<OwnedFd>,
}

impl Bound {
    pub(super) fn listening(&self) -> Listening {
        Listening { address: self.address, dual_stack: false }
    }
}

/// Binds `config` for `workers`.
pub(super) fn bind(config: &config::Listener, workers: usize) -> io::Result<Bound> {
    if config.address.port() != 0 {
        // Among sockets that share a port, a second process would silently take its share of the
        // clients. Alone, the port is either free or not.
        listen(config.address, false)?;
    }
    let first = listen(config.address, true)?;
    let address = first.local_addr()?.as_socket().unwrap_or(config.address);
    let mut sockets = vec![first.into()];
    for _ in 1..workers {
        sockets.push(listen(address, true)?.into());
    }
    let listener =
        Listener { name: config.name.clone(), protocol: config.protocol, alerts: config.alerts };
    Ok(Bound { listener, address, sockets })
}

fn listen(address: SocketAddr, shared: bool) -> io::Result<Socket2> {
    let socket = Socket2::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    if address.is_ipv6() {
        // [::] is IPv6 alone: IPv4 has a listener of its own, and clients keep their addresses.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // Inherited by every connection, which saves each the system calls.
    socket.set_tcp_nodelay(true)?;
    set_keep_alive(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Accepts clients until the worker stops accepting, and then those that are waiting already.
/// `place` is the listener's among all listeners.
pub(super) async fn accept(
    worker: Rc<Worker>,
    place: usize,
    listener: Rc<Listener>,
    socket: OwnedFd,
) {
    let reactor = &worker.reactor;
    // However this ends, the worker is told.
    let _open = OpenListener(&worker);
    let id = match reactor.register(&socket, EventFlags::IN, Ready::READ) {
        Ok(id) => id,
        Err(error) => {
            tracing::error!(listener = listener.name, %error, "cannot watch the listener");
            return;
        }
    };
    loop {
        match accept_some(&worker, place, &listener, &socket) {
            Ok(true) if reactor.is_cancelled() => break,
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
            Err(error) => {
                worker.accept_failed(&listener.name, &error);
                if worker.is_closing() {
                    break;
                }
                let _ = reactor.within(REST, pending::<()>()).await;
            }
        }
    }
    reactor.forget(id);
}

struct OpenListener<'a>(&'a Worker);

impl Drop for OpenListener<'_> {
    fn drop(&mut self) {
        self.0.listener_closed();
    }
}

/// Accepts what one turn may; tells whether there may be more.
///
/// # Errors
/// When the system is out of something, and trying again at once would only fail again.
fn accept_some(
    worker: &Rc<Worker>,
    place: usize,
    listener: &Rc<Listener>,
    fd: &OwnedFd,
) -> io::Result<bool> {
    for _ in 0..ACCEPTS_A_TURN {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        match acceptfrom_with(fd.as_fd(), flags) {
            Ok((client, address)) => {
                let source = address.and_then(|address| SocketAddr::try_from(address).ok());
                let Some(source) = source else { continue };
                let given = Given { listener: place, client, source };
                if let Some(Given { client, source, .. }) = worker.hand_over(given) {
                    admit(worker, listener, client, source);
                }
            }
            Err(Errno::AGAIN) => return Ok(false),
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                return Err(error.into());
            }
            // The others are about the one client, which is gone already (accept(2)).
            Err(_) => {}
        }
    }
    Ok(true)
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
async fn begin(worker: Rc<Worker>, listener: Rc<Listener>, client: OwnedFd, record: Record) {
    match Socket::accepted(&worker.reactor, client) {
        Ok(downstream) => serve(worker, listener, downstream, record).await,
        // The user's epoll watches are used up (`fs.epoll.max_user_watches`).
        Err(_) => record.close(Outcome::LimitExceeded),
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
