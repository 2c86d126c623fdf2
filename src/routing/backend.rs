//! What routes name, and the addresses behind it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::{ArcSwap, Guard};

use super::ObjectKey;

/// The identity of a backend. Routes that name the same Service and port share one [`Backend`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendKey {
    /// A port of a Service.
    Service {
        /// The Service.
        service: ObjectKey,
        /// The port, as the route names it.
        port: ServicePort,
    },
    /// An address outside the cluster, as the route writes it.
    Address(Arc<str>),
}

/// A Service's port by its number or its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServicePort {
    /// The Service's `port`.
    Number(u16),
    /// The name of the Service's port.
    Name(Arc<str>),
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
            BackendKey::Address(address) => f.write_str(address),
        }
    }
}

/// A backend and its endpoints of this moment.
///
/// It lives as long as any route names it, across tables, so that the balancing state and the
/// connection counts survive every change of routes.
#[derive(Debug)]
pub struct Backend {
    key: BackendKey,
    endpoints: ArcSwap<EndpointSet>,
    /// Whose turn it is among the endpoints; the balancer's to advance.
    pub turn: AtomicUsize,
}

impl Backend {
    pub(super) fn new(key: BackendKey, addresses: &[SocketAddr]) -> Self {
        let endpoints = addresses.iter().map(|address| Arc::new(Endpoint::new(*address)));
        let endpoints = ArcSwap::from_pointee(EndpointSet(endpoints.collect()));
        Backend { key, endpoints, turn: AtomicUsize::new(0) }
    }

    /// What this backend is.
    pub fn key(&self) -> &BackendKey {
        &self.key
    }

    /// The endpoints of this moment. Not to be held across an await.
    pub fn endpoints(&self) -> Guard<Arc<EndpointSet>> {
        self.endpoints.load()
    }

    /// Stores a new set; endpoints whose address stays keep their counts. Returns whether the set
    /// changed.
    pub(super) fn set_endpoints(&self, addresses: &[SocketAddr]) -> bool {
        let old = self.endpoints.load();
        if old.0.iter().map(|endpoint| endpoint.address).eq(addresses.iter().copied()) {
            return false;
        }
        let kept = |address: &SocketAddr| {
            old.0.iter().find(|endpoint| endpoint.address == *address).cloned()
        };
        let new = addresses
            .iter()
            .map(|address| kept(address).unwrap_or_else(|| Arc::new(Endpoint::new(*address))))
            .collect();
        self.endpoints.store(Arc::new(EndpointSet(new)));
        true
    }
}

/// All endpoints of a backend, in a stable order.
#[derive(Debug, Default)]
pub struct EndpointSet(Box<[Arc<Endpoint>]>);

impl std::ops::Deref for EndpointSet {
    type Target = [Arc<Endpoint>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// One address of a backend.
#[derive(Debug)]
pub struct Endpoint {
    /// Where to connect to.
    pub address: SocketAddr,
    active: AtomicUsize,
}

impl Endpoint {
    fn new(address: SocketAddr) -> Self {
        Endpoint { address, active: AtomicUsize::new(0) }
    }

    /// How many connections it has from this process, those being opened included.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Counts a connection for as long as the returned value lives.
    pub fn begin(self: &Arc<Self>) -> ActiveConnection {
        self.active.fetch_add(1, Ordering::Relaxed);
        ActiveConnection(Arc::clone(self))
    }
}

/// A connection that its endpoint counts as active.
#[derive(Debug)]
pub struct ActiveConnection(Arc<Endpoint>);

impl ActiveConnection {
    /// The endpoint that counts it.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn endpoints_that_stay_keep_their_connections() {
        let backend = Backend::new(BackendKey::Address("x".into()), &[]);
        let (a, b, c) = (address("10.0.0.1:1"), address("10.0.0.2:1"), address("10.0.0.3:1"));
        assert!(backend.set_endpoints(&[a, b]));
        let busy = backend.endpoints()[1].begin();
        assert!(backend.set_endpoints(&[b, c]));
        assert_eq!(backend.endpoints()[0].active(), 1);
        assert_eq!(backend.endpoints()[1].active(), 0);
        drop(busy);
        assert_eq!(backend.endpoints()[0].active(), 0);
    }

    #[test]
    fn the_same_endpoints_again_are_no_change() {
        let backend = Backend::new(BackendKey::Address("x".into()), &[]);
        assert!(!backend.set_endpoints(&[]));
        assert!(backend.set_endpoints(&[address("10.0.0.1:1")]));
        assert!(!backend.set_endpoints(&[address("10.0.0.1:1")]));
    }
}
