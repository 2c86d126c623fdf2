//! Claims as a table holds them, to be found by name or by name and protocol.

use std::cmp::Ordering;
use std::hash::Hash;
use std::sync::Arc;

use ahash::RandomState;

use super::hostnames::Place;
use super::shards::Item;
use super::{Hostname, Route, RouteKey};

/// A route, to be found by its key.
#[derive(Clone, Debug)]
pub(super) struct Keyed {
    pub(super) route: Arc<Route>,
    /// Of the key.
    hash: u32,
}

/// A hostname that a route claims. There may be a million of them, so it is two words, and the name
/// is read in the route.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) route: Arc<Route>,
    /// Of the name, or of a wildcard's suffix.
    hash: u32,
    place: Place,
}

/// A hostname that a route claims for clients that offer one protocol, on one of its listeners or on
/// all.
#[derive(Clone, Debug)]
pub(super) struct AlpnClaim {
    pub(super) route: Arc<Route>,
    /// Of the hostname, the protocol and the listener.
    hash: u32,
    place: Place,
    /// Some bits of the hash of the route's namespace, so that most of those that are not meant are
    /// passed over without a look at the route.
    namespace: u16,
    /// Which of the route's protocols it is.
    protocol: u8,
    /// Which of the route's listeners it is; 0 if it has all.
    listener: u8,
}

/// Hashes, keyed so that nobody can choose names that meet.
#[derive(Clone, Debug, Default)]
pub(super) struct Hasher(RandomState);

impl Hasher {
    pub(super) fn hash<K: Hash + ?Sized>(&self, key: &K) -> u32 {
        (self.0.hash_one(key) >> 32) as u32
    }

    /// Of a protocol.
    pub(super) fn protocol(&self, protocol: &[u8]) -> u32 {
        self.hash(protocol)
    }

    /// Of a hostname with a protocol, from the hashes of its text and of the protocol, on a
    /// listener, from the hash of its name, or on all.
    pub(super) fn with_protocol(
        hostname: Hostname<&str>,
        text: u32,
        protocol: u32,
        listener: Option<u32>,
    ) -> u32 {
        let kind = u32::from(matches!(hostname, Hostname::Exact(_)));
        let listener = listener.unwrap_or_default().rotate_left(11);
        (text.rotate_left(5) ^ protocol ^ listener).wrapping_add(kind).wrapping_mul(0x9e37_79b1)
    }

    pub(super) fn namespace(&self, namespace: &str) -> u16 {
        (self.hash(namespace) >> 16) as u16
    }
}

impl Keyed {
    pub(super) fn new(route: &Arc<Route>, hasher: &Hasher) -> Self {
        Keyed { route: Arc::clone(route), hash: hasher.hash(&route.spec.key) }
    }
}

impl Claim {
    pub(super) fn new(
        route: &Arc<Route>,
        place: Place,
        hostname: Hostname<&str>,
        hasher: &Hasher,
    ) -> Self {
        Claim { route: Arc::clone(route), hash: hasher.hash(hostname.text()), place }
    }

    /// The name, or a wildcard's suffix; nothing for `*`.
    pub(super) fn name(&self) -> &str {
        self.route.spec.hostnames.text_at(self.place)
    }

    /// The same claim, once for each protocol that its route asks for on each of its listeners.
    pub(super) fn by_protocol<'c>(
        &'c self,
        hasher: &'c Hasher,
    ) -> impl Iterator<Item = AlpnClaim> + use<'c> {
        let spec = &self.route.spec;
        let namespace = hasher.namespace(spec.key.namespace());
        let hostname = spec.hostnames.at(self.place);
        // A route has no more of either than a byte can number; of more, the rest is found by none.
        (0..=u8::MAX).zip(&spec.alpn).flat_map(move |(protocol, name)| {
            let name = hasher.protocol(name.as_bytes());
            (0..=u8::MAX).map_while(move |number| {
                let listener = spec.listeners.get(usize::from(number));
                if listener.is_none() && (number > 0 || !spec.listeners.is_empty()) {
                    return None;
                }
                let listener = listener.map(|listener| hasher.hash(&**listener));
                Some(AlpnClaim {
                    route: Arc::clone(&self.route),
                    hash: Hasher::with_protocol(hostname, self.hash, name, listener),
                    place: self.place,
                    namespace,
                    protocol,
                    listener: number,
                })
            })
        })
    }
}

impl AlpnClaim {
    fn hostname(&self) -> Hostname<&str> {
        self.route.spec.hostnames.at(self.place)
    }

    /// The name, or a wildcard's suffix; nothing for `*`.
    pub(super) fn text(&self) -> &str {
        self.route.spec.hostnames.text_at(self.place)
    }

    fn protocol(&self) -> &str {
        self.route.spec.alpn.get(usize::from(self.protocol)).map_or("", |protocol| protocol)
    }

    fn listener(&self) -> Option<&str> {
        self.route.spec.listeners.get(usize::from(self.listener)).map(|listener| &**listener)
    }

    /// Whether it is of this hostname and protocol.
    pub(super) fn is_of(&self, hostname: Hostname<&str>, protocol: &[u8]) -> bool {
        self.protocol().as_bytes() == protocol && self.hostname() == hostname
    }

    /// Whether it may be of this namespace; false if it is not.
    pub(super) fn may_be_of(&self, namespace: Option<u16>) -> bool {
        namespace.is_none_or(|one| one == self.namespace)
    }
}

impl Item for Keyed {
    fn hash(&self) -> u32 {
        self.hash
    }

    fn order(&self, other: &Self) -> Ordering {
        self.route.spec.key.cmp(&other.route.spec.key)
    }

    fn shares_key(&self, other: &Self) -> bool {
        self.route.spec.key == other.route.spec.key
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.route, &other.route)
    }
}

impl Item for Claim {
    fn hash(&self) -> u32 {
        self.hash
    }

    /// By name, and the one with the highest precedence first.
    fn order(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name()).then_with(|| precedence(&self.route, &other.route))
    }

    fn shares_key(&self, other: &Self) -> bool {
        self.name() == other.name()
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.route, &other.route) && self.place == other.place
    }
}

impl Item for AlpnClaim {
    fn hash(&self) -> u32 {
        self.hash
    }

    /// By hostname, protocol and listener, and the one with the highest precedence first.
    fn order(&self, other: &Self) -> Ordering {
        let kind = |claim: &Self| claim.hostname().is_exact();
        kind(self)
            .cmp(&kind(other))
            .then_with(|| self.text().cmp(other.text()))
            .then_with(|| self.protocol().cmp(other.protocol()))
            .then_with(|| self.listener().cmp(&other.listener()))
            .then_with(|| precedence(&self.route, &other.route))
    }

    fn shares_key(&self, other: &Self) -> bool {
        self.hostname() == other.hostname()
            && self.protocol() == other.protocol()
            && self.listener() == other.listener()
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.route, &other.route)
            && self.place == other.place
            && (self.protocol, self.listener) == (other.protocol, other.listener)
    }
}

/// What a table has of one key: mostly one item, and a neighbour only if two hashes meet.
pub(super) fn of_name<'c>(same_hash: &'c [Claim], name: &str) -> &'c [Claim] {
    match same_hash {
        [] => &[],
        [only] if only.name() == name => same_hash,
        [_] => &[],
        [first, .., last] if first.name() == name && last.name() == name => same_hash,
        several => {
            let start = several.partition_point(|claim| claim.name() < name);
            let rest = several.get(start..).unwrap_or_default();
            let length = rest.partition_point(|claim| claim.name() == name);
            rest.get(..length).unwrap_or_default()
        }
    }
}

/// The greater first.
fn precedence(one: &Route, other: &Route) -> Ordering {
    other.spec.precedence().cmp(&one.spec.precedence())
}

/// Of two routes, whose claims are older: its key.
pub(super) fn older<'r>(one: Option<&'r Route>, other: Option<&'r Route>) -> Option<&'r RouteKey> {
    let oldest = one.into_iter().chain(other).min_by(|a, b| a.spec.age().cmp(&b.spec.age()));
    oldest.map(|route| &route.spec.key)
}
