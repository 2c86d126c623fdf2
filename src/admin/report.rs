//! What `/routes` says: the routes in force and those that are refused, as JSON.
//!
//! The report holds all that a lookup needs, so that [`RoutesReport::snapshot`] gives back a table
//! which decides like the one it came from. Readers ignore fields that they do not know.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap as HashMap;
use serde::{Deserialize, Serialize};

use crate::control::status::{Condition, RouteStatus, Statuses};
use crate::duration;
use crate::routing::{
    AnyOn, Backend, BackendKey, Hostname, Hostnames, InvalidHostname, Moment, ObjectKey, Policy,
    Reader, Route, RouteKey, RouteSpec, ServicePort, Snapshot, Table, Timeouts,
};

/// All routes of an installation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoutesReport {
    /// The table's generation; 0 means that there is no table yet.
    pub generation: u64,
    /// By namespace and name.
    pub routes: Vec<RouteReport>,
}

/// One route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteReport {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether it is in the table. If not, its conditions say why, and the fields from `created`
    /// to `backends` are empty.
    pub served: bool,
    /// When it was created, in seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    /// The names it claims.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// The listeners on which `*` is served, if not on all of the route's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any_on: Option<AnyOnReport>,
    /// The listeners it is bound to; empty means all.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// The protocols of which the client must offer one; empty means that none is asked for.
    #[serde(default)]
    pub alpn: Vec<String>,
    /// How an endpoint is chosen.
    #[serde(default)]
    pub policy: String,
    /// Its own deadlines.
    #[serde(default)]
    pub timeouts: TimeoutsReport,
    /// Where its connections go.
    #[serde(default)]
    pub backends: Vec<BackendReport>,
    /// What became of it.
    #[serde(default)]
    pub conditions: Vec<ConditionReport>,
}

/// Some listeners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AnyOnReport {
    /// These.
    Only(Box<[Box<str>]>),
    /// All but these.
    Except(Box<[Box<str>]>),
}

/// Deadlines such as `5s`; those that are missing are the installation's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimeoutsReport {
    /// For one attempt to connect to one endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<String>,
    /// Without a byte in either direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<String>,
}

/// One backend of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendReport {
    /// `namespace/service:port`, or the address as the route writes it.
    pub backend: String,
    /// Which of the two.
    pub kind: BackendKind,
    /// Its share of the route's connections.
    pub weight: u32,
    /// Its addresses.
    pub endpoints: Vec<EndpointReport>,
}

/// What a route names as its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendKind {
    /// A port of a Service.
    Service,
    /// An address outside the cluster.
    Address,
}

/// One address of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointReport {
    /// Where connections go.
    pub address: SocketAddr,
    /// `serving`, or `resting` for a while after a failure: new connections go to others first.
    pub state: String,
    /// How many connections it has from this process.
    pub active_connections: usize,
}

/// One condition, as in the status of the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionReport {
    /// `Accepted`, `ResolvedRefs` or `Programmed`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// One CamelCase word.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Why a report gives no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("route {namespace}/{name}: {fault}")]
pub struct InvalidReport {
    namespace: String,
    name: String,
    fault: Fault,
}

/// What is wrong with a reported route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Hostname(#[from] InvalidHostname),
    #[error("unknown policy {0:?}")]
    Policy(String),
    #[error("{0:?} is no duration")]
    Duration(String),
    #[error("{0:?} is no namespace/service:port")]
    Service(String),
}

impl RoutesReport {
    /// What is served and what is refused, at this moment.
    pub fn now(table: &Reader, statuses: &Statuses) -> Self {
        let held = statuses.hold();
        let (table, statuses) = (Arc::clone(&table.table()), held.snapshot());
        drop(held);
        RoutesReport::new(&table, &statuses)
    }

    /// What is served by `table`, and what `statuses` say of that and of what is refused.
    pub fn new(table: &Table, statuses: &[Arc<RouteStatus>]) -> Self {
        let mut routes: BTreeMap<&RouteKey, RouteReport> =
            table.routes().map(|route| (&route.spec.key, RouteReport::of(route))).collect();
        for status in statuses {
            let route =
                routes.entry(&status.key).or_insert_with(|| RouteReport::refused(&status.key));
            route.conditions = status.conditions.iter().map(ConditionReport::of).collect();
        }
        RoutesReport { generation: table.generation(), routes: routes.into_values().collect() }
    }

    /// Each route, with the message of each of its conditions.
    pub fn told(&self) -> impl Iterator<Item = (RouteKey, String)> {
        self.routes.iter().flat_map(|route| {
            let key = RouteKey::new(route.namespace.as_str(), route.name.as_str());
            route.conditions.iter().map(move |condition| (key.clone(), condition.message.clone()))
        })
    }

    /// The served routes and their endpoints, as a control plane would ask for them.
    ///
    /// # Errors
    /// When a route holds what no sluice of this version reports.
    pub fn snapshot(&self) -> Result<Snapshot, InvalidReport> {
        let mut snapshot = Snapshot::default();
        for route in self.routes.iter().filter(|route| route.served) {
            let spec = route.spec(&mut snapshot.endpoints).map_err(|fault| InvalidReport {
                namespace: route.namespace.clone(),
                name: route.name.clone(),
                fault,
            })?;
            snapshot.routes.push(spec);
        }
        Ok(snapshot)
    }
}

impl RouteReport {
    fn of(route: &Route) -> Self {
        let spec = &route.spec;
        let owned = |items: &[Box<str>]| items.iter().map(|item| item.to_string()).collect();
        RouteReport {
            namespace: spec.key.namespace().to_owned(),
            name: spec.key.name().to_owned(),
            served: true,
            created: spec.created,
            hostnames: spec.hostnames.iter().map(|hostname| hostname.to_string()).collect(),
            any_on: match spec.hostnames.any_on().clone() {
                AnyOn::All => None,
                AnyOn::Only(listeners) => Some(AnyOnReport::Only(listeners)),
                AnyOn::Except(listeners) => Some(AnyOnReport::Except(listeners)),
            },
            listeners: owned(&spec.listeners),
            alpn: owned(&spec.alpn),
            policy: spec.policy.as_str().to_owned(),
            timeouts: TimeoutsReport {
                connect: spec.timeouts.connect.map(duration_text),
                idle: spec.timeouts.idle.map(duration_text),
            },
            backends: route
                .backends
                .iter()
                .map(|share| BackendReport::of(&share.backend, share.weight))
                .collect(),
            conditions: Vec::new(),
        }
    }

    fn refused(key: &RouteKey) -> Self {
        RouteReport {
            namespace: key.namespace().to_owned(),
            name: key.name().to_owned(),
            ..RouteReport::default()
        }
    }

    fn spec(
        &self,
        endpoints: &mut HashMap<BackendKey, Vec<SocketAddr>>,
    ) -> Result<RouteSpec, Fault> {
        let boxed = |items: &[String]| items.iter().map(|item| item.as_str().into()).collect();
        let mut backends = Vec::with_capacity(self.backends.len());
        for report in &self.backends {
            let key = report.key()?;
            let addresses = report.endpoints.iter().map(|endpoint| endpoint.address).collect();
            endpoints.insert(key.clone(), addresses);
            backends.push((key, report.weight));
        }
        Ok(RouteSpec {
            key: RouteKey::new(self.namespace.as_str(), self.name.as_str()),
            created: self.created,
            hostnames: self
                .hostnames
                .iter()
                .map(|name| name.parse::<Hostname>())
                .collect::<Result<Hostnames, _>>()?
                .with_any_on(match self.any_on.clone() {
                    None => AnyOn::All,
                    Some(AnyOnReport::Only(listeners)) => AnyOn::Only(listeners),
                    Some(AnyOnReport::Except(listeners)) => AnyOn::Except(listeners),
                }),
            listeners: boxed(&self.listeners),
            alpn: boxed(&self.alpn),
            backends,
            policy: policy(&self.policy)?,
            timeouts: Timeouts {
                connect: self.timeouts.connect.as_deref().map(duration).transpose()?,
                idle: self.timeouts.idle.as_deref().map(duration).transpose()?,
            },
        })
    }
}

impl BackendReport {
    fn of(backend: &Backend, weight: u32) -> Self {
        let (endpoints, now) = (backend.endpoints(), Moment::now());
        BackendReport {
            backend: backend.key().to_string(),
            kind: match backend.key() {
                BackendKey::Service { .. } => BackendKind::Service,
                BackendKey::Address(_) => BackendKind::Address,
            },
            weight,
            endpoints: endpoints
                .iter()
                .map(|endpoint| EndpointReport {
                    address: endpoint.address,
                    state: endpoint.standing(now).state().to_owned(),
                    active_connections: endpoint.active(),
                })
                .collect(),
        }
    }

    fn key(&self) -> Result<BackendKey, Fault> {
        match self.kind {
            BackendKind::Address => Ok(BackendKey::Address(self.backend.as_str().into())),
            BackendKind::Service => {
                service(&self.backend).ok_or_else(|| Fault::Service(self.backend.clone()))
            }
        }
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

/// Reads what [`BackendKey`] shows for a Service.
fn service(text: &str) -> Option<BackendKey> {
    let (namespace, rest) = text.split_once('/')?;
    let (name, port) = rest.rsplit_once(':')?;
    // The name of a port has a letter in it, so a number is never a name.
    let port =
        port.parse().map_or_else(|_| ServicePort::Name(Arc::from(port)), ServicePort::Number);
    Some(BackendKey::Service { service: ObjectKey::new(namespace, name), port })
}

fn policy(text: &str) -> Result<Policy, Fault> {
    Policy::ALL
        .into_iter()
        .find(|policy| policy.as_str() == text)
        .ok_or_else(|| Fault::Policy(text.to_owned()))
}

fn duration_text(value: Duration) -> String {
    duration::display(value).to_string()
}

fn duration(text: &str) -> Result<Duration, Fault> {
    duration::parse(text).map_err(|_| Fault::Duration(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_survive_their_text() {
        for port in [ServicePort::Number(9093), ServicePort::Name("kafka-tls".into())] {
            let key = BackendKey::Service { service: ObjectKey::new("data", "kafka"), port };
            assert_eq!(service(&key.to_string()), Some(key));
        }
        for text in ["", "kafka:1", "data/kafka"] {
            assert_eq!(service(text), None, "{text:?}");
        }
    }
}
