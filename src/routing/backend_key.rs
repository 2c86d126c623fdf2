//! The identity of backends.

use std::fmt;
use std::sync::Arc;

use super::ObjectKey;

/// The identity of a backend. Routes that name the same Service and port share one [`Backend`](super::Backend), and
/// so do the routes of one namespace that name the same address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendKey {
    /// A port of a Service.
    Service {
        /// The Service.
        service: ObjectKey,
        /// The port, as the route names it.
        port: ServicePort,
    },
    /// An address outside the cluster. Routes of different namespaces do not share it: the failures and the
    /// connections of one tenant's routes would change where those of another's go.
    Address {
        /// The namespace of the routes.
        namespace: Arc<str>,
        /// The address, as a route writes it.
        address: Arc<str>,
    },
}

/// A Service's port by its number or its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServicePort {
    /// The Service's `port`.
    Number(u16),
    /// The name of the Service's port.
    Name(Arc<str>),
}

impl BackendKey {
    /// An address that routes of `namespace` name.
    pub fn address(namespace: &str, address: &str) -> Self {
        BackendKey::Address { namespace: namespace.into(), address: address.into() }
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServicePort::Number(number) => number.fmt(f),
            ServicePort::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendKey::Service { service, port } => write!(f, "{service}:{port}"),
            BackendKey::Address { address, .. } => f.write_str(address),
        }
    }
}
