//! Hashes by which every replica distributes keys over endpoints in the same way. A key is a source or a server
//! name.
//!
//! The choice is rendezvous hashing: the endpoint whose score with the key is highest. With many
//! endpoints, this would check each of them for every connection. So only a window of endpoints is compared,
//! which begins at the key's place on a ring of all endpoints. With up to [`WINDOW`] endpoints, the
//! window is the whole ring, and the removal of an endpoint moves only its own keys. With more, it also
//! adds an endpoint to the windows of other keys, and moves some of them: about as many as the endpoint
//! had itself. The share of an endpoint varies by 1/√`WINDOW`, which is 6 %.

use std::net::{IpAddr, SocketAddr};

/// The number of endpoints that are compared for one key.
const WINDOW: usize = 256;

/// The finaliser of SplitMix64: every input bit affects every output bit. It must not change, because all
/// replicas must use the same one.
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The hash of the bits of an address.
pub(super) fn hash_bits(bits: u128) -> u64 {
    mix(bits as u64 ^ mix((bits >> 64) as u64))
}

/// The hash of a text.
pub(super) fn hash_text(text: &str) -> u64 {
    text.as_bytes().chunks(8).fold(text.len() as u64, |hash, chunk| {
        let word = chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        mix(hash ^ word)
    })
}

/// The hash of an endpoint.
pub(super) fn hash_address(address: SocketAddr) -> u64 {
    let bits = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    mix(hash_bits(bits) ^ u64::from(address.port()))
}

/// Endpoints by hash.
#[derive(Debug, Default)]
pub(super) struct HashRing {
    /// The hash and index of each endpoint, sorted.
    points: Box<[(u64, u32)]>,
}

impl HashRing {
    pub(super) fn new(addresses: impl Iterator<Item = SocketAddr>) -> Self {
        let mut points: Box<[_]> =
            addresses.zip(0..).map(|(address, index)| (hash_address(address), index)).collect();
        points.sort_unstable();
        HashRing { points }
    }

    /// The indexes of the endpoints in the order in which `key`, a hash, should try them: those of its
    /// first window by score, the highest first, then those of the next window.
    pub(super) fn in_order_of(&self, key: u64) -> impl Iterator<Item = usize> {
        self.windows(key).flat_map(move |window| ScoredEndpoints::of(window, key))
    }

    /// The windows of `key`, in the order of the ring.
    fn windows(&self, key: u64) -> impl Iterator<Item = [&[(u64, u32)]; 2]> {
        let start = self.points.partition_point(|(hash, _)| *hash < key);
        let count = self.points.len();
        (0..count).step_by(WINDOW).map(move |passed| {
            let size = WINDOW.min(count - passed);
            let begin = (start + passed) % count;
            let end = begin + size;
            let part = |from: usize, to: usize| self.points.get(from..to).unwrap_or_default();
            [part(begin, end.min(count)), part(0, end.saturating_sub(count))]
        })
    }
}

/// The endpoints of a window by score. Nearly always only the first is used, so the others are sorted when
/// the second one is needed.
struct ScoredEndpoints {
    scored: [(u64, u32); WINDOW],
    count: usize,
    passed: usize,
}

impl ScoredEndpoints {
    fn of(window: [&[(u64, u32)]; 2], key: u64) -> Self {
        let mut scored = [(0, 0); WINDOW];
        let mut count = 0;
        for (slot, (hash, index)) in scored.iter_mut().zip(window.into_iter().flatten()) {
            *slot = (mix(key ^ hash), *index);
            count += 1;
        }
        ScoredEndpoints { scored, count, passed: 0 }
    }
}

impl Iterator for ScoredEndpoints {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let rest = self.scored.get_mut(self.passed..self.count)?;
        match self.passed {
            0 => {
                let best = rest.iter().enumerate().max_by_key(|(_, scored)| **scored)?.0;
                rest.swap(0, best);
            }
            1 => rest.sort_unstable_by(|a, b| b.cmp(a)),
            _ => {}
        }
        let (_, index) = rest.first()?;
        self.passed += 1;
        Some(*index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> SocketAddr {
        (std::net::Ipv4Addr::from(0x0a00_0000 + number), 443).into()
    }

    #[test]
    fn windows_cover_the_ring_once() {
        for count in [WINDOW as u32 + 1, 1000] {
            let ring = HashRing::new((0..count).map(address));
            for source in [0, 1, u64::MAX / 3, u64::MAX] {
                let windows: Vec<_> = ring.windows(source).collect();
                assert!(windows.iter().all(|[a, b]| a.len() + b.len() <= WINDOW));
                let mut all: Vec<_> = windows.iter().flatten().copied().flatten().collect();
                let first = all[0].0;
                assert!(first >= source || all.iter().all(|(hash, _)| *hash < source));
                all.sort_unstable();
                all.dedup();
                assert_eq!(all.len(), count as usize);
            }
        }
    }

    #[test]
    fn a_source_gets_each_endpoint_once_with_its_window_ordered_by_score() {
        for count in [0, 1, 2, WINDOW, WINDOW + 1, 300] {
            let ring = HashRing::new((0..count as u32).map(address));
            let order: Vec<usize> = ring.in_order_of(7).collect();
            let score = |index: &usize| mix(7 ^ hash_address(address(*index as u32)));
            let scores: Vec<u64> = order.iter().take(WINDOW).map(score).collect();
            assert!(scores.is_sorted_by(|a, b| a > b), "{count}");
            let mut all = order;
            all.sort_unstable();
            assert!(all.into_iter().eq(0..count), "{count}");
        }
    }
}
