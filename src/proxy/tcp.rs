//! Reads the kernel's state of a TCP connection, and limits the memory that the kernel uses for it.

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{getsockopt, setsockopt};
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};
use rustix::fd::BorrowedFd;
use rustix::net::sockopt;
use socket2::SockRef;

/// The bytes that the kernel accepts for a receiver beyond those in flight. The bytes in flight are limited
/// by the receiver's window, which is not changed.
const MOST_UNSENT: u32 = 192 * 1024;
/// The requested receive buffer for a sender whose receiver is slow. The kernel doubles the value for its
/// own structures (socket(7)), so the window has about this size.
const NARROW_BUFFER: usize = 160 * 1024;
/// The first kernel that informs a sender at once when there is no room for its bytes.
const BOUNDS_RECEIVED: (u32, u32) = (6, 6);
/// The option that lets the kernel size buffers again after their size was set (Linux 5.16).
const SO_BUF_LOCK: libc::c_int = 72;

/// The first fields of the kernel's `struct tcp_info`, as in Linux 4.6 and later.
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
    /// `SO_BUF_LOCK`: the buffers whose size is fixed.
    BufferLock,
    SetOnly,
    libc::SOL_SOCKET,
    SO_BUF_LOCK,
    u32
);

/// A peer's progress in acknowledging bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AckState {
    /// The number of bytes that it has acknowledged since the start of the connection.
    pub(super) acked: u64,
    /// Whether the kernel holds bytes that it has not acknowledged.
    pub(super) owed: bool,
    /// The time since its last acknowledgement, including one that only reports a closed window.
    pub(super) heard: Duration,
    /// The number of consecutive retransmissions.
    pub(super) retransmits: u8,
    /// The number of consecutive increases of the retry interval. An ICMP message that the peer is
    /// unreachable undoes one (RFC 6069).
    pub(super) backoff: u8,
    /// The number of unanswered probes of a closed window.
    pub(super) unanswered: u8,
}

/// The progress of the peer of `fd`.
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

/// The number of clients that wait to be accepted from the listening socket `fd`.
pub(super) fn waiting(fd: BorrowedFd<'_>) -> io::Result<usize> {
    // For a listening socket, the kernel stores it in this field (net/ipv4/tcp.c, `tcp_get_info`).
    Ok(usize::try_from(getsockopt(&fd, Info)?.unacked).unwrap_or(usize::MAX))
}

/// The minimum round-trip time to the peer of `fd`.
pub(super) fn round_trip(fd: BorrowedFd<'_>) -> io::Result<Duration> {
    Ok(Duration::from_micros(getsockopt(&fd, Info)?.min_rtt.into()))
}

/// Bounds the unsent bytes that the kernel accepts for the peer of `fd`.
pub(super) fn bound_unsent(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_tcp_notsent_lowat(MOST_UNSENT)
}

/// Bounds the bytes from the peer of `fd` that the kernel keeps, from now on. Bytes beyond that are refused,
/// and the peer sends them again.
pub(super) fn bound_received(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(sockopt::set_socket_recv_buffer_size(fd, NARROW_BUFFER)?)
}

/// Removes the bound of [`bound_unsent`].
pub(super) fn unbound_unsent(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_tcp_notsent_lowat(0)
}

/// Whether the size of a receive buffer may be set while bytes are in flight. A kernel older than
/// [`BOUNDS_RECEIVED`] silently drops bytes that do not fit, although it has promised room for them, so that
/// the sender assumes a broken path (net/ipv4/tcp_input.c, `tcp_data_queue`).
pub(super) fn may_bound_received() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    *MAY.get_or_init(|| {
        let name = rustix::system::uname();
        release(&name.release().to_string_lossy()).is_some_and(|known| known >= BOUNDS_RECEIVED)
    })
}

/// The version at the start of a kernel's release string.
fn release(name: &str) -> Option<(u32, u32)> {
    let mut numbers = name.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Lets the kernel size the receive buffer of `fd` again.
pub(super) fn unbound_received(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(setsockopt(&fd, BufferLock, &0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_start_of_a_release_string() {
        assert_eq!(release("6.18.44-fc-v782"), Some((6, 18)));
        assert_eq!(release("5.15.0-1056-aws"), Some((5, 15)));
        assert_eq!(release("7.0-rc1"), Some((7, 0)));
        assert_eq!(release("unknown"), None);
        assert!((6, 18) >= BOUNDS_RECEIVED && (6, 5) < BOUNDS_RECEIVED);
    }
}
