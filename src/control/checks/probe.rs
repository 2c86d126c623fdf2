//! One check of an endpoint.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::authorities::Authorities;
use super::certificates::{CertificateView, Trust};
use super::handshake::{CheckHandshakeFault, Handshake, handshake};
use crate::policy::ProxyVersion;
use crate::proxy_protocol::{ConnectionAddresses, Extensions, LOCAL, Version, write};
use crate::routing::{CheckMethod, CheckParams, TlsCheck};

/// What a check has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// The endpoint serves.
    Passed,
    /// It refuses connections.
    Refused,
    /// It has not answered in time.
    TimedOut,
    /// It cannot be reached.
    Unreachable,
    /// It has closed or reset the connection.
    Closed,
    /// It does not speak TLS, or refuses the handshake.
    Handshake,
    /// No authority vouches for its certificate, and the route requires that.
    Certificate,
    /// The authorities that have to vouch for its certificate are not known, so it was not checked.
    NoAuthorities,
    /// Nothing may connect to it, so it was not checked.
    Forbidden,
    /// This machine or process lacks a descriptor, a port or memory, so it was not checked.
    Exhausted,
}

impl CheckOutcome {
    /// All of them.
    pub const ALL: [CheckOutcome; 10] = [
        CheckOutcome::Passed,
        CheckOutcome::Refused,
        CheckOutcome::TimedOut,
        CheckOutcome::Unreachable,
        CheckOutcome::Closed,
        CheckOutcome::Handshake,
        CheckOutcome::Certificate,
        CheckOutcome::NoAuthorities,
        CheckOutcome::Forbidden,
        CheckOutcome::Exhausted,
    ];

    /// The metric label and the word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckOutcome::Passed => "passed",
            CheckOutcome::Refused => "refused",
            CheckOutcome::TimedOut => "timeout",
            CheckOutcome::Unreachable => "unreachable",
            CheckOutcome::Closed => "closed",
            CheckOutcome::Handshake => "handshake",
            CheckOutcome::Certificate => "certificate",
            CheckOutcome::NoAuthorities => "no_authorities",
            CheckOutcome::Forbidden => "forbidden",
            CheckOutcome::Exhausted => "exhausted",
        }
    }

    /// What the endpoint has shown; `None` if nothing.
    pub(super) fn passes(self) -> Option<bool> {
        match self {
            CheckOutcome::Passed => Some(true),
            CheckOutcome::NoAuthorities | CheckOutcome::Forbidden | CheckOutcome::Exhausted => None,
            CheckOutcome::Refused
            | CheckOutcome::TimedOut
            | CheckOutcome::Unreachable
            | CheckOutcome::Closed
            | CheckOutcome::Handshake
            | CheckOutcome::Certificate => Some(false),
        }
    }

    fn of(error: &io::Error) -> Self {
        use io::ErrorKind;
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        if errno.is_some_and(|errno| EXHAUSTED.contains(&errno)) {
            return CheckOutcome::Exhausted;
        }
        match error.kind() {
            ErrorKind::ConnectionRefused => CheckOutcome::Refused,
            ErrorKind::TimedOut => CheckOutcome::TimedOut,
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof => CheckOutcome::Closed,
            _ => CheckOutcome::Unreachable,
        }
    }
}

/// The errors of connect(2) for want of descriptors, ports or memory.
const EXHAUSTED: [Errno; 5] =
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];

/// A check that was made.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) outcome: CheckOutcome,
    /// What it has seen of the certificate, if it has got so far and the route wants to know.
    pub(super) seen: Option<CertificateView>,
    /// The connection of a handshake, which is to end by a goodbye.
    pub(super) stream: Option<TlsStream<TcpStream>>,
}

impl Probe {
    /// A check that has seen no certificate.
    pub(super) fn blind(outcome: CheckOutcome) -> Self {
        Probe { outcome, seen: None, stream: None }
    }
}

/// Makes a check of an address to which connections are allowed.
pub(super) async fn probe(
    address: SocketAddr,
    params: &CheckParams,
    authorities: &Authorities,
) -> Probe {
    match timeout(params.timeout, attempt(address, params, authorities)).await {
        Ok(Ok(None)) => Probe::blind(CheckOutcome::Passed),
        Ok(Ok(Some(Handshake { stream, seen }))) => {
            let is_vouched = !matches!(&seen, Some(seen) if seen.trust.is_fault());
            let passes = is_vouched || !params.tls().is_some_and(TlsCheck::enforces);
            Probe {
                outcome: if passes { CheckOutcome::Passed } else { CheckOutcome::Certificate },
                seen,
                stream,
            }
        }
        Ok(Err(CheckHandshakeFault::Io(error))) => Probe::blind(CheckOutcome::of(&error)),
        Ok(Err(CheckHandshakeFault::Tls(_))) => Probe::blind(CheckOutcome::Handshake),
        Ok(Err(CheckHandshakeFault::NoAuthorities(fault))) => {
            let seen = fault.map(|fault| CertificateView {
                certificate: None,
                trust: Trust::NoAuthority(fault),
                h2: false,
            });
            Probe { seen, ..Probe::blind(CheckOutcome::NoAuthorities) }
        }
        Err(_) => Probe::blind(CheckOutcome::TimedOut),
    }
}

async fn attempt(
    address: SocketAddr,
    params: &CheckParams,
    authorities: &Authorities,
) -> Result<Option<Handshake>, CheckHandshakeFault> {
    let mut socket = TcpStream::connect(address).await?;
    if let Some(version) = params.proxy_header {
        // Without it, a server that expects one takes the check for a fault of the proxy, and logs it.
        let header = own_header(version, socket.local_addr()?, address);
        socket.write_all(&header).await?;
    }
    match &params.method {
        CheckMethod::Tcp => Ok(None),
        CheckMethod::Tls(check) => handshake(socket, address, check, authorities).await.map(Some),
    }
}

/// The PROXY header of a connection that sluice makes for itself. Version 1 has no form that all servers take
/// for such a one, so it has the addresses of the connection.
fn own_header(version: ProxyVersion, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut header = Vec::new();
    match version {
        ProxyVersion::V2 => header.extend_from_slice(&LOCAL),
        ProxyVersion::V1 => {
            let addresses = ConnectionAddresses { source, destination };
            write(&mut header, Version::V1, addresses, Extensions::default());
        }
    }
    header
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::super::fixture::params;
    use super::*;

    #[tokio::test]
    async fn a_server_that_takes_the_connection_passes_and_gets_the_header_of_its_route() {
        let none = Authorities::default();
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        for (version, expected) in [
            (None, String::new()),
            (Some(ProxyVersion::V2), String::from_utf8(LOCAL.to_vec()).unwrap()),
            (
                Some(ProxyVersion::V1),
                format!("PROXY TCP4 127.0.0.1 127.0.0.1 PORT {}\r\n", address.port()),
            ),
        ] {
            let params = CheckParams { proxy_header: version, ..params() };
            let read = async {
                let (mut socket, peer) = server.accept().await.unwrap();
                let mut received = String::new();
                socket.read_to_string(&mut received).await.unwrap();
                received.replace(&format!(" {} ", peer.port()), " PORT ")
            };
            let (probe, received) = tokio::join!(probe(address, &params, &none), read);
            assert_eq!((probe.outcome, received), (CheckOutcome::Passed, expected));
        }
    }

    #[tokio::test]
    async fn a_server_that_refuses_or_does_not_answer_fails() {
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let none = Authorities::default();
        assert_eq!(probe(unused, &params(), &none).await.outcome, CheckOutcome::Refused);
        // A queue of one that is full: the kernel drops further connections.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = socket.listen(0).unwrap();
        let address = full.local_addr().unwrap();
        let brief = CheckParams { timeout: Duration::from_millis(50), ..params() };
        let mut held = Vec::new();
        while let Ok(Ok(socket)) =
            timeout(Duration::from_millis(50), TcpStream::connect(address)).await
        {
            held.push(socket);
        }
        assert_eq!(probe(address, &brief, &none).await.outcome, CheckOutcome::TimedOut);
    }
}
