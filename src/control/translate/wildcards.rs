//! The wildcards that are claimed, and how many claimed names are below each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ahash::AHashMap as HashMap;

use super::domain::{Domain, labels, suffixes, text};
use crate::routing::{Age, Hostname, RouteKey};

/// The most labels of a wildcard, without the star, of which anything is told. A name has up to 126
/// above it, and nobody reads of all of them.
pub(super) const MOST_LABELS_TOLD: usize = 16;

/// All wildcards that are claimed, by their suffixes.
#[derive(Debug)]
pub(super) struct Wildcards {
    known: HashMap<Arc<str>, Wildcard>,
    /// How many there are, by how many labels their suffixes have.
    by_labels: BTreeMap<usize, usize>,
    /// Of one with more claimed names below it nothing is told.
    most_below: usize,
}

/// A wildcard.
#[derive(Debug, Default)]
pub(super) struct Wildcard {
    /// The oldest claim to it that is served.
    pub(super) owner: Option<Age>,
    below: ClaimedBelow,
    /// The names that are told of it.
    pub(super) names: BTreeSet<Domain>,
    /// The route that was told of names below it.
    pub(super) told: Option<RouteKey>,
}

/// How many claimed names are below a wildcard. Of very many it is known that they are too many, and
/// not how many there are.
#[derive(Clone, Copy, Debug, Default)]
struct ClaimedBelow {
    at_least: usize,
    is_counted: bool,
}

impl Wildcards {
    /// None yet. Of one with more than so many claimed names below it nothing is told.
    pub(super) fn new(most_below: usize) -> Self {
        Wildcards { known: HashMap::new(), by_labels: BTreeMap::new(), most_below }
    }

    pub(super) fn get(&self, suffix: &str) -> Option<&Wildcard> {
        self.known.get(suffix)
    }

    pub(super) fn get_mut(&mut self, suffix: &str) -> Option<&mut Wildcard> {
        self.known.get_mut(suffix)
    }

    /// A wildcard is claimed now.
    pub(super) fn insert(&mut self, suffix: Arc<str>) {
        *self.by_labels.entry(labels(&suffix)).or_default() += 1;
        self.known.insert(suffix, Wildcard::default());
    }

    /// A wildcard is claimed no more.
    pub(super) fn remove(&mut self, suffix: &str) -> Option<Wildcard> {
        let removed = self.known.remove(suffix)?;
        let count = self.by_labels.entry(labels(suffix)).or_default();
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.by_labels.remove(&labels(suffix));
        }
        Some(removed)
    }

    /// Those above a hostname, the nearest first.
    pub(super) fn above<'a>(
        &'a self,
        hostname: &'a Hostname,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Wildcard)> + use<'a> {
        self.above_of(hostname, usize::MAX)
    }

    /// Those above a hostname of which anything may be told, the nearest first.
    pub(super) fn told_above<'a>(
        &'a self,
        hostname: &'a Hostname,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Wildcard)> + use<'a> {
        self.above_of(hostname, MOST_LABELS_TOLD)
    }

    /// Those above a hostname that have so many labels at most.
    fn above_of<'a>(
        &'a self,
        hostname: &'a Hostname,
        most: usize,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Wildcard)> + use<'a> {
        let all = if self.known.is_empty() { 0 } else { labels(text(hostname)) };
        // Each has one label less than the one before, and the first one less than the name.
        let passed_over = all.saturating_sub(1).saturating_sub(most);
        let mut rest = all.saturating_sub(passed_over);
        suffixes(hostname).take(all).skip(passed_over).filter_map(move |suffix| {
            rest = rest.saturating_sub(1);
            self.by_labels.get(&rest)?;
            self.known.get_key_value(suffix)
        })
    }

    /// The nearest one above a hostname that is not of this namespace, and its owner; nothing if
    /// there are too many names below it.
    pub(super) fn nearest_foreign<'a>(
        &'a self,
        hostname: &'a Hostname,
        namespace: &str,
    ) -> Option<(&'a Arc<str>, &'a RouteKey)> {
        let (suffix, wildcard, owner) =
            self.told_above(hostname).find_map(|(suffix, wildcard)| {
                let owner = wildcard.owner.as_ref()?;
                (owner.namespace() != namespace).then_some((suffix, wildcard, owner))
            })?;
        (!self.is_crowded(wildcard)).then(|| (suffix, owner.key()))
    }

    /// Whether there are too many names below a wildcard to tell of them. Then there are above
    /// those that are above it, too.
    pub(super) fn is_crowded(&self, wildcard: &Wildcard) -> bool {
        wildcard.below.at_least > self.most_below
    }

    /// A name below a wildcard is claimed now, or no more. Returns whether that makes a difference to
    /// what is told of it. `names` are all that are claimed there.
    pub(super) fn count<'n>(
        &mut self,
        suffix: &str,
        came: bool,
        names: impl Iterator<Item = &'n Domain>,
    ) -> bool {
        let Some(mut below) = self.known.get(suffix).map(|wildcard| wildcard.below) else {
            return false;
        };
        let was_crowded = below.at_least > self.most_below;
        below.at_least = match came {
            true => below.at_least.saturating_add(1),
            false => below.at_least.saturating_sub(1),
        };
        if !below.is_counted && below.at_least <= self.most_below {
            below = self.counted(names);
        }
        self.set_below(suffix, below);
        was_crowded != (below.at_least > self.most_below)
    }

    /// Counts the names below a wildcard that has just come.
    pub(super) fn count_all<'n>(&mut self, suffix: &str, names: impl Iterator<Item = &'n Domain>) {
        let below = self.counted(names);
        self.set_below(suffix, below);
    }

    /// Twice as many as there may be are counted: before it matters how many they are, so many have
    /// to go that they pay for counting again.
    fn counted<'n>(&self, names: impl Iterator<Item = &'n Domain>) -> ClaimedBelow {
        let most = self.most_below.saturating_mul(2);
        let at_least = names.take(most).count();
        ClaimedBelow { at_least, is_counted: at_least < most }
    }

    fn set_below(&mut self, suffix: &str, below: ClaimedBelow) {
        if let Some(wildcard) = self.known.get_mut(suffix) {
            wildcard.below = below;
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.by_labels.is_empty()
    }

    #[cfg(test)]
    pub(super) fn set_most_below(&mut self, most: usize) {
        self.most_below = most;
    }
}
