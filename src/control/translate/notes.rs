//! The notes about names below wildcards of other namespaces.
//!
//! The route of a name has a note about one wildcard: the nearest one of another namespace. The owner of the
//! wildcard has a note about the names that have such a note.

use std::collections::BTreeSet;
use std::sync::Arc;

use ahash::AHashMap as HashMap;

use super::claims::{Claims, names_below};
use super::domain::{Domain, labels};
use super::wildcards::{MOST_LABELS_TOLD, Wildcard};
use crate::routing::{Age, Hostname, RouteKey};

/// The maximum number of claimed names below a wildcard for these notes. A wildcard with more, such as
/// `*.com`, says nothing about the owners of the names, so it causes no notes.
pub(super) const MOST_NAMES_BELOW: usize = 1000;
/// The maximum number of names in one message.
const MOST_NAMED: usize = 3;

/// Informs the owner of a hostname about another namespace. Neither loses a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// The hostname is below a wildcard of this route.
    Below {
        /// The wildcard.
        wildcard: Hostname,
        /// The route that owns it.
        owner: RouteKey,
    },
    /// Some names below the hostname, which is a wildcard, belong to other namespaces.
    Above {
        /// The first of them.
        names: Vec<(Hostname, RouteKey)>,
        /// How many there are.
        count: usize,
    },
    /// There are too many names below the hostname to check them.
    Crowded,
}

/// The two kinds of notes on a hostname.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NoteSide {
    /// A note about a wildcard above it.
    Above,
    /// A note about names below it.
    Below,
}

/// A change of a route's note on one of its hostnames; `None` removes the note.
pub(super) type NoteChange = (RouteKey, (Hostname, NoteSide), Option<Note>);

/// The current notes, and the hostnames whose notes must be computed again.
#[derive(Debug, Default)]
pub(super) struct Notes {
    told: HashMap<Hostname, NotedName>,
    /// Names whose nearest wildcard may have changed.
    names: BTreeSet<Domain>,
    /// The suffixes of wildcards for which the names below may have changed.
    wildcards: BTreeSet<Arc<str>>,
}

/// A note on a name below a wildcard.
#[derive(Clone, Debug, PartialEq)]
struct NotedName {
    route: RouteKey,
    wildcard: Arc<str>,
    owner: RouteKey,
}

impl Note {
    /// The message for a status. `hostname` is the route's own.
    pub(super) fn message(&self, hostname: &Hostname) -> String {
        match self {
            Note::Below { wildcard, owner } => {
                let namespace = owner.namespace();
                format!("{hostname} is below {wildcard} of namespace {namespace}, route {owner}")
            }
            Note::Above { names, count } => {
                let named = names.iter().map(|(name, owner)| format!("{name} of {owner}"));
                let named: Vec<String> = named.collect();
                let more = match count.saturating_sub(named.len()) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let named = named.join(", ");
                format!("names below {hostname} are other namespaces': {named}{more}")
            }
            Note::Crowded => format!(
                "more than {MOST_NAMES_BELOW} names below {hostname} are claimed, and some may be \
                 other namespaces'"
            ),
        }
    }
}

impl Notes {
    /// The number of names with a note.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.told.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty() && self.names.is_empty() && self.wildcards.is_empty()
    }
}

impl Claims {
    /// Handles a processed hostname, whose owner is `now`. Marks the notes that must be computed again.
    pub(super) fn follow_owner(
        &mut self,
        domain: &Domain,
        now: Option<&Age>,
        told: &mut Vec<NoteChange>,
    ) {
        let Some(known) = self.known.get_mut(domain) else { return };
        let is_claimed = known.is_claimed();
        if std::mem::replace(&mut known.counted, is_claimed) != is_claimed {
            self.count_above(&domain.0, is_claimed);
        }
        if let Hostname::Wildcard(suffix) = &domain.0 {
            self.follow_wildcard(suffix, is_claimed, now, told);
        }
        let concerned = self.wildcards.told_above(&domain.0).next().is_some()
            || self.notes.told.contains_key(&domain.0);
        if concerned {
            self.notes.names.insert(domain.clone());
        }
    }

    /// Computes the notes of one name or wildcard. Returns whether there was one to compute.
    pub(super) fn tell_one(&mut self, told: &mut Vec<NoteChange>) -> bool {
        if let Some(name) = self.notes.names.pop_first() {
            self.tell_of_wildcard(name, told);
        } else if let Some(suffix) = self.notes.wildcards.pop_first() {
            self.tell_of_names(&suffix, told);
        } else {
            return false;
        }
        true
    }

    /// Updates the wildcards above a hostname that is now claimed, or no longer claimed.
    fn count_above(&mut self, hostname: &Hostname, came: bool) {
        let above = self.wildcards.told_above(hostname).map(|(suffix, _)| Arc::clone(suffix));
        for suffix in above.collect::<Vec<_>>() {
            let names = names_below(&self.known, &suffix);
            if self.wildcards.count(&suffix, came, names) {
                self.tell_all_below(&suffix);
            }
        }
    }

    fn follow_wildcard(
        &mut self,
        suffix: &Arc<str>,
        is_claimed: bool,
        now: Option<&Age>,
        told: &mut Vec<NoteChange>,
    ) {
        if !is_claimed {
            let Some(Wildcard { names, told: route, .. }) = self.wildcards.remove(suffix) else {
                return;
            };
            self.notes.names.extend(names);
            let place = (Hostname::Wildcard(Arc::clone(suffix)), NoteSide::Below);
            told.extend(route.map(|route| (route, place, None)));
            return;
        }
        let is_told = labels(suffix) <= MOST_LABELS_TOLD;
        if self.wildcards.get(suffix).is_none() {
            self.wildcards.insert(Arc::clone(suffix));
            if is_told {
                self.wildcards.count_all(suffix, names_below(&self.known, suffix));
            }
        }
        let Some(wildcard) = self.wildcards.get_mut(suffix) else { return };
        let before = std::mem::replace(&mut wildcard.owner, now.cloned());
        if is_told {
            if before.as_ref() != now {
                self.tell_all_below(suffix);
            }
            self.notes.wildcards.insert(Arc::clone(suffix));
        }
    }

    /// Marks all names below a wildcard, unless there are too many.
    fn tell_all_below(&mut self, suffix: &Arc<str>) {
        let Some(wildcard) = self.wildcards.get(suffix) else { return };
        self.notes.wildcards.insert(Arc::clone(suffix));
        match self.wildcards.is_crowded(wildcard) {
            true => self.notes.names.extend(wildcard.names.iter().cloned()),
            false => self.notes.names.extend(names_below(&self.known, suffix).cloned()),
        }
    }

    /// Computes the note of a name about the nearest wildcard of another namespace.
    fn tell_of_wildcard(&mut self, name: Domain, told: &mut Vec<NoteChange>) {
        let owner = self.known.get(&name).and_then(|known| known.owner.as_ref());
        let now = owner.and_then(|owner| {
            let (wildcard, above) = self.wildcards.nearest_foreign(&name.0, owner.namespace())?;
            let (route, wildcard) = (owner.key().clone(), Arc::clone(wildcard));
            Some(NotedName { route, wildcard, owner: above.clone() })
        });
        let before = match &now {
            Some(now) => self.notes.told.insert(name.0.clone(), now.clone()),
            None => self.notes.told.remove(&name.0),
        };
        let place = (name.0.clone(), NoteSide::Above);
        if before != now {
            if let Some(NotedName { route, wildcard, .. }) = before {
                if now.as_ref().is_none_or(|now| now.route != route) {
                    told.push((route, place.clone(), None));
                }
                let names = self.wildcards.get_mut(&wildcard).map(|wildcard| &mut wildcard.names);
                names.into_iter().for_each(|names| _ = names.remove(&name));
                self.notes.wildcards.insert(wildcard);
            }
            if let Some(now) = &now {
                let wildcard = self.wildcards.get_mut(&now.wildcard);
                wildcard.into_iter().for_each(|wildcard| _ = wildcard.names.insert(name.clone()));
                self.notes.wildcards.insert(Arc::clone(&now.wildcard));
            }
        }
        // A replaced route has no note yet.
        if let Some(NotedName { route, wildcard, owner }) = now {
            let note = Note::Below { wildcard: Hostname::Wildcard(wildcard), owner };
            told.push((route, place, Some(note)));
        }
    }

    /// Computes the note of a wildcard's owner about the names below it.
    fn tell_of_names(&mut self, suffix: &Arc<str>, told: &mut Vec<NoteChange>) {
        let Some(wildcard) = self.wildcards.get(suffix) else { return };
        let note = match (&wildcard.owner, self.wildcards.is_crowded(wildcard)) {
            (None, _) => None,
            (Some(owner), true) => Some((owner.key().clone(), Note::Crowded)),
            (Some(_), false) if wildcard.names.is_empty() => None,
            (Some(owner), false) => {
                let names = wildcard.names.iter().take(MOST_NAMED).filter_map(|name| {
                    let owner = self.known.get(name)?.owner.as_ref()?;
                    Some((name.0.clone(), owner.key().clone()))
                });
                let note = Note::Above { names: names.collect(), count: wildcard.names.len() };
                Some((owner.key().clone(), note))
            }
        };
        let Some(wildcard) = self.wildcards.get_mut(suffix) else { return };
        let route = note.as_ref().map(|(route, _)| route.clone());
        let place = (Hostname::Wildcard(Arc::clone(suffix)), NoteSide::Below);
        let before = std::mem::replace(&mut wildcard.told, route.clone());
        if let Some(before) = before.filter(|before| Some(before) != route.as_ref()) {
            told.push((before, place.clone(), None));
        }
        told.extend(note.map(|(route, note)| (route, place, Some(note))));
    }
}
