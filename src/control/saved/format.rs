//! The lines of a saved table. They are types of their own, so that the format changes only when it
//! is meant to, and with its version.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Identity;
use crate::routing::{
    AnyOn, Backend, BackendKey, Hostname, Hostnames, ObjectKey, Policy, RouteKey, RouteSpec,
    ServicePort, Snapshot, Timeouts,
};

/// The first of these lines.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Description {
    saved_at: SavedTime,
    pub(super) saved_by: String,
    class: String,
    require_class: bool,
    namespaces: Vec<String>,
}

/// In RFC 3339, in UTC and whole seconds.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[derive(Clone, Copy)]
struct SavedTime(Timestamp);

/// Each of the others.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum Record {
    Backend(SavedBackend),
    Route(SavedRoute),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SavedBackend {
    target: Target,
    endpoints: Vec<SocketAddr>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SavedRoute {
    namespace: String,
    name: String,
    created: Option<i64>,
    hostnames: Vec<String>,
    /// Where `*` is served, if not on all listeners of the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    any_on: Option<SavedAnyOn>,
    listeners: Vec<Box<str>>,
    alpn: Vec<Box<str>>,
    backends: Vec<Weighted>,
    policy: String,
    connect_timeout_millis: Option<u64>,
    idle_timeout_millis: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum SavedAnyOn {
    Only(Box<[Box<str>]>),
    Except(Box<[Box<str>]>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Weighted {
    target: Target,
    weight: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Target {
    Service { namespace: String, name: String, port: Port },
    Address(String),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Port {
    Number(u16),
    Name(String),
}

impl Description {
    pub(super) fn new(identity: &Identity, saved_at: Timestamp) -> Self {
        let Identity { class, require_class, namespaces } = identity.sorted();
        Description {
            saved_at: SavedTime(saved_at),
            saved_by: env!("CARGO_PKG_VERSION").to_owned(),
            class,
            require_class,
            namespaces,
        }
    }

    pub(super) fn read(line: &str) -> Result<Self, String> {
        parse(line)
    }

    pub(super) fn saved_at(&self) -> Timestamp {
        self.saved_at.0
    }

    pub(super) fn identity(&self) -> Identity {
        Identity {
            class: self.class.clone(),
            require_class: self.require_class,
            namespaces: self.namespaces.clone(),
        }
    }
}

impl TryFrom<String> for SavedTime {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(SavedTime).map_err(|error| format!("{text:?} is no time: {error}"))
    }
}

impl From<SavedTime> for String {
    fn from(time: SavedTime) -> Self {
        format!("{:.0}", time.0)
    }
}

impl Record {
    /// A backend with its endpoints of this moment.
    pub(super) fn backend(backend: &Backend) -> Self {
        Record::Backend(SavedBackend {
            target: backend.key().into(),
            endpoints: backend.endpoints().iter().map(|endpoint| endpoint.address).collect(),
        })
    }

    pub(super) fn route(spec: &RouteSpec) -> Self {
        // Every field, so that one that is added is not forgotten here.
        let RouteSpec {
            key,
            created,
            hostnames,
            listeners,
            alpn,
            backends,
            policy,
            timeouts: Timeouts { connect, idle },
        } = spec;
        let millis = |timeout: &Duration| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let backends = backends.iter();
        Record::Route(SavedRoute {
            namespace: key.namespace().to_owned(),
            name: key.name().to_owned(),
            created: *created,
            hostnames: hostnames.iter().map(|hostname| hostname.to_string()).collect(),
            any_on: match hostnames.any_on().clone() {
                AnyOn::All => None,
                AnyOn::Only(listeners) => Some(SavedAnyOn::Only(listeners)),
                AnyOn::Except(listeners) => Some(SavedAnyOn::Except(listeners)),
            },
            listeners: listeners.clone(),
            alpn: alpn.clone(),
            backends: backends
                .map(|(key, weight)| Weighted { target: key.into(), weight: *weight })
                .collect(),
            policy: policy.as_str().to_owned(),
            connect_timeout_millis: connect.as_ref().map(millis),
            idle_timeout_millis: idle.as_ref().map(millis),
        })
    }

    pub(super) fn read(line: &str) -> Result<Self, String> {
        parse(line)
    }

    /// Adds what the line says, which must be news. `routes` has the routes of the lines before.
    pub(super) fn add_to(
        self,
        snapshot: &mut Snapshot,
        routes: &mut HashSet<RouteKey>,
    ) -> Result<(), String> {
        match self {
            Record::Backend(SavedBackend { target, endpoints }) => {
                let key = BackendKey::from(target);
                match snapshot.endpoints.insert(key.clone(), endpoints) {
                    Some(_) => Err(format!("the backend {key} is there twice")),
                    None => Ok(()),
                }
            }
            Record::Route(route) => {
                let spec = RouteSpec::try_from(route)?;
                if !routes.insert(spec.key.clone()) {
                    return Err(format!("the route {} is there twice", spec.key));
                }
                snapshot.routes.push(spec);
                Ok(())
            }
        }
    }
}

impl TryFrom<SavedRoute> for RouteSpec {
    type Error = String;

    fn try_from(route: SavedRoute) -> Result<Self, String> {
        let key = RouteKey::new(&route.namespace, &route.name);
        if route.hostnames.is_empty() || route.backends.is_empty() {
            return Err(format!("the route {key} lacks hostnames or backends"));
        }
        let hostnames = route.hostnames.iter().map(|text| text.parse::<Hostname>());
        let hostnames: Hostnames =
            hostnames.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let any_on = match route.any_on {
            None => AnyOn::All,
            Some(SavedAnyOn::Only(listeners)) => AnyOn::Only(listeners),
            Some(SavedAnyOn::Except(listeners)) => AnyOn::Except(listeners),
        };
        let policy = Policy::ALL.into_iter().find(|policy| policy.as_str() == route.policy);
        Ok(RouteSpec {
            created: route.created,
            hostnames: hostnames.with_any_on(any_on),
            listeners: route.listeners,
            alpn: route.alpn,
            backends: route
                .backends
                .into_iter()
                .map(|weighted| (weighted.target.into(), weighted.weight))
                .collect(),
            policy: policy.ok_or_else(|| {
                format!("the route {key} has the unknown policy {:?}", route.policy)
            })?,
            timeouts: Timeouts {
                connect: route.connect_timeout_millis.map(Duration::from_millis),
                idle: route.idle_timeout_millis.map(Duration::from_millis),
            },
            key,
        })
    }
}

impl From<&BackendKey> for Target {
    fn from(key: &BackendKey) -> Self {
        match key {
            BackendKey::Service { service, port } => Target::Service {
                namespace: service.namespace().to_owned(),
                name: service.name().to_owned(),
                port: match port {
                    ServicePort::Number(number) => Port::Number(*number),
                    ServicePort::Name(name) => Port::Name(name.to_string()),
                },
            },
            BackendKey::Address(address) => Target::Address(address.to_string()),
        }
    }
}

impl From<Target> for BackendKey {
    fn from(target: Target) -> Self {
        match target {
            Target::Service { namespace, name, port } => BackendKey::Service {
                service: ObjectKey::new(&namespace, &name),
                port: match port {
                    Port::Number(number) => ServicePort::Number(number),
                    Port::Name(name) => ServicePort::Name(name.into()),
                },
            },
            Target::Address(address) => BackendKey::Address(address.into()),
        }
    }
}

fn parse<T: DeserializeOwned>(line: &str) -> Result<T, String> {
    serde_json::from_str(line).map_err(|error| error.to_string())
}
