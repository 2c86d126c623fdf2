//! What is told of names below wildcards of other namespaces.

use std::collections::BTreeMap;

use super::claims::Claims;
use super::domain::{Domain, text};
use crate::routing::{Age, Hostname, RouteKey};

/// So many claimed names below a wildcard are looked at. Above more of them, as `*.com` may be, a
/// wildcard says nothing of whose they are, and they hear nothing of it.
pub(super) const MOST_NAMES_BELOW: usize = 1000;
/// So many names are named.
const MOST_NAMED: usize = 3;

/// What the owner of a hostname is told of another namespace, though neither loses anything that it
/// had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// The hostname is below a wildcard of this route.
    Below(RouteKey),
    /// Names below the wildcard are other namespaces'.
    Above {
        /// The first of them.
        names: Vec<(Hostname, RouteKey)>,
        /// How many there are.
        count: usize,
    },
    /// There are more names below the wildcard than are looked at.
    Crowded,
}

/// All that was told of a wildcard, by route and hostname.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes(BTreeMap<(RouteKey, Hostname), Note>);

type Told = Vec<(RouteKey, (Hostname, Hostname), Option<Note>)>;

impl Notes {
    /// Tells what is different `now`.
    pub(super) fn replace_by(&self, now: &Notes, wildcard: &Hostname, told: &mut Told) {
        for (route, hostname) in self.0.keys().filter(|place| !now.0.contains_key(place)) {
            told.push((route.clone(), (hostname.clone(), wildcard.clone()), None));
        }
        // A route that has come anew has not been told.
        for ((route, hostname), note) in &now.0 {
            let place = (hostname.clone(), wildcard.clone());
            told.push((route.clone(), place, Some(note.clone())));
        }
    }
}

impl Note {
    /// As a status has it. `hostname` is the route's own.
    pub(super) fn message(&self, hostname: &Hostname, wildcard: &Hostname) -> String {
        match self {
            Note::Below(owner) => {
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
                format!("names below {wildcard} are other namespaces': {named}{more}")
            }
            Note::Crowded => format!(
                "more than {MOST_NAMES_BELOW} names below {wildcard} are claimed, and some may be \
                 other namespaces'"
            ),
        }
    }
}

impl Claims {
    /// Works out what is to be told of a wildcard and the names below it.
    pub(super) fn tell_of_names_below(
        &mut self,
        wildcard: &Hostname,
        told: &mut Vec<(RouteKey, (Hostname, Hostname), Option<Note>)>,
    ) {
        let domain = Domain(wildcard.clone());
        let Some(known) = self.known.get(&domain) else { return };
        let notes = known.owner.as_ref().map(|owner| self.notes_of(wildcard, owner.key()));
        let Some(known) = self.known.get_mut(&domain) else { return };
        let before = known.told.take().unwrap_or_default();
        let notes = notes.unwrap_or_default();
        before.replace_by(&notes, wildcard, told);
        known.told = (!notes.0.is_empty()).then(|| Box::new(notes));
    }

    fn notes_of(&self, wildcard: &Hostname, owner: &RouteKey) -> Notes {
        let suffix = text(wildcard);
        let below = self.known.range(Domain::below(suffix)..);
        let below = below.take_while(|(domain, _)| domain.is_below(suffix));
        let mut notes = BTreeMap::new();
        let mut names = Vec::new();
        for (index, (domain, known)) in below.enumerate() {
            if index == MOST_NAMES_BELOW {
                return Notes(BTreeMap::from([((owner.clone(), wildcard.clone()), Note::Crowded)]));
            }
            let other = known.owner.as_ref().map(Age::key);
            if let Some(other) = other.filter(|other| other.namespace() != owner.namespace()) {
                let place = (other.clone(), domain.0.clone());
                notes.insert(place, Note::Below(owner.clone()));
                names.push((domain.0.clone(), other.clone()));
            }
        }
        let count = names.len();
        names.truncate(MOST_NAMED);
        if count > 0 {
            notes.insert((owner.clone(), wildcard.clone()), Note::Above { names, count });
        }
        Notes(notes)
    }
}
