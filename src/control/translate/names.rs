//! DNS names that routes lead to, and what the resolver said of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ahash::{AHashMap as HashMap, AHashSet as HashSet};

use crate::control::api::DnsName;
use crate::routing::RouteKey;

/// How many DNS names the routes of one namespace may lead to.
pub const NAMES_OF_A_NAMESPACE: usize = 1000;
/// How many addresses of a name are used.
pub const ADDRESSES_OF_A_NAME: usize = 256;

/// What is known of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsAnswer {
    /// Its addresses: those of the last good answer, if the last one was none. At most
    /// [`ADDRESSES_OF_A_NAME`].
    pub addresses: Vec<IpAddr>,
    /// What is wrong with the name.
    pub fault: Option<NameFault>,
}

/// What may be wrong with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// The last attempt brought no address; why not, for people.
    NotResolved(Arc<str>),
    /// It is not looked up: each namespace whose routes lead there has
    /// [`NAMES_OF_A_NAMESPACE`] names already.
    TooManyNames,
    /// It has more than [`ADDRESSES_OF_A_NAME`], and the first of them are used.
    TooManyAddresses,
}

impl From<&str> for NameFault {
    fn from(why: &str) -> Self {
        NameFault::NotResolved(why.into())
    }
}

/// The names that a source is to resolve from now on, and those it need not any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameChanges {
    /// Those that are new, or are wanted by others than before; in no order.
    pub wanted: Vec<WantedName>,
    /// In no order.
    pub unwanted: Vec<DnsName>,
}

/// A name that routes lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedName {
    /// The name.
    pub name: DnsName,
    /// The namespaces of those routes, and how early the first of each came.
    pub namespaces: BTreeMap<Arc<str>, Rank>,
}

/// The place of a route among those of its namespace: the oldest first, then by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// When it was made, in seconds since 1970. Those that do not tell come last.
    pub created: i64,
    /// The route.
    pub route: RouteKey,
}

/// All names.
#[derive(Debug, Default)]
pub(super) struct DnsNames {
    known: HashMap<DnsName, KnownName>,
    /// Those whose users or answer changed.
    touched: HashSet<DnsName>,
}

#[derive(Debug, Default)]
struct KnownName {
    /// The routes that lead to it, by namespace.
    users: BTreeMap<Arc<str>, BTreeSet<Rank>>,
    answer: Option<DnsAnswer>,
    /// What the source was told last.
    wanted: BTreeMap<Arc<str>, Rank>,
}

impl DnsNames {
    /// Takes an answer over; returns whether it is news to some route.
    pub(super) fn put(&mut self, name: &DnsName, answer: DnsAnswer) -> bool {
        self.touched.insert(name.clone());
        let known = self.known.entry(name.clone()).or_default();
        if known.answer.as_ref() == Some(&answer) {
            return false;
        }
        known.answer = Some(answer);
        !known.users.is_empty()
    }

    /// What is known of a name; nothing before its first answer.
    pub(super) fn answer(&self, name: &str) -> Option<&DnsAnswer> {
        self.known.get(name)?.answer.as_ref()
    }

    /// The routes that lead to a name.
    pub(super) fn users(&self, name: &str) -> impl Iterator<Item = &RouteKey> {
        let users = self.known.get(name).into_iter().flat_map(|known| known.users.values());
        users.flatten().map(|rank| &rank.route)
    }

    /// Notes that `route`, which was `created` then, leads to the names of `now` and no longer to
    /// those of `before`.
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

    /// What the source is to do differently; names that nobody leads to are forgotten.
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
