//! What is remembered of objects that are no longer named.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::GAP;
use crate::routing::ObjectRef;

/// When the reads of removed objects began: one that is named again is not read sooner for that.
#[derive(Debug, Default)]
pub(super) struct RemovedReads {
    begun: HashMap<ObjectRef, Instant>,
    /// Those that were added, each for as long as it may delay a read.
    by_removal: VecDeque<(Instant, ObjectRef)>,
}

impl RemovedReads {
    /// Adds an object that is removed, whose last read began then.
    pub(super) fn add(&mut self, object: &ObjectRef, begun: Option<Instant>, now: Instant) {
        if let Some(begun) = begun.filter(|begun| now < *begun + GAP) {
            self.begun.insert(object.clone(), begun);
            self.by_removal.push_back((now, object.clone()));
        }
    }

    /// Takes when the last read began of an object that is named again, if that delays the next one.
    pub(super) fn take(&mut self, object: &ObjectRef) -> Option<Instant> {
        self.begun.remove(object)
    }

    /// Forgets what no longer delays a read.
    pub(super) fn forget(&mut self, now: Instant) {
        while let Some((_, object)) =
            self.by_removal.pop_front_if(|(removed, _)| *removed + GAP <= now)
        {
            if self.begun.get(&object).is_some_and(|begun| *begun + GAP <= now) {
                self.begun.remove(&object);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.by_removal.is_empty()
    }
}
