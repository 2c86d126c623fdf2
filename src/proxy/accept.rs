//! Accept: takes clients from the listening sockets.

use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};

use super::admit::admit_newcomer;
use super::bind::{BACKLOG, ListeningSocket};
use super::connection::Connection;
use super::context::{Context, OpenBind};
use super::listener::Listener;
use super::reactor::{Reactor, Ready, SourceId};
use super::refuse::{close_refused, refuse_at_once};
use super::serve::serve;
use super::tcp;
use super::workers::Handoff;
use crate::metrics::OF_ONE_CLIENT;

/// How many connections are accepted before existing ones have their turn.
const ACCEPTS_A_TURN: usize = 64;
/// The pause of a bind that cannot accept, for example because descriptors or memory are short.
const REST: Duration = Duration::from_millis(100);
/// How many accepts in a row may fail for single clients before the bind pauses.
const FAILURES_IN_A_ROW: usize = 16;

/// The clients that a closing bind still accepts.
struct ClosingBind {
    /// How many clients may still be accepted. Unlimited while the kernel refuses new clients and handshakes
    /// may still end.
    left: usize,
    /// The time at which the last handshake is over.
    until: u64,
}

impl ClosingBind {
    /// If the kernel can refuse new clients, the bind accepts all waiting clients, and those whose handshake
    /// ends within `handshake`. If it cannot, or the socket is shared, the bind accepts only the clients
    /// that wait now.
    fn begin(reactor: &Reactor, socket: &ListeningSocket, handshake: Duration) -> Self {
        match !socket.is_shared() && socket.refuse_new().is_ok() {
            true => ClosingBind { left: usize::MAX, until: reactor.after(handshake) },
            false => ClosingBind { left: waiting(socket), until: 0 },
        }
    }

    fn accepts_a_turn(&self) -> usize {
        self.left.min(ACCEPTS_A_TURN)
    }

    /// Subtracts `count` clients. Returns whether the bind is done. After the handshakes, only the clients
    /// that wait at that time are left: if the kernel did not refuse new clients after all, an endless
    /// stream of them would keep the bind open.
    fn has_accepted(&mut self, count: usize, reactor: &Reactor, socket: &ListeningSocket) -> bool {
        if self.left == usize::MAX && reactor.now() >= self.until {
            self.left = waiting(socket);
        }
        self.left = self.left.saturating_sub(count);
        self.left == 0
    }

    /// The remaining time for another client.
    fn time_left(&self, reactor: &Reactor) -> Option<Duration> {
        let millis = self.until.checked_sub(reactor.now()).filter(|millis| *millis > 0);
        millis.map(Duration::from_millis)
    }
}

/// How many clients wait to be accepted. If a sandbox reports 0, this is the number for one turn; if it
/// reports nothing, the length of the queue.
fn waiting(socket: &ListeningSocket) -> usize {
    tcp::waiting(socket.as_fd()).unwrap_or(BACKLOG as usize).max(ACCEPTS_A_TURN)
}

/// Accepts clients until the bind is to be closed, and then those that already wait.
pub(super) async fn accept(context: Rc<Context>, bind: Rc<OpenBind>, socket: ListeningSocket) {
    // Reports that the bind is closed, however this function ends.
    let _open = OpenGuard { context: &context, bind: &bind };
    let reactor = &context.reactor;
    let Some(id) = register(&context, &bind, &socket).await else { return };
    let mut closing: Option<ClosingBind> = None;
    loop {
        if let Some(handshake) = bind.closing().filter(|_| closing.is_none()) {
            closing = Some(ClosingBind::begin(reactor, &socket, handshake));
        }
        let most = closing.as_ref().map_or(ACCEPTS_A_TURN, ClosingBind::accepts_a_turn);
        let accepted = accept_some(&context, &bind, &socket, most);
        let is_over =
            closing.as_mut().is_some_and(|closing| closing.has_accepted(most, reactor, &socket));
        match accepted {
            Ok(true) if reactor.is_cancelled() || is_over => break,
            Ok(true) => {
                reactor.wake_current();
                yield_now().await;
            }
            Ok(false) => {
                reactor.clear(id, Ready::READ);
                if wait(reactor, id, &bind, closing.as_ref()).await.is_break() {
                    break;
                }
            }
            Err(_) if bind.is_closing() => break,
            Err(_) => {
                let _ = reactor.within(REST, pending::<()>()).await;
            }
        }
    }
    if socket.is_shared() {
        // The socket stays open elsewhere, so closing it here would not deregister it.
        reactor.unregister(id, &socket);
    } else {
        reactor.forget(id);
    }
}

/// Registers the socket of a bind. If that fails, for example because the user's epoll watches are exhausted
/// (`fs.epoll.max_user_watches`), it is tried again, and clients wait. `None` if the bind is closed
/// meanwhile.
async fn register(
    context: &Context,
    bind: &OpenBind,
    socket: &ListeningSocket,
) -> Option<SourceId> {
    let mut interest = EventFlags::IN;
    // If several workers and processes share the socket, each client wakes only one of them.
    interest.set(EventFlags::EXCLUSIVE, socket.is_shared());
    loop {
        match context.reactor.register(socket, interest, Ready::READ) {
            Ok(id) => return Some(id),
            Err(_) if bind.is_closing() => return None,
            Err(error) => context.accept_failed(&bind.listener().name, &error),
        }
        let _ = context.reactor.within(REST, pending::<()>()).await;
    }
}

/// Waits for the next client, or until the bind is to be closed. Breaks if no more clients can arrive.
async fn wait(
    reactor: &Reactor,
    id: SourceId,
    bind: &OpenBind,
    closing: Option<&ClosingBind>,
) -> ControlFlow<()> {
    let Some(closing) = closing else {
        poll_fn(|_| match bind.is_closing() {
            true => Poll::Ready(()),
            false => more(reactor, id),
        })
        .await;
        return ControlFlow::Continue(());
    };
    let Some(left) = closing.time_left(reactor) else { return ControlFlow::Break(()) };
    match reactor.within(left, poll_fn(|_| more(reactor, id))).await {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

/// Whether a client may be waiting.
fn more(reactor: &Reactor, id: SourceId) -> Poll<()> {
    match reactor.ready(id).has(Ready::READ) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    }
}

/// Reports that the bind is closed when this is dropped.
struct OpenGuard<'a> {
    context: &'a Context,
    bind: &'a OpenBind,
}

impl Drop for OpenGuard<'_> {
    fn drop(&mut self) {
        self.context.bind_closed(self.bind);
    }
}

/// Accepts up to `most` clients. Returns whether there may be more.
///
/// # Errors
/// When another try at once would fail again: a resource is exhausted, or several accepts in a row have
/// failed. Every error is counted.
fn accept_some(
    context: &Rc<Context>,
    bind: &OpenBind,
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
                if let Some(source) = source.map(unmapped) {
                    pass_on(context, bind, client, source);
                }
            }
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => {
                context.accept_failed(&bind.listener().name, &error.into());
                failures += 1;
                if failures == FAILURES_IN_A_ROW || !OF_ONE_CLIENT.contains(&error) {
                    return Err(error.into());
                }
            }
        }
    }
    Ok(true)
}

/// Converts an IPv4-mapped IPv6 address, which a dual-stack socket reports, to IPv4.
fn unmapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => SocketAddr::from((ip, v6.port())),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// Hands a client to a less busy worker, or serves it here.
fn pass_on(context: &Rc<Context>, bind: &OpenBind, client: OwnedFd, source: SocketAddr) {
    let Some(other) = context.less_busy() else {
        return take_in(context, bind.listener(), client, source);
    };
    let handoff = Handoff { listener: bind.shared_listener(), client, source };
    if let Err(Handoff { client, source, .. }) = other.hand_over(handoff) {
        take_in(context, bind.listener(), client, source);
    }
}

/// Serves a client, unless there are too many connections.
pub(super) fn take_in(
    context: &Rc<Context>,
    listener: Rc<Listener>,
    client: OwnedFd,
    source: SocketAddr,
) {
    let mut connection = Connection::open(context, listener, source);
    match admit_newcomer(context, &mut connection) {
        Ok(()) => drop(context.reactor.spawn(serve(connection, client))),
        Err(refusal) => {
            refuse_at_once(&connection.listener, &client, refusal);
            close_refused(connection, refusal);
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
