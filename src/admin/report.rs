//! What `/routes` says: the routes in force and those that are refused, as JSON.
//!
//! The report holds all that a lookup needs, so that [`RoutesReport::snapshot`] gives back a table
//! which decides like the one it came from. Readers ignore fields that they do not know, and
//! leave out routes that they cannot read.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ahash::AHashMap as HashMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::control::status::{Condition, RouteStatus, Statuses};
use crate::routing::wire::{BackendText, InvalidText, RouteText};
use crate::routing::{
    Backend, BackendKey, Endpoint, Moment, ObjectRef, Route, RouteKey, RouteSpec, Snapshot, Table,
    TableReader,
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
    /// Whether it is in the table. If not, its conditions say why, and of the rest only its name is
    /// known.
    pub served: bool,
    /// What it asks for.
    #[serde(flatten)]
    pub route: RouteText,
    /// Where its connections go.
    #[serde(default)]
    pub backends: Vec<BackendReport>,
    /// What became of it.
    #[serde(default)]
    pub conditions: Vec<ConditionReport>,
}

/// One backend of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendReport {
    /// What it is.
    #[serde(flatten)]
    pub backend: BackendText,
    /// Its share of the route's connections.
    pub weight: u32,
    /// Its addresses.
    pub endpoints: Vec<EndpointReport>,
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

/// A route of a report that this version cannot read, of a newer sluice for example.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{route}: {fault}")]
pub struct UnreadableRoute {
    /// Its kind, namespace and name, as far as they are known.
    route: String,
    fault: String,
}

impl RoutesReport {
    /// What is served and what is refused, at this moment.
    pub fn now(table: &TableReader, statuses: &Statuses) -> Self {
        let held = statuses.hold();
        let (table, statuses) = (Arc::clone(&table.table()), held.snapshot());
        drop(held);
        RoutesReport::new(&table, &statuses)
    }

    /// What is served by `table`, and what `statuses` say of that and of what is refused.
    pub fn new(table: &Table, statuses: &[Arc<RouteStatus>]) -> Self {
        let mut routes: BTreeMap<RouteKey, RouteReport> =
            table.routes().map(|route| (route.spec.key.clone(), RouteReport::of(route))).collect();
        for status in statuses {
            let object = |rule| RouteKey::of_rule(status.object.clone(), rule);
            let conditions = || status.conditions.iter().map(ConditionReport::of).collect();
            let mut served = routes.range_mut(object(0)..=object(u16::MAX)).peekable();
            if served.peek().is_none() {
                let refused = RouteReport::refused(&status.object, conditions());
                routes.insert(object(0), refused);
                continue;
            }
            served.for_each(|(_, route)| route.conditions = conditions());
        }
        RoutesReport { generation: table.generation(), routes: routes.into_values().collect() }
    }

    /// Reads a report, and returns what of it cannot be read.
    ///
    /// # Errors
    /// When the text is no report at all.
    pub fn read(text: &[u8]) -> serde_json::Result<(Self, Vec<UnreadableRoute>)> {
        #[derive(Deserialize)]
        struct Report {
            generation: u64,
            routes: Vec<Value>,
        }
        let Report { generation, routes } = serde_json::from_slice(text)?;
        let mut report = RoutesReport { generation, routes: Vec::with_capacity(routes.len()) };
        let mut unreadable = Vec::new();
        for route in routes {
            match RouteReport::deserialize(&route) {
                Ok(route) => report.routes.push(route),
                Err(fault) => unreadable.push(UnreadableRoute::of(&route, &fault)),
            }
        }
        Ok((report, unreadable))
    }

    /// Each route, with the message of each of its conditions.
    pub fn told(&self) -> impl Iterator<Item = (RouteKey, String)> {
        self.routes.iter().flat_map(|route| {
            let key = route.route.key();
            route.conditions.iter().map(move |condition| (key.clone(), condition.message.clone()))
        })
    }

    /// The served routes and their endpoints, as a control plane would ask for them, and the routes for
    /// which this is impossible.
    pub fn snapshot(&self) -> (Snapshot, Vec<UnreadableRoute>) {
        let mut snapshot = Snapshot::default();
        let mut unreadable = Vec::new();
        for route in self.routes.iter().filter(|route| route.served) {
            match route.spec(&mut snapshot.endpoints) {
                Ok(spec) => snapshot.routes.push(spec),
                Err(fault) => {
                    let key = route.route.key();
                    let route = format!("{} {key}", key.kind());
                    unreadable.push(UnreadableRoute { route, fault: fault.to_string() });
                }
            }
        }
        (snapshot, unreadable)
    }
}

impl UnreadableRoute {
    fn of(route: &Value, fault: &serde_json::Error) -> Self {
        let text = |field| route.get(field).and_then(Value::as_str).unwrap_or("?");
        let route = format!("{} {}/{}", text("kind"), text("namespace"), text("name"));
        UnreadableRoute { route, fault: fault.to_string() }
    }
}

impl RouteReport {
    fn of(route: &Route) -> Self {
        let backends = route.backends.iter();
        RouteReport {
            served: true,
            route: RouteText::of(&route.spec),
            backends: backends
                .map(|share| BackendReport::of(&share.backend, share.weight))
                .collect(),
            conditions: Vec::new(),
        }
    }

    fn refused(object: &ObjectRef, conditions: Vec<ConditionReport>) -> Self {
        RouteReport { route: RouteText::named(object, 0), conditions, ..RouteReport::default() }
    }

    fn spec(
        &self,
        endpoints: &mut HashMap<BackendKey, Vec<SocketAddr>>,
    ) -> Result<RouteSpec, InvalidText> {
        let mut backends = Vec::with_capacity(self.backends.len());
        for report in &self.backends {
            let key = report.backend.key()?;
            let addresses = report.endpoints.iter().map(|endpoint| endpoint.address).collect();
            endpoints.insert(key.clone(), addresses);
            backends.push((key, report.weight));
        }
        self.route.clone().spec(backends)
    }
}

impl BackendReport {
    fn of(backend: &Backend, weight: u32) -> Self {
        let (endpoints, now) = (backend.endpoints(), Moment::now());
        let endpoint = |endpoint: &Arc<Endpoint>| EndpointReport {
            address: endpoint.address,
            state: endpoint.availability(now).state().to_owned(),
            active_connections: endpoint.active(),
        };
        BackendReport {
            backend: BackendText::of(backend.key()),
            weight,
            endpoints: endpoints.iter().map(endpoint).collect(),
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
