//! Backends and their endpoints.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ahash::{AHashMap as HashMap, AHashSet as HashSet};
use arc_swap::{ArcSwap, Guard};

use super::endpoint::Endpoint;
use super::hash_ring::HashRing;
use super::health::{Health, Moment};
use super::locality::Rings;
use super::{BackendKey, EndpointPlace, EndpointPlaces, OtherAddresses};

/// A backend with its current endpoints.
///
/// It exists as long as any route names it, across tables. So the balancing state and the connection
/// counts survive changes of routes.
#[derive(Debug)]
pub struct Backend {
    key: BackendKey,
    endpoints: ArcSwap<EndpointSet>,
    families: Families,
    /// The next endpoint of the round robin; the balancer advances it. It starts at random, so that
    /// processes that start together do not all use the same endpoint.
    pub(super) turn: AtomicUsize,
    /// Whether a route with active checks ever had a connection for it.
    used: AtomicBool,
}

/// What is known of a backend's addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackendAddresses<'a> {
    /// Its endpoints, in a stable order.
    pub(super) endpoints: &'a [SocketAddr],
    /// The addresses that it has besides.
    pub(super) others: Option<&'a OtherAddresses>,
    /// The places of the endpoints, in their order. Empty if none is known.
    pub(super) places: &'a [Arc<EndpointPlace>],
}

/// A change of a backend's addresses.
#[derive(Debug)]
pub(super) struct AddressChange {
    /// The former set, which readers may still hold.
    pub(super) old: Arc<EndpointSet>,
    /// The addresses that the backend has no more.
    pub(super) gone: Vec<SocketAddr>,
}

impl Backend {
    pub(super) fn new(key: BackendKey, addresses: BackendAddresses<'_>) -> Self {
        let families = Families::default();
        let all = |addresses: &[SocketAddr]| {
            addresses.iter().map(|address| families.endpoint(*address, None)).collect()
        };
        let others = OtherAddresses::known(addresses.others);
        let set = EndpointSet::new(all(addresses.endpoints), addresses.places, all(others));
        let turn = AtomicUsize::new(anywhere());
        let used = AtomicBool::new(false);
        Backend { key, endpoints: ArcSwap::from_pointee(set), families, turn, used }
    }

    /// The identity of this backend.
    pub fn key(&self) -> &BackendKey {
        &self.key
    }

    /// The current endpoints. Not to be held across an await.
    pub fn endpoints(&self) -> Guard<Arc<EndpointSet>> {
        self.endpoints.load()
    }

    /// Whether a route with active checks ever had a connection for it.
    pub fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn set_used(&self) {
        // Written once, so that the cache line stays shared among the workers.
        if !self.is_used() {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Stores a new set. Endpoints with the same address keep their counts and health; one that was not used keeps
    /// its count. All but those that were used arrive `now`; at a start, that is `None`. Returns the change, if there
    /// is one.
    pub(super) fn set_endpoints(
        &self,
        addresses: BackendAddresses<'_>,
        now: Option<Moment>,
    ) -> Option<AddressChange> {
        let old = self.endpoints.load();
        // Where all are new, none has to start slowly.
        let now = now.filter(|_| !old.is_empty());
        if old.has_only(addresses) {
            return None;
        }
        let (used, not_used) = (by_address(&old.endpoints), by_address(&old.others));
        let endpoint = |address: &SocketAddr| {
            let comes_back = || not_used.get(address).inspect(|endpoint| endpoint.comes_back(now));
            let known = used.get(address).or_else(comes_back).copied().cloned();
            known.unwrap_or_else(|| self.families.endpoint(*address, now))
        };
        let other = |address: &SocketAddr| {
            let known = used.get(address).or_else(|| not_used.get(address)).copied().cloned();
            known.unwrap_or_else(|| self.families.endpoint(*address, None))
        };
        let endpoints = addresses.endpoints.iter().map(endpoint).collect();
        let others = OtherAddresses::known(addresses.others).iter().map(other).collect();
        let new = Arc::new(EndpointSet::new(endpoints, addresses.places, others));
        let gone = match addresses.others {
            Some(OtherAddresses::Unknown) => Vec::new(),
            Some(OtherAddresses::Known(_)) | None => old.without(&new),
        };
        Some(AddressChange { old: self.endpoints.swap(new), gone })
    }
}

/// Whether these endpoints have these addresses, in the same order.
fn is_at(endpoints: &[Arc<Endpoint>], addresses: &[SocketAddr]) -> bool {
    endpoints.iter().map(|endpoint| endpoint.address).eq(addresses.iter().copied())
}

fn by_address(endpoints: &[Arc<Endpoint>]) -> HashMap<SocketAddr, &Arc<Endpoint>> {
    endpoints.iter().map(|endpoint| (endpoint.address, endpoint)).collect()
}

/// A random number that differs between processes.
fn anywhere() -> usize {
    // The keys come from the system. Only half of the range, so that the counter does not overflow soon.
    RandomState::new().hash_one(()) as usize / 2
}

/// Whether the kernel has routes to the address families of a backend's endpoints.
#[derive(Debug, Default)]
struct Families {
    ipv4: Arc<Health>,
    ipv6: Arc<Health>,
}

impl Families {
    fn endpoint(&self, address: SocketAddr, arrival: Option<Moment>) -> Arc<Endpoint> {
        let family = match address.ip().to_canonical() {
            IpAddr::V4(_) => &self.ipv4,
            IpAddr::V6(_) => &self.ipv6,
        };
        Arc::new(Endpoint::new(address, Arc::clone(family), arrival))
    }
}

/// All endpoints of a backend, in a stable order.
#[derive(Debug, Default)]
pub struct EndpointSet {
    endpoints: Box<[Arc<Endpoint>]>,
    hashes: HashRing,
    /// The places of the endpoints, in their order. Empty if none is known.
    places: EndpointPlaces,
    /// The endpoints by ring, if some are nearer than others.
    rings: Option<Rings<Arc<Endpoint>>>,
    /// Those that exist and get no new connections.
    others: Box<[Arc<Endpoint>]>,
}

impl EndpointSet {
    fn new(
        endpoints: Box<[Arc<Endpoint>]>,
        places: &[Arc<EndpointPlace>],
        others: Box<[Arc<Endpoint>]>,
    ) -> Self {
        let hashes = HashRing::new(endpoints.iter().map(|endpoint| endpoint.address));
        let rings = Rings::new(&endpoints, places);
        EndpointSet { endpoints, hashes, places: places.into(), rings, others }
    }

    /// Whether its addresses and places are exactly these.
    fn has_only(&self, addresses: BackendAddresses<'_>) -> bool {
        is_at(&self.endpoints, addresses.endpoints)
            && *self.places == *addresses.places
            && is_at(&self.others, OtherAddresses::known(addresses.others))
    }

    /// The endpoints with their places, as far as they are known.
    pub fn placed(&self) -> impl Iterator<Item = (&Arc<Endpoint>, Option<&EndpointPlace>)> {
        let places = self.places.iter().map(|place| Some(&**place));
        self.endpoints.iter().zip(places.chain(std::iter::repeat(None)))
    }

    /// The endpoints by ring. `None` if none is nearer than others.
    pub(super) fn rings(&self) -> Option<&Rings<Arc<Endpoint>>> {
        self.rings.as_ref()
    }

    /// Whether the backend has this address, for new connections or not.
    pub fn has_address(&self, address: SocketAddr) -> bool {
        self.addresses().any(|own| own == address)
    }

    /// All addresses, for new connections or not.
    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.endpoints.iter().chain(&self.others).map(|endpoint| endpoint.address)
    }

    /// The addresses that `new` does not have.
    fn without(&self, new: &EndpointSet) -> Vec<SocketAddr> {
        let new: HashSet<SocketAddr> = new.addresses().collect();
        self.addresses().filter(|address| !new.contains(address)).collect()
    }

    /// The endpoints in the order of preference for `key`, a hash. It is the same on every replica.
    pub fn in_order_of(&self, key: u64) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.hashes.in_order_of(key).filter_map(|index| self.get(index))
    }
}

impl std::ops::Deref for EndpointSet {
    type Target = [Arc<Endpoint>];

    fn deref(&self) -> &Self::Target {
        &self.endpoints
    }
}

#[cfg(test)]
mod tests;
