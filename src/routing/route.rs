//! Routes: [`RouteSpec`] from the control plane, and [`Route`] in the table.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};

use super::hash_ring::{hash_text, mix};
use super::{
    Attachment, Attachments, Backend, BackendKey, CheckMethod, CheckParams, HealthRule, Hostname,
    Hostnames, ListenerRef, ObjectKey, RouteKey, Scope, TlsCheck, TrafficPolicy,
};
use crate::limiter::{ExceededLimit, Limiter, SourceTable, Tick};
use crate::outcome::Outcome;
use crate::policy::{ActiveHealth, CheckKind};
use crate::termination::Termination;

/// A valid route, as the control plane defines it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// Its identity.
    pub key: RouteKey,
    /// When it was created, in seconds since the epoch. Routes without a time count as the
    /// youngest.
    pub created: Option<i64>,
    /// Its listeners, with its hostnames there. Without any, it gets no connections.
    pub attachments: Attachments,
    /// The protocols of which the client must offer one; empty means any.
    pub alpn: Vec<Box<str>>,
    /// Its backends with their weights.
    pub backends: Vec<(BackendKey, u32)>,
    /// Its traffic policy.
    pub policy: Arc<TrafficPolicy>,
    /// How it serves TLS. `None` is Passthrough.
    pub termination: Option<Arc<Termination>>,
}

impl RouteSpec {
    /// A route for these hostnames on all listeners of the configuration, without ALPN and backends.
    pub fn new(key: RouteKey, hostnames: Hostnames) -> Self {
        RouteSpec {
            key,
            created: None,
            attachments: [Attachment::to_all(Scope::Config, hostnames)].into(),
            alpn: Vec::new(),
            backends: Vec::new(),
            policy: TrafficPolicy::built_in(),
            termination: None,
        }
    }

    /// Limits the route to these listeners of the configuration; with an empty list, to all of them.
    #[must_use]
    pub fn on(mut self, listeners: &[&str]) -> Self {
        for attachment in self.attachments.iter_mut().filter(|one| one.scope == Scope::Config) {
            attachment.listeners = listeners.iter().map(|name| (*name).into()).collect();
        }
        self
    }

    /// Its attachments in one scope.
    pub fn in_scope(&self, scope: &Scope) -> impl Iterator<Item = &Attachment> {
        self.attachments.iter().filter(move |attachment| attachment.scope == *scope)
    }

    /// Its hostnames, over all attachments.
    pub fn hostnames(&self) -> impl Iterator<Item = Hostname<&str>> {
        self.attachments.iter().flat_map(|attachment| attachment.hostnames.iter())
    }

    /// Whether it accepts a client that offers the protocols for which `offers` returns true.
    pub fn asks_for(&self, offers: impl Fn(&[u8]) -> bool) -> bool {
        self.alpn.is_empty() || self.alpn.iter().any(|protocol| offers(protocol.as_bytes()))
    }

    /// The active checks of its endpoints, if it has any. Endpoints that get decrypted bytes have no TLS to check.
    pub fn check(&self) -> Option<CheckParams> {
        let policy = &self.policy.effective().policy;
        let active = policy.health.active.as_ref()?;
        let method = match active.kind {
            CheckKind::None => return None,
            CheckKind::Tls if self.has_tls_endpoints() => CheckMethod::Tls(self.tls_check(active)),
            CheckKind::Tcp | CheckKind::Tls => CheckMethod::Tcp,
        };
        Some(CheckParams {
            method,
            proxy_header: policy.proxy_protocol.send,
            interval: active.interval(),
            timeout: active.timeout(),
            unhealthy: active.unhealthy(),
            healthy: active.healthy(),
        })
    }

    /// Whether its endpoints are spoken to in TLS, by the client or by sluice.
    fn has_tls_endpoints(&self) -> bool {
        self.termination.as_ref().is_none_or(|termination| termination.text().upstream.is_some())
    }

    fn tls_check(&self, active: &ActiveHealth) -> TlsCheck {
        let upstream = self.termination.as_ref().and_then(|one| one.text().upstream.as_ref());
        let upstream = upstream.map(|upstream| upstream.server_name.clone());
        let own = || {
            self.hostnames().find_map(|hostname| match hostname {
                Hostname::Exact(name) => Some(name.into()),
                Hostname::Any | Hostname::Wildcard(_) => None,
            })
        };
        let asked = active.server_name.as_ref().map(|name| name.as_str().into());
        let ca = active.ca.as_ref();
        let ca = ca.map(|ca| ObjectKey::new(self.key.namespace(), ca.config_map.as_str()));
        TlsCheck {
            server_name: asked.or(upstream).or_else(own),
            alpn: active.alpn.clone(),
            verify: active.verify(),
            ca,
        }
    }

    /// Whether it is attached to this listener.
    pub fn is_on<'l>(&self, listener: impl Into<ListenerRef<'l>>) -> bool {
        let listener = listener.into();
        self.attachments.iter().any(|attachment| attachment.is_to(listener))
    }

    /// Its precedence among routes with the same hostname. The greatest one that matches the connection
    /// wins: with ALPN before without, then the oldest, then by key.
    pub fn precedence(&self) -> impl Ord + use<'_> {
        use std::cmp::Reverse;
        let youngest = i64::MAX;
        (!self.alpn.is_empty(), Reverse(self.created.unwrap_or(youngest)), Reverse(&self.key))
    }

    /// Its age, which decides the ownership of hostnames: the least is the oldest.
    pub fn age(&self) -> impl Ord + use<'_> {
        (self.created.unwrap_or(i64::MAX), &self.key)
    }
}

/// A route as the data plane serves it.
#[derive(Debug)]
pub struct Route {
    /// Its definition.
    pub spec: RouteSpec,
    /// Its backends, in the order of the spec.
    pub backends: Box<[WeightedBackend]>,
    /// The balancer's state over the backends.
    pub(super) round_robin: Mutex<RoundRobin>,
    /// The counters of its connections.
    pub stats: Arc<RouteStats>,
    /// The active checks of its endpoints. Routes with equal ones share them.
    pub check: Option<Arc<CheckParams>>,
}

/// The state of the smooth round robin among a route's backends.
#[derive(Debug)]
pub(super) struct RoundRobin {
    /// The current weight of each backend, if there are several.
    pub(super) gained: Box<[i64]>,
    /// Whether there was a first turn. It is random, or processes that start together would all begin with
    /// the heaviest backend.
    pub(super) begun: bool,
}

/// A backend with its share of a route's connections.
#[derive(Debug)]
pub struct WeightedBackend {
    /// The share, relative to the sum over the route.
    pub weight: u32,
    /// The backend, shared with every other route that names it.
    pub backend: Arc<Backend>,
    /// The hash of its key, the same on every replica whatever other backends the route has.
    pub(super) hash: u64,
}

impl WeightedBackend {
    /// A backend that the route names for the time `number`, beginning with 0.
    pub(super) fn new(weight: u32, backend: Arc<Backend>, number: usize) -> Self {
        let hash = hash_text(&backend.key().to_string());
        WeightedBackend { weight, backend, hash: mix(hash ^ number as u64) }
    }
}

impl Route {
    /// The limits that a connection of `source` would exceed now, of those of the route and those of the ceiling.
    /// Counts nothing.
    pub fn exceeded(&self, source: IpAddr) -> [Option<ExceededLimit>; 2] {
        let limits = self.spec.policy.limits().zip(self.stats.limiters.get());
        let Some((limits, limiters)) = limits else { return [None; 2] };
        let now = Tick::now();
        std::array::from_fn(|place| {
            let (limits, limiter) = (limits.get(place)?.as_ref()?, limiters.get(place)?);
            limiter.exceeded(limits, source, now)
        })
    }

    /// Whether any of its backends has this address, for new connections or not.
    pub fn has_address(&self, address: SocketAddr) -> bool {
        self.backends.iter().any(|backend| backend.backend.endpoints().has_address(address))
    }

    /// How it judges the health of endpoints.
    pub fn health_rule(&self) -> HealthRule<'_> {
        HealthRule { ejection: self.spec.policy.ejection(), check: self.check.as_ref() }
    }

    pub(super) fn new(
        spec: RouteSpec,
        backends: Box<[WeightedBackend]>,
        stats: Arc<RouteStats>,
        check: Option<Arc<CheckParams>>,
    ) -> Self {
        let several = if backends.len() > 1 { backends.len() } else { 0 };
        let round_robin = Mutex::new(RoundRobin { gained: vec![0; several].into(), begun: false });
        Route { spec, backends, round_robin, stats, check }
    }
}

/// What is counted of a route's connections. It outlives tables.
#[derive(Debug, Default)]
pub struct RouteStats {
    /// Ended connections by outcome, in the order of [`Outcome::ALL`].
    ended: [AtomicU64; Outcome::ALL.len()],
    /// Bytes from the client to the endpoint.
    pub bytes_up: AtomicU64,
    /// Bytes from the endpoint to the client.
    pub bytes_down: AtomicU64,
    /// How many of its clients have several attempts to connect at the same time.
    pub racing: AtomicUsize,
    /// Connections that were admitted although they exceed a limit, because the limit is only reported.
    pub over_limit: AtomicU64,
    /// When the first of its endpoints' certificates expires, in seconds since 1970. 0 if none is known.
    pub certificate_expiry: AtomicU64,
    limiters: OnceLock<[Arc<Limiter>; 2]>,
}

impl RouteStats {
    /// The number of connections with this outcome.
    pub fn ended(&self, outcome: Outcome) -> &AtomicU64 {
        // In bounds: every outcome is its own index in `Outcome::ALL`.
        &self.ended[outcome as usize]
    }

    /// The limiters of the route, which is of this namespace. They are made when its first connection needs them,
    /// and count their sources in the first table that is given here.
    pub fn limiters(&self, table: &Arc<SourceTable>, namespace: &str) -> &[Arc<Limiter>; 2] {
        let new = || std::array::from_fn(|_| Arc::new(Limiter::new(table, namespace)));
        self.limiters.get_or_init(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::termination::{CaText, NotReady, TerminationText, UpstreamText};

    /// How the endpoints of a route with TLS checks are checked.
    fn method(text: Option<TerminationText>) -> CheckMethod {
        let mut policy = Policy::default();
        policy.health.active = Some(ActiveHealth::new(CheckKind::Tls));
        let termination =
            text.map(|text| Arc::new(Termination::not_ready(text, NotReady::NoCertificate)));
        let spec = RouteSpec {
            policy: TrafficPolicy::of(&policy),
            termination,
            ..RouteSpec::new(RouteKey::sni_route("ns", "r"), Hostname::Exact("a.test").into())
        };
        spec.check().unwrap().method
    }

    #[test]
    fn endpoints_are_checked_as_they_are_spoken_to() {
        let asked = |method| match method {
            CheckMethod::Tls(check) => check.server_name,
            CheckMethod::Tcp => None,
        };
        assert_eq!(asked(method(None)).as_deref(), Some("a.test"));
        assert_eq!(method(Some(TerminationText::default())), CheckMethod::Tcp);
        let upstream = UpstreamText {
            server_name: "b.test".into(),
            ca: CaText::ConfigMap("ns/ca".into()),
            client_certificate: None,
        };
        let text = TerminationText { upstream: Some(upstream), ..TerminationText::default() };
        assert_eq!(asked(method(Some(text))).as_deref(), Some("b.test"));
    }
}
