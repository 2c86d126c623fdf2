//! The text form of a [`Termination`](super::Termination), for `/routes`, `explain` and the saved table. It names
//! Secrets and ConfigMaps as `namespace/name`, and contains no key.

use serde::{Deserialize, Serialize};

/// How a route terminates TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TerminationText {
    /// The Secrets with its certificates.
    #[serde(default)]
    pub certificates: Vec<CertificateText>,
    /// The lowest version of TLS that a client may use.
    #[serde(default)]
    pub min_version: MinVersion,
    /// The certificates that clients have to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificates: Option<ClientCertificatesText>,
    /// TLS with the endpoints. Without it, they get plain TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamText>,
}

/// A Secret with a certificate and its private key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateText {
    /// The Secret, as `namespace/name`.
    pub secret: Box<str>,
}

/// The certificates that clients have to show.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificatesText {
    /// Whether a client without a certificate is refused.
    pub required: bool,
    /// The authorities whose certificates are accepted.
    pub ca: CaText,
}

/// TLS with the endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamText {
    /// The name that the endpoints' certificate must have, and that they are asked for.
    pub server_name: Box<str>,
    /// The authorities whose certificates are accepted.
    pub ca: CaText,
    /// The certificate that endpoints get on request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<CertificateText>,
}

/// The object with the certificates of authorities, as `namespace/name`. Its entry is `ca.crt`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CaText {
    /// A ConfigMap.
    ConfigMap(Box<str>),
    /// A Secret.
    Secret(Box<str>),
}

/// The lowest version of TLS that a client may use.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum MinVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V13,
}
