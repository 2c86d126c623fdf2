//! What `spec.tls` of a route names: Secrets and ConfigMaps, and its text form.

use super::tls_object::UsedEntries;
use crate::control::api::{
    CaObject, CaRef, CertificateRef, ClientCertificatesSpec, MinTlsVersion, Namespace, TlsSpec,
};
use crate::routing::{Kind, ObjectKey, ObjectRef};
use crate::termination::{
    CaText, CertificateText, ClientCertificatesText, MinVersion, TerminationText, UpstreamText,
};

/// A field that names an object.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) object: ObjectRef,
    /// The field, below `spec.tls`.
    pub(super) field: String,
    pub(super) role: Role,
}

/// What an object is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Certificate,
    ClientCa,
    UpstreamCa,
    UpstreamCertificate,
}

impl Role {
    /// What the route uses of the object.
    pub(super) fn used_entries(self) -> UsedEntries {
        match self {
            Role::Certificate | Role::UpstreamCertificate => UsedEntries::Identity,
            Role::ClientCa | Role::UpstreamCa => UsedEntries::Authorities,
        }
    }
}

/// What a route names, in the order of its fields.
pub(super) fn references(route: &ObjectRef, spec: &TlsSpec) -> Vec<Reference> {
    let mut references = Vec::new();
    let mut add = |object: ObjectRef, field: String, role| {
        references.push(Reference { object, field, role });
    };
    for (index, certificate) in spec.certificates.iter().enumerate() {
        let field = format!("certificates[{index}].secret");
        add(secret(route, certificate), field, Role::Certificate);
    }
    if let Some(clients) = &spec.client_certificates {
        let (object, field) = authority(route, &clients.ca);
        add(object, format!("clientCertificates.ca.{field}"), Role::ClientCa);
    }
    if let Some(upstream) = &spec.upstream {
        let (object, field) = authority(route, &upstream.ca);
        add(object, format!("upstream.ca.{field}"), Role::UpstreamCa);
        if let Some(certificate) = &upstream.client_certificate {
            let field = "upstream.clientCertificate.secret".to_owned();
            add(secret(route, certificate), field, Role::UpstreamCertificate);
        }
    }
    references
}

fn object(route: &ObjectRef, kind: Kind, namespace: Option<&Namespace>, name: &str) -> ObjectRef {
    let namespace = namespace.map_or(route.namespace(), Namespace::as_str);
    ObjectRef::new(kind, ObjectKey::new(namespace, name))
}

fn secret(route: &ObjectRef, certificate: &CertificateRef) -> ObjectRef {
    object(route, Kind::Secret, certificate.namespace.as_ref(), certificate.secret.as_str())
}

/// The object with the certificates of authorities, and the field that names it.
fn authority(route: &ObjectRef, ca: &CaRef) -> (ObjectRef, &'static str) {
    let namespace = ca.namespace.as_ref();
    match &ca.source {
        CaObject::ConfigMap(name) => {
            (object(route, Kind::ConfigMap, namespace, name.as_str()), "configMap")
        }
        CaObject::Secret(name) => (object(route, Kind::Secret, namespace, name.as_str()), "secret"),
    }
}

/// The text form of a `spec.tls`.
pub(super) fn text(route: &ObjectRef, spec: &TlsSpec) -> TerminationText {
    let certificate = |certificate: &CertificateRef| CertificateText {
        secret: secret(route, certificate).key.to_string().into(),
    };
    let ca = |ca: &CaRef| {
        let object = authority(route, ca).0;
        let name = object.key.to_string().into();
        match object.kind {
            Kind::ConfigMap => CaText::ConfigMap(name),
            _ => CaText::Secret(name),
        }
    };
    TerminationText {
        certificates: spec.certificates.iter().map(certificate).collect(),
        min_version: match spec.min_version.unwrap_or_default() {
            MinTlsVersion::V12 => MinVersion::V12,
            MinTlsVersion::V13 => MinVersion::V13,
        },
        client_certificates: spec.client_certificates.as_ref().map(
            |ClientCertificatesSpec { required, ca: named }| ClientCertificatesText {
                required: *required,
                ca: ca(named),
            },
        ),
        upstream: spec.upstream.as_ref().map(|upstream| UpstreamText {
            server_name: upstream.server_name.as_str().into(),
            ca: ca(&upstream.ca),
            client_certificate: upstream.client_certificate.as_ref().map(certificate),
        }),
    }
}
