//! Resources in, table and statuses out; pure.
//!
//! [`Builder`] holds what a source has and turns what changed into what is to be served and
//! reported differently; [`build`] does it once for a whole set of resources.

mod builder;
mod claims;
mod conditions;
mod conflict;
mod delta;
mod domain;
mod endpoints;
mod grants;
mod names;
mod notes;
mod own_addresses;
mod policy;
mod ports;
mod resolve;
mod resolved_route;
mod routes;
mod services;
mod sharing;
mod small_map;
mod unreadable;
mod unresolved;
mod wildcards;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use self::builder::Builder;
pub(super) use self::conditions::Problem;
pub use self::delta::{Delta, DeltaComputation, SLICE};
pub use self::names::{
    ADDRESSES_OF_A_NAME, DnsAnswer, NAMES_OF_A_NAMESPACE, NameChanges, NameFault, Rank, WantedName,
};
pub use self::unreadable::{UnreadableOutcome, UnreadableRoute};
use super::api::{DnsName, ReferenceGrant, SniRoute};
use super::status::RouteStatus;
use crate::reach::Reach;
use crate::routing::{Kind, ObjectKey, ObjectRef, RouteKey, Snapshot};

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
    /// What lets routes refer to Services of other namespaces.
    pub grants: Vec<ReferenceGrant>,
    /// What is known of the DNS names that routes lead to.
    pub answers: HashMap<DnsName, DnsAnswer>,
}

/// Which routes an installation serves, and where.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Its class.
    pub class: String,
    /// Whether routes that name no class are left alone.
    pub require_class: bool,
    /// The longest that a route's own deadlines may be; `None` is no bound.
    pub longest_timeout: Option<Duration>,
    /// The names of its listeners. Empty when they are not known, as in an offline check: then
    /// every name that a route gives is taken for good.
    pub listeners: Vec<String>,
    /// Where routes may lead.
    pub reach: Reach,
    /// The addresses of the machine that sluice runs on. Those that it gets or loses later are the
    /// data plane's to know.
    pub machine: Vec<IpAddr>,
    /// The Services that lead to the installation itself, to which no route may lead.
    pub own_services: Vec<ObjectKey>,
    /// Whose hostnames may be below a wildcard.
    pub names_below: NamesBelow,
}

/// Which namespaces may claim hostnames below a wildcard that belongs to one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NamesBelow {
    /// Each.
    #[default]
    Anyone,
    /// The wildcard's owner, and those with which it shares it. Claims that are older than the
    /// owner's are served as they were.
    Owner,
}

impl Default for Installation {
    /// One of class `sluice` that knows no listeners and bounds nothing.
    fn default() -> Self {
        Installation {
            class: "sluice".to_owned(),
            require_class: false,
            longest_timeout: None,
            listeners: Vec::new(),
            reach: Reach::default(),
            machine: Vec::new(),
            own_services: Vec::new(),
            names_below: NamesBelow::default(),
        }
    }
}

impl Installation {
    /// Whether it serves the routes of this class.
    fn serves(&self, class: Option<&str>) -> bool {
        match class {
            Some(class) => class == self.class,
            None => !self.require_class,
        }
    }
}

/// What is to be served and what is to be reported.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// For the data plane.
    pub snapshot: Snapshot,
    /// One for each route of this installation, in the order of their keys.
    pub statuses: Vec<RouteStatus>,
    /// The DNS names that routes lead to, sorted.
    pub names: Vec<DnsName>,
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

/// [`build`], and all that it found on the way, in the order of the routes' keys.
pub(super) fn examine(resources: &Resources, installation: &Installation) -> (Plan, Vec<Problem>) {
    let mut builder = Builder::new(installation.clone());
    // Backwards, for of two objects with one name the builder takes the last.
    resources.services.iter().rev().for_each(|service| builder.put_service(service));
    resources.slices.iter().rev().for_each(|slice| builder.put_slice(slice));
    resources.grants.iter().rev().for_each(|grant| builder.put_grant(grant));
    for (name, answer) in &resources.answers {
        builder.put_answer(name, answer.clone());
    }
    resources.routes.iter().rev().for_each(|route| builder.put_route(route));
    let Delta { changes, mut statuses, names, .. } = builder.settle();
    statuses.sort_unstable_by(|a, b| a.object.cmp(&b.object));
    let mut routes: Vec<_> = changes.routes.into_iter().filter_map(|(_, spec)| spec).collect();
    routes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let snapshot = Snapshot { routes, endpoints: changes.endpoints };
    let mut names: Vec<_> = names.wanted.into_iter().map(|wanted| wanted.name).collect();
    names.sort_unstable();
    (Plan { snapshot, statuses, names }, builder.problems())
}

/// The key of a namespaced object; `None` when it has no name.
pub(super) fn key(metadata: &ObjectMeta) -> Option<ObjectKey> {
    let name = metadata.name.as_deref().filter(|name| !name.is_empty())?;
    let namespace = metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    Some(ObjectKey::new(namespace, name))
}

/// The key of an `SniRoute`; `None` when it has no name.
pub(super) fn sni_route_key(metadata: &ObjectMeta) -> Option<RouteKey> {
    Some(RouteKey::of_rule(ObjectRef::new(Kind::SniRoute, key(metadata)?), 0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
