//! Which routes may refer to Services of other namespaces, and have their hostnames.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ahash::AHashMap as HashMap;

use crate::control::api::{ReferenceGrant, ReferenceGrantSpec};
use crate::routing::{ObjectKey, RouteKey};

/// The grants, and the routes that need one.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// By the namespace that they open.
    known: HashMap<Arc<str>, BTreeMap<ObjectKey, ReferenceGrantSpec>>,
    /// The routes that refer to a namespace which is not their own.
    users: HashMap<Arc<str>, BTreeSet<RouteKey>>,
}

impl Grants {
    /// Takes a grant over; returns whether it is news.
    pub(super) fn put(&mut self, key: &ObjectKey, grant: &ReferenceGrant) -> bool {
        let grants = self.known.entry(key.namespace().into()).or_default();
        if grants.get(key) == Some(&grant.spec) {
            return false;
        }
        grants.insert(key.clone(), grant.spec.clone());
        true
    }

    /// Forgets a grant; returns whether there was one.
    pub(super) fn remove(&mut self, key: &ObjectKey) -> bool {
        let Some(grants) = self.known.get_mut(key.namespace()) else { return false };
        let known = grants.remove(key).is_some();
        if grants.is_empty() {
            self.known.remove(key.namespace());
        }
        known
    }

    /// Whether the routes of `namespace` may refer to `service`.
    pub(super) fn allow(&self, namespace: &str, service: &ObjectKey) -> bool {
        namespace == service.namespace()
            || self
                .known
                .get(service.namespace())
                .into_iter()
                .flat_map(BTreeMap::values)
                .any(|grant| grant.allows(namespace, service.name()))
    }

    /// Whether `owner` lets the routes of `namespace` have a hostname that it owns; `claims` tells
    /// which of the owner's routes claim it.
    pub(super) fn share(
        &self,
        owner: &str,
        namespace: &str,
        claims: impl Fn(&str) -> bool,
    ) -> bool {
        let grants = self.known.get(owner).into_iter().flat_map(BTreeMap::values);
        grants.into_iter().any(|grant| grant.shares(namespace, &claims))
    }

    /// The routes that refer to `namespace` from another one.
    pub(super) fn users(&self, namespace: &str) -> impl Iterator<Item = &RouteKey> {
        self.users.get(namespace).into_iter().flatten()
    }

    /// Notes that `route` refers to Services of `namespace`.
    pub(super) fn add_user(&mut self, route: &RouteKey, namespace: &str) {
        if route.namespace() != namespace {
            self.users.entry(namespace.into()).or_default().insert(route.clone());
        }
    }

    /// Notes that `route` refers to nothing in `namespace` any more.
    pub(super) fn remove_user(&mut self, route: &RouteKey, namespace: &str) {
        if let Some(users) = self.users.get_mut(namespace) {
            users.remove(route);
            if users.is_empty() {
                self.users.remove(namespace);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.users.is_empty()
    }
}
