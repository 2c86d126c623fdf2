//! The lines of a saved table. Routes and backends have the text form of [`wire`](crate::routing::wire).

use std::collections::HashSet;
use std::net::SocketAddr;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::SavedIdentity;
use crate::control::translate::policy::Policies;
use crate::policy::EffectivePolicy;
use crate::routing::wire::{AttachmentText, BackendText, InvalidText, RouteText};
use crate::routing::{Backend, BackendKey, RouteKey, RouteSpec, Snapshot};

/// The first line after the header.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Description {
    saved_at: SavedTime,
    pub(super) saved_by: String,
    class: String,
    require_class: bool,
    namespaces: Vec<String>,
}

/// A time in RFC 3339 format, in UTC and whole seconds.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[derive(Clone, Copy)]
struct SavedTime(Timestamp);

/// Any other line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum SavedLine {
    Backend(SavedBackend),
    Route(Box<SavedRoute>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SavedBackend {
    #[serde(flatten)]
    backend: BackendText,
    endpoints: Vec<SocketAddr>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SavedRoute {
    #[serde(flatten)]
    route: RouteText,
    backends: Vec<WeightedText>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WeightedText {
    #[serde(flatten)]
    backend: BackendText,
    weight: u32,
}

impl Description {
    pub(super) fn new(identity: &SavedIdentity, saved_at: Timestamp) -> Self {
        let SavedIdentity { class, require_class, namespaces } = identity.sorted();
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

    pub(super) fn identity(&self) -> SavedIdentity {
        SavedIdentity {
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

impl SavedLine {
    /// A backend with its current endpoints.
    pub(super) fn backend(backend: &Backend) -> Self {
        SavedLine::Backend(SavedBackend {
            backend: BackendText::of(backend.key()),
            endpoints: backend.endpoints().iter().map(|endpoint| endpoint.address).collect(),
        })
    }

    pub(super) fn route(spec: &RouteSpec) -> Self {
        let weighted = |(key, weight): &(BackendKey, u32)| WeightedText {
            backend: BackendText::of(key),
            weight: *weight,
        };
        let backends = spec.backends.iter().map(weighted).collect();
        let mut route = RouteText::of(spec);
        // The layers below are those of the process that reads the table.
        route.policy =
            EffectivePolicy { policy: route.policy.of_route(), ..EffectivePolicy::default() };
        SavedLine::Route(Box::new(SavedRoute { route, backends }))
    }

    /// Reads a line that this version has written. Unknown fields are refused, because such a field may
    /// restrict access.
    pub(super) fn read(line: &str) -> Result<Self, String> {
        let record = parse(line)?;
        let ours = serde_json::to_string(&record).map_err(|error| error.to_string())?;
        if ours == line {
            return Ok(record);
        }
        let column =
            1 + ours.chars().zip(line.chars()).take_while(|(ours, line)| ours == line).count();
        Err(format!("this version of sluice would write it differently from column {column} on"))
    }

    /// Adds the content of the line, which must not be a duplicate. `routes` are the routes of earlier
    /// lines.
    pub(super) fn add_to(
        self,
        snapshot: &mut Snapshot,
        routes: &mut HashSet<RouteKey>,
        policies: &mut Policies,
    ) -> Result<(), String> {
        match self {
            SavedLine::Backend(SavedBackend { backend, endpoints }) => {
                let key = backend.key().map_err(|error| error.to_string())?;
                match snapshot.endpoints.insert(key.clone(), endpoints) {
                    Some(_) => Err(format!("the backend {key} is there twice")),
                    None => Ok(()),
                }
            }
            SavedLine::Route(route) => {
                let spec = route.spec(policies)?;
                let is_missing = |key: &&BackendKey| !snapshot.endpoints.contains_key(*key);
                if let Some(backend) = spec.backends.iter().map(|(key, _)| key).find(is_missing) {
                    let (kind, key) = (spec.key.kind(), &spec.key);
                    return Err(format!(
                        "the {kind} {key} has a backend without a line: {backend}"
                    ));
                }
                if !routes.insert(spec.key.clone()) {
                    return Err(format!("the {} {} is there twice", spec.key.kind(), spec.key));
                }
                snapshot.routes.push(spec);
                Ok(())
            }
        }
    }
}

impl SavedRoute {
    fn spec(self, policies: &mut Policies) -> Result<RouteSpec, String> {
        let key = self.route.key();
        // Without hostnames, it is no attachment, and its other fields would be lost.
        let first = &self.route.first;
        let is_cut = first.hostnames.is_empty() && *first != AttachmentText::default();
        if is_cut || self.route.is_without_hostnames() || self.backends.is_empty() {
            return Err(format!("the {} {key} lacks hostnames or backends", key.kind()));
        }
        let (policy, _) = policies.effective(self.route.policy.policy.clone());
        let backends = self.backends.iter().map(|one| Ok((one.backend.key()?, one.weight)));
        let spec = backends
            .collect::<Result<_, _>>()
            .and_then(|backends| self.route.spec(backends, policy));
        spec.map_err(|error: InvalidText| error.to_string())
    }
}

fn parse<T: DeserializeOwned>(line: &str) -> Result<T, String> {
    serde_json::from_str(line).map_err(|error| error.to_string())
}
