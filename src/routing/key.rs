//! Who an object is.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// An object's identity within its kind, shown as `namespace/name`.
///
/// Held as one text that clones share: tables of many thousands of them are made, hashed and
/// compared.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    /// `namespace/name`.
    text: Arc<str>,
    /// How long the namespace is, in bytes.
    namespace: usize,
}

/// A route's identity.
pub type RouteKey = ObjectKey;

impl ObjectKey {
    /// The key of the object `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        let mut text = String::with_capacity(namespace.len() + 1 + name.len());
        text.push_str(namespace);
        text.push('/');
        text.push_str(name);
        ObjectKey { text: text.into(), namespace: namespace.len() }
    }

    /// The namespace it lives in.
    pub fn namespace(&self) -> &str {
        self.text.get(..self.namespace).unwrap_or_default()
    }

    /// Its name there.
    pub fn name(&self) -> &str {
        self.text.get(self.namespace + 1..).unwrap_or_default()
    }
}

/// By namespace, then by name.
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
    fn namespaces_order_before_names_and_a_slash_moves_nothing_between_them() {
        let key = ObjectKey::new;
        assert!(key("a", "z") < key("a-b", "a"), "though '-' comes before '/'");
        assert!(key("a", "b") < key("a", "c"));
        assert_ne!(key("a", "b/c"), key("a/b", "c"));
        assert_eq!(key("a", "b"), key("a", "b"));
        assert_eq!((key("a/b", "c").namespace(), key("a/b", "c").name()), ("a/b", "c"));
    }
}
