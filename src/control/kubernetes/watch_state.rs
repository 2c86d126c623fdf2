//! What a list and watch of one kind has brought so far.

use std::collections::HashSet;

use super::health::WatchHealth;
use super::list_watch::WatchEvent;
use crate::control::api::Definition;
use crate::control::objects::ObjectText;
use crate::routing::{Kind, ObjectKey};

/// What one list and watch has brought so far.
#[derive(Debug)]
pub(super) struct WatchState {
    pub(super) kind: Kind,
    pub(super) health: WatchHealth,
    /// Whether it was listed as a whole at some time.
    pub(super) done: bool,
    /// Whether sluice may do without it where it is not allowed to have it.
    pub(super) optional: bool,
    known: HashSet<ObjectKey>,
    /// While it is listed: what has come.
    seen: HashSet<ObjectKey>,
}

impl WatchState {
    pub(super) fn new(definition: Definition, health: WatchHealth) -> Self {
        WatchState {
            kind: definition.kind,
            health,
            done: false,
            optional: definition.optional,
            known: HashSet::new(),
            seen: HashSet::new(),
        }
    }

    /// Forgets everything, for there is nothing; returns what was known.
    pub(super) fn clear(&mut self) -> Vec<ObjectKey> {
        self.done = true;
        self.seen.clear();
        self.known.drain().collect()
    }

    /// Follows an event; returns what is to be done about it.
    pub(super) fn follow(&mut self, event: WatchEvent) -> IndexOp {
        match event {
            WatchEvent::Init => {
                self.seen.clear();
                IndexOp::Nothing
            }
            WatchEvent::InitApply(object) => {
                self.seen.insert(object.head().key());
                IndexOp::Put(object)
            }
            WatchEvent::InitDone => {
                self.done = true;
                let gone = self.known.difference(&self.seen).cloned().collect();
                self.known = std::mem::take(&mut self.seen);
                IndexOp::RemoveAll(gone)
            }
            WatchEvent::Apply(object) => {
                self.known.insert(object.head().key());
                IndexOp::Put(object)
            }
            WatchEvent::Delete(object) => {
                let gone = object.head().key();
                self.known.remove(&gone);
                IndexOp::Remove(gone)
            }
        }
    }
}

/// What is to be done about an event.
pub(super) enum IndexOp {
    Nothing,
    Put(ObjectText),
    Remove(ObjectKey),
    RemoveAll(Vec<ObjectKey>),
}
