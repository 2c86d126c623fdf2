//! The kinds of objects that sluice reads.

use std::fmt;

/// A kind of objects, shown by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `SniRoute` of `sluice.dev`.
    SniRoute,
    /// `Service` of the core group.
    Service,
    /// `EndpointSlice` of `discovery.k8s.io`.
    EndpointSlice,
    /// `ReferenceGrant` of `gateway.networking.k8s.io`.
    ReferenceGrant,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] =
        [Kind::SniRoute, Kind::Service, Kind::EndpointSlice, Kind::ReferenceGrant];

    /// The kind of an object by its type, if it is one of these.
    pub fn of(api_version: &str, kind: &str) -> Option<Kind> {
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

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::SniRoute => "SniRoute",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::ReferenceGrant => "ReferenceGrant",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
