//! Grants for references to other namespaces: to Services, and to routes with shared hostnames.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ahash::{AHashMap as HashMap, AHashSet as HashSet};

use crate::control::api::{ReferenceGrant, ReferenceGrantSpec};
use crate::routing::{Kind, ObjectKey, Referrer, RouteKey};

/// All grants, and the routes that need one.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// The grants by their namespace.
    known: HashMap<Arc<str>, NamespaceGrants>,
    /// The routes that refer to another namespace, by that namespace.
    users: HashMap<Arc<str>, BTreeSet<RouteKey>>,
    /// How many grants, and names in them, were checked.
    #[cfg(test)]
    pub(super) looked_at: std::cell::Cell<usize>,
}

/// The grants of one namespace.
#[derive(Debug, Default)]
struct NamespaceGrants {
    /// Each with the `metadata.uid` of its object.
    grants: BTreeMap<ObjectKey, (Grant, Option<Box<str>>)>,
    /// By the kind of the referring objects.
    from: HashMap<Kind, ByNamespace>,
}

/// The granted objects, by the namespace of the referring objects.
type ByNamespace = HashMap<Box<str>, BTreeMap<ObjectKey, Arc<GrantedObjects>>>;

/// The parts of a grant that matter here.
#[derive(Debug, PartialEq, Eq)]
struct Grant {
    /// The kinds and namespaces that may refer.
    from: BTreeSet<(Kind, Box<str>)>,
    /// The objects to which they may refer.
    granted: Arc<GrantedObjects>,
}

/// Objects of the grant's namespace, by kind.
#[derive(Debug, Default, PartialEq, Eq)]
struct GrantedObjects(HashMap<Kind, GrantedNames>);

/// Objects of one kind: all, or those with certain names.
#[derive(Debug, PartialEq, Eq)]
enum GrantedNames {
    All,
    Some(HashSet<Box<str>>),
}

impl Grants {
    /// Stores a grant. Returns whether it has changed.
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
        for (kind, namespace) in &grant.from {
            let from = opened.from.entry(*kind).or_default().entry(namespace.clone()).or_default();
            from.insert(key.clone(), Arc::clone(&grant.granted));
        }
        opened.grants.insert(key.clone(), (grant, uid));
        true
    }

    /// Whether a grant is known whose object has this `metadata.uid`.
    pub(super) fn has(&self, key: &ObjectKey, uid: Option<&str>) -> bool {
        let known = self.known.get(key.namespace()).and_then(|opened| opened.grants.get(key));
        known.is_some_and(|(_, of)| of.as_deref() == uid)
    }

    /// Removes a grant. Returns whether it existed.
    pub(super) fn remove(&mut self, key: &ObjectKey) -> bool {
        let Some(opened) = self.known.get_mut(key.namespace()) else { return false };
        let Some((grant, _)) = opened.grants.remove(key) else { return false };
        for (kind, namespace) in grant.from {
            let Some(from) = opened.from.get_mut(&kind) else { continue };
            if let Some(grants) = from.get_mut(&namespace) {
                grants.remove(key);
                if grants.is_empty() {
                    from.remove(&namespace);
                }
            }
        }
        if opened.grants.is_empty() {
            self.known.remove(key.namespace());
        }
        true
    }

    /// Whether `from` may refer to this object of a kind.
    pub(super) fn allows(&self, from: Referrer<'_>, kind: Kind, to: &ObjectKey) -> bool {
        from.namespace == to.namespace()
            || self.granted(from, to.namespace()).any(|granted| match granted.0.get(&kind) {
                Some(GrantedNames::All) => true,
                Some(GrantedNames::Some(names)) => names.contains(to.name()),
                None => false,
            })
    }

    /// Whether `from` may refer to at least one of some objects of another namespace. `has` returns whether
    /// one of the objects has this kind and, if given, this name.
    pub(super) fn allows_one(
        &self,
        from: Referrer<'_>,
        namespace: &str,
        has: impl Fn(Kind, Option<&str>) -> bool,
    ) -> bool {
        let has_named = |kind, name: &str| {
            self.note_work();
            has(kind, Some(name))
        };
        self.granted(from, namespace).any(|granted| {
            let mut kinds = granted.0.iter().filter(|(kind, _)| has(**kind, None));
            kinds.any(|(kind, names)| match names {
                GrantedNames::All => true,
                GrantedNames::Some(names) => names.iter().any(|name| has_named(*kind, name)),
            })
        })
    }

    /// The routes that refer to `namespace` from another one.
    pub(super) fn users(&self, namespace: &str) -> impl Iterator<Item = &RouteKey> {
        self.users.get(namespace).into_iter().flatten()
    }

    /// Records that `route` refers to Services of `namespace`.
    pub(super) fn add_user(&mut self, route: &RouteKey, namespace: &str) {
        if route.namespace() != namespace {
            self.users.entry(namespace.into()).or_default().insert(route.clone());
        }
    }

    /// Records that `route` no longer refers to `namespace`.
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

    /// The objects of `namespace` that are granted to `from`.
    fn granted(
        &self,
        from: Referrer<'_>,
        namespace: &str,
    ) -> impl Iterator<Item = &GrantedObjects> {
        let opened = self.known.get(namespace).and_then(|opened| opened.from.get(&from.kind));
        let grants = opened.and_then(|opened| opened.get(from.namespace));
        grants.into_iter().flat_map(BTreeMap::values).map(|granted| {
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
    /// Kinds that sluice does not know are ignored.
    fn of(spec: &ReferenceGrantSpec) -> Self {
        let from = spec.from.iter().filter_map(|from| {
            Some((Kind::named(&from.group, &from.kind)?, from.namespace.as_str().into()))
        });
        let mut granted = GrantedObjects::default();
        for to in &spec.to {
            if let Some(kind) = Kind::named(&to.group, &to.kind) {
                granted.add(kind, to.name.as_deref());
            }
        }
        Grant { from: from.collect(), granted: Arc::new(granted) }
    }
}

impl GrantedObjects {
    /// Adds the object with this name; without a name, all objects of the kind.
    fn add(&mut self, kind: Kind, name: Option<&str>) {
        let names = self.0.entry(kind).or_insert_with(|| GrantedNames::Some(HashSet::new()));
        match (names, name) {
            (GrantedNames::Some(names), Some(name)) => {
                names.insert(name.into());
            }
            (GrantedNames::All, _) => {}
            (names, None) => *names = GrantedNames::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::{GrantFrom, GrantTo};

    const OWNER: &str = "owner";

    /// Grants of the namespace `owner`.
    fn grants(from: &[(Kind, &str)], to: &[(Kind, Option<&str>)]) -> Grants {
        let mut grants = Grants::default();
        let key = ObjectKey::new(OWNER, "g");
        assert!(grants.put(&key, &grant(from, to)));
        grants
    }

    fn grant(from: &[(Kind, &str)], to: &[(Kind, Option<&str>)]) -> ReferenceGrant {
        let from = from.iter().map(|(kind, namespace)| GrantFrom {
            group: kind.group().to_owned(),
            kind: kind.to_string(),
            namespace: (*namespace).to_owned(),
        });
        let to = to.iter().map(|(kind, name)| GrantTo {
            group: kind.group().to_owned(),
            kind: kind.to_string(),
            name: name.map(str::to_owned),
        });
        ReferenceGrant {
            metadata: Default::default(),
            spec: ReferenceGrantSpec { from: from.collect(), to: to.collect() },
        }
    }

    fn of(kind: Kind, namespace: &str) -> Referrer<'_> {
        Referrer { kind, namespace }
    }

    #[test]
    fn a_grant_applies_only_to_its_pairs_of_kinds() {
        let one = ObjectKey::new(OWNER, "one");
        for (from, to) in Kind::ALL.iter().flat_map(|from| Kind::ALL.map(|to| (*from, to))) {
            let grants = grants(&[(from, "guest")], &[(to, None)]);
            for (asking, asked) in Kind::ALL.iter().flat_map(|a| Kind::ALL.map(|b| (*a, b))) {
                let allowed = (asking, asked) == (from, to);
                let asking = of(asking, "guest");
                assert_eq!(grants.allows(asking, asked, &one), allowed, "{asking:?} {asked}");
                let shares = grants.allows_one(asking, OWNER, |kind, _| kind == asked);
                assert_eq!(shares, allowed, "{asking:?} {asked}");
                assert!(grants.allows(of(asking.kind, OWNER), asked, &one), "its own");
                assert!(!grants.allows(of(asking.kind, "other"), asked, &one), "a third one");
            }
        }
    }

    #[test]
    fn a_name_in_a_grant_applies_to_its_kind() {
        use Kind::{Service, SniRoute, TlsRoute};
        let to = [(Service, Some("s")), (TlsRoute, Some("r")), (SniRoute, Some("q"))];
        let grants = grants(&[(SniRoute, "guest"), (TlsRoute, "other")], &to);
        for from in [of(SniRoute, "guest"), of(TlsRoute, "other")] {
            for (kind, name) in
                Kind::ALL.iter().flat_map(|kind| ["s", "r", "q"].map(|n| (*kind, n)))
            {
                let allowed = to.contains(&(kind, Some(name)));
                let key = ObjectKey::new(OWNER, name);
                assert_eq!(grants.allows(from, kind, &key), allowed, "{kind} {name}");
                let is_it =
                    |one, named: Option<&str>| one == kind && named.is_none_or(|n| n == name);
                assert_eq!(grants.allows_one(from, OWNER, is_it), allowed, "{kind} {name}");
            }
        }
        for from in [of(TlsRoute, "guest"), of(SniRoute, "other")] {
            assert!(!grants.allows(from, Service, &ObjectKey::new(OWNER, "s")), "{from:?}");
            assert!(!grants.allows_one(from, OWNER, |_, _| true), "{from:?}");
        }
    }

    #[test]
    fn a_grant_without_a_name_applies_to_all_objects_of_the_kind() {
        let from = [(Kind::TlsRoute, "guest")];
        for to in [[None, Some("s")], [Some("s"), None]] {
            let grants = grants(&from, &to.map(|name| (Kind::Service, name)));
            let any = ObjectKey::new(OWNER, "any");
            assert!(grants.allows(of(Kind::TlsRoute, "guest"), Kind::Service, &any), "{to:?}");
        }
        let mut grants = grants(&from, &[]);
        let any =
            |grants: &Grants| grants.allows_one(of(Kind::TlsRoute, "guest"), OWNER, |_, _| true);
        assert!(!any(&grants), "to nothing");
        assert!(grants.put(&ObjectKey::new(OWNER, "g"), &grant(&from, &[(Kind::Service, None)])));
        assert!(any(&grants));
        assert!(grants.remove(&ObjectKey::new(OWNER, "g")));
        assert!(!any(&grants) && grants.is_empty());
    }
}
