//! The kinds of objects that are followed, and what is made of each.
//!
//! A kind is an implementation of [`WatchedKind`], in a file of its own, and a line in [`WATCHED_KINDS`]. It
//! parses those fields alone that are used, so that nothing else in an object can be at fault.
//! Whoever uses one more field of an object adds it there.
//!
//! A new kind has lines elsewhere, too: in `READ_KINDS` and `Definition` of `control::api`, a method of
//! `control::translate::Builder` that takes its objects, and a line in `Builder::remove`, a variant of
//! what `control::files::parse` reads, the label of its faults in `metrics`, and the permission to list
//! and watch it in the chart's ClusterRole.

mod grant;
mod service;
mod slice;
mod sni_route;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::fmt::Debug;

use serde::Deserialize;

use crate::control::api::{FieldFault, READ_KINDS};
use crate::control::objects::{Head, ObjectText};
use crate::control::translate::Builder;
use crate::routing::Kind;

/// All kinds that are followed.
pub(super) static WATCHED_KINDS: [&dyn WatchedKind; READ_KINDS.len()] =
    [&sni_route::SniRoutes, &service::Services, &slice::EndpointSlices, &grant::ReferenceGrants];

/// A kind of objects that is followed: from the text of an object to a change of a builder.
pub(super) trait WatchedKind: Debug + Sync {
    /// Which kind.
    fn kind(&self) -> Kind;

    /// Gives an object to the builder.
    ///
    /// # Errors
    /// The field that cannot be read, and why.
    fn put(&self, object: &IncomingObject<'_>, builder: &mut Builder) -> Result<(), FieldFault>;

    /// Gives to the builder what can be used of an object that cannot be read, for the reason `why`.
    /// Returns what becomes of the object meanwhile, or nothing if it is another installation's. Unless a
    /// kind says otherwise, the builder keeps what it has.
    fn put_unreadable(
        &self,
        _object: &IncomingObject<'_>,
        _why: &str,
        _builder: &mut Builder,
    ) -> Option<&'static str> {
        Some("it is used as it was last, if it was read before")
    }
}

/// An object as it comes.
pub(super) struct IncomingObject<'t> {
    pub(super) head: &'t Head,
    pub(super) text: &'t ObjectText,
}

#[derive(Deserialize)]
struct Specified<S> {
    spec: S,
}

/// How a kind is followed, if it is.
pub(super) fn watched_kind(kind: Kind) -> Option<&'static dyn WatchedKind> {
    WATCHED_KINDS.into_iter().find(|watched_kind| watched_kind.kind() == kind)
}
