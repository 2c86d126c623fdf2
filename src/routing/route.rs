//! Routes: as they are asked for, and as they are served.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use super::{Backend, BackendKey, Hostnames, RouteKey, TrafficPolicy};
use crate::outcome::Outcome;

/// A valid route, as the control plane asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// Who it is.
    pub key: RouteKey,
    /// When it was created, in seconds since the epoch. Routes without a time count as the
    /// youngest.
    pub created: Option<i64>,
    /// The names it claims.
    pub hostnames: Hostnames,
    /// The listeners it is bound to; empty means all.
    pub listeners: Vec<Box<str>>,
    /// The protocols of which the client must offer one; empty means that none is asked for.
    pub alpn: Vec<Box<str>>,
    /// Where its connections go, each with its weight.
    pub backends: Vec<(BackendKey, u32)>,
    /// How it treats its connections.
    pub policy: TrafficPolicy,
}

impl RouteSpec {
    /// A route for these hostnames on every listener, which asks for no ALPN. It leads nowhere yet.
    pub fn new(key: RouteKey, hostnames: Hostnames) -> Self {
        RouteSpec {
            key,
            created: None,
            hostnames,
            listeners: Vec::new(),
            alpn: Vec::new(),
            backends: Vec::new(),
            policy: TrafficPolicy::default(),
        }
    }

    /// Whether a connection to `listener` whose client offers the protocols for which `offers`
    /// holds may take this route. The hostname is a separate matter.
    pub fn admits(&self, listener: &str, offers: impl Fn(&[u8]) -> bool) -> bool {
        self.serves(listener)
            && (self.alpn.is_empty()
                || self.alpn.iter().any(|protocol| offers(protocol.as_bytes())))
    }

    /// Whether it has connections of this listener.
    pub fn serves(&self, listener: &str) -> bool {
        self.listeners.is_empty() || self.listeners.iter().any(|name| **name == *listener)
    }

    /// The order among routes that claim the same hostname; the greatest that admits the
    /// connection wins: with ALPN before without, then the oldest, then namespace/name.
    pub fn precedence(&self) -> impl Ord + use<'_> {
        use std::cmp::Reverse;
        let youngest = i64::MAX;
        (!self.alpn.is_empty(), Reverse(self.created.unwrap_or(youngest)), Reverse(&self.key))
    }

    /// What decides which namespace owns a hostname: the least among those that claim it, the
    /// oldest route, does.
    pub fn age(&self) -> impl Ord + use<'_> {
        (self.created.unwrap_or(i64::MAX), &self.key)
    }
}

/// A route as the data plane serves it.
#[derive(Debug)]
pub struct Route {
    /// What was asked for.
    pub spec: RouteSpec,
    /// Its backends, in the order of the spec.
    pub backends: Box<[WeightedBackend]>,
    /// Whose turn it is among the backends; the balancer's state.
    pub turns: Mutex<Turns>,
    /// What became of its connections.
    pub tally: Arc<Tally>,
}

/// The state of the smooth round robin among a route's backends.
#[derive(Debug)]
pub struct Turns {
    /// The current weight of each backend, if there are several.
    pub gained: Box<[i64]>,
    /// Whether there was a first turn, which is by chance: processes that start together would all
    /// begin with the heaviest backend.
    pub begun: bool,
}

/// A backend with its share of a route's connections.
#[derive(Debug)]
pub struct WeightedBackend {
    /// The share, relative to the sum over the route.
    pub weight: u32,
    /// The backend, shared with every other route that names it.
    pub backend: Arc<Backend>,
}

impl Route {
    pub(super) fn new(
        spec: RouteSpec,
        backends: Box<[WeightedBackend]>,
        tally: Arc<Tally>,
    ) -> Self {
        let several = if backends.len() > 1 { backends.len() } else { 0 };
        let turns = Mutex::new(Turns { gained: vec![0; several].into(), begun: false });
        Route { spec, backends, turns, tally }
    }
}

/// What became of a route's connections. It outlives tables: counters only rise.
#[derive(Debug, Default)]
pub struct Tally {
    /// Ended connections by outcome, in the order of [`Outcome::ALL`].
    ended: [AtomicU64; Outcome::ALL.len()],
    /// Bytes from the client to the endpoint.
    pub bytes_up: AtomicU64,
    /// Bytes from the endpoint to the client.
    pub bytes_down: AtomicU64,
}

impl Tally {
    /// How many connections ended so.
    pub fn ended(&self, outcome: Outcome) -> &AtomicU64 {
        // In bounds: every outcome stands at its own index of `Outcome::ALL`.
        &self.ended[outcome as usize]
    }
}
