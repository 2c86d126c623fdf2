//! The index of one scope's hostnames.

use std::sync::Arc;

use super::attachment::ClaimPlace;
use super::claim::{Claim, Hasher};
use super::claims::ScopeClaims;
use super::hostname::labels;
use super::lookup::{LookupState, Match, MatchKind};
use super::{Hostname, Route, Scope};

/// The index of all claims to hostnames of one scope.
#[derive(Clone, Debug, Default)]
pub(super) struct HostIndex {
    claims: ScopeClaims,
    depths: Depths,
}

/// The label depths at which wildcards exist. Only suffixes of these depths are looked up.
#[derive(Clone, Debug)]
struct Depths {
    /// The number of claims to wildcards with this number of labels in the suffix. A name has at most 127
    /// labels (RFC 1035 §2.3.4).
    count: Box<[u32; 128]>,
    /// One bit for each count that is not 0.
    bits: u128,
}

impl HostIndex {
    /// A new index without the claims of `gone` in this scope, and with those of `new`.
    pub(super) fn with<'r>(
        &self,
        scope: &Scope,
        gone: impl Iterator<Item = &'r Arc<Route>>,
        new: impl Iterator<Item = &'r Arc<Route>>,
        hasher: &Hasher,
    ) -> Self {
        let (gone, new) = (ClaimLists::of(gone, scope, hasher), ClaimLists::of(new, scope, hasher));
        let mut depths = self.depths.clone();
        gone.depths().for_each(|labels| depths.remove(labels));
        new.depths().for_each(|labels| depths.add(labels));
        HostIndex {
            claims: ScopeClaims {
                exact: self.claims.exact.with(gone.exact, new.exact, hasher),
                wildcards: self.claims.wildcards.with(gone.wildcards, new.wildcards, hasher),
            },
            depths,
        }
    }

    /// See [`Table::lookup`](super::Table::lookup).
    pub(super) fn lookup<'t, 'o>(
        &'t self,
        name: Option<&str>,
        listener: &str,
        offers: impl Iterator<Item = &'o [u8]>,
        hasher: &'t Hasher,
    ) -> Option<Match<'t>> {
        let mut search = LookupState::new(&self.claims, hasher, listener, offers);
        if let Some(name) = name {
            if let Some(found) = search.level(Hostname::Exact(name)) {
                return Some(Match { route: found.route, kind: MatchKind::Exact });
            }
            for suffix in self.depths.suffixes(name) {
                if let Some(found) = search.level(Hostname::Wildcard(suffix)) {
                    let kind = MatchKind::Wildcard(found.text);
                    return Some(Match { route: found.route, kind });
                }
            }
        }
        let found = search.level(Hostname::Any)?;
        Some(Match { route: found.route, kind: MatchKind::Any })
    }

    /// The claims of the scope.
    #[cfg(test)]
    pub(super) fn claims(&self) -> &ScopeClaims {
        &self.claims
    }

    /// The number of claimed hostnames.
    pub(super) fn len(&self) -> usize {
        self.claims.len()
    }
}

impl Default for Depths {
    fn default() -> Self {
        Depths { count: Box::new([0; 128]), bits: 0 }
    }
}

impl Depths {
    /// Adds a wildcard with this number of labels in the suffix.
    fn add(&mut self, labels: usize) {
        if let Some(count) = self.count.get_mut(labels) {
            *count = count.saturating_add(1);
            self.bits |= depth(labels);
        }
    }

    /// Removes a wildcard with this number of labels in the suffix.
    fn remove(&mut self, labels: usize) {
        if let Some(count) = self.count.get_mut(labels) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.bits &= !depth(labels);
            }
        }
    }

    /// The parent suffixes of `name`, longest first, at the depths where a wildcard exists.
    fn suffixes<'n>(&self, name: &'n str) -> impl Iterator<Item = &'n str> + use<'n> {
        let bits = self.bits;
        let count = if bits == 0 { 0 } else { labels(name) };
        name.match_indices('.')
            .take(count)
            .enumerate()
            .filter(move |(index, _)| bits & depth(count - 1 - index) != 0)
            .map(move |(_, (dot, _))| &name[dot + 1..])
    }
}

fn depth(labels: usize) -> u128 {
    u32::try_from(labels).ok().and_then(|labels| 1u128.checked_shl(labels)).unwrap_or(0)
}

/// The claims of some routes.
#[derive(Default)]
struct ClaimLists {
    exact: Vec<Claim>,
    wildcards: Vec<Claim>,
}

impl ClaimLists {
    fn of<'r>(
        routes: impl Iterator<Item = &'r Arc<Route>>,
        scope: &Scope,
        hasher: &Hasher,
    ) -> Self {
        let mut entries = ClaimLists::default();
        for route in routes {
            let attachments = route.spec.attachments.iter().enumerate();
            for (number, attachment) in attachments.filter(|(_, one)| one.scope == *scope) {
                for (place, hostname) in attachment.hostnames.places() {
                    let Some(place) = ClaimPlace::new(number, place) else { continue };
                    let claim = Claim::new(route, place, hostname, hasher);
                    match hostname {
                        Hostname::Exact(_) => entries.exact.push(claim),
                        Hostname::Wildcard(_) | Hostname::Any => entries.wildcards.push(claim),
                    }
                }
            }
        }
        entries
    }

    /// The number of labels in the suffix of each wildcard.
    fn depths(&self) -> impl Iterator<Item = usize> {
        let suffixes = self.wildcards.iter().map(Claim::name);
        suffixes.filter(|suffix| !suffix.is_empty()).map(labels)
    }
}
