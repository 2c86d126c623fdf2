//! The faults of handshakes.

use std::io;

use rustls::Error;

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum HandshakeFault {
    /// TLS forbids it, or a peer does not want it.
    #[error("{0}")]
    Tls(#[from] Error),
    /// The peer has closed the connection.
    #[error("the peer has closed the connection")]
    Closed,
    /// The connection is broken.
    #[error("the connection is broken: {0}")]
    Broken(io::Error),
    /// A message of the peer is too large.
    #[error("a handshake message is too large")]
    TooLarge,
    /// The client offers no version that is served.
    #[error("the client offers no version of TLS from 1.2 on")]
    TooOld,
    /// The client has withdrawn the protocols for which its route was chosen.
    #[error("the second hello of the client offers no protocol of the route")]
    NoProtocol,
    /// It has taken too long.
    #[error("the handshake was not complete in time")]
    TooSlow,
}
