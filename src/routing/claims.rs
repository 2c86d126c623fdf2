//! The index of claims by name.

use std::cmp::Ordering;

use super::claim::{Claim, Hasher, of_name};
use super::hostname::Hostname;
use super::protocol_index::ProtocolIndex;
use super::shards::{ShardItem, Shards};

/// An index of claims by name; and by protocol, for names that many routes with ALPN claim.
#[derive(Clone, Debug, Default)]
pub(super) struct ClaimIndex {
    all: Shards<Claim>,
    protocol_indexes: Shards<ProtocolIndex>,
}

/// The claims of one scope, by the kind of their hostnames.
#[derive(Clone, Debug, Default)]
pub(super) struct ScopeClaims {
    pub(super) exact: ClaimIndex,
    /// By suffix, without the `*.`. Claims to `*` have the empty suffix, which no wildcard has.
    pub(super) wildcards: ClaimIndex,
}

impl ScopeClaims {
    /// The index that has the claims to this kind of hostname.
    pub(super) fn of(&self, hostname: Hostname<&str>) -> &ClaimIndex {
        match hostname {
            Hostname::Exact(_) => &self.exact,
            Hostname::Wildcard(_) | Hostname::Any => &self.wildcards,
        }
    }

    /// The number of claimed hostnames.
    pub(super) fn len(&self) -> usize {
        self.exact.names() + self.wildcards.names()
    }
}

impl ClaimIndex {
    /// The same claims without `gone` and with `new`.
    pub(super) fn with(&self, gone: Vec<Claim>, new: Vec<Claim>, hasher: &Hasher) -> Self {
        let mut touched: Vec<Claim> =
            gone.iter().chain(&new).filter(|c| c.asks()).cloned().collect();
        let all = self.all.with(gone, new);
        // One claim for each name.
        touched.sort_unstable_by(by_name);
        touched.dedup_by(|a, b| by_name(a, b).is_eq());
        let old =
            touched.iter().filter_map(|claim| self.protocol_index(claim.hash(), claim.name()));
        let old = old.cloned().collect();
        let protocol_indexes = touched.iter().filter_map(|claim| {
            let claims = of_name(all.with_hash(claim.hash()), claim.name());
            ProtocolIndex::of(split(claims).0, hasher)
        });
        let protocol_indexes = self.protocol_indexes.with(old, protocol_indexes.collect());
        ClaimIndex { all, protocol_indexes }
    }

    /// The claims to the name with this hash, the highest precedence first.
    pub(super) fn of(&self, hash: u32, name: &str) -> &[Claim] {
        of_name(self.all.with_hash(hash), name)
    }

    /// The index of the claims to a name that ask for ALPN, if there are many.
    pub(super) fn protocol_index(&self, hash: u32, name: &str) -> Option<&ProtocolIndex> {
        self.protocol_indexes
            .with_hash(hash)
            .iter()
            .find(|protocol_index| protocol_index.name() == name)
    }

    /// The number of claimed names.
    pub(super) fn names(&self) -> usize {
        self.all.keys()
    }
}

/// Splits the claims to one name into those that ask for ALPN, which are first, and the others.
pub(super) fn split(claims: &[Claim]) -> (&[Claim], &[Claim]) {
    let asking = claims.partition_point(Claim::asks);
    claims.split_at_checked(asking).unwrap_or_default()
}

fn by_name(one: &Claim, other: &Claim) -> Ordering {
    one.hash().cmp(&other.hash()).then_with(|| one.name().cmp(other.name()))
}
