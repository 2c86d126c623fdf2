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

use super::keep_alive::KeepAlive;
use super::reactor::{Reactor, Ready, SourceId};
use super::tcp::{self, AckState};

/// The pause before a call is repeated for which the kernel had no memory, and the maximum duration of such
/// a shortage. Under memory pressure, the kernel usually has memory again within milliseconds.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_SHORTAGE: Duration = Duration::from_secs(2);

/// The events that reads wait for: bytes, urgent bytes, and the end.
const READS: EventFlags = EventFlags::IN.union(EventFlags::PRI).union(EventFlags::RDHUP);

/// The errors by which the kernel or a sandbox refuses an unsupported call. The connection is unaffected.
pub(super) const UNSUPPORTED: [Errno; 3] = [Errno::INVAL, Errno::NOSYS, Errno::PERM];

/// A non-blocking TCP socket that belongs to one task.
///
/// An operation is tried only while the kernel has reported that it may succeed. A system call that shows
/// the opposite clears this: a read that does not fill its buffer has emptied the socket, so no second read
/// is needed to find that out.
pub(super) struct Socket {
    fd: OwnedFd,
    id: SourceId,
    reactor: Rc<Reactor>,
    /// Whether the kernel reports when the socket becomes writable. Nearly every write fits, so this is
    /// requested only after one did not.
    watches_writes: Cell<bool>,
    /// Whether the kernel reports arriving bytes.
    watches_reads: Cell<bool>,
    state: Cell<SocketState>,
    urgent_in_line: Cell<bool>,
    /// The start of a memory shortage of the kernel for this socket; `u64::MAX` if there is none.
    short_since: Cell<u64>,
}

/// The state of the connection, from failed calls. It never improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SocketState {
    Sound,
    /// A write has failed. Bytes that have already arrived may still be read, but the kernel may not report
    /// them.
    Gone,
    /// The connection is broken. The kernel reports this only once; later reads would look like an orderly
    /// end.
    Broken,
}

impl Socket {
    /// A socket for an accepted connection. It is writable at once.
    pub(super) fn accepted(reactor: &Rc<Reactor>, fd: OwnedFd) -> io::Result<Self> {
        let id = reactor.register(&fd, READS, Ready::WRITE)?;
        Ok(Socket::new(reactor, fd, id, false))
    }

    /// The address of this end.
    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::try_from(net::getsockname(&self.fd)?)?)
    }

    /// Starts to connect; [`Socket::poll_connected`] returns the result.
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

    /// Waits until the connection is open.
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

    /// Writes the first of `bytes` that fit.
    pub(super) fn poll_send(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent =
            ready!(self.poll_io(Ready::WRITE, |fd| net::send(fd, bytes, SendFlags::NOSIGNAL)));
        let sent = sent.inspect_err(|_| self.give_up())?;
        if sent < bytes.len() {
            self.filled()?;
        }
        Poll::Ready(Ok(sent))
    }

    /// Whether the peer has marked bytes as urgent. From then on, a read may end before such a byte although
    /// more bytes follow, and a splice cannot pass it.
    pub(super) fn has_urgent(&self) -> bool {
        self.reactor.ready(self.id).has(Ready::URGENT)
    }

    /// Makes reads return urgent bytes in their place (RFC 6093 §5); by default, the kernel leaves them out.
    pub(super) fn keep_urgent_in_line(&self) {
        if !self.urgent_in_line.replace(true) {
            // If this fails, one byte is lost.
            let _ = sockopt::set_socket_oobinline(&self.fd, true);
        }
    }

    /// Sets whether the kernel reports arriving bytes. The end or a reset is always reported.
    ///
    /// While nobody reads, each segment would wake the worker.
    pub(super) fn watch_reads(&self, watch: bool) -> io::Result<()> {
        match self.watches_reads.replace(watch) == watch {
            true => Ok(()),
            // Bytes that have arrived meanwhile are reported at once.
            false => self.watch(),
        }
    }

    /// Whether a read may succeed, as far as is known.
    pub(super) fn may_read(&self) -> bool {
        self.reactor.ready(self.id).has(Ready::READ)
    }

    /// Whether a write may succeed, as far as is known.
    pub(super) fn may_write(&self) -> bool {
        self.reactor.ready(self.id).has(Ready::WRITE)
    }

    /// Moves up to `size` bytes into an empty pipe. 0 is the end, or an urgent byte before it. The pipe must
    /// be empty: otherwise "the pipe is full" could be mistaken for "there is nothing to read", and the
    /// reader would sleep for ever.
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

    /// Moves up to `size` bytes, which must be all bytes in the pipe, out of a pipe. Never uses
    /// `SPLICE_F_MORE`, which would delay short messages by up to 200 ms.
    pub(super) fn poll_splice_from(
        &self,
        pipe: BorrowedFd<'_>,
        size: usize,
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(self.poll_io(Ready::WRITE, |fd| {
            splice(pipe, None, fd, None, size, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)
        }));
        Poll::Ready(sent.inspect_err(|error| {
            // If the kernel does not support splicing here, a send may still work.
            if !UNSUPPORTED.iter().any(|known| error.raw_os_error() == Some(known.raw_os_error())) {
                self.give_up();
            }
        }))
    }

    /// Signals to the peer that no more bytes follow.
    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        match net::shutdown(&self.fd, Shutdown::Write) {
            Ok(()) => Ok(()),
            // The peer is already gone; the next read reports this.
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

    /// Whether the peer has reset the connection or is unreachable. This is known before a read returns it,
    /// even while there are bytes to read.
    pub(super) fn is_broken(&self) -> bool {
        self.is_known_broken() || self.reactor.ready(self.id).has(Ready::ERROR)
    }

    /// Makes the following close reset the connection.
    pub(super) fn reset_on_close(&self) {
        // Fails only if the connection is gone.
        let _ = sockopt::set_socket_linger(&self.fd, Some(Duration::ZERO));
    }

    /// The peer's progress in acknowledging bytes.
    pub(super) fn ack_state(&self) -> io::Result<AckState> {
        tcp::ack_state(self.fd.as_fd())
    }

    /// The minimum round-trip time to the peer.
    pub(super) fn round_trip(&self) -> io::Result<Duration> {
        tcp::round_trip(self.fd.as_fd())
    }

    /// Bounds the unsent bytes that the kernel accepts for the peer.
    pub(super) fn bound_unsent(&self) -> io::Result<()> {
        tcp::bound_unsent(self.fd.as_fd())
    }

    /// Removes that bound.
    pub(super) fn unbound_unsent(&self) -> io::Result<()> {
        tcp::unbound_unsent(self.fd.as_fd())
    }

    /// Bounds the bytes from the peer that the kernel keeps.
    pub(super) fn bound_received(&self) -> io::Result<()> {
        tcp::bound_received(self.fd.as_fd())
    }

    /// Removes that bound.
    pub(super) fn unbound_received(&self) -> io::Result<()> {
        tcp::unbound_received(self.fd.as_fd())
    }

    /// Makes the kernel probe a silent peer.
    pub(super) fn keep_alive(&self) -> io::Result<()> {
        KeepAlive::USUAL.set(&self.fd)
    }

    /// Makes the kernel probe a peer now that is probably gone.
    pub(super) fn probe(&self) -> io::Result<()> {
        KeepAlive::URGENT.set(&self.fd)
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
                // A shortage is not the peer's fault.
                Err(Errno::NOBUFS | Errno::NOMEM) if self.waits_for_memory() => {
                    return Poll::Pending;
                }
                Err(Errno::AGAIN) => return self.not_ready(need),
                Err(error) => {
                    // EPIPE is a reset after the end, and reads return the end.
                    if error != Errno::PIPE && !UNSUPPORTED.contains(&error) {
                        self.state.set(SocketState::Broken);
                    }
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
    }

    /// Handles a call that would have to wait. Nothing more can be read after an error.
    fn not_ready<T>(&self, need: Ready) -> Poll<io::Result<T>> {
        match (need == Ready::READ, self.state.get()) {
            (true, SocketState::Sound) => self.reactor.clear(self.id, Ready::READ),
            (true, _) => return Poll::Ready(Err(Errno::CONNRESET.into())),
            (false, _) => self.filled()?,
        }
        Poll::Pending
    }

    /// Schedules another try of a call for which the kernel has no memory. Returns `false` if the shortage
    /// lasts too long.
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

    /// Has the current task polled again, although no event will come.
    pub(super) fn wake(&self) {
        self.reactor.wake_current();
    }

    fn is_known_broken(&self) -> bool {
        self.state.get() == SocketState::Broken
    }

    /// Handles a failed write: the bytes that have already arrived are read, and then the connection ends,
    /// because the peer will not answer a message that was never sent.
    fn give_up(&self) {
        self.state.set(self.state.get().max(SocketState::Gone));
        self.reactor.mark(self.id, Ready::READ);
        self.wake();
    }

    /// The number of bytes that were read. After a break, 0 is an error and not an orderly end.
    fn unless_broken(&self, read: usize) -> io::Result<usize> {
        match read {
            0 if self.is_known_broken() => Err(Errno::CONNRESET.into()),
            _ => Ok(read),
        }
    }

    /// Records that a read has taken all available bytes, unless it ended before an urgent byte. If the end
    /// is known to have arrived, it must still be read.
    fn drained(&self) {
        if !self.reactor.ready(self.id).has(Ready::READ_CLOSED) && !self.has_urgent() {
            self.reactor.clear(self.id, Ready::READ);
        }
    }

    /// Handles a write that did not fit.
    fn filled(&self) -> io::Result<()> {
        self.reactor.clear(self.id, Ready::WRITE);
        if !self.watches_writes.replace(true) {
            // If there is room again by now, the kernel reports it at once.
            self.watch()?;
        }
        Ok(())
    }

    /// Sets the events to watch.
    fn watch(&self) -> io::Result<()> {
        let mut interest = READS;
        if !self.watches_reads.get() {
            // With only urgent bytes in the interest, the kernel would report any arrival.
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
        // Closing the socket deregisters it from the epoll. An event that is already queued finds no source.
        self.reactor.forget(self.id);
    }
}
