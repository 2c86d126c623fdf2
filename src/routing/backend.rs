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
use super::{BackendKey, OtherAddresses};

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

/// A change of a backend's addresses.
#[derive(Debug)]
pub(super) struct AddressChange {
    /// The former set, which readers may still hold.
    pub(super) old: Arc<EndpointSet>,
    /// The addresses that the backend has no more.
    pub(super) gone: Vec<SocketAddr>,
}

impl Backend {
    pub(super) fn new(
        key: BackendKey,
        addresses: &[SocketAddr],
        others: Option<&OtherAddresses>,
    ) -> Self {
        let families = Families::default();
        let all = |addresses: &[SocketAddr]| {
            addresses.iter().map(|address| families.endpoint(*address, None)).collect()
        };
        let set = EndpointSet::new(all(addresses), all(OtherAddresses::known(others)));
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
        addresses: &[SocketAddr],
        others: Option<&OtherAddresses>,
        now: Option<Moment>,
    ) -> Option<AddressChange> {
        let old = self.endpoints.load();
        // Where all are new, none has to start slowly.
        let now = now.filter(|_| !old.is_empty());
        let unused = OtherAddresses::known(others);
        if is_at(&old.endpoints, addresses) && is_at(&old.others, unused) {
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
        let endpoints = addresses.iter().map(endpoint).collect();
        let new = Arc::new(EndpointSet::new(endpoints, unused.iter().map(other).collect()));
        let gone = match others {
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
    ring: HashRing,
    /// Those that exist and get no new connections.
    others: Box<[Arc<Endpoint>]>,
}

impl EndpointSet {
    fn new(endpoints: Box<[Arc<Endpoint>]>, others: Box<[Arc<Endpoint>]>) -> Self {
        let ring = HashRing::new(endpoints.iter().map(|endpoint| endpoint.address));
        EndpointSet { endpoints, ring, others }
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
        self.ring.in_order_of(key).filter_map(|index| self.get(index))
    }
}

impl std::ops::Deref for EndpointSet {
    type Target = [Arc<Endpoint>];

    fn deref(&self) -> &Self::Target {
        &self.endpoints
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{Availability, ENDPOINT_REST, EjectionRule, FAMILY_REST};

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn kept_endpoints_keep_their_connections() {
        let backend = Backend::new(BackendKey::address("", "x"), &[], None);
        let (a, b, c) = (address("10.0.0.1:1"), address("10.0.0.2:1"), address("10.0.0.3:1"));
        assert!(backend.set_endpoints(&[a, b], None, None).is_some());
        let busy = backend.endpoints()[1].begin(Moment::now(), &EjectionRule::OFF);
        assert!(backend.set_endpoints(&[b, c], None, None).is_some());
        assert_eq!(backend.endpoints()[0].active(), 1);
        assert_eq!(backend.endpoints()[1].active(), 0);
        drop(busy);
        assert_eq!(backend.endpoints()[0].active(), 0);
    }

    /// Its connections went on meanwhile.
    #[test]
    fn an_endpoint_that_is_not_ready_for_a_moment_keeps_its_connections_and_not_its_failures() {
        let backend = Backend::new(BackendKey::address("", "x"), &[], None);
        let (a, b, now) = (address("10.0.0.1:1"), address("10.0.0.2:1"), Moment::now());
        backend.set_endpoints(&[a, b], None, None);
        let endpoint = Arc::clone(&backend.endpoints()[0]);
        let busy = endpoint.begin(now, &EjectionRule::OFF);
        endpoint.failed(now);
        let unready = OtherAddresses::Known(vec![a]);
        let change = backend.set_endpoints(&[b], Some(&unready), Some(now)).expect("a change");
        assert_eq!(change.gone, []);
        backend.set_endpoints(&[a, b], None, Some(now));
        let endpoint = Arc::clone(&backend.endpoints()[0]);
        assert_eq!(endpoint.active(), 1);
        assert_eq!(endpoint.availability(now, &EjectionRule::OFF), Availability::Well);
        drop(busy);
        assert_eq!(endpoint.active(), 0);
    }

    #[test]
    fn storing_the_same_endpoints_again_is_no_change() {
        let backend = Backend::new(BackendKey::address("", "x"), &[], None);
        assert!(backend.set_endpoints(&[], None, None).is_none());
        assert!(backend.set_endpoints(&[address("10.0.0.1:1")], None, None).is_some());
        assert!(backend.set_endpoints(&[address("10.0.0.1:1")], None, None).is_none());
    }

    #[test]
    fn kept_endpoints_keep_their_health() {
        let backend = Backend::new(BackendKey::address("", "x"), &[], None);
        let (a, b, now) = (address("10.0.0.1:1"), address("10.0.0.2:1"), Moment::now());
        backend.set_endpoints(&[a], None, None);
        backend.endpoints()[0].failed(now);
        backend.set_endpoints(&[a, b], None, None);
        let availability: Vec<_> =
            backend.endpoints().iter().map(|e| e.availability(now, &EjectionRule::OFF)).collect();
        assert_eq!(availability, [Availability::Resting, Availability::Well]);
    }

    #[test]
    fn a_family_without_a_route_ranks_before_failed_endpoints() {
        let addresses = ["10.0.0.1:1", "[::ffff:10.0.0.2]:1", "[fd00::1]:1", "[fd00::2]:1"];
        let addresses = addresses.map(address);
        let backend = Backend::new(BackendKey::address("", "x"), &addresses, None);
        let availability = |now: Moment| -> Vec<_> {
            backend
                .endpoints()
                .iter()
                .map(|endpoint| endpoint.availability(now, &EjectionRule::OFF))
                .collect()
        };
        use Availability::{Due, Resting, Unrouted, Well};
        let now = Moment::now();
        backend.endpoints()[2].unrouted(now);
        assert_eq!(availability(now), [Well, Well, Resting, Unrouted]);
        assert_eq!(availability(now + ENDPOINT_REST), [Well, Well, Unrouted, Unrouted]);
        // A forbidden endpoint does not affect the others.
        backend.endpoints()[3].refused(now);
        assert_eq!(availability(now), [Well, Well, Resting, Resting]);
        assert_eq!(availability(now + ENDPOINT_REST), [Well, Well, Unrouted, Unrouted]);
        let later = now + FAMILY_REST;
        assert_eq!(availability(later), [Well, Well, Due, Due]);
        // One trial at a time for the whole family.
        let trial = backend.endpoints()[3].begin(later, &EjectionRule::OFF);
        assert_eq!(availability(later), [Well, Well, Unrouted, Resting]);
        drop(trial);
        assert_eq!(availability(later), [Well, Well, Due, Due], "it has shown nothing");
        let trial = backend.endpoints()[3].begin(later, &EjectionRule::OFF);
        trial.settle(Endpoint::succeeded);
        drop(trial);
        assert_eq!(availability(later), [Well, Well, Due, Well]);
    }

    /// Earlier, each new endpoint was compared with each old one.
    #[test]
    fn replacing_very_many_endpoints_is_quick() {
        const MANY: u32 = 60_000;
        let addresses = |net: u32| -> Vec<SocketAddr> {
            (0..MANY).map(|n| (std::net::Ipv4Addr::from((net << 24) + n), 443).into()).collect()
        };
        let backend = Backend::new(BackendKey::address("", "x"), &addresses(10), None);
        let start = std::time::Instant::now();
        assert!(backend.set_endpoints(&addresses(11), None, None).is_some());
        // This took 12 s with the quadratic comparison, and takes some tens of milliseconds now, even
        // unoptimised.
        let took = start.elapsed();
        assert!(took < std::time::Duration::from_secs(2), "{took:?}");
    }
}
