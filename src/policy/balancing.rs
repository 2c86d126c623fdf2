//! How an endpoint is chosen.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LoadBalancing, Policy};

/// How a connection's endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Balancing {
    /// Each in turn, by weight and smoothly: a heavy backend's turns are spread out.
    #[default]
    RoundRobin,
    /// The better of two endpoints that are chosen at random: the one with fewer connections for its
    /// weight.
    LeastConnections,
    /// Any, by weight.
    Random,
    /// The same source to the same endpoint, as long as that endpoint is there.
    SourceAddress,
    /// The same server name to the same endpoint, as long as that endpoint is there.
    ServerName,
}

/// Whether near endpoints are preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Locality {
    /// As the hints of EndpointSlices say.
    #[default]
    Hints,
    /// No.
    Ignore,
}

impl Balancing {
    /// All of them, the default first.
    pub const ALL: [Balancing; 5] = [
        Balancing::RoundRobin,
        Balancing::LeastConnections,
        Balancing::Random,
        Balancing::SourceAddress,
        Balancing::ServerName,
    ];

    /// Whether the endpoint follows from the client alone, so that all replicas choose alike.
    pub fn is_by_hash(self) -> bool {
        match self {
            Balancing::SourceAddress | Balancing::ServerName => true,
            Balancing::RoundRobin | Balancing::LeastConnections | Balancing::Random => false,
        }
    }

    /// The name that manifests and reports use.
    pub fn as_str(self) -> &'static str {
        match self {
            Balancing::RoundRobin => "RoundRobin",
            Balancing::LeastConnections => "LeastConnections",
            Balancing::Random => "Random",
            Balancing::SourceAddress => "SourceAddress",
            Balancing::ServerName => "ServerName",
        }
    }
}

impl From<Balancing> for Policy {
    /// A policy that sets nothing else.
    fn from(balancing: Balancing) -> Self {
        let load_balancing = LoadBalancing { policy: Some(balancing), ..LoadBalancing::default() };
        Policy { load_balancing, ..Policy::default() }
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
