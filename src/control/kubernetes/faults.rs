//! The objects that cannot be read.

use std::collections::HashMap;

use tracing::{info, warn};

use crate::control::api::READ_KINDS;
use crate::routing::{Kind, ObjectKey};

/// Which objects cannot be read now, and why. Each is logged once for each way to be at fault.
#[derive(Debug, Default)]
pub(super) struct Faults(HashMap<(Kind, ObjectKey), String>);

impl Faults {
    /// An object cannot be read. `meanwhile`: what becomes of it.
    pub(super) fn put(&mut self, kind: Kind, key: &ObjectKey, why: String, meanwhile: &str) {
        if self.0.get(&(kind, key.clone())) == Some(&why) {
            return;
        }
        warn!(
            %kind,
            namespace = key.namespace(),
            name = key.name(),
            detail = why,
            meanwhile,
            "an object cannot be read"
        );
        self.0.insert((kind, key.clone()), why);
    }

    /// An object can be read.
    pub(super) fn mend(&mut self, kind: Kind, key: &ObjectKey) {
        self.end(kind, key, "an object can be read again");
    }

    /// An object is gone, or is none of this installation's any more.
    pub(super) fn remove(&mut self, kind: Kind, key: &ObjectKey) {
        self.end(kind, key, "an object that could not be read is gone");
    }

    /// How many objects of each kind cannot be read.
    pub(super) fn counts(&self) -> [(Kind, usize); READ_KINDS.len()] {
        READ_KINDS.map(|kind| (kind, self.0.keys().filter(|(other, _)| *other == kind).count()))
    }

    fn end(&mut self, kind: Kind, key: &ObjectKey, message: &str) {
        // Most objects never are at fault, and need no key of their own for that.
        if !self.0.is_empty() && self.0.remove(&(kind, key.clone())).is_some() {
            info!(%kind, namespace = key.namespace(), name = key.name(), "{message}");
        }
    }
}
