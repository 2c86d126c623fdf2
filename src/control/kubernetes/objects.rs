//! Objects in, changes out; without I/O.

use tracing::debug;

use super::faults::Faults;
use super::parse;
use crate::control::api::{FieldFault, not_read};
use crate::control::build::{Builder, Installation, Settled, Unreadable};
use crate::control::objects::{Head, ObjectText};
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
        let head = text.head();
        let key = head.key();
        let builder = &mut self.builder;
        let read = match kind {
            _ if head.name.is_empty() => Err(FieldFault {
                field: FieldPath::parse("metadata.name"),
                message: "is missing or is no text".to_owned(),
            }),
            Kind::SniRoute => parse::route(&head, text).map(|route| builder.put_route(&route)),
            Kind::Service => {
                parse::service(&head, text).map(|service| builder.put_service(&service))
            }
            Kind::EndpointSlice => parse::slice(&head, text).map(|slice| builder.put_slice(&slice)),
            Kind::ReferenceGrant => {
                parse::grant(&head, text).map(|grant| builder.put_grant(&grant))
            }
            Kind::TlsRoute => Err(not_read()),
        };
        match read {
            Ok(()) => self.faults.mend(kind, &key),
            Err(fault) => self.put_unreadable(kind, &key, &head, text, fault.to_string()),
        }
    }

    /// An object is gone.
    pub fn remove(&mut self, kind: Kind, key: &ObjectKey) {
        self.builder.remove(kind, key);
        self.faults.remove(kind, key);
    }

    /// Works out what the changes since the last time come to.
    pub fn settle(&mut self) -> Settled {
        self.builder.settle()
    }

    /// How many objects of each kind cannot be read.
    pub fn faults(&self) -> [(Kind, usize); 4] {
        self.faults.counts()
    }

    fn put_unreadable(
        &mut self,
        kind: Kind,
        key: &ObjectKey,
        head: &Head,
        text: &ObjectText,
        why: String,
    ) {
        let meanwhile = match kind {
            Kind::SniRoute => {
                let route = parse::unreadable_route(head, text, &why);
                match self.builder.put_unreadable_route(&route) {
                    Unreadable::Kept => "it is served as it was when it was read last",
                    Unreadable::Unused => "it gets no connection",
                    Unreadable::Elsewhere => {
                        debug!(route = %key, "another installation's route cannot be read");
                        return self.faults.remove(kind, key);
                    }
                }
            }
            Kind::Service | Kind::EndpointSlice => {
                "it is used as it was last, if it was read before"
            }
            Kind::ReferenceGrant => match self.builder.keep_grant(&head.metadata()) {
                true => "it grants what it did when it was read last",
                false => "it grants nothing",
            },
            Kind::TlsRoute => "it gets no connection",
        };
        self.faults.put(kind, key, why, meanwhile);
    }
}
