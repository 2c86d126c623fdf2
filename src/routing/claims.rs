//! The index of claims by name.

use std::cmp::Ordering;

use super::claim::{Claim, Hasher, of_name};
use super::hostname::Hostname;
use super::protocol_index::{FEW, ProtocolIndex};
use super::shards::{ShardItem, Shards};

/// An index of claims by name; and by protocol, for names that many routes claim.
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
    pub(super) fn with(&self, mut gone: Vec<Claim>, mut new: Vec<Claim>, hasher: &Hasher) -> Self {
        let all = self.all.with(&mut gone, &mut new);
        let is_crowded = |claim: &&Claim| {
            [&self.all, &all].iter().any(|all| all.with_hash(claim.hash()).len() > FEW)
        };
        let mut touched: Vec<&Claim> =
            one_of_each_name(&gone).chain(one_of_each_name(&new)).filter(is_crowded).collect();
        touched.sort_unstable_by(|a, b| by_name(a, b));
        touched.dedup_by(|a, b| by_name(a, b).is_eq());
        let old =
            touched.iter().filter_map(|claim| self.protocol_index(claim.hash(), claim.name()));
        let mut old: Vec<ProtocolIndex> = old.cloned().collect();
        let new = touched.iter().filter_map(|claim| {
            let claims = of_name(all.with_hash(claim.hash()), claim.name());
            ProtocolIndex::of(claims, hasher)
        });
        let mut new: Vec<ProtocolIndex> = new.collect();
        let protocol_indexes = self.protocol_indexes.with(&mut old, &mut new);
        ClaimIndex { all, protocol_indexes }
    }

    /// The claims to the name with this hash, the highest precedence first.
    pub(super) fn of(&self, hash: u32, name: &str) -> &[Claim] {
        of_name(self.all.with_hash(hash), name)
    }

    /// The index of the claims to a name, if there are many.
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

/// The first claim to each name. The claims are sorted.
fn one_of_each_name(claims: &[Claim]) -> impl Iterator<Item = &Claim> {
    claims.chunk_by(|one, other| by_name(one, other).is_eq()).filter_map(<[Claim]>::first)
}

fn by_name(one: &Claim, other: &Claim) -> Ordering {
    one.hash().cmp(&other.hash()).then_with(|| one.name().cmp(other.name()))
}
