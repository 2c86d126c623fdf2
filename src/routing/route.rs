//! Routes: as they are asked for, and as they are served.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use super::{
    Attachment, Attachments, Backend, BackendKey, Hostname, Hostnames, ListenerRef, RouteKey,
    Scope, TrafficPolicy,
};
use crate::outcome::Outcome;

/// A valid route, as the control plane asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// Who it is.
    pub key: RouteKey,
    /// When it was created, in seconds since the epoch. Routes without a time count as the
    /// youngest.
    pub created: Option<i64>,
    /// The listeners that have it, with the hostnames that it has there. Without any, it gets no
    /// connection.
    pub attachments: Attachments,
    /// The protocols of which the client must offer one; empty means that none is asked for.
    pub alpn: Vec<Box<str>>,
    /// Where its connections go, each with its weight.
    pub backends: Vec<(BackendKey, u32)>,
    /// How it treats its connections.
    pub policy: TrafficPolicy,
}

impl RouteSpec {
    /// A route for these hostnames on every listener of the configuration, which asks for no ALPN. It
    /// leads nowhere yet.
    pub fn new(key: RouteKey, hostnames: Hostnames) -> Self {
        RouteSpec {
            key,
            created: None,
            attachments: [Attachment::to_all(Scope::Config, hostnames)].into(),
            alpn: Vec::new(),
            backends: Vec::new(),
            policy: TrafficPolicy::default(),
        }
    }

    /// The same route on these listeners of the configuration alone; on all if there are none.
    #[must_use]
    pub fn on(mut self, listeners: &[&str]) -> Self {
        for attachment in self.attachments.iter_mut().filter(|one| one.scope == Scope::Config) {
            attachment.listeners = listeners.iter().map(|name| (*name).into()).collect();
        }
        self
    }

    /// What it has of one scope.
    pub fn in_scope(&self, scope: &Scope) -> impl Iterator<Item = &Attachment> {
        self.attachments.iter().filter(move |attachment| attachment.scope == *scope)
    }

    /// Its hostnames, those of one attachment after those of another.
    pub fn hostnames(&self) -> impl Iterator<Item = Hostname<&str>> {
        self.attachments.iter().flat_map(|attachment| attachment.hostnames.iter())
    }

    /// Whether it takes connections of a client that offers the protocols for which `offers` holds.
    pub fn asks_for(&self, offers: impl Fn(&[u8]) -> bool) -> bool {
        self.alpn.is_empty() || self.alpn.iter().any(|protocol| offers(protocol.as_bytes()))
    }

    /// Whether it has connections of this listener.
    pub fn is_on<'l>(&self, listener: impl Into<ListenerRef<'l>>) -> bool {
        let listener = listener.into();
        self.attachments.iter().any(|attachment| attachment.is_to(listener))
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
    pub(super) round_robin: Mutex<RoundRobin>,
    /// What became of its connections.
    pub stats: Arc<RouteStats>,
}

/// The state of the smooth round robin among a route's backends.
#[derive(Debug)]
pub(super) struct RoundRobin {
    /// The current weight of each backend, if there are several.
    pub(super) gained: Box<[i64]>,
    /// Whether there was a first turn, which is by chance: processes that start together would all
    /// begin with the heaviest backend.
    pub(super) begun: bool,
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
        stats: Arc<RouteStats>,
    ) -> Self {
        let several = if backends.len() > 1 { backends.len() } else { 0 };
        let round_robin = Mutex::new(RoundRobin { gained: vec![0; several].into(), begun: false });
        Route { spec, backends, round_robin, stats }
    }
}

/// What became of a route's connections. It outlives tables: counters only rise.
#[derive(Debug, Default)]
pub struct RouteStats {
    /// Ended connections by outcome, in the order of [`Outcome::ALL`].
    ended: [AtomicU64; Outcome::ALL.len()],
    /// Bytes from the client to the endpoint.
    pub bytes_up: AtomicU64,
    /// Bytes from the endpoint to the client.
    pub bytes_down: AtomicU64,
}

impl RouteStats {
    /// How many connections ended so.
    pub fn ended(&self, outcome: Outcome) -> &AtomicU64 {
        // In bounds: every outcome stands at its own index of `Outcome::ALL`.
        &self.ended[outcome as usize]
    }
}
