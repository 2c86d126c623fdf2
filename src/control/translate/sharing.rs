//! Decides which namespaces share a hostname, and which claims a wildcard above it excludes.

use std::cell::RefCell;

use ahash::{AHashMap as HashMap, AHashSet as HashSet};

use super::claims::{Claims, HostnameClaims};
use super::domain::Domain;
use super::grants::Grants;
use crate::routing::{Age, ClaimConflict, Hostname, Kind, Referrer};

/// The namespaces with which the owners of a hostname share it.
pub(super) struct Sharing<'c> {
    known: &'c HostnameClaims,
    grants: &'c Grants,
    /// The names of the routes that claim the hostname, for each owner that was checked.
    routes: RefCell<HashMap<Box<str>, NamesByKind<'c>>>,
}

/// Names of objects, by their kind.
type NamesByKind<'c> = HashMap<Kind, HashSet<&'c str>>;

impl<'c> Sharing<'c> {
    pub(super) fn of(known: &'c HostnameClaims, grants: &'c Grants) -> Self {
        Sharing { known, grants, routes: RefCell::default() }
    }

    /// Whether the namespace `owner` shares the hostname with `from`: a grant allows `from` to refer to one
    /// of the owner's routes that claim the hostname.
    pub(super) fn has(&self, owner: &str, from: Referrer<'_>) -> bool {
        self.grants.allows_one(from, owner, |kind, name| {
            let mut routes = self.routes.borrow_mut();
            if !routes.contains_key(owner) {
                routes.insert(owner.into(), self.routes_of(owner));
            }
            let names = routes.get(owner).and_then(|routes| routes.get(&kind));
            names.is_some_and(|names| name.is_none_or(|name| names.contains(name)))
        })
    }

    fn routes_of(&self, owner: &str) -> NamesByKind<'c> {
        let mut routes = NamesByKind::new();
        for age in self.known.ages().filter(|age| age.namespace() == owner) {
            routes.entry(age.key().kind()).or_default().insert(age.key().name());
        }
        routes
    }
}

/// The wildcards above a hostname that exclude younger claims.
pub(super) struct ProtectingWildcards<'c>(Vec<ProtectingWildcard<'c>>);

struct ProtectingWildcard<'c> {
    wildcard: Hostname,
    owner: &'c Age,
    sharing: Sharing<'c>,
    /// The namespaces that share it, as far as they were checked.
    shared: RefCell<HashMap<Referrer<'c>, bool>>,
}

impl<'c> ProtectingWildcards<'c> {
    /// The nearest wildcard that is older than a claim decides. So only those wildcards are kept that are
    /// older than all nearer ones.
    pub(super) fn above(claims: &'c Claims, hostname: &'c Hostname, grants: &'c Grants) -> Self {
        let mut wildcards: Vec<ProtectingWildcard<'_>> = Vec::new();
        for (suffix, wildcard) in claims.wildcards.above(hostname) {
            let Some(owner) = &wildcard.owner else { continue };
            if wildcards.last().is_some_and(|nearer| nearer.owner <= owner) {
                continue;
            }
            let wildcard = Hostname::Wildcard(suffix.clone());
            let Some(known) = claims.known.get(&Domain(wildcard.clone())) else { continue };
            let (sharing, shared) = (Sharing::of(known, grants), RefCell::default());
            wildcards.push(ProtectingWildcard { wildcard, owner, sharing, shared });
        }
        ProtectingWildcards(wildcards)
    }

    /// The conflict with a wildcard that excludes this claim, if any.
    pub(super) fn conflict(&self, age: &'c Age) -> Option<ClaimConflict> {
        let at = self.0.partition_point(|wildcard| wildcard.owner >= age);
        let wildcard = self.0.get(at)?;
        (!wildcard.lets_in(age.key().referrer())).then(|| ClaimConflict::Below {
            wildcard: wildcard.wildcard.clone(),
            owner: wildcard.owner.key().clone(),
        })
    }
}

impl<'c> ProtectingWildcard<'c> {
    fn lets_in(&self, claimant: Referrer<'c>) -> bool {
        if claimant.namespace == self.owner.namespace() {
            return true;
        }
        let known = self.shared.borrow().get(&claimant).copied();
        known.unwrap_or_else(|| {
            let shared = self.sharing.has(self.owner.namespace(), claimant);
            self.shared.borrow_mut().insert(claimant, shared);
            shared
        })
    }
}
