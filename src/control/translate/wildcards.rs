//! The claimed wildcards, and the number of claimed names below each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ahash::AHashMap as HashMap;

use super::domain::{Domain, labels, suffixes, text};
use crate::routing::{Age, Hostname, RouteKey};

/// The maximum number of labels of a wildcard's suffix for which there are notes. A name has up to 126
/// wildcards above it, more than anybody would read about.
pub(super) const MOST_LABELS_TOLD: usize = 16;

/// All claimed wildcards, by suffix.
#[derive(Debug)]
pub(super) struct Wildcards {
    known: HashMap<Arc<str>, Wildcard>,
    /// The number of wildcards, by the number of labels of their suffixes.
    by_labels: BTreeMap<usize, usize>,
    /// A wildcard with more claimed names below it causes no notes.
    most_below: usize,
}

/// A wildcard.
#[derive(Debug, Default)]
pub(super) struct Wildcard {
    /// Its oldest claim that is served.
    pub(super) owner: Option<Age>,
    below: ClaimedBelow,
    /// The names with a note about it.
    pub(super) names: BTreeSet<Domain>,
    /// The route with a note about names below it.
    pub(super) told: Option<RouteKey>,
}

/// The number of claimed names below a wildcard. Above the limit, the exact number is unknown.
#[derive(Clone, Copy, Debug, Default)]
struct ClaimedBelow {
    at_least: usize,
    is_counted: bool,
}

impl Wildcards {
    /// No wildcards. `most_below` is the limit on claimed names below a wildcard that causes notes.
    pub(super) fn new(most_below: usize) -> Self {
        Wildcards { known: HashMap::new(), by_labels: BTreeMap::new(), most_below }
    }

    pub(super) fn get(&self, suffix: &str) -> Option<&Wildcard> {
        self.known.get(suffix)
    }

    pub(super) fn get_mut(&mut self, suffix: &str) -> Option<&mut Wildcard> {
        self.known.get_mut(suffix)
    }

    /// Adds a wildcard that is now claimed.
    pub(super) fn insert(&mut self, suffix: Arc<str>) {
        *self.by_labels.entry(labels(&suffix)).or_default() += 1;
        self.known.insert(suffix, Wildcard::default());
    }

    /// Removes a wildcard that is no longer claimed.
    pub(super) fn remove(&mut self, suffix: &str) -> Option<Wildcard> {
        let removed = self.known.remove(suffix)?;
        let count = self.by_labels.entry(labels(suffix)).or_default();
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.by_labels.remove(&labels(suffix));
        }
        Some(removed)
    }

    /// The wildcards above a hostname, the nearest first.
    pub(super) fn above<'a>(
        &'a self,
        hostname: &'a Hostname,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Wildcard)> + use<'a> {
        self.above_of(hostname, usize::MAX)
    }

    /// The wildcards above a hostname that may cause notes, the nearest first.
    pub(super) fn told_above<'a>(
        &'a self,
        hostname: &'a Hostname,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Wildcard)> + use<'a> {
        self.above_of(hostname, MOST_LABELS_TOLD)
    }

    /// The wildcards above a hostname with at most `most` labels.
    fn above_of<'a>(
        &'a self,
        hostname: &'a Hostname,
        most: usize,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Wildcard)> + use<'a> {
        let all = if self.known.is_empty() { 0 } else { labels(text(hostname)) };
        // Each has one label less than the one before, and the first one has one less than the name.
        let passed_over = all.saturating_sub(1).saturating_sub(most);
        let mut rest = all.saturating_sub(passed_over);
        suffixes(hostname).take(all).skip(passed_over).filter_map(move |suffix| {
            rest = rest.saturating_sub(1);
            self.by_labels.get(&rest)?;
            self.known.get_key_value(suffix)
        })
    }

    /// The nearest wildcard above a hostname that belongs to another namespace, and its owner. `None` if
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

    /// Whether there are too many names below a wildcard for notes. Then the same is true for all wildcards
    /// above it.
    pub(super) fn is_crowded(&self, wildcard: &Wildcard) -> bool {
        wildcard.below.at_least > self.most_below
    }

    /// Counts a name below a wildcard that is now claimed, or no longer claimed. Returns whether this
    /// changes the notes about the wildcard. `names` are all claimed names there.
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

    /// Counts the names below a new wildcard.
    pub(super) fn count_all<'n>(&mut self, suffix: &str, names: impl Iterator<Item = &'n Domain>) {
        let below = self.counted(names);
        self.set_below(suffix, below);
    }

    /// Counts up to twice the limit: by the time that the exact number matters, so many names must have been
    /// removed that they pay for counting again.
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
