//! How connections are treated, as people write it: in a route, and for all routes in the configuration.
//!
//! A [`Policy`] has only what somebody wrote. [`Layers`] fills in the rest: the installation's defaults, and
//! then sluice's own.
//!
//! The doc comments of the fields are what `kubectl explain` shows.

mod access;
mod active;
mod balancing;
mod built_in;
mod ceiling;
mod health;
mod layers;
mod limits;
mod number;
mod origin;
pub mod schema;
mod text;
mod values;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

pub use access::{Access, AccessList, AccessLists, MOST_NETWORKS};
pub use active::{ActiveHealth, CaSource, CheckKind, VerifyMode};
pub use balancing::{Balancing, Locality, UnknownBalancing};
pub use built_in::built_in;
pub use ceiling::Exceeded;
pub use health::{HealthPolicy, PassiveHealth, RacePolicy};
pub use layers::{EffectivePolicy, Layers, UnboundedField};
pub use limits::{
    ArrivalLimit, ConnectionLimit, EndpointLimits, LimitMode, Limits, Rate, SourceLimits,
    SourcePrefix,
};
pub use number::Number;
pub use origin::{PolicyOrigin, PolicyOrigins};
pub use text::{InvalidValue, TextValue, TextValueVisitor, text_value, word};
pub use values::{AlpnProtocol, CheckServerName, ConfigMapName, Spread, Timeout, is_subdomain};

/// How connections are treated. A field that is not set is taken from the next layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub struct Policy {
    /// How an endpoint is chosen for each connection.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub load_balancing: LoadBalancing,

    /// Deadlines of connections.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub timeouts: Timeouts,

    /// The clients that are admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Access")]
    pub access: Option<Access>,

    /// Limits on connections.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub limits: Limits,

    /// The PROXY header that is sent to the endpoints.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub proxy_protocol: ProxyProtocol,

    /// When endpoints count as failed.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub health: HealthPolicy,

    /// What becomes of connections whose endpoint is gone.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub endpoints: EndpointPolicy,

    /// Whether new connections are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub suspend: Option<bool>,
}

/// How an endpoint is chosen for each connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub struct LoadBalancing {
    /// - `RoundRobin`: each endpoint in turn, by weight.
    /// - `LeastConnections`: the endpoint with the fewest connections for its weight; of more than
    ///   16 endpoints, the better of two random ones.
    /// - `Random`: a random endpoint, by weight.
    /// - `SourceAddress`: the same endpoint for the same client address, as long as the endpoint
    ///   exists.
    /// - `ServerName`: the same endpoint for the same server name, as long as the endpoint exists.
    ///   Clients without a name are distributed by their addresses.
    ///
    /// All replicas choose the same endpoint for an address or a name.
    ///
    /// Without it, the installation's own; `RoundRobin` if that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Balancing")]
    pub policy: Option<Balancing>,

    /// The time over which the weight of an endpoint grows that is new beside others, or is ready again,
    /// such as `30s`. Without it, or with `SourceAddress` and `ServerName`, it gets its whole share at
    /// once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Timeout")]
    pub slow_start: Option<Timeout>,

    /// - `Hints`: endpoints that the Service means for this node come first, then those for this zone, then
    ///   the others, by the hints of its EndpointSlices (`trafficDistribution` of the Service).
    /// - `Ignore`: all endpoints are equal.
    ///
    /// `SourceAddress` and `ServerName` ignore hints, so that all replicas choose alike. Without it, the
    /// installation's own; `Hints` if that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Locality")]
    pub locality: Option<Locality>,

    /// How many bits of a client's address `SourceAddress` looks at, so that all clients of a network get
    /// the same endpoint.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub prefix: SourcePrefix,

    /// The race of a second endpoint against one that does not answer.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub race: RacePolicy,
}

/// Deadlines of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub struct Timeouts {
    /// How long one attempt to connect to one endpoint may take, such as `5s` or `500ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Timeout")]
    pub connect: Option<Timeout>,

    /// How long a connection may go without a byte in either direction before it is closed, such as
    /// `1h` or `1h30m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Timeout")]
    pub idle: Option<Timeout>,

    /// How long a connection may last, such as `24h`; up to 10 % more or less, so that not all end
    /// together. Then it is closed in the first pause of 500 ms, at most 30 s later. Without it, there is
    /// no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Timeout")]
    pub lifetime: Option<Timeout>,
}

/// The PROXY header that endpoints get before the client's first byte. It says who the client is, and to
/// which address it connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub struct ProxyProtocol {
    /// The version of the header: `V1`, a line of text, or `V2`, which is binary. Without it, no header is
    /// sent. All endpoints of the route must expect one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ProxyVersion")]
    pub send: Option<ProxyVersion>,

    /// Whether a header of version 2 has the server name that the client asked for. It has, unless this is
    /// `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub authority: Option<bool>,

    /// Whether a header of version 2 has an id of the connection: the one that a trusted proxy sent, or that
    /// of the access log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub unique_id: Option<bool>,

    /// Whether a header of version 2 has a checksum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub checksum: Option<bool>,
}

/// What becomes of connections whose endpoint is gone: removed from its Service, and not only not ready or
/// terminating.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub struct EndpointPolicy {
    /// - `Keep`: they go on for as long as the endpoint lives.
    /// - `Close`: they are closed.
    ///
    /// Without it, the installation's own; `Keep` if that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OnRemoval")]
    pub on_removal: Option<OnRemoval>,

    /// The time over which `Close` spreads them, such as `30s`, so that their clients do not all return at
    /// once. Without it, or with `0s`, they are closed at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Spread")]
    pub close_over: Option<Spread>,
}

/// What becomes of connections whose endpoint is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum OnRemoval {
    /// They go on.
    #[default]
    Keep,
    /// They are closed.
    Close,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// A binary header.
    V2,
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
