//! The DNS names of backends, and their known addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ahash::{AHashMap as HashMap, AHashSet as HashSet};

use crate::control::api::DnsName;
use crate::routing::RouteKey;

/// The maximum number of DNS names for the routes of one namespace.
pub const NAMES_OF_A_NAMESPACE: usize = 1000;
/// The maximum number of addresses that are used of a name.
pub const ADDRESSES_OF_A_NAME: usize = 256;

/// The known addresses of a DNS name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsAnswer {
    /// The addresses of the last successful lookup. At most [`ADDRESSES_OF_A_NAME`].
    pub addresses: Vec<IpAddr>,
    /// The fault of the last lookup, if any.
    pub fault: Option<NameFault>,
}

/// A fault of a DNS name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// The last lookup returned no address. The text is the reason, for people.
    NotResolved(Arc<str>),
    /// The name is not looked up, because each namespace whose routes lead to it already has
    /// [`NAMES_OF_A_NAMESPACE`] names.
    TooManyNames,
    /// The name has more than [`ADDRESSES_OF_A_NAME`] addresses, and only the first ones are used.
    TooManyAddresses,
}

impl From<&str> for NameFault {
    fn from(why: &str) -> Self {
        NameFault::NotResolved(why.into())
    }
}

/// Changes of the names that are to be resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameChanges {
    /// New names, and names that are now used by other namespaces than before; in no order.
    pub wanted: Vec<WantedName>,
    /// Names that are no longer used, in no order.
    pub unwanted: Vec<DnsName>,
}

/// A name that is to be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedName {
    /// The name.
    pub name: DnsName,
    /// The namespaces that use it, each with the rank of its first route.
    pub namespaces: BTreeMap<Arc<str>, Rank>,
}

/// The rank of a route in its namespace: the oldest first, then by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// When it was created, in seconds since 1970. Routes without a time come last.
    pub created: i64,
    /// The route.
    pub route: RouteKey,
}

/// All names.
#[derive(Debug, Default)]
pub(super) struct DnsNames {
    known: HashMap<DnsName, KnownName>,
    /// Names whose users or answer have changed.
    touched: HashSet<DnsName>,
}

#[derive(Debug, Default)]
struct KnownName {
    /// The routes that lead to it, by namespace.
    users: BTreeMap<Arc<str>, BTreeSet<Rank>>,
    answer: Option<DnsAnswer>,
    /// The last reported namespaces.
    wanted: BTreeMap<Arc<str>, Rank>,
}

impl DnsNames {
    /// Stores an answer. Returns whether this concerns a route.
    pub(super) fn put(&mut self, name: &DnsName, answer: DnsAnswer) -> bool {
        self.touched.insert(name.clone());
        let known = self.known.entry(name.clone()).or_default();
        if known.answer.as_ref() == Some(&answer) {
            return false;
        }
        known.answer = Some(answer);
        !known.users.is_empty()
    }

    /// The answer of a name; `None` before the first one.
    pub(super) fn answer(&self, name: &str) -> Option<&DnsAnswer> {
        self.known.get(name)?.answer.as_ref()
    }

    /// The routes that lead to a name.
    pub(super) fn users(&self, name: &str) -> impl Iterator<Item = &RouteKey> {
        let users = self.known.get(name).into_iter().flat_map(|known| known.users.values());
        users.flatten().map(|rank| &rank.route)
    }

    /// Replaces the names that `route` uses: `before` by `now`.
    pub(super) fn set_user(
        &mut self,
        route: &RouteKey,
        created: Option<i64>,
        before: &BTreeSet<DnsName>,
        now: &BTreeSet<DnsName>,
    ) {
        let rank = || Rank { created: created.unwrap_or(i64::MAX), route: route.clone() };
        for name in before.difference(now) {
            if let Some(known) = self.known.get_mut(name) {
                if let Some(users) = known.users.get_mut(route.namespace()) {
                    users.remove(&rank());
                    if users.is_empty() {
                        known.users.remove(route.namespace());
                    }
                }
                self.touched.insert(name.clone());
            }
        }
        for name in now.difference(before) {
            let known = self.known.entry(name.clone()).or_default();
            known.users.entry(route.namespace().into()).or_default().insert(rank());
            self.touched.insert(name.clone());
        }
    }

    /// Whether some name that routes lead to has no answer yet.
    pub(super) fn is_pending(&self) -> bool {
        self.known.values().any(|known| !known.users.is_empty() && known.answer.is_none())
    }

    /// The changes since the last call. Drops names that no route uses.
    pub(super) fn settle(&mut self) -> NameChanges {
        let mut changes = NameChanges::default();
        for name in self.touched.drain() {
            let Some(known) = self.known.get_mut(&name) else { continue };
            let firsts = known.users.iter().filter_map(|(namespace, users)| {
                Some((Arc::clone(namespace), users.first()?.clone()))
            });
            let namespaces: BTreeMap<Arc<str>, Rank> = firsts.collect();
            if namespaces.is_empty() {
                let was_wanted = !known.wanted.is_empty();
                self.known.remove(&name);
                if was_wanted {
                    changes.unwanted.push(name);
                }
            } else if known.wanted != namespaces {
                known.wanted.clone_from(&namespaces);
                changes.wanted.push(WantedName { name, namespaces });
            }
        }
        changes
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}
