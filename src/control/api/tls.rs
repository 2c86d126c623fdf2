//! TLS that sluice serves itself: `spec.tls` of a route, and the rules over it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Namespace, SecretName, list, schema};
use crate::policy::{CheckServerName, ConfigMapName, InvalidValue};

/// How a route serves TLS itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object with a mode and certificates")]
pub struct TlsSpec {
    /// `Terminate`: sluice decrypts the connections of this route with `certificates`, and the backends get what
    /// the clients have sent. The installation has to allow it (its setting `--terminate`). To pass connections
    /// on as they are, leave out `tls`.
    pub mode: TlsMode,

    /// The certificates to serve, 1 to 8. Of those that it can use, a client gets one that is valid now; of these,
    /// one with the server name that it asks for, an exact name before a wildcard; of these, ECDSA before RSA; and
    /// of equal ones the first. If none has the name, the client gets one all the same. Two certificates for the
    /// same names, ECDSA and RSA, serve all clients.
    #[serde(deserialize_with = "list::certificates")]
    #[schemars(
        length(min = 1, max = list::MAX_CERTIFICATES),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub certificates: Vec<CertificateRef>,

    /// The oldest version of TLS that clients may use: `1.2` or `1.3`. Without it, `1.2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "MinTlsVersion")]
    pub min_version: Option<MinTlsVersion>,

    /// What clients have to show of themselves. Without it, they are not asked for certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ClientCertificatesSpec")]
    pub client_certificates: Option<ClientCertificatesSpec>,

    /// TLS to the backends. Without it, they get the decrypted bytes over plain TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "UpstreamSpec")]
    pub upstream: Option<UpstreamSpec>,
}

/// What becomes of the TLS of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(expecting = "Terminate")]
pub enum TlsMode {
    /// It ends here.
    Terminate,
}

/// A version of TLS.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(expecting = "\"1.2\" or \"1.3\", in quotes")]
pub enum MinTlsVersion {
    /// RFC 5246.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V13,
}

/// A Secret with a certificate and its private key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(expecting = "an object with a secret")]
pub struct CertificateRef {
    /// The name of a Secret of type `kubernetes.io/tls`, as cert-manager makes them. Its entry `tls.crt` has the
    /// certificate, followed by those of the authorities between it and the root, and its entry `tls.key` has the
    /// private key of the certificate, all in PEM. A change of the Secret is served at once, and closes no
    /// connection.
    pub secret: SecretName,

    /// The Secret's namespace. Without it: the namespace of the route. A Secret of another namespace is used only
    /// as long as a ReferenceGrant there allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Namespace")]
    pub namespace: Option<Namespace>,
}

/// What clients have to show of themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(expecting = "an object with a ca")]
pub struct ClientCertificatesSpec {
    /// Whether a client without a certificate is refused. A certificate that `ca` does not vouch for is always
    /// refused.
    #[serde(default = "yes")]
    pub required: bool,

    /// The certificates of the authorities that vouch for the clients'.
    pub ca: CaRef,
}

fn yes() -> bool {
    true
}

/// TLS to the backends of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object with a serverName and a ca")]
pub struct UpstreamSpec {
    /// The server name that the backends are asked for, and that their certificates must have.
    pub server_name: CheckServerName,

    /// The certificates of the authorities that vouch for the backends'. An endpoint gets no data of the client
    /// unless they vouch for its certificate.
    pub ca: CaRef,

    /// The certificate that sluice shows to backends that ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CertificateRef")]
    pub client_certificate: Option<CertificateRef>,
}

/// A ConfigMap or a Secret with the certificates of authorities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CaFields", into = "CaFields")]
pub struct CaRef {
    /// The object.
    pub source: CaObject,
    /// Its namespace, unless it is that of the route.
    pub namespace: Option<Namespace>,
}

/// The object with the certificates of authorities, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaObject {
    /// A ConfigMap.
    ConfigMap(ConfigMapName),
    /// A Secret.
    Secret(SecretName),
}

/// A ConfigMap or a Secret with the certificates of authorities.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object with a configMap or a secret")]
#[schemars(extend("x-kubernetes-validations" = [schema::rule_telling(
    "has(self.configMap) != has(self.secret)",
    "(has(self.configMap) ? 'has both configMap and secret' : 'has neither configMap nor secret') \
     + '; give exactly one'"
)]))]
struct CaFields {
    /// The name of a ConfigMap. Its entry `ca.crt` has the certificates, in PEM. Either this or `secret` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ConfigMapName")]
    config_map: Option<ConfigMapName>,

    /// The name of a Secret. Its entry `ca.crt` has the certificates, in PEM. Either this or `configMap` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretName")]
    secret: Option<SecretName>,

    /// The namespace of the ConfigMap or Secret. Without it: the namespace of the route. One of another namespace
    /// is used only as long as a ReferenceGrant there allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Namespace")]
    namespace: Option<Namespace>,
}

impl TryFrom<CaFields> for CaRef {
    type Error = InvalidValue;

    fn try_from(fields: CaFields) -> Result<Self, InvalidValue> {
        let source = match (fields.config_map, fields.secret) {
            (Some(config_map), None) => CaObject::ConfigMap(config_map),
            (None, Some(secret)) => CaObject::Secret(secret),
            (Some(_), Some(_)) => {
                return Err(InvalidValue::new("has both configMap and secret; give exactly one"));
            }
            (None, None) => {
                return Err(InvalidValue::new(
                    "has neither configMap nor secret; give exactly one",
                ));
            }
        };
        Ok(CaRef { source, namespace: fields.namespace })
    }
}

impl From<CaRef> for CaFields {
    fn from(ca: CaRef) -> Self {
        let (config_map, secret) = match ca.source {
            CaObject::ConfigMap(name) => (Some(name), None),
            CaObject::Secret(name) => (None, Some(name)),
        };
        CaFields { config_map, secret, namespace: ca.namespace }
    }
}

impl JsonSchema for CaRef {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ca".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        CaFields::json_schema(generator)
    }
}
