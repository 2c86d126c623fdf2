//! How a route treats its connections.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::EjectionRule;
use super::hash_ring::{hash_bits, hash_text};
use crate::limiter::LimitSet;
use crate::policy::{
    AccessList, AccessLists, Balancing, EffectivePolicy, HealthPolicy, Layers, LimitMode, Limits,
    Locality, Number, OnRemoval, PassiveHealth, Policy, ProxyVersion, RacePolicy, Spread, Timeout,
    Timeouts,
};

/// How a route treats its connections: its effective policy, ready for use. Routes with the same one share
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficPolicy {
    effective: EffectivePolicy,
    access: Arc<AccessList>,
    limits: Option<[Option<LimitSet>; 2]>,
    endpoint_limit: Option<usize>,
    reported_endpoint_limit: Option<usize>,
    connect: Duration,
    idle: Duration,
    lifetime: Option<Duration>,
    ejection: EjectionRule,
    race: RaceRule,
}

/// When a second endpoint is tried beside one that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaceRule {
    /// After how much silence.
    pub after: Duration,
    /// For how many clients at a time: a percentage of those that wait for an endpoint.
    pub budget: u32,
}

/// The PROXY header that a route's endpoints get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Its version.
    pub version: ProxyVersion,
    /// Whether it has the server name.
    pub authority: bool,
    /// Whether it has the connection's id.
    pub unique_id: bool,
    /// Whether it has a checksum.
    pub checksum: bool,
}

impl TrafficPolicy {
    /// Prepares a policy. Its access list is one of `lists`.
    pub fn new(mut effective: EffectivePolicy, lists: &mut AccessLists) -> Self {
        let asked = effective.policy.access.take();
        let (shared, access) = lists.shared(asked, effective.access_ceiling.clone());
        effective.policy.access = shared;
        let Timeouts { connect, idle, lifetime } = &effective.policy.timeouts;
        let or_longest = |timeout: &Option<Timeout>| timeout.map_or(Timeout::MAX, Timeout::get);
        let (connect, idle) = (or_longest(connect), or_longest(idle));
        let lifetime = lifetime.map(Timeout::get);
        let of_ceiling = effective.limits_ceiling.as_ref();
        let ceiling = of_ceiling.and_then(LimitSet::of);
        let limits =
            [LimitSet::of(&effective.policy.limits).filter(|own| Some(*own) != ceiling), ceiling];
        let limits = Some(limits).filter(|limits| limits.iter().any(Option::is_some));
        let of_endpoint =
            |limits: &Limits| usize::try_from(limits.per_endpoint.connections?.get()).ok();
        let own = of_endpoint(&effective.policy.limits);
        let (endpoint_limit, reported_endpoint_limit) = match effective.policy.limits.mode {
            Some(LimitMode::Report) => (of_ceiling.and_then(of_endpoint), own),
            // The ceiling has cut it down.
            Some(LimitMode::Enforce) | None => (own, None),
        };
        let ejection = ejection_rule(&effective.policy.health);
        let RacePolicy { after, budget } = effective.policy.load_balancing.race;
        let race = RaceRule { after: or_longest(&after), budget: budget.map_or(0, Number::get) };
        TrafficPolicy {
            effective,
            access,
            limits,
            endpoint_limit,
            reported_endpoint_limit,
            connect,
            idle,
            lifetime,
            ejection,
            race,
        }
    }

    /// The policy of a route with these fields, in an installation that sets none.
    pub fn of(asked: &Policy) -> Arc<Self> {
        let (effective, _) = Layers::default().effective(asked);
        Arc::new(TrafficPolicy::new(effective, &mut AccessLists::default()))
    }

    /// The policy of a route and an installation that set nothing.
    pub fn built_in() -> Arc<Self> {
        static BUILT_IN: LazyLock<Arc<TrafficPolicy>> =
            LazyLock::new(|| TrafficPolicy::of(&Policy::default()));
        Arc::clone(&BUILT_IN)
    }

    /// The policy as people write it.
    pub fn effective(&self) -> &EffectivePolicy {
        &self.effective
    }

    /// How an endpoint is chosen.
    pub fn balancing(&self) -> Balancing {
        self.effective.policy.load_balancing.policy.unwrap_or_default()
    }

    /// Over which time the weight of an endpoint that comes back grows.
    pub fn slow_start(&self) -> Option<Duration> {
        // Every replica must choose the same endpoint for a source or a name.
        let applies = !self.balancing().is_by_hash();
        self.effective.policy.load_balancing.slow_start.filter(|_| applies).map(Timeout::get)
    }

    /// Whether near endpoints are preferred. Never if endpoints are chosen by hash, because replicas in different
    /// places must agree.
    pub fn prefers_near(&self) -> bool {
        // A policy of an older version lacks the field.
        self.effective.policy.load_balancing.locality == Some(Locality::Hints)
            && !self.balancing().is_by_hash()
    }

    /// The hash by which the endpoint of a client is chosen, if the policy chooses by one: the same for the
    /// same source or server name.
    pub(super) fn key(&self, source: IpAddr, name: Option<&str>) -> Option<u64> {
        let of_source = || hash_bits(self.effective.policy.load_balancing.prefix.of(source));
        match self.balancing() {
            Balancing::SourceAddress => Some(of_source()),
            Balancing::ServerName => Some(name.map_or_else(of_source, hash_text)),
            Balancing::RoundRobin | Balancing::LeastConnections | Balancing::Random => None,
        }
    }

    /// The deadline of one attempt to connect to one endpoint.
    pub fn connect_timeout(&self) -> Duration {
        self.connect
    }

    /// How long a connection may go without a byte in either direction.
    pub fn idle_timeout(&self) -> Duration {
        self.idle
    }

    /// How long a connection may last, but for a tenth more or less.
    pub fn lifetime(&self) -> Option<Duration> {
        self.lifetime
    }

    /// When its endpoints are ejected.
    pub fn ejection(&self) -> &EjectionRule {
        &self.ejection
    }

    /// When a second endpoint is tried beside one that does not answer.
    pub fn race(&self) -> RaceRule {
        self.race
    }

    /// The clients that are admitted.
    pub fn access(&self) -> &AccessList {
        &self.access
    }

    /// The limits on its connections, if there are any: those of the policy, unless they are the ceiling's, and those
    /// of the ceiling. Each counts with its own one of [`RouteStats::limiters`](super::RouteStats::limiters), so
    /// that the ceiling's count does not depend on what the route says.
    pub fn limits(&self) -> Option<&[Option<LimitSet>; 2]> {
        self.limits.as_ref()
    }

    /// How many connections an endpoint may have.
    pub fn endpoint_limit(&self) -> Option<usize> {
        self.endpoint_limit
    }

    /// The same, if more are only reported.
    pub fn reported_endpoint_limit(&self) -> Option<usize> {
        self.reported_endpoint_limit
    }

    /// The PROXY header for endpoints, if they get one.
    pub fn proxy_header(&self) -> Option<ProxyHeader> {
        let asked = &self.effective.policy.proxy_protocol;
        Some(ProxyHeader {
            version: asked.send?,
            authority: asked.authority.unwrap_or(true),
            unique_id: asked.unique_id.unwrap_or(false),
            checksum: asked.checksum.unwrap_or(false),
        })
    }

    /// What becomes of connections whose endpoint is gone, and the time over which they are closed.
    pub fn on_removal(&self) -> (OnRemoval, Duration) {
        let asked = &self.effective.policy.endpoints;
        let over = asked.close_over.map(Spread::get);
        (asked.on_removal.unwrap_or_default(), over.unwrap_or_default())
    }

    /// Whether new connections are refused.
    pub fn is_suspended(&self) -> bool {
        self.effective.policy.suspend.unwrap_or(false)
    }
}

/// The rule of an effective policy. One of an older version may lack the fields, and then ejects nothing.
fn ejection_rule(health: &HealthPolicy) -> EjectionRule {
    let PassiveHealth { failures, eject_for, max_eject_for } = &health.passive;
    match (failures, eject_for, max_eject_for) {
        (Some(failures), Some(first), Some(longest)) => {
            // They may be of two layers.
            EjectionRule::new(failures.get(), first.get(), longest.max(first).get())
        }
        _ => EjectionRule::OFF,
    }
}
