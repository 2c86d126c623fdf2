//! The report of `/routes`: all served and refused routes, as JSON.
//!
//! The report contains everything that a lookup needs, so that the table of [`RoutesReport::snapshot`]
//! decides like the original. Readers ignore unknown fields, and skip routes that they cannot read.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::certificates::{CertificateId, ServedCertificate};
use crate::control::status::{Condition, RouteStatus, Statuses};
use crate::policy::{Access, AccessLists, EffectivePolicy, Limits, PolicyOrigin};
use crate::routing::wire::{BackendText, InvalidText, RouteText};
use crate::routing::{
    Availability, Endpoint, EndpointPlace, EndpointPlaces, Moment, ObjectRef, Ring, Route,
    RouteKey, RouteSpec, Snapshot, Table, TableReader, WeightedBackend, ring_in_use,
};
use crate::termination::{Termination, TlsState};

/// All routes of an installation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoutesReport {
    /// The table's generation; 0 means that there is no table yet.
    pub generation: u64,
    /// What the installation adds to all routes. The routes do not repeat it.
    #[serde(default, skip_serializing_if = "InstallationPolicy::is_empty")]
    pub installation: InstallationPolicy,
    /// The certificates that routes serve, by Secret. The routes name the Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<ServedCertificate>,
    /// The routes, by namespace and name.
    pub routes: Vec<RouteReport>,
}

/// The access lists of an installation, and its ceiling of limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstallationPolicy {
    /// That of the setting `policy`, for routes without one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// That of the setting `policyCeiling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_ceiling: Option<Access>,
    /// The limits of the setting `policyCeiling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits_ceiling: Option<Limits>,
}

impl InstallationPolicy {
    fn is_empty(&self) -> bool {
        *self == InstallationPolicy::default()
    }

    /// Moves the installation's lists here from a route.
    fn take(&mut self, policy: &mut EffectivePolicy) {
        if policy.access_is_of(PolicyOrigin::Policy) {
            self.access = policy.policy.access.take().or_else(|| self.access.take());
        }
        self.access_ceiling = policy.access_ceiling.take().or_else(|| self.access_ceiling.take());
        self.limits_ceiling = policy.limits_ceiling.take().or_else(|| self.limits_ceiling.take());
    }

    /// The policy of a route, with the installation's lists.
    fn complete(&self, mut policy: EffectivePolicy) -> EffectivePolicy {
        if policy.access_is_of(PolicyOrigin::Policy) {
            policy.policy.access.clone_from(&self.access);
        }
        policy.access_ceiling.clone_from(&self.access_ceiling);
        policy.limits_ceiling.clone_from(&self.limits_ceiling);
        policy
    }
}

/// One route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteReport {
    /// Whether the route is in the table. If not, its conditions contain the reason, and only its name is
    /// known.
    pub served: bool,
    /// The definition of the route.
    #[serde(flatten)]
    pub route: RouteText,
    /// Whether it serves TLS, if it terminates it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_state: Option<TlsState>,
    /// The certificates that it serves, in its order, of those in the report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub served_certificates: Vec<CertificateId>,
    /// Its backends.
    #[serde(default)]
    pub backends: Vec<BackendReport>,
    /// The conditions of its status.
    #[serde(default)]
    pub conditions: Vec<ConditionReport>,
}

/// One backend of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendReport {
    /// The backend.
    #[serde(flatten)]
    pub backend: BackendText,
    /// Its share of the route's connections.
    pub weight: u32,
    /// The ring that its new connections go to at present, if some endpoints are nearer than others to the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<Ring>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointReport>,
}

/// An endpoint of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointReport {
    /// Its address.
    pub address: SocketAddr,
    /// The node that it runs on, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The zone that it is in, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// `node` if it is meant for the clients of the node of this process, `zone` if for those of its zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<Ring>,
    /// `serving`, or `resting` for some time after a failure, `ejected` after several, or `unhealthy` after
    /// active checks have failed. New connections prefer other endpoints to those that are not `serving`.
    pub state: String,
    /// The number of connections from this process.
    pub active_connections: usize,
}

/// One condition, as in the status of the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionReport {
    /// `Accepted`, `ResolvedRefs`, `Programmed` or `BackendCertificate`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// The reason, one CamelCase word.
    pub reason: String,
    /// The message, for people.
    pub message: String,
}

/// A route of a report that this version cannot read, for example because a newer sluice wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{route}: {fault}")]
pub struct UnreadableEntry {
    /// Its kind, namespace and name, if they are known.
    route: String,
    fault: String,
}

impl RoutesReport {
    /// The current routes of `table` and conditions of `statuses`.
    pub fn now(table: &TableReader, statuses: &Statuses) -> Self {
        let held = statuses.hold();
        let (table, statuses) = (Arc::clone(&table.table()), held.snapshot());
        drop(held);
        RoutesReport::new(&table, &statuses)
    }

    /// The routes of `table`, with the conditions in `statuses`, and the refused routes in `statuses`.
    pub fn new(table: &Table, statuses: &[Arc<RouteStatus>]) -> Self {
        let mut routes: BTreeMap<RouteKey, RouteReport> =
            table.routes().map(|route| (route.spec.key.clone(), RouteReport::of(route))).collect();
        for status in statuses {
            let object = |rule| RouteKey::of_rule(status.object.clone(), rule);
            let conditions = || status.known_conditions().map(ConditionReport::of).collect();
            let mut served = routes.range_mut(object(0)..=object(u16::MAX)).peekable();
            if served.peek().is_none() {
                let refused = RouteReport::refused(&status.object, conditions());
                routes.insert(object(0), refused);
                continue;
            }
            served.for_each(|(_, route)| route.conditions = conditions());
        }
        let mut installation = InstallationPolicy::default();
        let mut routes: Vec<RouteReport> = routes.into_values().collect();
        routes.iter_mut().for_each(|route| installation.take(&mut route.route.policy));
        let certificates = ServedCertificate::all(table);
        RoutesReport { generation: table.generation(), installation, certificates, routes }
    }

    /// Reads a report. Also returns the routes that cannot be read.
    ///
    /// # Errors
    /// When the text is no report.
    pub fn read(text: &[u8]) -> serde_json::Result<(Self, Vec<UnreadableEntry>)> {
        #[derive(Deserialize)]
        struct Report {
            generation: u64,
            #[serde(default)]
            installation: InstallationPolicy,
            #[serde(default)]
            certificates: Vec<ServedCertificate>,
            routes: Vec<Value>,
        }
        let Report { generation, installation, certificates, routes: all } =
            serde_json::from_slice(text)?;
        let routes = Vec::with_capacity(all.len());
        let mut report = RoutesReport { generation, installation, certificates, routes };
        let mut unreadable = Vec::new();
        for route in all {
            match RouteReport::deserialize(&route) {
                Ok(route) => report.routes.push(route),
                Err(fault) => unreadable.push(UnreadableEntry::of(&route, &fault)),
            }
        }
        Ok((report, unreadable))
    }

    /// Each route with the messages of its conditions.
    pub fn told(&self) -> impl Iterator<Item = (RouteKey, String)> {
        self.routes.iter().flat_map(|route| {
            let key = route.route.key();
            route.conditions.iter().map(move |condition| (key.clone(), condition.message.clone()))
        })
    }

    /// Whether a route serves TLS.
    pub fn tls_state(&self, key: &RouteKey) -> Option<TlsState> {
        self.route(key)?.tls_state
    }

    /// The certificates that a route serves, in its order.
    pub fn certificates_of(&self, key: &RouteKey) -> impl Iterator<Item = &ServedCertificate> {
        let served = self.route(key).into_iter().flat_map(|route| &route.served_certificates);
        served.filter_map(|id| self.certificates.iter().find(|one| id.is_of(one)))
    }

    fn route(&self, key: &RouteKey) -> Option<&RouteReport> {
        self.routes.iter().find(|route| route.route.key() == *key)
    }

    /// The endpoints of each route that are not `serving`, with their state.
    pub fn states(&self) -> impl Iterator<Item = (RouteKey, SocketAddr, &str)> {
        let [serving, ..] = Availability::STATES;
        self.routes.iter().flat_map(move |route| {
            let endpoints = route.backends.iter().flat_map(|backend| &backend.endpoints);
            let out = endpoints.filter(move |endpoint| endpoint.state != serving);
            out.map(|endpoint| (route.route.key(), endpoint.address, &*endpoint.state))
        })
    }

    /// The served routes and their endpoints in the form for a table, and the routes that cannot be
    /// converted.
    pub fn snapshot(&self) -> (Snapshot, Vec<UnreadableEntry>) {
        let mut snapshot = Snapshot::default();
        let (mut unreadable, mut lists) = (Vec::new(), AccessLists::default());
        for route in self.routes.iter().filter(|route| route.served) {
            match route.spec(&self.installation, &mut lists, &mut snapshot) {
                Ok(spec) => snapshot.routes.push(spec),
                Err(fault) => {
                    let key = route.route.key();
                    let route = format!("{} {key}", key.kind());
                    unreadable.push(UnreadableEntry { route, fault: fault.to_string() });
                }
            }
        }
        (snapshot, unreadable)
    }
}

impl UnreadableEntry {
    fn of(route: &Value, fault: &serde_json::Error) -> Self {
        let text = |field| route.get(field).and_then(Value::as_str).unwrap_or("?");
        let route = format!("{} {}/{}", text("kind"), text("namespace"), text("name"));
        UnreadableEntry { route, fault: fault.to_string() }
    }
}

impl RouteReport {
    fn of(route: &Route) -> Self {
        let backends = route.backends.iter();
        let termination = route.spec.termination.as_deref();
        let served = termination.into_iter().flat_map(Termination::certificates);
        RouteReport {
            served: true,
            route: RouteText::of(&route.spec),
            tls_state: termination.map(Termination::state),
            served_certificates: served.map(CertificateId::of).collect(),
            backends: backends.map(|share| BackendReport::of(share, route)).collect(),
            conditions: Vec::new(),
        }
    }

    fn refused(object: &ObjectRef, conditions: Vec<ConditionReport>) -> Self {
        RouteReport { route: RouteText::named(object, 0), conditions, ..RouteReport::default() }
    }

    fn spec(
        &self,
        installation: &InstallationPolicy,
        lists: &mut AccessLists,
        snapshot: &mut Snapshot,
    ) -> Result<RouteSpec, InvalidText> {
        let mut backends = Vec::with_capacity(self.backends.len());
        for report in &self.backends {
            let key = report.backend.key()?;
            let addresses = report.endpoints.iter().map(|endpoint| endpoint.address).collect();
            snapshot.endpoints.insert(key.clone(), addresses);
            snapshot.places.extend(report.places().map(|places| (key.clone(), places)));
            backends.push((key, report.weight));
        }
        let mut route = self.route.clone();
        route.policy = installation.complete(route.policy);
        let policy = Arc::new(route.traffic_policy(lists)?);
        route.spec(backends, policy)
    }
}

impl BackendReport {
    fn of(share: &WeightedBackend, route: &Route) -> Self {
        let WeightedBackend { weight, backend, .. } = share;
        let (endpoints, now) = (backend.endpoints(), Moment::now());
        let rule = route.health_rule();
        let text = |name: &Option<Arc<str>>| name.as_deref().map(str::to_owned);
        let endpoint =
            |(endpoint, place): (&Arc<Endpoint>, Option<&EndpointPlace>)| EndpointReport {
                address: endpoint.address,
                node: place.and_then(|place| text(&place.node)),
                zone: place.and_then(|place| text(&place.zone)),
                ring: place.map(|place| place.ring).filter(|ring| *ring != Ring::Any),
                state: rule.judge(endpoint, now).state().to_owned(),
                active_connections: endpoint.active(),
            };
        BackendReport {
            backend: BackendText::of(backend.key()),
            weight: *weight,
            ring: ring_in_use(&endpoints, route),
            endpoints: endpoints.placed().map(endpoint).collect(),
        }
    }

    /// The places of its endpoints, if any is known.
    fn places(&self) -> Option<EndpointPlaces> {
        let place = |endpoint: &EndpointReport| {
            Arc::new(EndpointPlace {
                node: endpoint.node.as_deref().map(Into::into),
                zone: endpoint.zone.as_deref().map(Into::into),
                ring: endpoint.ring.unwrap_or_default(),
            })
        };
        let places: EndpointPlaces = self.endpoints.iter().map(place).collect();
        let is_known = |place: &Arc<EndpointPlace>| **place != EndpointPlace::default();
        places.iter().any(is_known).then_some(places)
    }
}

impl ConditionReport {
    fn of(condition: &Condition) -> Self {
        ConditionReport {
            kind: condition.kind.to_owned(),
            status: if condition.status { "True" } else { "False" }.to_owned(),
            reason: condition.reason.to_owned(),
            message: condition.message.clone(),
        }
    }
}
