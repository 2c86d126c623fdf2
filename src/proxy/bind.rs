//! Listening sockets: those that sluice binds, and those that a service manager passes on.

use std::io;
use std::net::SocketAddr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{getsockname, sockopt};
use socket2::{Domain, SockFilter, SockRef, Socket as Socket2, Type};

use super::listener::Listener;
use super::socket::set_keep_alive;
use crate::config;

/// Connections that may wait to be accepted; the kernel cuts it down to `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 16 * 1024;

/// An address to bind, and the listener that it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindSpec {
    /// Where to listen; port 0 takes any free one.
    pub address: SocketAddr,
    /// The listener that it serves.
    pub listener: Listener,
}

impl BindSpec {
    /// One that is configured.
    pub fn of(config: &config::ListenerConfig) -> Self {
        BindSpec { address: config.address, listener: Listener::of(config) }
    }
}

/// Why an address cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system refuses an address.
    #[error("listener {name:?} cannot listen on {address}: {error}")]
    Address {
        /// The listener.
        name: String,
        /// Where it was to listen.
        address: SocketAddr,
        /// Why it cannot.
        error: io::Error,
    },
    /// Two binds are to have the same address.
    #[error("listener {name:?} cannot listen on {address}, because listener {other:?} does")]
    Twice {
        /// The listener.
        name: String,
        /// The address.
        address: SocketAddr,
        /// The listener that has the address.
        other: String,
    },
    /// A passed descriptor is no listening TCP socket.
    #[error("{passed} is no TCP socket that listens: {error}")]
    NoListener {
        /// The socket, as a person finds it.
        passed: String,
        /// What shows it.
        error: io::Error,
    },
    /// A passed socket belongs to no listener.
    #[error(
        "{passed} listens on {address}, which is the address of no listener; name it after one of \
         {known} (FileDescriptorName= in a socket unit), or configure a listener at that address"
    )]
    Unclaimed {
        /// The socket, as a person finds it.
        passed: String,
        /// Where it listens.
        address: SocketAddr,
        /// The names of the listeners.
        known: String,
    },
}

impl BindError {
    /// Whether the machine does not have the address family.
    pub(super) fn is_for_want_of_the_family(&self) -> bool {
        let BindError::Address { error, .. } = self else { return false };
        [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL]
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
    }
}

/// A listening socket that another process has bound, and keeps.
#[derive(Debug)]
pub struct PassedSocket {
    /// What it is called: the listener that it is for, or anything.
    pub name: Option<String>,
    /// Its number and name, for people.
    pub described: String,
    /// The socket.
    pub socket: OwnedFd,
}

/// The sockets of one address.
#[derive(Debug)]
pub(super) enum Sockets {
    /// One for each worker, among which the kernel spreads the clients.
    Own(Vec<OwnedFd>),
    /// One for all workers, and for whoever has it besides.
    Passed(OwnedFd),
}

impl Sockets {
    /// The socket of one more worker.
    ///
    /// # Errors
    /// When the process is out of descriptors.
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
        // Of classic BPF (RFC 9669 §1 tells its history; Documentation/networking/filter.rst has it):
        // a segment with SYN is dropped. The filter sees it from the TCP header on.
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

/// Binds an address for `workers`. Returns it with the port that it has. `is_ours` means that this process
/// has sockets at the port, with which the new ones share it.
pub(super) fn bind(
    address: SocketAddr,
    workers: usize,
    is_ours: bool,
) -> io::Result<(SocketAddr, Sockets)> {
    if address.port() != 0 && !is_ours {
        // Among sockets that share a port, a second process would silently take its share of the
        // clients. Alone, the port is either free or not.
        unlistened(address, false)?.listen(BACKLOG)?;
    }
    let first = unlistened(address, true)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(unlistened(address, true)?);
    }
    // Only when all are bound: closing a socket that listens resets its clients.
    sockets.iter().try_for_each(|socket| socket.listen(BACKLOG))?;
    Ok((address, Sockets::Own(sockets.into_iter().map(OwnedFd::from).collect())))
}

/// A socket that is bound, and does not listen yet.
fn unlistened(address: SocketAddr, shared: bool) -> io::Result<Socket2> {
    let socket = Socket2::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    if address.is_ipv6() {
        // [::] is IPv6 alone: IPv4 has a listener of its own, and clients keep their addresses.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    set_inherited(&socket)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Configures a passed socket like sluice's own, as far as is still possible. Returns its address, and
/// whether it accepts IPv4 as well.
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

/// Sets the options that accepted connections inherit, which saves system calls for each of them.
fn set_inherited(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(&socket, true)?;
    set_keep_alive(&socket)
}
