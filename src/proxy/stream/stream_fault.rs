//! The faults of TLS after the handshake.

use rustls::Error;

/// Why TLS has ended a stream.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(in crate::proxy) enum StreamFault {
    /// The peer breaks the rules of TLS, or has sent a fatal alert.
    #[error("{0}")]
    Tls(Error),
    /// The connection has ended, but not TLS.
    #[error("the connection has ended without close_notify")]
    Cut,
    /// A message is too large.
    #[error("a message of TLS is too large")]
    TooLarge,
    /// The peer sends too many records without data.
    #[error("too many records of TLS without data")]
    Barren,
    /// The keys have encrypted as many records as they may, and TLS 1.2 has no other keys.
    #[error("the keys of TLS 1.2 are used up")]
    Exhausted,
}
