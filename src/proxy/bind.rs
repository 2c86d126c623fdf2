//! Binding the listeners: sockets of our own, and those that a service manager has passed on.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{getsockname, sockopt};
use socket2::{Domain, Socket as Socket2, Type};

use super::listener::Listener;
use super::socket::set_keep_alive;
use crate::config::{self, Config};
use crate::reach::Listening;

/// Connections that may wait to be accepted; the kernel cuts it down to `net.core.somaxconn`.
const BACKLOG: i32 = 16 * 1024;

/// Why a listener cannot be had.
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
    /// What was passed is nothing to accept connections from.
    #[error("{passed} is no TCP socket that listens: {error}")]
    NoListener {
        /// The socket, as a person finds it.
        passed: String,
        /// What shows it.
        error: io::Error,
    },
    /// Nobody would take its clients.
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

/// A bound address.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listener: Listener,
    pub(super) address: SocketAddr,
    /// Whether an IPv6 address takes IPv4 clients, too.
    dual: bool,
    sockets: Sockets,
}

#[derive(Debug)]
enum Sockets {
    /// One for each worker, among which the kernel spreads the clients.
    Own(Vec<OwnedFd>),
    /// One for all workers, and for whoever has it besides.
    Passed(OwnedFd),
}

/// What a worker accepts from.
#[derive(Debug)]
pub(super) struct ListeningSocket {
    fd: OwnedFd,
    shared: bool,
}

impl Bound {
    /// What no route may lead to.
    pub(super) fn listening(&self) -> Listening {
        Listening { address: self.address, dual_stack: self.dual }
    }

    /// Whether clients of `address` come in here: a socket of both families has two addresses.
    fn takes(&self, address: SocketAddr) -> bool {
        let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.address.port()));
        address == self.address || self.dual && address == ipv4
    }

    /// The socket of one more worker.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(super) fn for_worker(&mut self) -> io::Result<Option<ListeningSocket>> {
        Ok(match &mut self.sockets {
            Sockets::Own(all) => all.pop().map(|fd| ListeningSocket { fd, shared: false }),
            Sockets::Passed(fd) => Some(ListeningSocket { fd: fd.try_clone()?, shared: true }),
        })
    }
}

impl ListeningSocket {
    /// Whether others accept from it as well: then each client is to wake one of them, and it
    /// outlives whoever closes it.
    pub(super) fn is_shared(&self) -> bool {
        self.shared
    }
}

impl AsFd for ListeningSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Binds every listener for `workers`, with the sockets of `passed` for those that have one.
///
/// * A passed socket that is named like a listener is that listener's, and all of the name take the
///   place of the addresses that are configured for it.
/// * Any other one is for the listener at its address.
/// * An address that is everybody's (`0.0.0.0`, `[::]`) is left out where the machine does not have
///   its family, if the listener has another address.
pub(super) fn bind_all(
    config: &Config,
    passed: Vec<PassedSocket>,
) -> Result<Vec<Bound>, BindError> {
    let mut bound = Vec::new();
    let mut replaced = Vec::new();
    for PassedSocket { name, described, socket } in passed {
        let no_listener = |error| BindError::NoListener { passed: described.clone(), error };
        let (address, dual) = listen_again(&socket).map_err(no_listener)?;
        let listeners = &config.listeners;
        let by_name = listeners.iter().find(|known| Some(&known.name) == name.as_ref());
        let by_address = || listeners.iter().find(|known| known.address == address);
        let Some(listener) = by_name.or_else(by_address) else {
            let mut known: Vec<&str> = listeners.iter().map(|one| one.name.as_str()).collect();
            known.dedup();
            let (passed, known) = (described, known.join(", "));
            return Err(BindError::Unclaimed { passed, address, known });
        };
        if by_name.is_some() {
            replaced.push(listener.name.clone());
        }
        tracing::info!(listener = listener.name, %address, socket = described, "was passed on");
        let sockets = Sockets::Passed(socket);
        bound.push(Bound { listener: Listener::of(listener), address, dual, sockets });
    }
    let mut left_out = Vec::new();
    for listener in &config.listeners {
        let is_bound =
            |one: &Bound| one.listener.name == listener.name && one.takes(listener.address);
        if replaced.contains(&listener.name) || bound.iter().any(is_bound) {
            continue;
        }
        match bind(listener, config.workers.get()) {
            Ok(one) => bound.push(one),
            Err(error) => {
                let is_everybody = listener.address.ip().is_unspecified();
                let (name, address) = (listener.name.clone(), listener.address);
                let error = BindError::Address { name, address, error };
                if !is_everybody || !error.is_for_want_of_the_family() {
                    return Err(error);
                }
                left_out.push((listener, error));
            }
        }
    }
    for (listener, error) in left_out {
        if !bound.iter().any(|one| one.listener.name == listener.name) {
            return Err(error);
        }
        tracing::info!(
            listener = listener.name,
            address = %listener.address,
            "not listening there: the machine does not have this address family"
        );
    }
    Ok(bound)
}

impl BindError {
    fn is_for_want_of_the_family(&self) -> bool {
        let BindError::Address { error, .. } = self else { return false };
        [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL]
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
    }
}

/// Binds `config` for `workers`.
fn bind(config: &config::Listener, workers: usize) -> io::Result<Bound> {
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
    let sockets = Sockets::Own(sockets);
    Ok(Bound { listener: Listener::of(config), address, dual: false, sockets })
}

fn listen(address: SocketAddr, shared: bool) -> io::Result<Socket2> {
    let socket = Socket2::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    if address.is_ipv6() {
        // [::] is IPv6 alone: IPv4 has a listener of its own, and clients keep their addresses.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    set_inherited(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Makes a socket that somebody else has bound what one of our own is, as far as that can still be.
/// Returns where it listens, and whether that is for IPv4 as well.
fn listen_again(socket: &OwnedFd) -> io::Result<(SocketAddr, bool)> {
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

/// What every connection that `socket` accepts inherits, which saves each the system calls.
fn set_inherited(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(&socket, true)?;
    set_keep_alive(&socket)
}
