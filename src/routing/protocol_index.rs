//! An index by protocol of the claims to one hostname, if many of their routes ask for ALPN.

use std::sync::Arc;

use super::claim::{Claim, Hasher};
use super::shards::{ShardItem, first_from};

/// Up to this many claims to one hostname are searched linearly.
pub(super) const FEW: usize = 4;

/// An index of the claims to one hostname whose routes ask for ALPN. Only hostnames with more than [`FEW`]
/// such claims have one, so the cost of a change does not grow with the protocols of a route.
#[derive(Clone, Debug)]
pub(super) struct ProtocolIndex {
    /// One of the claims, to identify the hostname.
    of: Claim,
    asked: Arc<[ProtocolEntry]>,
}

/// A protocol that one of the claims asks for.
#[derive(Clone, Copy, Debug)]
struct ProtocolEntry {
    /// The hash of the protocol, and of the listener if the route names exactly one.
    hash: u32,
    /// A bloom filter of the listeners that the route names; all bits if it names none.
    listeners: u32,
    /// The same of all entries with this hash, so that they can be skipped together.
    all_listeners: u32,
    /// The position of the claim; the first one wins.
    place: u32,
    /// Some bits of the hash of the route's namespace.
    namespace: u16,
}

/// The listener and namespace that a claim must have. It rules out most other claims without reading their
/// route.
pub(super) struct ClaimFilter {
    listener: u32,
    namespace: Option<u16>,
}

impl ClaimFilter {
    /// A filter for a listener and, if given, a namespace.
    pub(super) fn new(hasher: &Hasher, listener: &str, namespace: Option<&str>) -> Self {
        let namespace = namespace.map(|namespace| short(hasher.hash(namespace)));
        ClaimFilter { listener: hasher.hash(listener), namespace }
    }

    fn admits(&self, asked: &ProtocolEntry) -> bool {
        asked.listeners & bit(self.listener) != 0
            && self.namespace.is_none_or(|namespace| namespace == asked.namespace)
    }
}

impl ProtocolIndex {
    /// The index of `asking`, which are all claims to one hostname whose routes ask for ALPN. `None` if
    /// there are few.
    pub(super) fn of(asking: &[Claim], hasher: &Hasher) -> Option<Self> {
        let of = asking.first().filter(|_| asking.len() > FEW)?.clone();
        let mut asked = Vec::new();
        for (place, claim) in (0..).zip(asking) {
            let spec = &claim.route.spec;
            let hash = |listener: &str| hasher.hash(listener);
            let on = claim.attachment().map(|attachment| &attachment.listeners[..]);
            let (listeners, only) = match on.unwrap_or_default() {
                [] => (u32::MAX, None),
                [only] => (u32::MAX, Some(hash(only))),
                several => (several.iter().fold(0, |all, one| all | bit(hash(one))), None),
            };
            let namespace = short(hasher.hash(spec.key.namespace()));
            asked.extend(spec.alpn.iter().map(|protocol| {
                let hash = of_protocol(hasher.protocol(protocol.as_bytes()), only);
                ProtocolEntry { hash, listeners, all_listeners: 0, place, namespace }
            }));
        }
        asked.sort_unstable_by_key(|asked| (asked.hash, asked.place));
        for same in asked.chunk_by_mut(|one, other| one.hash == other.hash) {
            let all_listeners = same.iter().fold(0, |all, asked| all | asked.listeners);
            same.iter_mut().for_each(|asked| asked.all_listeners = all_listeners);
        }
        Some(ProtocolIndex { of, asked: asked.into() })
    }

    pub(super) fn name(&self) -> &str {
        self.of.name()
    }

    /// The positions of the claims that may ask for the protocol with this hash: first of routes that name
    /// only this listener, then of routes that name several or none. Both are in order.
    pub(super) fn asking<'c>(
        &'c self,
        protocol: u32,
        filter: &'c ClaimFilter,
    ) -> [impl Iterator<Item = usize> + use<'c>; 2] {
        [Some(filter.listener), None].map(|only| {
            let hash = of_protocol(protocol, only);
            let start = first_from(&self.asked, hash, u64::from(hash), |asked| asked.hash);
            let rest = self.asked.get(start..).unwrap_or_default().iter();
            let may_admit = bit(filter.listener);
            let same = rest.take_while(move |asked| {
                asked.hash == hash && asked.all_listeners & may_admit != 0
            });
            same.filter(|asked| filter.admits(asked)).map(|asked| asked.place as usize)
        })
    }
}

impl ShardItem for ProtocolIndex {
    fn hash(&self) -> u32 {
        self.of.hash()
    }

    fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.name().cmp(other.name())
    }

    fn shares_key(&self, other: &Self) -> bool {
        self.name() == other.name()
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.asked, &other.asked)
    }
}

fn of_protocol(protocol: u32, listener: Option<u32>) -> u32 {
    (protocol ^ listener.unwrap_or_default().rotate_left(11)).wrapping_mul(0x9e37_79b1)
}

fn bit(listener: u32) -> u32 {
    1 << (listener >> (u32::BITS - u32::BITS.trailing_zeros()))
}

fn short(hash: u32) -> u16 {
    (hash >> 16) as u16
}
