//! The traffic policy of a route.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::text;
use crate::duration;

/// The traffic policy of a route. For fields that are not set, the installation's settings apply.
///
/// Its text form is that of [`wire`](super::wire).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicy {
    /// How endpoints are chosen.
    #[serde(rename = "policy", default, with = "text")]
    pub balancing: Balancing,
    /// The route's own timeouts.
    #[serde(default)]
    pub timeouts: Timeouts,
}

/// How the endpoint of a connection is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balancing {
    /// Each in turn, by weight. The turns of a heavy backend are spread out.
    #[default]
    RoundRobin,
    /// The better of two random endpoints: the one with fewer connections relative to its weight.
    LeastConnections,
    /// A random endpoint, by weight.
    Random,
    /// Always the same endpoint for the same source address, as long as the endpoint exists.
    SourceAddress,
}

/// The timeouts of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// The timeout of one attempt to connect to one endpoint.
    #[serde(default, with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub connect: Option<Duration>,
    /// The timeout without a byte in either direction.
    #[serde(default, with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub idle: Option<Duration>,
}

impl Balancing {
    /// All of them, the default first.
    pub const ALL: [Balancing; 4] = [
        Balancing::RoundRobin,
        Balancing::LeastConnections,
        Balancing::Random,
        Balancing::SourceAddress,
    ];

    /// The name in manifests and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Balancing::RoundRobin => "RoundRobin",
            Balancing::LeastConnections => "LeastConnections",
            Balancing::Random => "Random",
            Balancing::SourceAddress => "SourceAddress",
        }
    }
}

impl fmt::Display for Balancing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not the name of a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a policy; write one of {names}", names = Balancing::ALL.map(Balancing::as_str).join(", "))]
pub struct UnknownBalancing(String);

impl FromStr for Balancing {
    type Err = UnknownBalancing;

    fn from_str(text: &str) -> Result<Self, UnknownBalancing> {
        let known = Balancing::ALL.into_iter().find(|balancing| balancing.as_str() == text);
        known.ok_or_else(|| UnknownBalancing(text.to_owned()))
    }
}
