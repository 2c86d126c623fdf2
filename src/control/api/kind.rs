//! The kinds of objects that sluice reads.

use kube::Resource;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};

use super::FieldFault;
use crate::routing::Kind;
use crate::yaml::FieldPath;

/// The kinds of objects that sluice follows.
pub const READ_KINDS: [Kind; 4] =
    [Kind::SniRoute, Kind::Service, Kind::EndpointSlice, Kind::ReferenceGrant];

/// The kinds of objects that sluice reads in files. Of an API server's ConfigMaps and Secrets, it reads those that
/// routes name.
pub const FILE_KINDS: [Kind; 6] = [
    Kind::SniRoute,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::ReferenceGrant,
    Kind::ConfigMap,
    Kind::Secret,
];

/// How an API server has a kind of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Which kind.
    pub kind: Kind,
    /// The full name of its resource: the plural, and the group unless that is the core group.
    pub resource: &'static str,
    /// The versions that say the same, the newest first.
    versions: &'static [&'static str],
    /// Whether a cluster may lack it.
    pub optional: bool,
}

impl Definition {
    /// The definition of a kind.
    pub fn of(kind: Kind) -> Self {
        let (resource, versions, optional): (_, &[&str], _) = match kind {
            Kind::SniRoute => ("sniroutes.sluice.dev", &["v1alpha1"], false),
            Kind::TlsRoute => ("tlsroutes.gateway.networking.k8s.io", &["v1"], true),
            Kind::Service => ("services", &["v1"], false),
            Kind::ConfigMap => ("configmaps", &["v1"], false),
            Kind::Secret => ("secrets", &["v1"], false),
            Kind::EndpointSlice => ("endpointslices.discovery.k8s.io", &["v1"], false),
            Kind::ReferenceGrant => {
                ("referencegrants.gateway.networking.k8s.io", &["v1", "v1beta1"], true)
            }
        };
        Definition { kind, resource, versions, optional }
    }

    /// The plural of the kind, as in paths.
    pub fn plural(&self) -> &'static str {
        self.resource.split_once('.').map_or(self.resource, |(plural, _)| plural)
    }

    /// The newest version.
    pub fn newest(&self) -> ApiResource {
        self.at(self.versions.first().unwrap_or(&"v1"))
    }

    /// Each version, the newest first.
    pub fn all_versions(&self) -> impl Iterator<Item = ApiResource> {
        self.versions.iter().map(|version| self.at(version))
    }

    /// The path of a resource in a namespace, or in all.
    pub fn path(resource: &ApiResource, namespace: Option<&str>) -> String {
        DynamicObject::url_path(resource, namespace)
    }

    fn at(&self, version: &str) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.kind.group(), version, self.kind.as_str());
        ApiResource::from_gvk_with_plural(&kind, self.plural())
    }
}

/// The kind of an object in a file by its type, if it is one that sluice reads.
pub fn kind_of(api_version: &str, kind: &str) -> Option<Kind> {
    let of_name = FILE_KINDS.into_iter().filter(|known| known.as_str() == kind);
    let mut known = of_name.map(Definition::of);
    let defines =
        |known: &Definition| known.all_versions().any(|version| version.api_version == api_version);
    known.find(defines).map(|known| known.kind)
}

/// The fault of an object whose kind is none of [`FILE_KINDS`].
pub fn not_read() -> FieldFault {
    let message = "is not read by this version".to_owned();
    FieldFault { field: FieldPath::parse("kind"), message }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Service};
    use k8s_openapi::api::discovery::v1::EndpointSlice;

    use super::super::SniRoute;
    use super::*;

    fn is_defined_as<T: Resource<DynamicType = ()>>(kind: Kind) {
        let definition = Definition::of(kind).newest();
        assert_eq!(definition, ApiResource::erase::<T>(&()), "{kind}");
        for namespace in [None, Some("ns")] {
            assert_eq!(
                Definition::path(&definition, namespace),
                T::url_path(&(), namespace),
                "{kind}"
            );
        }
    }

    #[test]
    fn definitions_are_those_of_the_types() {
        is_defined_as::<SniRoute>(Kind::SniRoute);
        is_defined_as::<Service>(Kind::Service);
        is_defined_as::<ConfigMap>(Kind::ConfigMap);
        is_defined_as::<EndpointSlice>(Kind::EndpointSlice);
        for kind in Kind::ALL {
            let Definition { resource, .. } = Definition::of(kind);
            let group = resource.split_once('.').map_or("", |(_, group)| group);
            assert_eq!(group, kind.group(), "{kind}");
        }
    }

    #[test]
    fn a_kind_has_one_name() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).ok(), Some(kind.as_str().into()));
            assert_eq!(serde_json::from_value(kind.as_str().into()).ok(), Some(kind));
        }
    }

    #[test]
    fn a_kind_is_known_by_its_group_and_version() {
        for (api_version, kind, known) in [
            ("sluice.dev/v1alpha1", "SniRoute", Some(Kind::SniRoute)),
            ("sluice.dev/v1", "SniRoute", None),
            ("v1", "SniRoute", None),
            ("v1", "Service", Some(Kind::Service)),
            ("gateway.networking.k8s.io/v1", "ReferenceGrant", Some(Kind::ReferenceGrant)),
            ("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", Some(Kind::ReferenceGrant)),
            ("gateway.networking.k8s.io/v1", "TLSRoute", None),
        ] {
            assert_eq!(kind_of(api_version, kind), known, "{kind} ({api_version})");
        }
    }
}
