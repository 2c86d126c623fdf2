//! The Secrets and ConfigMaps that routes name to serve TLS.

use crate::routing::ObjectRef;

/// Changes of the Secrets and ConfigMaps that are to be read: those that routes name and may refer to. Without the
/// permission by a grant, an object of another namespace is never read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReferenceChanges {
    /// New ones, in no order. Their content is awaited: [`Builder::put_secret`](super::Builder::put_secret) and its
    /// kind.
    pub wanted: Vec<ObjectRef>,
    /// Those that are no longer used, in no order. Their content is dropped.
    pub unwanted: Vec<ObjectRef>,
}
