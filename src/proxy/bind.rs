//! Listening sockets: those that sluice binds, and those that a service manager passes on.

use std::io;
use std::net::SocketAddr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{getsockname, sockopt};
use socket2::{Domain, SockFilter, SockRef, Socket as Socket2, Type};

use super::keep_alive::KeepAlive;
use super::listener::Listener;
use crate::config;

/// The length of the accept queue; the kernel limits it to `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 16 * 1024;

/// An address to bind, and the listener that it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindSpec {
    /// The address; port 0 takes any free port.
    pub address: SocketAddr,
    /// The listener.
    pub listener: Listener,
}

impl BindSpec {
    /// The bind of a configured listener.
    pub fn of(config: &config::ListenerConfig) -> Self {
        BindSpec { address: config.address, listener: Listener::of(config) }
    }
}

/// Why an address cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system refuses the address.
    #[error("listener {name:?} cannot listen on {address}: {error}")]
    Address {
        /// The name of the listener.
        name: String,
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        error: io::Error,
    },
    /// Two binds have the same address.
    #[error("listener {name:?} cannot listen on {address}, because listener {other:?} does")]
    Twice {
        /// The name of the listener.
        name: String,
        /// The address.
        address: SocketAddr,
        /// The name of the other listener with this address.
        other: String,
    },
    /// A passed descriptor is no listening TCP socket.
    #[error("{passed} is no TCP socket that listens: {error}")]
    NoListener {
        /// A description of the socket, for people.
        passed: String,
        /// The error that shows this.
        error: io::Error,
    },
    /// A passed socket belongs to no listener.
    #[error(
        "{passed} listens on {address}, which is the address of no listener; name it after one of \
         {known} (FileDescriptorName= in a socket unit), or configure a listener at that address"
    )]
    Unclaimed {
        /// A description of the socket, for people.
        passed: String,
        /// The address of the socket.
        address: SocketAddr,
        /// The names of the listeners.
        known: String,
    },
}

impl BindError {
    /// Whether the machine lacks the address family.
    pub(super) fn is_for_want_of_the_family(&self) -> bool {
        let BindError::Address { error, .. } = self else { return false };
        [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL]
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
    }
}

/// A listening socket that another process has bound and keeps open.
#[derive(Debug)]
pub struct PassedSocket {
    /// Its name: that of a listener, or any other.
    pub name: Option<String>,
    /// Its number and name, for people.
    pub described: String,
    /// The socket.
    pub socket: OwnedFd,
}

/// The sockets of one address.
#[derive(Debug)]
pub(super) enum Sockets {
    /// One socket for each worker; the kernel distributes the clients.
    Own(Vec<OwnedFd>),
    /// One socket for all workers, and for the process that passed it.
    Passed(OwnedFd),
}

impl Sockets {
    /// The socket for another worker.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub(super) fn for_worker(&mut self) -> io::Result<Option<ListeningSocket>> {
        Ok(match self {
            Sockets::Own(all) => all.pop().map(|fd| ListeningSocket { fd, shared: false }),
            Sockets::Passed(fd) => Some(ListeningSocket { fd: fd.try_clone()?, shared: true }),
        })
    }
}

/// A socket from which one worker accepts.
#[derive(Debug)]
pub(super) struct ListeningSocket {
    fd: OwnedFd,
    shared: bool,
}

impl ListeningSocket {
    /// Whether other workers or processes accept from it as well. Then each client should wake only one of
    /// them, and the socket stays open after one of them closes it.
    pub(super) fn is_shared(&self) -> bool {
        self.shared
    }

    /// Makes the kernel refuse new clients; handshakes that have begun still complete. Without this, a
    /// client that connects between the last accept and the close would be reset.
    ///
    /// # Errors
    /// When the system does not support this.
    pub(super) fn refuse_new(&self) -> io::Result<()> {
        // Classic BPF (RFC 9669 §1; Documentation/networking/filter.rst) that drops segments with SYN. The
        // filter gets the segment from the TCP header on.
        const FLAGS: u32 = 13;
        const SYN: u32 = 0x02;
        const LOAD_BYTE: u16 = 0x30;
        const JUMP_IF_ANY: u16 = 0x45;
        const RETURN: u16 = 0x06;
        let filter = [
            SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
            SockFilter::new(JUMP_IF_ANY, 0, 1, SYN),
            SockFilter::new(RETURN, 0, 0, 0),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
        ];
        SockRef::from(&self.fd).attach_filter(&filter)
    }
}

impl AsFd for ListeningSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Binds an address for `workers`, and returns the actual address, with its port. If `is_ours`, this process
/// already has sockets at the port, and the new ones share it.
pub(super) fn bind(
    address: SocketAddr,
    workers: usize,
    is_ours: bool,
) -> io::Result<(SocketAddr, Sockets)> {
    if address.port() != 0 && !is_ours {
        // If the port were shared, a second process would silently take its share of the clients. Without
        // sharing, the bind fails if the port is in use.
        unlistened(address, false)?.listen(BACKLOG)?;
    }
    let first = unlistened(address, true)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(unlistened(address, true)?);
    }
    // Only after all are bound: closing a listening socket resets its clients.
    sockets.iter().try_for_each(|socket| socket.listen(BACKLOG))?;
    Ok((address, Sockets::Own(sockets.into_iter().map(OwnedFd::from).collect())))
}

/// A bound socket that does not listen yet.
fn unlistened(address: SocketAddr, shared: bool) -> io::Result<Socket2> {
    let socket = Socket2::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    if address.is_ipv6() {
        // [::] is IPv6 only: IPv4 has its own bind, so that clients keep their addresses.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    set_inherited(&socket)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Configures a passed socket like sluice's own, as far as is still possible. Returns its address, and
/// whether it also accepts IPv4.
pub(super) fn listen_again(socket: &OwnedFd) -> io::Result<(SocketAddr, bool)> {
    if sockopt::socket_protocol(socket)? != Some(rustix::net::ipproto::TCP) {
        return Err(Errno::PROTOTYPE.into());
    }
    let address = SocketAddr::try_from(getsockname(socket)?)?;
    if !sockopt::socket_acceptconn(socket)? {
        return Err(Errno::NOTCONN.into());
    }
    rustix::net::listen(socket, BACKLOG)?;
    rustix::io::ioctl_fionbio(socket, true)?;
    set_inherited(socket)?;
    let dual = address.is_ipv6() && address.ip().is_unspecified() && !sockopt::ipv6_v6only(socket)?;
    Ok((address, dual))
}

/// Sets the options that accepted connections inherit. This saves system calls for each connection.
fn set_inherited(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(&socket, true)?;
    KeepAlive::USUAL.set(&socket)
}
