//! How the kernel finds out that a silent peer is gone.

use std::io;
use std::time::Duration;

use rustix::fd::AsFd;
use rustix::net::sockopt;

/// The probes of a silent peer.
///
/// `TCP_USER_TIMEOUT` is not set, because it also ends a connection whose peer is alive and only does not
/// read for that long (the kernel's tcp_probe_timer). The relay distinguishes the two (`relay::peer_watch`).
pub(super) struct KeepAlive {
    /// The silence before the first one.
    idle: Duration,
    /// The time from one to the next.
    interval: Duration,
    /// How many remain unanswered until the peer is given up.
    count: u32,
}

impl KeepAlive {
    /// For any peer: one that is gone is given up after two minutes.
    pub(super) const USUAL: KeepAlive =
        KeepAlive { idle: Duration::from_secs(60), interval: Duration::from_secs(15), count: 4 };
    /// For a peer that is probably gone: it is given up after 16 s.
    pub(super) const URGENT: KeepAlive =
        KeepAlive { idle: Duration::from_secs(1), interval: Duration::from_secs(5), count: 3 };

    /// Makes the kernel send these probes to the peer of `fd`, or to that of every connection that the
    /// listening socket `fd` accepts.
    pub(super) fn set(&self, fd: impl AsFd) -> io::Result<()> {
        let fd = fd.as_fd();
        sockopt::set_tcp_keepidle(fd, self.idle)?;
        sockopt::set_tcp_keepintvl(fd, self.interval)?;
        sockopt::set_tcp_keepcnt(fd, self.count)?;
        Ok(sockopt::set_socket_keepalive(fd, true)?)
    }
}
