//! The objects that people write: `SniRoute`, `sluice.dev/v1alpha1`.
//!
//! A value of these types is valid: whatever breaks a rule is refused by [`parse()`], with the field that
//! is at fault. [`parse_strictly`] refuses fields that do not exist, too.
//!
//! The doc comments of the fields are what `kubectl explain` shows.

mod address;
mod backend;
mod grant;
mod kind;
mod list;
mod parse;
mod port;
mod schema;
mod secret;
mod tls;
mod values;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) use address::dns_name;
pub use address::{Address, DnsName};
pub use backend::{BackendRef, BackendTarget, ServiceRef};
pub use grant::{GrantFrom, GrantTo, ReferenceGrant, ReferenceGrantSpec};
pub use kind::{Definition, FILE_KINDS, READ_KINDS, kind_of, not_read};
pub use parse::{parse_strictly, parse_with_known_spec};
pub use secret::{PassedText, Secret, SecretData};

pub use crate::policy::AlpnProtocol;
pub use crate::yaml::{FieldFault, read as parse};
pub use tls::{
    CaObject, CaRef, CertificateRef, ClientCertificatesSpec, MinTlsVersion, TlsMode, TlsSpec,
    UpstreamSpec,
};
pub use values::{ClassName, ListenerName, Namespace, SecretName, ServiceName};

use crate::policy::{
    Access, CheckKind, EndpointPolicy, HealthPolicy, Limits, LoadBalancing, Policy, ProxyProtocol,
    Timeouts,
};
use crate::routing::Hostname;

/// The label that says whose endpoints an `EndpointSlice` holds.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Which connections this route takes, and where they go.
// Clippy takes what two printer columns have in common for a duplicate.
#[allow(clippy::duplicated_attributes)]
#[derive(Clone, Debug, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "SniRoute",
    plural = "sniroutes",
    shortname = "sni",
    category = "sluice",
    namespaced,
    status = "SniRouteStatus",
    derive = "PartialEq",
    doc = "A SniRoute leads TLS connections to backends by the server name (SNI) that the client \
           asks for. Without tls, they are passed on as they are: nothing is decrypted.",
    printcolumn(name = "Hostnames", type_ = "string", json_path = ".status.hostnames"),
    printcolumn(name = "Class", type_ = "string", json_path = ".spec.className", priority = 1),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].reason",
        priority = 1
    ),
    printcolumn(
        name = "Resolved",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"ResolvedRefs\")].status"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].status"
    ),
    printcolumn(name = "Endpoints", type_ = "integer", json_path = ".status.endpoints"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
// What serde derives with `remote` are functions of the type: its traits are below, with the rule over several fields.
#[serde(rename_all = "camelCase", expecting = "an object", remote = "Self")]
#[schemars(extend("x-kubernetes-validations" = [schema::checked_name()]))]
pub struct SniRouteSpec {
    /// The class of the installation that serves this route (its setting `--class`, by default
    /// `sluice`). A route without a class is served by every installation that does not require one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ClassName")]
    pub class_name: Option<ClassName>,

    /// The server names that this route takes, 1 to 64. Each is
    /// - an exact name, such as `www.example.com`,
    /// - a wildcard: `*.example.com` takes `a.example.com` and `a.b.example.com`, but not
    ///   `example.com` itself, or
    /// - `*`, which takes any name, and clients that send none.
    ///
    /// An exact name beats a wildcard, a wildcard with more labels beats one with fewer, and `*`
    /// loses to all. If several routes claim the same hostname, those with a matching `alpn` come
    /// first, then the oldest.
    ///
    /// Upper case is the same as lower case. International names are written in their `xn--` form.
    /// Clients send no server name for an IP address.
    #[serde(deserialize_with = "list::hostnames")]
    #[schemars(
        length(min = 1, max = list::MAX_HOSTNAMES),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub hostnames: Vec<Hostname>,

    /// The listeners whose connections this route takes: names from the configuration of the
    /// installation, at most 16. Without any, the route takes connections of all listeners.
    #[serde(default, deserialize_with = "list::listeners", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = list::MAX_LISTENERS), extend("x-kubernetes-list-type" = "set"))]
    pub listeners: Vec<ListenerName>,

    /// Application protocols (ALPN) such as `h2` or `http/1.1`, at most 16. The route takes only
    /// connections whose client offers one of them. Without any, it takes connections of all
    /// clients. Client and backend still negotiate the protocol themselves.
    ///
    /// With `tls`, sluice negotiates: it selects the first protocol of this list that the client offers. Without
    /// any, it selects none, but for a client that offers `postgresql` alone. `acme-tls/1` is never selected
    /// unless it is listed.
    #[serde(default, deserialize_with = "list::alpn", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = list::MAX_ALPN), extend("x-kubernetes-list-type" = "set"))]
    pub alpn: Vec<AlpnProtocol>,

    /// The backends that get the connections, 1 to 16, each by its weight. At least one needs a
    /// weight above 0.
    #[serde(deserialize_with = "list::backends")]
    #[schemars(length(min = 1, max = list::MAX_BACKENDS), extend(
        "x-kubernetes-list-type" = "atomic",
        "x-kubernetes-validations" = [schema::rule(
            "size(self) == 0 || self.exists(b, b.weight > 0)",
            "all have weight 0; at least one needs a weight above 0"
        )]
    ))]
    pub backends: Vec<BackendRef>,

    /// How an endpoint is chosen for each connection.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub load_balancing: LoadBalancing,

    /// Deadlines of this route's connections. A deadline that is not set here is that of the
    /// installation. A duration is one to four numbers, each with its unit `h`, `m`, `s` or `ms`,
    /// such as `1h30m`. It is above zero and at most `720h`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub timeouts: Timeouts,

    /// The clients that this route admits, by their addresses. Others are refused before sluice connects
    /// to an endpoint. Without it, the installation decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Access")]
    pub access: Option<Access>,

    /// Limits on the connections of this route. Without any, nothing is limited, unless the installation does.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub limits: Limits,

    /// The PROXY header that the endpoints of this route get before the client's first byte.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub proxy_protocol: ProxyProtocol,

    /// When endpoints of this route count as failed, and are tried last.
    #[serde(
        default,
        deserialize_with = "HealthPolicy::checked",
        skip_serializing_if = "is_default"
    )]
    pub health: HealthPolicy,

    /// What becomes of connections of this route whose endpoint is gone.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub endpoints: EndpointPolicy,

    /// Whether new connections of this route are refused, during maintenance for example. Connections that
    /// exist go on, and the route keeps its hostnames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub suspend: Option<bool>,

    /// TLS that sluice serves itself, with certificates of this route. Without it, connections are passed on as they
    /// are, and the backends serve TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TlsSpec")]
    pub tls: Option<TlsSpec>,
}

impl SniRouteSpec {
    /// How it treats its connections.
    pub fn policy(&self) -> Policy {
        Policy {
            load_balancing: self.load_balancing.clone(),
            timeouts: self.timeouts.clone(),
            access: self.access.clone(),
            limits: self.limits.clone(),
            proxy_protocol: self.proxy_protocol.clone(),
            health: self.health.clone(),
            endpoints: self.endpoints.clone(),
            suspend: self.suspend,
        }
    }

    /// Whether its checks of type TLS have a name to ask for: most servers choose the certificate by it, and some
    /// refuse clients without one. A route with `tls` has the name of its `upstream`, or backends without TLS.
    fn has_checked_name(&self) -> bool {
        let active = self.health.active.as_ref().filter(|active| active.kind == CheckKind::Tls);
        active.is_none_or(|active| active.server_name.is_some())
            || self.tls.is_some()
            || self.hostnames.iter().any(|hostname| matches!(hostname, Hostname::Exact(_)))
    }
}

impl Serialize for SniRouteSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        SniRouteSpec::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for SniRouteSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spec = SniRouteSpec::deserialize(deserializer)?;
        match spec.has_checked_name() {
            true => Ok(spec),
            false => {
                let message = format!("health.active.serverName {}", schema::NO_CHECKED_NAME);
                Err(D::Error::custom(message))
            }
        }
    }
}

/// The claims of a route, for routes of which the rest cannot be read.
#[derive(Clone, Debug, Deserialize)]
pub struct RouteClaims {
    /// See [`SniRouteSpec::hostnames`].
    #[serde(deserialize_with = "list::hostnames")]
    pub hostnames: Vec<Hostname>,
    /// See [`SniRouteSpec::listeners`].
    #[serde(default, deserialize_with = "list::listeners")]
    pub listeners: Vec<ListenerName>,
}

/// The status of this route. Only sluice writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct SniRouteStatus {
    /// - `Accepted`: the route is valid and owns at least one of its hostnames.
    /// - `ResolvedRefs`: the Services and ports that it names exist and may be used, and so do the Secrets and
    ///   ConfigMaps of `tls`.
    /// - `Programmed`: it is in the routing table, and served.
    /// - `BackendCertificate`: the certificates that active health checks see are in order.
    ///
    /// If one of them is not `True`, its message says what to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"]
    ))]
    pub conditions: Vec<Condition>,

    /// The hostnames of the route in one line, for lists of routes: the first three, and how many more
    /// there are.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostnames: String,

    /// How many endpoints all backends have together. While there are none, connections that this
    /// route takes are closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 0))]
    pub endpoints: Option<i32>,
}

/// The custom resource definitions as YAML: what `sluice crds` prints and `kubectl apply` takes.
pub fn crds() -> String {
    // A definition is made of maps, lists and scalars: there is nothing in it that YAML cannot say.
    let mut definition = serde_json::to_value(SniRoute::crd()).unwrap_or_default();
    schema::reflow(&mut definition);
    let on_one_line = serde_yaml::ser_options! { folded_wrap_chars: usize::MAX };
    serde_yaml::to_string_with_options(&definition, on_one_line).unwrap_or_default()
}

/// What is null, or left out, is the default.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
