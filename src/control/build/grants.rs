//! Which routes may refer to Services of other namespaces, and have their hostnames.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ahash::{AHashMap as HashMap, AHashSet as HashSet};

use crate::control::api::{GrantFrom, GrantTo, ReferenceGrant, ReferenceGrantSpec};
use crate::routing::{ObjectKey, RouteKey};

/// The grants, and the routes that need one.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// By the namespace that they open.
    known: HashMap<Arc<str>, Opened>,
    /// The routes that refer to a namespace which is not their own.
    users: HashMap<Arc<str>, BTreeSet<RouteKey>>,
    /// How many grants, and names in them, were looked at.
    #[cfg(test)]
    pub(super) looked_at: std::cell::Cell<usize>,
}

/// The grants of one namespace.
#[derive(Debug, Default)]
struct Opened {
    /// Each with the `metadata.uid` of its object.
    grants: BTreeMap<ObjectKey, (Grant, Option<Box<str>>)>,
    /// By the namespace whose routes may refer.
    from: HashMap<Box<str>, BTreeMap<ObjectKey, Arc<Granted>>>,
}

/// What matters of a grant.
#[derive(Debug, PartialEq, Eq)]
struct Grant {
    /// The namespaces whose routes may refer.
    from: BTreeSet<Box<str>>,
    granted: Arc<Granted>,
}

/// To what.
#[derive(Debug, PartialEq, Eq)]
struct Granted {
    services: Objects,
    routes: Objects,
}

/// Objects of one kind in the grant's namespace.
#[derive(Debug, PartialEq, Eq)]
enum Objects {
    All,
    Some(HashSet<Box<str>>),
}

impl Grants {
    /// Takes a grant over; returns whether it is news.
    pub(super) fn put(&mut self, key: &ObjectKey, grant: &ReferenceGrant) -> bool {
        let uid = grant.metadata.uid.as_deref().map(Into::into);
        let grant = Grant::of(&grant.spec);
        let opened = self.known.get_mut(key.namespace());
        if let Some((known, of)) = opened.and_then(|opened| opened.grants.get_mut(key))
            && *known == grant
        {
            *of = uid;
            return false;
        }
        self.remove(key);
        let opened = self.known.entry(key.namespace().into()).or_default();
        for namespace in &grant.from {
            let from = opened.from.entry(namespace.clone()).or_default();
            from.insert(key.clone(), Arc::clone(&grant.granted));
        }
        opened.grants.insert(key.clone(), (grant, uid));
        true
    }

    /// Whether a grant is known, and of the object with this `metadata.uid`.
    pub(super) fn has(&self, key: &ObjectKey, uid: Option<&str>) -> bool {
        let known = self.known.get(key.namespace()).and_then(|opened| opened.grants.get(key));
        known.is_some_and(|(_, of)| of.as_deref() == uid)
    }

    /// Forgets a grant; returns whether there was one.
    pub(super) fn remove(&mut self, key: &ObjectKey) -> bool {
        let Some(opened) = self.known.get_mut(key.namespace()) else { return false };
        let Some((grant, _)) = opened.grants.remove(key) else { return false };
        for namespace in grant.from {
            if let Some(from) = opened.from.get_mut(&namespace) {
                from.remove(key);
                if from.is_empty() {
                    opened.from.remove(&namespace);
                }
            }
        }
        if opened.grants.is_empty() {
            self.known.remove(key.namespace());
        }
        true
    }

    /// Whether the routes of `namespace` may refer to `service`.
    pub(super) fn allow(&self, namespace: &str, service: &ObjectKey) -> bool {
        namespace == service.namespace()
            || self
                .granted(service.namespace(), namespace)
                .any(|granted| granted.services.has(service.name()))
    }

    /// Whether `owner` lets the routes of `namespace` have a hostname that it owns; `claims` tells
    /// which of the owner's routes claim it.
    pub(super) fn share(
        &self,
        owner: &str,
        namespace: &str,
        claims: impl Fn(&str) -> bool,
    ) -> bool {
        self.granted(owner, namespace).any(|granted| match &granted.routes {
            Objects::All => true,
            Objects::Some(names) => names.iter().any(|name| {
                self.note_work();
                claims(name)
            }),
        })
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

    /// What `opened` grants to the routes of another namespace.
    fn granted(&self, opened: &str, namespace: &str) -> impl Iterator<Item = &Granted> {
        let from = self.known.get(opened).and_then(|opened| opened.from.get(namespace));
        from.into_iter().flat_map(BTreeMap::values).map(|granted| {
            self.note_work();
            &**granted
        })
    }

    fn note_work(&self) {
        #[cfg(test)]
        self.looked_at.set(self.looked_at.get() + 1);
    }
}

impl Grant {
    fn of(spec: &ReferenceGrantSpec) -> Self {
        let is_route = |from: &&GrantFrom| from.group == "sluice.dev" && from.kind == "SniRoute";
        let from = spec.from.iter().filter(is_route);
        Grant {
            from: from.map(|from| from.namespace.as_str().into()).collect(),
            granted: Arc::new(Granted {
                services: Objects::of(spec, "", "Service"),
                routes: Objects::of(spec, "sluice.dev", "SniRoute"),
            }),
        }
    }
}

impl Objects {
    fn of(spec: &ReferenceGrantSpec, group: &str, kind: &str) -> Self {
        let is_meant = |to: &&GrantTo| to.group == group && to.kind == kind;
        let names = spec.to.iter().filter(is_meant).map(|to| to.name.as_deref().map(Into::into));
        names.collect::<Option<_>>().map_or(Objects::All, Objects::Some)
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Objects::All => true,
            Objects::Some(names) => names.contains(name),
        }
    }
}
