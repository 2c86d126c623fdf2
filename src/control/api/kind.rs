//! The kinds of objects that sluice reads.

use super::FieldFault;
use crate::routing::Kind;
use crate::yaml::FieldPath;

/// The kinds of objects that sluice reads.
pub const READ_KINDS: [Kind; 4] =
    [Kind::SniRoute, Kind::Service, Kind::EndpointSlice, Kind::ReferenceGrant];

/// The kind of an object by its type, if it is one that sluice reads.
pub fn kind_of(api_version: &str, kind: &str) -> Option<Kind> {
    match (api_version, kind) {
        ("sluice.dev/v1alpha1", "SniRoute") => Some(Kind::SniRoute),
        ("v1", "Service") => Some(Kind::Service),
        ("discovery.k8s.io/v1", "EndpointSlice") => Some(Kind::EndpointSlice),
        (
            "gateway.networking.k8s.io/v1" | "gateway.networking.k8s.io/v1beta1",
            "ReferenceGrant",
        ) => Some(Kind::ReferenceGrant),
        _ => None,
    }
}

/// The fault of an object whose kind is none of [`READ_KINDS`].
pub fn not_read() -> FieldFault {
    let message = "is not read by this version".to_owned();
    FieldFault { field: FieldPath::parse("kind"), message }
}
