//! A TCP socket of a worker's reactor.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, sockopt,
};
use rustix::pipe::{SpliceFlags, splice};

use super::reactor::{Reactor, Ready, SourceId};
use super::tcp::{self, AckState};

/// The first probe of a silent peer, and the time between the next ones.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

/// How soon a call is tried again for which the kernel had no memory, and how long at most it may go
/// on having none. Under pressure, it has some again within milliseconds.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_SHORTAGE: Duration = Duration::from_secs(2);

/// What a read waits for: bytes, urgent ones, and the end.
const READS: EventFlags = EventFlags::IN.union(EventFlags::PRI).union(EventFlags::RDHUP);

/// How the kernel, or what confines us, refuses a call that it does not know. Nothing has happened
/// to the connection.
pub(super) const UNSUPPORTED: [Errno; 3] = [Errno::INVAL, Errno::NOSYS, Errno::PERM];

/// A non-blocking TCP socket that belongs to one task.
///
/// Every operation is tried only when the kernel has said that it may work, and takes that back as
/// soon as a system call shows that it no longer would: a read that fills less than its buffer has
/// emptied the socket, so nobody reads again only to be told so.
pub(super) struct Socket {
    fd: OwnedFd,
    id: SourceId,
    reactor: Rc<Reactor>,
    /// Whether the kernel tells when the socket becomes writable. Nearly every write fits, so this
    /// is asked for only after one did not.
    watches_writes: Cell<bool>,
    /// Whether the kernel tells of what arrives.
    watches_reads: Cell<bool>,
    state: Cell<SocketState>,
    urgent_in_line: Cell<bool>,
    /// When the kernel had no memory for a call, if it has had none since; else `u64::MAX`.
    short_since: Cell<u64>,
}

/// What is known of the connection by the calls that have failed. It only gets worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SocketState {
    Sound,
    /// A write has failed. No more is to come than what is here already, and the kernel may not tell
    /// of that.
    Gone,
    /// The connection is broken. The kernel says so only once; to a read after that, it looks like an
    /// end in good order.
    Broken,
}

impl Socket {
    /// Takes an accepted connection, which may be written to at once.
    pub(super) fn accepted(reactor: &Rc<Reactor>, fd: OwnedFd) -> io::Result<Self> {
        let id = reactor.register(&fd, READS, Ready::WRITE)?;
        Ok(Socket::new(reactor, fd, id, false))
    }

    /// Begins to connect; [`Socket::poll_connected`] tells how that went.
    pub(super) fn connect(reactor: &Rc<Reactor>, address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = net::socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&fd, true)?;
        match net::connect(&fd, &address) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let id = reactor.register(&fd, READS | EventFlags::OUT, Ready::NONE)?;
        Ok(Socket::new(reactor, fd, id, true))
    }

    fn new(reactor: &Rc<Reactor>, fd: OwnedFd, id: SourceId, watches_writes: bool) -> Self {
        Socket {
            fd,
            id,
            reactor: Rc::clone(reactor),
            watches_writes: Cell::new(watches_writes),
            watches_reads: Cell::new(true),
            state: Cell::new(SocketState::Sound),
            urgent_in_line: Cell::new(false),
            short_since: Cell::new(u64::MAX),
        }
    }

    /// Whether the connection stands.
    pub(super) fn poll_connected(&self) -> Poll<io::Result<()>> {
        let ready = self.reactor.ready(self.id);
        if !ready.has(Ready::WRITE) {
            return Poll::Pending;
        }
        if ready.has(Ready::ERROR) {
            return Poll::Ready(sockopt::socket_error(&self.fd)?.map_err(io::Error::from));
        }
        Poll::Ready(Ok(()))
    }

    /// Reads into `buffer`; 0 is the end.
    pub(super) fn poll_recv(&self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let size = buffer.len();
        if self.has_urgent() {
            self.keep_urgent_in_line();
        }
        let read = ready!(self.poll_io(Ready::READ, |fd| {
            net::recv(fd, &mut *buffer, RecvFlags::empty()).map(|(_, read)| read)
        }))?;
        if (1..size).contains(&read) {
            self.drained();
        }
        Poll::Ready(self.unless_broken(read))
    }

    /// Writes from `bytes`; what does not fit is left.
    pub(super) fn poll_send(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent =
            ready!(self.poll_io(Ready::WRITE, |fd| net::send(fd, bytes, SendFlags::NOSIGNAL)));
        let sent = sent.inspect_err(|_| self.give_up())?;
        if sent < bytes.len() {
            self.filled()?;
        }
        Poll::Ready(Ok(sent))
    }

    /// Whether the peer has marked bytes as urgent. From then on reads may end before such a byte
    /// though there is more, and a splice gets stuck there.
    pub(super) fn has_urgent(&self) -> bool {
        self.reactor.ready(self.id).has(Ready::URGENT)
    }

    /// Has reads bring urgent bytes in their place, as RFC 6093 §5 has it; the kernel would leave
    /// them out.
    pub(super) fn keep_urgent_in_line(&self) {
        if !self.urgent_in_line.replace(true) {
            // If it leaves one out all the same, that is one byte, and nobody's fault here.
            let _ = sockopt::set_socket_oobinline(&self.fd, true);
        }
    }

    /// Sets whether the kernel tells of what arrives. An end or a break is told all the same.
    ///
    /// Where nobody would read it, each segment would wake the worker for nothing.
    pub(super) fn watch_reads(&self, watch: bool) -> io::Result<()> {
        match self.watches_reads.replace(watch) == watch {
            true => Ok(()),
            // Tells at once of what has arrived meanwhile.
            false => self.watch(),
        }
    }

    /// Whether a read may bring something, as far as is known.
    pub(super) fn may_read(&self) -> bool {
        self.reactor.ready(self.id).has(Ready::READ)
    }

    /// Whether a write may fit, as far as is known.
    pub(super) fn may_write(&self) -> bool {
        self.reactor.ready(self.id).has(Ready::WRITE)
    }

    /// Moves up to `size` bytes into an empty pipe; 0 is the end, or an urgent byte before it. The
    /// pipe has to be empty, or "the pipe is full" would pass for "there is nothing to read" and the
    /// reader sleep for ever.
    pub(super) fn poll_splice_to(
        &self,
        pipe: BorrowedFd<'_>,
        size: usize,
    ) -> Poll<io::Result<usize>> {
        let read = ready!(self.poll_io(Ready::READ, |fd| {
            splice(fd, None, pipe, None, size, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)
        }))?;
        Poll::Ready(self.unless_broken(read))
    }

    /// Moves up to `size` bytes, which must be all there are, out of a pipe. Never with
    /// `SPLICE_F_MORE`, which would hold short messages back for up to 200 ms.
    pub(super) fn poll_splice_from(
        &self,
        pipe: BorrowedFd<'_>,
        size: usize,
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(self.poll_io(Ready::WRITE, |fd| {
            splice(pipe, None, fd, None, size, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)
        }));
        Poll::Ready(sent.inspect_err(|error| {
            // Where the kernel does not splice, a send may still work.
            if !UNSUPPORTED.iter().any(|known| error.raw_os_error() == Some(known.raw_os_error())) {
                self.give_up();
            }
        }))
    }

    /// Says that no more bytes will come, once all before are sent.
    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        match net::shutdown(&self.fd, Shutdown::Write) {
            Ok(()) => Ok(()),
            // The peer is gone already, which the next read tells.
            Err(Errno::NOTCONN) => {
                self.give_up();
                Ok(())
            }
            Err(error) => {
                self.give_up();
                Err(error.into())
            }
        }
    }

    /// Whether the peer has reset the connection, or cannot be reached any more. Says so before any
    /// read does, and while there is still something to read.
    pub(super) fn is_broken(&self) -> bool {
        self.is_known_broken() || self.reactor.ready(self.id).has(Ready::ERROR)
    }

    /// Has the close that follows reset the connection, instead of ending it in good order.
    pub(super) fn reset_on_close(&self) {
        // Fails only if the socket is gone, and then there is nobody to reset.
        let _ = sockopt::set_socket_linger(&self.fd, Some(Duration::ZERO));
    }

    /// How far the peer is with what it was sent.
    pub(super) fn ack_state(&self) -> io::Result<AckState> {
        tcp::ack_state(self.fd.as_fd())
    }

    /// The shortest time that a packet to the peer and its answer have taken.
    pub(super) fn round_trip(&self) -> io::Result<Duration> {
        tcp::round_trip(self.fd.as_fd())
    }

    /// Bounds what the kernel takes for the peer before it can be sent.
    pub(super) fn bound_unsent(&self) -> io::Result<()> {
        tcp::bound_unsent(self.fd.as_fd())
    }

    /// Takes that back.
    pub(super) fn unbound_unsent(&self) -> io::Result<()> {
        tcp::unbound_unsent(self.fd.as_fd())
    }

    /// Bounds what the kernel keeps of what the peer sends.
    pub(super) fn bound_received(&self) -> io::Result<()> {
        tcp::bound_received(self.fd.as_fd())
    }

    /// Takes that back.
    pub(super) fn unbound_received(&self) -> io::Result<()> {
        tcp::unbound_received(self.fd.as_fd())
    }

    /// Has the kernel find out whether a silent peer is still there.
    pub(super) fn keep_alive(&self) -> io::Result<()> {
        set_keep_alive(&self.fd)
    }

    fn poll_io<T>(
        &self,
        need: Ready,
        mut call: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Poll<io::Result<T>> {
        if !self.reactor.ready(self.id).has(need) {
            return Poll::Pending;
        }
        loop {
            match call(self.fd.as_fd()) {
                Ok(value) => {
                    self.short_since.set(u64::MAX);
                    return Poll::Ready(Ok(value));
                }
                Err(Errno::INTR) => {}
                // Which is no fault of the peer.
                Err(Errno::NOBUFS | Errno::NOMEM) if self.waits_for_memory() => {
                    return Poll::Pending;
                }
                Err(Errno::AGAIN)
                    if need == Ready::READ && self.state.get() != SocketState::Sound =>
                {
                    return Poll::Ready(Err(Errno::CONNRESET.into()));
                }
                Err(Errno::AGAIN) => {
                    if need == Ready::READ {
                        self.reactor.clear(self.id, Ready::READ);
                    } else {
                        self.filled()?;
                    }
                    return Poll::Pending;
                }
                Err(error) => {
                    // Not EPIPE: that is a reset after the end, and the end is what a read tells.
                    if error != Errno::PIPE && !UNSUPPORTED.contains(&error) {
                        self.state.set(SocketState::Broken);
                    }
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
    }

    /// Has the task try again soon what the kernel has no memory for, unless that goes on for too
    /// long.
    fn waits_for_memory(&self) -> bool {
        let (now, end) = (self.reactor.now(), self.reactor.after(SHORTAGE_PAUSE));
        let since = self.short_since.get().min(now);
        self.short_since.set(since);
        let waits = u128::from(now - since) < LONGEST_SHORTAGE.as_millis();
        if waits {
            self.reactor.wake_at(self.reactor.current(), end);
        }
        waits
    }

    fn is_known_broken(&self) -> bool {
        self.state.get() == SocketState::Broken
    }

    /// After a write that failed, has what is here read, and then the connection end: whatever the
    /// reason was, nobody waits for an answer to what was never sent.
    fn give_up(&self) {
        self.state.set(self.state.get().max(SocketState::Gone));
        self.reactor.mark(self.id, Ready::READ);
        self.reactor.wake_current();
    }

    /// What was read, except that there is no end in good order to a connection that broke.
    fn unless_broken(&self, read: usize) -> io::Result<usize> {
        match read {
            0 if self.is_known_broken() => Err(Errno::CONNRESET.into()),
            _ => Ok(read),
        }
    }

    /// A read took all there was, unless it ended before an urgent byte. The end, if it is known to
    /// have come, is still to be read.
    fn drained(&self) {
        if !self.reactor.ready(self.id).has(Ready::READ_CLOSED) && !self.has_urgent() {
            self.reactor.clear(self.id, Ready::READ);
        }
    }

    /// A write did not fit.
    fn filled(&self) -> io::Result<()> {
        self.reactor.clear(self.id, Ready::WRITE);
        if !self.watches_writes.replace(true) {
            // Tells at once if there is room again by now.
            self.watch()?;
        }
        Ok(())
    }

    /// Watches for what is of interest now.
    fn watch(&self) -> io::Result<()> {
        let mut interest = READS;
        if !self.watches_reads.get() {
            // The kernel tells of any arrival whoever waits for urgent bytes alone.
            interest.remove(EventFlags::IN | EventFlags::PRI);
        }
        if self.watches_writes.get() {
            interest.insert(EventFlags::OUT);
        }
        self.reactor.change(self.id, &self.fd, interest)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Closing takes it out of the epoll; an event that is already on its way finds no source.
        self.reactor.forget(self.id);
    }
}

/// Has the kernel probe a silent peer of `fd`, or of every connection that the listener `fd`
/// accepts.
///
/// `TCP_USER_TIMEOUT` is not set: it also ends a connection whose peer is there and merely does not
/// read for so long (the kernel's tcp_probe_timer). The relay tells the two apart (`relay::watch`).
pub(super) fn set_keep_alive(fd: impl AsFd) -> io::Result<()> {
    let fd = fd.as_fd();
    sockopt::set_tcp_keepidle(fd, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(fd, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(fd, KEEPALIVE_PROBES)?;
    Ok(sockopt::set_socket_keepalive(fd, true)?)
}
