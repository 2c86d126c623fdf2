//! What the kernel knows of a TCP connection, and how much it may hold for one.

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{getsockopt, setsockopt};
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};
use rustix::fd::BorrowedFd;
use rustix::net::sockopt;
use socket2::SockRef;

/// Bytes that the kernel takes for a receiver beyond those that are on their way to it. What is on its
/// way is bounded by the receiver's window, and grows with the path as before.
const MOST_UNSENT: u32 = 192 * 1024;
/// What is asked for as the receive buffer of a sender whose receiver is slow. The kernel takes twice
/// as much, for its own structures (socket(7)), so the window is about this large.
const NARROW_BUFFER: usize = 160 * 1024;
/// The first kernel that tells a sender at once that there is no room for what it has sent.
const BOUNDS_RECEIVED: (u32, u32) = (6, 6);
/// The option that frees buffers again whose size was set (Linux 5.16).
const SO_BUF_LOCK: libc::c_int = 72;

/// The first fields of the kernel's `struct tcp_info`, as Linux 4.6 and later have them.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(dead_code, reason = "their places count")]
#[allow(unreachable_pub, reason = "the option below is, and has it")]
pub struct TcpInfo {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    backoff: u8,
    options: u8,
    scales: u8,
    limits: u8,
    rto: u32,
    ato: u32,
    mss: [u32; 2],
    unacked: u32,
    sacked: u32,
    lost: u32,
    retrans: u32,
    fackets: u32,
    last_data_sent: u32,
    last_ack_sent: u32,
    last_data_recv: u32,
    last_ack_recv: u32,
    metrics: [u32; 11],
    rates: [u64; 2],
    bytes_acked: u64,
    bytes_received: u64,
    segments: [u32; 2],
    notsent_bytes: u32,
    min_rtt: u32,
}

sockopt_impl!(
    /// `TCP_INFO`, see tcp(7).
    Info,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    TcpInfo
);
sockopt_impl!(
    /// `SO_BUF_LOCK`: which buffers keep the size that was set.
    BufferLock,
    SetOnly,
    libc::SOL_SOCKET,
    SO_BUF_LOCK,
    u32
);

/// How far a peer is with what it was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AckState {
    /// Bytes that it has acknowledged since the connection began.
    pub(super) acked: u64,
    /// Whether the kernel holds bytes that it has not acknowledged.
    pub(super) owed: bool,
    /// How long ago it last acknowledged anything, were it that its window is still closed.
    pub(super) heard: Duration,
    /// How often in a row the kernel has sent the same again.
    pub(super) retransmits: u8,
    /// How often in a row it has waited longer before it tried again. An ICMP message that the peer
    /// cannot be reached takes one back (RFC 6069).
    pub(super) backoff: u8,
    /// Probes of a closed window that nothing has answered.
    pub(super) unanswered: u8,
}

/// How far the peer of `fd` is.
pub(super) fn ack_state(fd: BorrowedFd<'_>) -> io::Result<AckState> {
    let info = getsockopt(&fd, Info)?;
    Ok(AckState {
        acked: info.bytes_acked,
        owed: info.unacked > 0 || info.notsent_bytes > 0,
        heard: Duration::from_millis(info.last_ack_recv.into()),
        retransmits: info.retransmits,
        backoff: info.backoff,
        unanswered: info.probes,
    })
}

/// How many clients wait to be accepted from the listening socket `fd`.
pub(super) fn waiting(fd: BorrowedFd<'_>) -> io::Result<usize> {
    // For a socket that listens, the kernel has it in this place (net/ipv4/tcp.c, `tcp_get_info`).
    Ok(usize::try_from(getsockopt(&fd, Info)?.unacked).unwrap_or(usize::MAX))
}

/// The shortest time that a packet to the peer of `fd` and its answer have taken.
pub(super) fn round_trip(fd: BorrowedFd<'_>) -> io::Result<Duration> {
    Ok(Duration::from_micros(getsockopt(&fd, Info)?.min_rtt.into()))
}

/// Bounds what the kernel takes for the peer of `fd` before it can be sent.
pub(super) fn bound_unsent(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_tcp_notsent_lowat(MOST_UNSENT)
}

/// Bounds what the kernel keeps of what the peer of `fd` sends, from now on: what arrives beyond that
/// is refused, and sent again.
pub(super) fn bound_received(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(sockopt::set_socket_recv_buffer_size(fd, NARROW_BUFFER)?)
}

/// Takes back what [`bound_unsent`] has set.
pub(super) fn unbound_unsent(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_tcp_notsent_lowat(0)
}

/// Whether the size of a receive buffer may be set while bytes are on their way. An older kernel than
/// [`BOUNDS_RECEIVED`] drops what does not fit, though it has promised room for it, and says nothing,
/// so that the sender takes the path for broken (net/ipv4/tcp_input.c, `tcp_data_queue`).
pub(super) fn may_bound_received() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    *MAY.get_or_init(|| {
        let name = rustix::system::uname();
        release(&name.release().to_string_lossy()).is_some_and(|known| known >= BOUNDS_RECEIVED)
    })
}

/// The version at the start of the name of a kernel's release.
fn release(name: &str) -> Option<(u32, u32)> {
    let mut numbers = name.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Leaves it to the kernel again how large the buffers of `fd` are.
pub(super) fn unbound_received(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(setsockopt(&fd, BufferLock, &0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_its_version() {
        assert_eq!(release("6.18.44-fc-v782"), Some((6, 18)));
        assert_eq!(release("5.15.0-1056-aws"), Some((5, 15)));
        assert_eq!(release("7.0-rc1"), Some((7, 0)));
        assert_eq!(release("unknown"), None);
        assert!((6, 18) >= BOUNDS_RECEIVED && (6, 5) < BOUNDS_RECEIVED);
    }
}
