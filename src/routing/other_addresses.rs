//! What is known of the addresses of a backend that get no connections.

use std::net::SocketAddr;

/// The addresses that a backend has besides its endpoints. They get no new connections, but exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OtherAddresses {
    /// These, in any order: of endpoints that terminate, are not ready, or are not permitted.
    Known(Vec<SocketAddr>),
    /// They are not known, so no address of the backend is known to be gone.
    Unknown,
}

impl Default for OtherAddresses {
    fn default() -> Self {
        OtherAddresses::Known(Vec::new())
    }
}

impl OtherAddresses {
    /// Those that are known.
    pub(super) fn known(others: Option<&Self>) -> &[SocketAddr] {
        match others {
            Some(OtherAddresses::Known(others)) => others,
            Some(OtherAddresses::Unknown) | None => &[],
        }
    }
}
