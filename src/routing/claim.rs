//! Claims as the table stores them.

use std::cmp::Ordering;
use std::hash::Hash;
use std::sync::Arc;

use ahash::RandomState;

use super::attachment::ClaimPlace;
use super::shards::ShardItem;
use super::{Attachment, Hostname, Route, RouteKey};

/// A route, indexed by its key.
#[derive(Clone, Debug)]
pub(super) struct RouteEntry {
    pub(super) route: Arc<Route>,
    /// The hash of the key.
    hash: u32,
}

/// A hostname that a route claims. It has 16 bytes, because there may be a million claims; the name is read
/// from the route.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) route: Arc<Route>,
    /// The hash of the name, or of a wildcard's suffix.
    hash: u32,
    place: ClaimPlace,
}

/// A keyed hash, so that clients and routes cannot cause collisions.
#[derive(Clone, Debug, Default)]
pub(super) struct Hasher(RandomState);

impl Hasher {
    pub(super) fn hash<K: Hash + ?Sized>(&self, key: &K) -> u32 {
        (self.0.hash_one(key) >> 32) as u32
    }

    /// The hash of a protocol.
    pub(super) fn protocol(&self, protocol: &[u8]) -> u32 {
        self.hash(protocol)
    }
}

impl RouteEntry {
    pub(super) fn new(route: &Arc<Route>, hasher: &Hasher) -> Self {
        RouteEntry { route: Arc::clone(route), hash: hasher.hash(&route.spec.key) }
    }
}

impl Claim {
    pub(super) fn new(
        route: &Arc<Route>,
        place: ClaimPlace,
        hostname: Hostname<&str>,
        hasher: &Hasher,
    ) -> Self {
        Claim { route: Arc::clone(route), hash: hasher.hash(hostname.text()), place }
    }

    /// The name, or a wildcard's suffix; empty for `*`.
    pub(super) fn name(&self) -> &str {
        let attachment = self.attachment();
        attachment.map_or("", |attachment| attachment.hostnames.text_at(self.place.place()))
    }

    /// Its attachment.
    pub(super) fn attachment(&self) -> Option<&Attachment> {
        self.route.spec.attachments.get(self.place.attachment())
    }

    /// Whether its route asks for ALPN.
    pub(super) fn asks(&self) -> bool {
        !self.route.spec.alpn.is_empty()
    }
}

impl ShardItem for RouteEntry {
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

impl ShardItem for Claim {
    fn hash(&self) -> u32 {
        self.hash
    }

    /// By name; of one name, the highest precedence first.
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

/// Of the claims with the same hash, those to `name`. Nearly always these are all, because hashes rarely
/// collide.
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

/// The greater precedence first.
fn precedence(one: &Route, other: &Route) -> Ordering {
    other.spec.precedence().cmp(&one.spec.precedence())
}

/// The key of the route with the older claims.
pub(super) fn older<'r>(one: Option<&'r Route>, other: Option<&'r Route>) -> Option<&'r RouteKey> {
    let oldest = one.into_iter().chain(other).min_by(|a, b| a.spec.age().cmp(&b.spec.age()));
    oldest.map(|route| &route.spec.key)
}
