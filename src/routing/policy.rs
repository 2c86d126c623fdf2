//! How a route treats its connections.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::text;
use crate::duration;

/// How a route treats its connections. What is not set is the installation's own.
///
/// Its text is that of [`wire`](super::wire).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicy {
    /// How an endpoint is chosen.
    #[serde(rename = "policy", default, with = "text")]
    pub balancing: Balancing,
    /// Its own deadlines.
    #[serde(default)]
    pub timeouts: Timeouts,
}

/// How a connection's endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balancing {
    /// Each in turn, by weight and smoothly: a heavy backend's turns are spread out.
    #[default]
    RoundRobin,
    /// The better of two endpoints that are chosen at random: the one with fewer connections for its
    /// weight.
    LeastConnections,
    /// Any, by weight.
    Random,
    /// The same source address to the same endpoint, as long as that endpoint is there.
    SourceAddress,
}

/// Deadlines of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// For one attempt to connect to one endpoint.
    #[serde(default, with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub connect: Option<Duration>,
    /// Without a byte in either direction.
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

    /// The name that manifests and reports use.
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

/// A text is the name of no way to choose an endpoint.
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
