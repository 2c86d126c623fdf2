//! The state of one list and watch: which objects are known.

use std::collections::HashSet;

use super::health::WatchHealth;
use super::list_watch::WatchEvent;
use crate::control::api::Definition;
use crate::control::objects::ObjectText;
use crate::routing::{Kind, ObjectKey};

/// The state of one list and watch.
#[derive(Debug)]
pub(super) struct WatchState {
    pub(super) kind: Kind,
    pub(super) health: WatchHealth,
    /// Whether a list was complete at some time.
    pub(super) done: bool,
    /// Whether sluice works without it if the permission is missing.
    pub(super) optional: bool,
    known: HashSet<ObjectKey>,
    /// The objects of the running list so far.
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

    /// Removes and returns all known objects, because the kind is not defined.
    pub(super) fn clear(&mut self) -> Vec<ObjectKey> {
        self.done = true;
        self.seen.clear();
        self.known.drain().collect()
    }

    /// Applies an event. Returns the operation on the stored objects.
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

/// An operation on the stored objects.
pub(super) enum IndexOp {
    Nothing,
    Put(ObjectText),
    Remove(ObjectKey),
    RemoveAll(Vec<ObjectKey>),
}
