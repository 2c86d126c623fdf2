//! Objects in, changes out; without I/O.

use super::faults::Faults;
use super::kinds::{IncomingObject, watched_kind};
use crate::control::api::{FieldFault, READ_KINDS};
use crate::control::objects::ObjectText;
use crate::control::translate::{Builder, Delta, Installation};
use crate::routing::{Kind, ObjectKey};
use crate::yaml::FieldPath;

/// What the API server has, as far as it can be read.
///
/// An object that cannot be read harms itself alone, and is kept as it was when it was read last. A
/// route is told so in its status. One that never was read is as good as none.
#[derive(Debug)]
pub struct Objects {
    pub(super) builder: Builder,
    faults: Faults,
}

impl Objects {
    /// None so far.
    pub fn new(installation: Installation) -> Self {
        Objects { builder: Builder::new(installation), faults: Faults::default() }
    }

    /// An object is there, or is different.
    pub fn put(&mut self, kind: Kind, text: &ObjectText) {
        let Some(watched_kind) = watched_kind(kind) else { return };
        let head = text.head();
        let (key, object) = (head.key(), IncomingObject { head: &head, text });
        let read = match head.name.is_empty() {
            true => Err(FieldFault {
                field: FieldPath::parse("metadata.name"),
                message: "is missing or is no text".to_owned(),
            }),
            false => watched_kind.put(&object, &mut self.builder),
        };
        let Err(fault) = read else { return self.faults.mend(kind, &key) };
        let why = fault.to_string();
        match watched_kind.put_unreadable(&object, &why, &mut self.builder) {
            Some(meanwhile) => self.faults.put(kind, &key, why, meanwhile),
            None => self.faults.remove(kind, &key),
        }
    }

    /// An object is gone.
    pub fn remove(&mut self, kind: Kind, key: &ObjectKey) {
        self.builder.remove(kind, key);
        self.faults.remove(kind, key);
    }

    /// Works out what the changes since the last time come to.
    pub fn settle(&mut self) -> Delta {
        self.builder.settle()
    }

    /// How many objects of each kind cannot be read.
    pub fn faults(&self) -> [(Kind, usize); READ_KINDS.len()] {
        self.faults.counts()
    }
}
