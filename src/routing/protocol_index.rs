//! An index by protocol of the claims to one hostname, if there are many.

use std::sync::Arc;

use super::claim::{Claim, Hasher};
use super::shards::{ShardItem, first_from};

/// Up to this many claims to one hostname are searched linearly.
pub(super) const FEW: usize = 4;

/// The protocol under which claims are listed whose routes do not ask for ALPN. No client can offer it.
pub(super) const NO_PROTOCOL: &[u8] = b"";

/// Stands for any listener, and for any namespace, in a demand.
const ANY: u32 = 0;

/// An index of the claims to one hostname. Only hostnames with more than [`FEW`] claims have one, so the cost
/// of a change does not grow with the protocols of a route.
#[derive(Clone, Debug)]
pub(super) struct ProtocolIndex {
    /// One of the claims, to identify the hostname.
    of: Claim,
    demands: DemandFilter,
    /// By protocol, then by position.
    asked: Arc<[ProtocolEntry]>,
}

/// A protocol that one of the claims asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProtocolEntry {
    /// The hash of the protocol.
    hash: u32,
    /// A bloom filter of the listeners that the route names; all bits if it names none.
    listeners: u32,
    /// The hash of the route's namespace.
    namespace: u32,
    /// The position of the claim; the first one wins.
    place: u32,
}

/// The listener and namespace that a claim must have. It rules out most other claims without reading their
/// route.
pub(super) struct ClaimFilter {
    listener: u32,
    namespace: Option<u32>,
}

impl ClaimFilter {
    /// A filter for a listener and, if given, a namespace.
    pub(super) fn new(hasher: &Hasher, listener: &str, namespace: Option<&str>) -> Self {
        let namespace = namespace.map(|namespace| hasher.hash(namespace));
        ClaimFilter { listener: hasher.hash(listener), namespace }
    }

    fn admits(&self, asked: &ProtocolEntry) -> bool {
        asked.listeners & bit(self.listener) != 0
            && self.namespace.is_none_or(|namespace| namespace == asked.namespace)
    }
}

impl ProtocolIndex {
    /// The index of all claims to one hostname. `None` if there are few.
    pub(super) fn of(claims: &[Claim], hasher: &Hasher) -> Option<Self> {
        let of = claims.first().filter(|_| claims.len() > FEW)?.clone();
        let (mut asked, mut demands) = (Vec::new(), Vec::new());
        for (place, claim) in (0..).zip(claims) {
            let spec = &claim.route.spec;
            let named = claim.attachment().map(|attachment| &attachment.listeners[..]);
            let named = named.unwrap_or_default().iter().map(|listener| hasher.hash(&**listener));
            let named: Vec<u32> = named.collect();
            let (listeners, on) = match &named[..] {
                [] => (u32::MAX, &[ANY][..]),
                some => (some.iter().fold(0, |all, one| all | bit(*one)), some),
            };
            let namespace = hasher.hash(spec.key.namespace());
            let none = spec.alpn.is_empty().then_some(NO_PROTOCOL);
            for protocol in spec.alpn.iter().map(|protocol| protocol.as_bytes()).chain(none) {
                let hash = hasher.protocol(protocol);
                asked.push(ProtocolEntry { hash, listeners, namespace, place });
                let of = [ANY, namespace];
                demands.extend(on.iter().flat_map(|on| of.map(|of| demand(hash, *on, of))));
            }
        }
        asked.sort_unstable_by_key(|asked| (asked.hash, asked.place));
        Some(ProtocolIndex { of, demands: DemandFilter::of(&demands), asked: asked.into() })
    }

    pub(super) fn name(&self) -> &str {
        self.of.name()
    }

    /// The positions of the claims that may ask for the protocol with this hash, in order.
    pub(super) fn asking(
        &self,
        protocol: u32,
        filter: &ClaimFilter,
    ) -> impl Iterator<Item = usize> {
        let same = self.asking_anywhere(protocol, filter).filter(|asked| filter.admits(asked));
        same.map(|asked| asked.place as usize)
    }

    /// All that ask for the protocol, if one of them may pass the filter.
    pub(super) fn asking_anywhere(
        &self,
        protocol: u32,
        filter: &ClaimFilter,
    ) -> impl Iterator<Item = &ProtocolEntry> + use<'_> {
        let of = filter.namespace.unwrap_or(ANY);
        let on = [filter.listener, ANY];
        let asked = match on.iter().any(|on| self.demands.may_have(demand(protocol, *on, of))) {
            true => &self.asked[..],
            false => &[],
        };
        let start = first_from(asked, protocol, u64::from(protocol), |asked| asked.hash);
        let rest = asked.get(start..).unwrap_or_default().iter();
        rest.take_while(move |asked| asked.hash == protocol)
    }
}

/// A bloom filter of what claims ask for. It rules out nearly all protocols that no claim of a listener and
/// namespace asks for, however many others ask for them, and costs one read of memory.
#[derive(Clone, Debug)]
struct DemandFilter(Arc<[u64]>);

impl DemandFilter {
    /// At most 8 KiB for each hostname.
    const MOST_WORDS: usize = 1 << 10;

    fn of(demands: &[u32]) -> Self {
        let count = (demands.len() / 8).next_power_of_two().min(Self::MOST_WORDS);
        let mut words = vec![0; count];
        for demand in demands {
            let (index, bits) = Self::place(*demand, count);
            words.get_mut(index).into_iter().for_each(|word| *word |= bits);
        }
        DemandFilter(words.into())
    }

    fn may_have(&self, demand: u32) -> bool {
        let (index, bits) = Self::place(demand, self.0.len());
        self.0.get(index).is_some_and(|word| word & bits == bits)
    }

    /// The word of a demand, and its two bits there.
    fn place(demand: u32, words: usize) -> (usize, u64) {
        ((demand >> 12) as usize % words, 1 << (demand & 63) | 1 << (demand >> 6 & 63))
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

/// The hash of a demand for connections with a protocol on a listener, by a namespace.
fn demand(protocol: u32, listener: u32, namespace: u32) -> u32 {
    let rest = listener ^ namespace.rotate_left(16);
    let both = u64::from(protocol) << 32 | u64::from(rest);
    (both.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

fn bit(listener: u32) -> u32 {
    1 << (listener >> (u32::BITS - u32::BITS.trailing_zeros()))
}
