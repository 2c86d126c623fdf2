//! Resources in, table and statuses out; pure.

mod endpoints;

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use self::endpoints::{Cluster, Unresolved};
use super::api::{BackendTarget, SniRoute};
use super::status::{Condition, RouteStatus};
use crate::routing::{BackendKey, Conflict, RouteKey, RouteSpec, Snapshot, Timeouts, conflicts};

/// The namespace of documents that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// All objects that a source has, in any order.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// Routes of every class.
    pub routes: Vec<SniRoute>,
    /// Services that routes may name.
    pub services: Vec<Service>,
    /// Their endpoints.
    pub slices: Vec<EndpointSlice>,
}

/// Which routes an installation serves, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Its class.
    pub class: String,
    /// Whether routes that name no class are left alone.
    pub require_class: bool,
    /// The names of its listeners. Empty when they are not known, as in an offline check: then
    /// every name that a route gives is taken for good.
    pub listeners: Vec<String>,
}

/// What is to be served and what is to be reported.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// For the data plane.
    pub snapshot: Snapshot,
    /// One for each route of this installation, in the order of their keys.
    pub statuses: Vec<RouteStatus>,
}

/// Turns resources into a plan. Pure: the same objects give the same plan. Their order counts only
/// between objects of the same kind, namespace and name, of which the first is taken.
///
/// A route that cannot get any connection (none of its listeners exists, or other routes own all
/// that it claims) is left out of the snapshot. Backends that cannot be resolved stay in their
/// route, without endpoints.
pub fn build(resources: &Resources, installation: &Installation) -> Plan {
    examine(resources, installation).0
}

/// Something that keeps a route from being wholly in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The route.
    pub(super) key: RouteKey,
    /// Where in the route, such as `spec.backends[0].service.port`.
    pub(super) field: String,
    /// One CamelCase word.
    reason: &'static str,
    /// For people.
    pub(super) message: String,
}

/// [`build`], and all that it found on the way, in the order of the routes' keys.
pub(super) fn examine(resources: &Resources, installation: &Installation) -> (Plan, Vec<Finding>) {
    let cluster = Cluster::new(&resources.services, &resources.slices);
    let mut drafts: Vec<Draft> = own_routes(&resources.routes, installation)
        .into_iter()
        .map(|(key, route)| Draft::new(key, route, installation, &cluster))
        .collect();
    settle_conflicts(&mut drafts);

    let mut plan = Plan::default();
    let mut findings = Vec::new();
    for draft in drafts {
        plan.statuses.push(draft.status());
        if draft.rejected.is_none() {
            plan.snapshot.endpoints.extend(draft.endpoints);
            plan.snapshot.routes.push(draft.spec);
        }
        findings.extend(draft.listeners);
        findings.extend(draft.conflicts);
        findings.extend(draft.refs);
    }
    (plan, findings)
}

/// The key of a namespaced object; `None` when it has no name.
pub(super) fn key(metadata: &ObjectMeta) -> Option<RouteKey> {
    let name = metadata.name.as_deref().filter(|name| !name.is_empty())?;
    let namespace = metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    Some(RouteKey { namespace: namespace.into(), name: name.into() })
}

fn own_routes<'r>(
    routes: &'r [SniRoute],
    installation: &Installation,
) -> BTreeMap<RouteKey, &'r SniRoute> {
    let mut own = BTreeMap::new();
    for route in routes {
        let mine = match &route.spec.class_name {
            Some(class) => class.as_str() == installation.class,
            None => !installation.require_class,
        };
        if mine && let Some(key) = key(&route.metadata) {
            own.entry(key).or_insert(route);
        }
    }
    own
}

/// A route on its way into the plan.
struct Draft {
    spec: RouteSpec,
    generation: Option<i64>,
    endpoints: HashMap<BackendKey, Vec<std::net::SocketAddr>>,
    /// Why it is not served.
    rejected: Option<&'static str>,
    listeners: Vec<Finding>,
    conflicts: Vec<Finding>,
    refs: Vec<Finding>,
}

impl Draft {
    fn new(
        key: RouteKey,
        route: &SniRoute,
        installation: &Installation,
        cluster: &Cluster<'_>,
    ) -> Self {
        let spec = &route.spec;
        let mut draft = Draft {
            spec: RouteSpec {
                key,
                created: route.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()),
                hostnames: Vec::with_capacity(spec.hostnames.len()),
                listeners: Vec::new(),
                alpn: spec.alpn.iter().map(|protocol| protocol.as_str().into()).collect(),
                backends: Vec::with_capacity(spec.backends.len()),
                policy: spec.load_balancing.policy,
                timeouts: Timeouts {
                    connect: spec.timeouts.connect.map(|timeout| timeout.get()),
                    idle: spec.timeouts.idle.map(|timeout| timeout.get()),
                },
            },
            generation: route.metadata.generation,
            endpoints: HashMap::new(),
            rejected: None,
            listeners: Vec::new(),
            conflicts: Vec::new(),
            refs: Vec::new(),
        };
        for hostname in &spec.hostnames {
            if !draft.spec.hostnames.contains(hostname) {
                draft.spec.hostnames.push(hostname.clone());
            }
        }
        draft.bind(route, installation);
        draft.resolve(route, cluster);
        draft
    }

    /// Keeps the listeners that exist.
    fn bind(&mut self, route: &SniRoute, installation: &Installation) {
        let known = &installation.listeners;
        for (index, listener) in route.spec.listeners.iter().enumerate() {
            if known.is_empty() || known.iter().any(|name| name == listener.as_str()) {
                self.spec.listeners.push(listener.as_str().into());
            } else {
                self.listeners.push(Finding {
                    key: self.spec.key.clone(),
                    field: format!("spec.listeners[{index}]"),
                    reason: "UnknownListener",
                    message: format!("there is no listener {:?}", listener.as_str()),
                });
            }
        }
        // An empty list would mean every listener.
        if self.spec.listeners.is_empty() && !self.listeners.is_empty() {
            self.rejected = Some("UnknownListener");
        }
    }

    fn resolve(&mut self, route: &SniRoute, cluster: &Cluster<'_>) {
        for (index, backend) in route.spec.backends.iter().enumerate() {
            let (key, endpoints) = match &backend.target {
                BackendTarget::Address(address) => {
                    (BackendKey::Address(address.to_string().into()), Ok(vec![address.get()]))
                }
                BackendTarget::Service(service) => {
                    let key = BackendKey::Service {
                        namespace: self.spec.key.namespace.clone(),
                        name: service.name.as_str().into(),
                        port: service.port.clone(),
                    };
                    let namespace = &self.spec.key.namespace;
                    (key, cluster.endpoints(namespace, service.name.as_str(), &service.port))
                }
            };
            self.spec.backends.push((key.clone(), backend.weight));
            match endpoints {
                Ok(endpoints) => {
                    self.endpoints.insert(key, endpoints);
                }
                Err(Unresolved { reason, field, message }) => self.refs.push(Finding {
                    key: self.spec.key.clone(),
                    field: format!("spec.backends[{index}].{field}"),
                    reason,
                    message,
                }),
            }
        }
    }

    fn status(&self) -> RouteStatus {
        let accepted = match self.rejected {
            Some(reason) => condition("Accepted", false, reason, self.accepted_message()),
            None if !self.conflicts.is_empty() => {
                condition("Accepted", true, "PartiallyConflicted", self.accepted_message())
            }
            None => condition("Accepted", true, "Accepted", self.accepted_message()),
        };
        let resolved = match self.refs.first() {
            Some(first) => condition("ResolvedRefs", false, first.reason, said(&self.refs)),
            None => condition("ResolvedRefs", true, "ResolvedRefs", String::new()),
        };
        let programmed = match self.rejected {
            Some(_) => {
                let message = "the route is not accepted, so it gets no connection".to_owned();
                condition("Programmed", false, "NotAccepted", message)
            }
            None => condition("Programmed", true, "Programmed", String::new()),
        };
        RouteStatus {
            key: self.spec.key.clone(),
            observed_generation: self.generation,
            conditions: [accepted, resolved, programmed],
        }
    }

    fn accepted_message(&self) -> String {
        let parts = [said(&self.listeners), said(&self.conflicts)];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

/// Tells every route which of its hostnames other routes own, and rejects those that own none.
fn settle_conflicts(drafts: &mut [Draft]) {
    let mut contenders: Vec<&mut Draft> =
        drafts.iter_mut().filter(|draft| draft.rejected.is_none()).collect();
    let specs: Vec<&RouteSpec> = contenders.iter().map(|draft| &draft.spec).collect();
    let lost = conflicts(&specs);
    for (draft, lost) in contenders.iter_mut().zip(lost) {
        let whole = lost.iter().filter(|conflict| conflict.whole).count();
        if whole > 0 && whole == draft.spec.hostnames.len() {
            draft.rejected = Some("HostnameConflict");
        }
        draft.conflicts = lost.iter().map(|conflict| conflict_finding(draft, conflict)).collect();
    }
}

fn conflict_finding(draft: &Draft, conflict: &Conflict) -> Finding {
    let Conflict { hostname, winner, whole } = conflict;
    let index = draft.spec.hostnames.iter().position(|own| own == hostname).unwrap_or(0);
    Finding {
        key: draft.spec.key.clone(),
        field: format!("spec.hostnames[{index}]"),
        reason: "HostnameConflict",
        message: if *whole {
            format!("{hostname} belongs to {winner}")
        } else {
            format!("{hostname} belongs to {winner} where both take the same listener and ALPN")
        },
    }
}

fn condition(kind: &'static str, status: bool, reason: &'static str, message: String) -> Condition {
    Condition { kind, status, reason, message }
}

fn said(findings: &[Finding]) -> String {
    let messages: Vec<&str> = findings.iter().map(|finding| finding.message.as_str()).collect();
    messages.join("; ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
