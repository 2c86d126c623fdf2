//! DNS names that routes lead to, and what the resolver said of them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ahash::{AHashMap as HashMap, AHashSet as HashSet};

use crate::control::api::DnsName;
use crate::routing::RouteKey;

/// What is known of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its addresses: those of the last good answer, if the last one was none.
    pub addresses: Vec<IpAddr>,
    /// Why the last attempt brought none, for people.
    pub fault: Option<Arc<str>>,
}

/// The names that a source is to resolve from now on, and those it need not any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameChanges {
    /// In no order.
    pub wanted: Vec<DnsName>,
    /// In no order.
    pub unwanted: Vec<DnsName>,
}

/// All names.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<DnsName, Known>,
    /// Those whose users or answer changed.
    touched: HashSet<DnsName>,
}

#[derive(Debug, Default)]
struct Known {
    users: BTreeSet<RouteKey>,
    answer: Option<Answer>,
    /// Whether the source was told to resolve it.
    wanted: bool,
}

impl Names {
    /// Takes an answer over; returns whether it is news to some route.
    pub(super) fn put(&mut self, name: &DnsName, answer: Answer) -> bool {
        self.touched.insert(name.clone());
        let known = self.known.entry(name.clone()).or_default();
        if known.answer.as_ref() == Some(&answer) {
            return false;
        }
        known.answer = Some(answer);
        !known.users.is_empty()
    }

    /// What is known of a name; nothing before its first answer.
    pub(super) fn answer(&self, name: &str) -> Option<&Answer> {
        self.known.get(name)?.answer.as_ref()
    }

    /// The routes that lead to a name.
    pub(super) fn users(&self, name: &str) -> impl Iterator<Item = &RouteKey> {
        self.known.get(name).into_iter().flat_map(|known| &known.users)
    }

    /// Notes that `route` leads to the names of `now` and no longer to those of `before`.
    pub(super) fn set_user(
        &mut self,
        route: &RouteKey,
        before: &BTreeSet<DnsName>,
        now: &BTreeSet<DnsName>,
    ) {
        for name in before.difference(now) {
            if let Some(known) = self.known.get_mut(name) {
                known.users.remove(route);
                self.touched.insert(name.clone());
            }
        }
        for name in now.difference(before) {
            self.known.entry(name.clone()).or_default().users.insert(route.clone());
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
            match (known.users.is_empty(), known.wanted) {
                (false, true) => {}
                (false, false) => {
                    known.wanted = true;
                    changes.wanted.push(name);
                }
                (true, wanted) => {
                    self.known.remove(&name);
                    if wanted {
                        changes.unwanted.push(name);
                    }
                }
            }
        }
        changes
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}
