//! The objects that people write: `SniRoute`, `sluice.dev/v1alpha1`.
//!
//! A value of these types is valid: whatever breaks a rule is refused while it is parsed, so that
//! the error of a parser that knows lines and fields (as `serde_yaml` does) names both. Unknown
//! fields are ignored here; a source that wants to be strict finds them with `serde_ignored`.
//!
//! The doc comments of the fields are what `kubectl explain` shows.

mod address;
mod backend;
mod grant;
mod port;
mod values;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(super) use address::dns_name;
pub use address::{Address, DnsName};
pub use backend::{Backend, BackendTarget, ServiceRef};
pub use grant::{GATEWAY_GROUP, GrantFrom, GrantTo, ReferenceGrant, ReferenceGrantSpec};
pub use values::{Alpn, ClassName, Invalid, ListenerName, Namespace, ServiceName, Timeout};

use crate::routing::{Hostname, Policy};

/// The label that says whose endpoints an `EndpointSlice` holds.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// What is routed, and where to.
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
    doc = "Routes TLS connections by the server name (SNI) of their ClientHello, without opening them.",
    printcolumn(name = "Hostnames", type_ = "string", json_path = ".spec.hostnames"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].status"
    ),
    printcolumn(name = "Endpoints", type_ = "integer", json_path = ".status.endpoints"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct SniRouteSpec {
    /// Which installation of sluice serves this route: the one whose class this is. A route that
    /// names no class is served by every installation that does not require one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ClassName")]
    pub class_name: Option<ClassName>,

    /// The server names that this route takes: exact names (`www.example.com`), wildcards
    /// (`*.example.com` takes `a.example.com` and `a.b.example.com`, not `example.com` itself) or
    /// `*` for any name and for clients that send none. An exact name beats a wildcard, a wildcard
    /// with more labels beats one with fewer, and `*` loses to all. If several routes claim the
    /// same hostname, those with a matching `alpn` come first, then the oldest.
    #[serde(deserialize_with = "backend::hostnames")]
    #[schemars(length(min = 1, max = 64))]
    pub hostnames: Vec<Hostname>,

    /// The names of the listeners whose connections this route takes. Without any: all listeners.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerName>,

    /// The application protocols (ALPN) that this route takes, such as `h2`: the client must offer
    /// one of them. Without any, it makes no difference what the client offers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<Alpn>,

    /// Where the connections go: 1 to 16 backends, which share them by weight.
    #[serde(deserialize_with = "backend::backends")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-validations" = [{
        "rule": "self.exists(b, b.weight > 0)",
        "message": "at least one backend needs a weight above 0"
    }]))]
    pub backends: Vec<Backend>,

    /// How an endpoint is chosen for each connection.
    #[serde(default, skip_serializing_if = "is_default")]
    pub load_balancing: LoadBalancing,

    /// Deadlines of this route's connections. What is not given here is as the installation has
    /// it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: RouteTimeouts,
}

/// How an endpoint is chosen for each connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoadBalancing {
    /// `RoundRobin`: each in turn, by weight. `LeastConnections`: the endpoint with the fewest
    /// connections for its weight. `Random`: any, by weight. `SourceAddress`: the same client
    /// address to the same endpoint, as long as that endpoint is there.
    #[serde(default)]
    pub policy: Policy,
}

/// Deadlines of a route's connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteTimeouts {
    /// How long one attempt to connect to one endpoint may take, such as `5s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Timeout")]
    pub connect: Option<Timeout>,

    /// How long a connection may go without a byte in either direction, such as `1h` or `1h30m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Timeout")]
    pub idle: Option<Timeout>,
}

/// What became of a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SniRouteStatus {
    /// `Accepted`: the route is valid and owns at least one of its hostnames. `ResolvedRefs`: the
    /// Services and ports that it names exist. `Programmed`: it is in the routing table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"]
    ))]
    pub conditions: Vec<Condition>,

    /// How many endpoints its backends have, over all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 0))]
    pub endpoints: Option<i32>,
}

/// The custom resource definitions as YAML: what `sluice crds` prints and `kubectl apply` takes.
pub fn crds() -> String {
    // A definition is made of maps, lists and scalars: there is nothing in it that YAML cannot say.
    serde_yaml::to_string(&SniRoute::crd()).unwrap_or_default()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
