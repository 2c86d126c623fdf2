//! The identities of objects and routes.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The identity of an object within its kind, shown as `namespace/name`.
///
/// Stored as one text that clones share, because tables create, hash and compare many thousands of keys.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    /// `namespace/name`.
    text: Arc<str>,
    /// The length of the namespace in bytes.
    namespace: usize,
}

/// The kind of an object.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Kind {
    /// `SniRoute` of `sluice.dev`.
    #[default]
    SniRoute,
    /// `TLSRoute` of `gateway.networking.k8s.io`.
    #[serde(rename = "TLSRoute")]
    TlsRoute,
    /// `Service` of the core group.
    Service,
    /// `EndpointSlice` of `discovery.k8s.io`.
    EndpointSlice,
    /// `ReferenceGrant` of `gateway.networking.k8s.io`.
    ReferenceGrant,
    /// `ConfigMap` of the core group.
    ConfigMap,
    /// `Secret` of the core group.
    Secret,
}

/// The identity of an object: its kind, namespace and name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    /// The kind.
    pub kind: Kind,
    /// The namespace and name.
    pub key: ObjectKey,
}

/// The objects of one kind in one namespace, which refer to an object of another namespace. A grant treats
/// them alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Referrer<'k> {
    /// The kind.
    pub kind: Kind,
    /// The namespace.
    pub namespace: &'k str,
}

/// The identity of a route: its object, and the rule of the object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    object: ObjectRef,
    /// The index of the rule in the object. An `SniRoute` has only one rule.
    rule: u16,
}

impl ObjectKey {
    /// The key of the object `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        let mut text = String::with_capacity(namespace.len() + 1 + name.len());
        text.push_str(namespace);
        text.push('/');
        text.push_str(name);
        ObjectKey { text: text.into(), namespace: namespace.len() }
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.text.get(..self.namespace).unwrap_or_default()
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.text.get(self.namespace + 1..).unwrap_or_default()
    }
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 7] = [
        Kind::SniRoute,
        Kind::TlsRoute,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::ReferenceGrant,
        Kind::ConfigMap,
        Kind::Secret,
    ];

    /// The kind with this name in an API group, if sluice knows it.
    pub fn named(group: &str, name: &str) -> Option<Self> {
        Kind::ALL.into_iter().find(|kind| kind.group() == group && kind.as_str() == name)
    }

    /// The name of the kind in manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::SniRoute => "SniRoute",
            Kind::TlsRoute => "TLSRoute",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::ReferenceGrant => "ReferenceGrant",
            Kind::ConfigMap => "ConfigMap",
            Kind::Secret => "Secret",
        }
    }

    /// The API group; empty for the core group.
    pub fn group(self) -> &'static str {
        match self {
            Kind::SniRoute => "sluice.dev",
            Kind::TlsRoute | Kind::ReferenceGrant => "gateway.networking.k8s.io",
            Kind::Service | Kind::ConfigMap | Kind::Secret => "",
            Kind::EndpointSlice => "discovery.k8s.io",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ObjectRef {
    /// The object of this kind and key.
    pub fn new(kind: Kind, key: ObjectKey) -> Self {
        ObjectRef { kind, key }
    }

    /// The `SniRoute` with this name.
    pub fn sni_route(namespace: &str, name: &str) -> Self {
        ObjectRef::new(Kind::SniRoute, ObjectKey::new(namespace, name))
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.key.namespace()
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.key.name()
    }
}

/// Ordered by namespace and name before the kind, for people.
impl Ord for ObjectRef {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.key, self.kind).cmp(&(&other.key, other.kind))
    }
}

impl PartialOrd for ObjectRef {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Without the kind, which is shown separately where it matters.
impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

impl fmt::Debug for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.key)
    }
}

impl RouteKey {
    /// The only rule of an object.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        RouteKey::of_rule(ObjectRef::new(kind, ObjectKey::new(namespace, name)), 0)
    }

    /// The `SniRoute` with this name.
    pub fn sni_route(namespace: &str, name: &str) -> Self {
        RouteKey::new(Kind::SniRoute, namespace, name)
    }

    /// The rule of an object with this index.
    pub fn of_rule(object: ObjectRef, rule: u16) -> Self {
        RouteKey { object, rule }
    }

    /// The object of the route.
    pub fn object(&self) -> &ObjectRef {
        &self.object
    }

    /// The kind of the object.
    pub fn kind(&self) -> Kind {
        self.object.kind
    }

    /// The index of the rule in the object.
    pub fn rule(&self) -> u16 {
        self.rule
    }

    /// The namespace of the object.
    pub fn namespace(&self) -> &str {
        self.object.key.namespace()
    }

    /// The name of the object.
    pub fn name(&self) -> &str {
        self.object.key.name()
    }

    /// For people: with the kind, and with the index of the rule unless it is 0.
    pub fn full(&self) -> impl fmt::Display {
        fmt::from_fn(move |f| {
            write!(f, "{} {}", self.kind(), self)?;
            match self.rule {
                0 => Ok(()),
                rule => write!(f, " rule {rule}"),
            }
        })
    }

    /// The route as a referrer to objects of other namespaces.
    pub fn referrer(&self) -> Referrer<'_> {
        Referrer { kind: self.kind(), namespace: self.namespace() }
    }
}

/// Without the kind, which is shown separately where it matters.
impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.object.key.fmt(f)
    }
}

impl fmt::Debug for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} rule {}", self.object, self.rule)
    }
}

/// Ordered by namespace, then by name.
impl Ord for ObjectKey {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.namespace(), self.name()).cmp(&(other.namespace(), other.name()))
    }
}

impl PartialOrd for ObjectKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_by_namespace_and_a_slash_cannot_change_the_split() {
        let key = ObjectKey::new;
        assert!(key("a", "z") < key("a-b", "a"), "though '-' comes before '/'");
        assert!(key("a", "b") < key("a", "c"));
        assert_ne!(key("a", "b/c"), key("a/b", "c"));
        assert_eq!(key("a", "b"), key("a", "b"));
        assert_eq!((key("a/b", "c").namespace(), key("a/b", "c").name()), ("a/b", "c"));
    }

    #[test]
    fn a_route_is_shown_in_full_with_its_kind_and_rule() {
        assert_eq!(RouteKey::sni_route("a", "r").full().to_string(), "SniRoute a/r");
        let object = ObjectRef::new(Kind::TlsRoute, ObjectKey::new("a", "r"));
        assert_eq!(RouteKey::of_rule(object, 2).full().to_string(), "TLSRoute a/r rule 2");
    }
}
