//! Translates objects into a table and statuses. Pure.
//!
//! [`Builder`] stores the objects of a source, and turns their changes into a [`Delta`] of the table and the
//! statuses. [`build`] translates a whole set of objects once.

mod authorities;
mod builder;
mod certificate_notes;
mod claims;
mod conditions;
mod conflict;
mod delta;
mod domain;
mod endpoints;
mod grants;
mod hints;
mod named_objects;
mod names;
mod notes;
mod own_addresses;
pub(super) mod policy;
mod ports;
mod resolve;
mod resolved_route;
mod route_tls;
mod routes;
mod services;
mod shared_identities;
mod sharing;
mod small_map;
mod tls_object;
mod tls_objects;
mod tls_references;
mod unreadable;
mod unresolved;
mod wildcards;

use std::collections::HashMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use self::builder::Builder;
pub(super) use self::conditions::Problem;
pub use self::delta::{Delta, DeltaComputation, SLICE};
pub use self::hints::OwnPlace;
pub use self::names::{
    ADDRESSES_OF_A_NAME, DnsAnswer, NAMES_OF_A_NAMESPACE, NameChanges, NameFault, Rank, WantedName,
};
pub use self::tls_objects::ReferenceChanges;
pub use self::unreadable::{UnreadableOutcome, UnreadableRoute};
use super::api::{DnsName, ReferenceGrant, Secret, SniRoute};
use super::status::RouteStatus;
use crate::policy::Layers;
use crate::reach::Reach;
use crate::routing::{
    HostnamesBelow, Kind, ObjectKey, ObjectRef, RouteKey, Snapshot, TableChanges,
};
use crate::termination::TicketKeys;

/// The namespace of manifests that have none.
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
    /// Grants, which let routes refer to Services of other namespaces.
    pub grants: Vec<ReferenceGrant>,
    /// ConfigMaps, some with the authorities of active health checks.
    pub config_maps: Vec<ConfigMap>,
    /// Secrets, with certificates and keys for TLS.
    pub secrets: Vec<Secret>,
    /// The known addresses of DNS names.
    pub answers: HashMap<DnsName, DnsAnswer>,
}

/// The settings of an installation that decide which routes it serves, and how.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Its class.
    pub class: String,
    /// Whether routes without a class are ignored.
    pub require_class: bool,
    /// The defaults and the ceiling of policies.
    pub layers: Layers,
    /// The names of its listeners. Empty if they are not known, as in an offline check: then every name in
    /// a route is accepted.
    pub listeners: Vec<String>,
    /// The rules for endpoint addresses.
    pub reach: Reach,
    /// The addresses of this machine at the start. The data plane checks later changes.
    pub machine: Vec<IpAddr>,
    /// Where this process runs. Hints of EndpointSlices are compared with it.
    pub place: OwnPlace,
    /// The Services that lead to the installation itself. No route may lead to them.
    pub own_services: Vec<ObjectKey>,
    /// Those of `listeners` that are of the protocol `tcp`, where no TLS can be served.
    pub tcp_listeners: Vec<String>,
    /// Which namespaces may claim hostnames below a wildcard.
    pub hostnames_below: HostnamesBelow,
    /// The keys of session tickets, if the installation terminates TLS.
    pub termination: Option<TicketKeys>,
}

impl Default for Installation {
    /// An installation of class `sluice`, without known listeners and limits.
    fn default() -> Self {
        Installation {
            class: "sluice".to_owned(),
            require_class: false,
            layers: Layers::default(),
            listeners: Vec::new(),
            reach: Reach::default(),
            machine: Vec::new(),
            place: OwnPlace::default(),
            own_services: Vec::new(),
            tcp_listeners: Vec::new(),
            hostnames_below: HostnamesBelow::default(),
            termination: None,
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

/// The result of a translation.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// For the data plane.
    pub snapshot: Snapshot,
    /// One for each route of this installation, in the order of their keys.
    pub statuses: Vec<RouteStatus>,
    /// The DNS names that routes lead to, sorted.
    pub names: Vec<DnsName>,
}

/// Translates objects. Pure: the same objects give the same plan. If objects have the same kind, namespace
/// and name, the first is used.
///
/// A route that can get no connections (none of its listeners exists, or other routes own all its
/// hostnames) is left out of the snapshot. Backends that cannot be resolved stay in their route, without
/// endpoints.
pub fn build(resources: &Resources, installation: &Installation) -> Plan {
    examine(resources, installation).0
}

/// Like [`build`]; also returns all problems, in the order of the routes' keys.
pub(super) fn examine(resources: &Resources, installation: &Installation) -> (Plan, Vec<Problem>) {
    let mut builder = Builder::of_all_objects(installation.clone());
    // Backwards, because the builder keeps the last of two objects with the same name.
    resources.services.iter().rev().for_each(|service| builder.put_service(service));
    resources.slices.iter().rev().for_each(|slice| builder.put_slice(slice));
    resources.grants.iter().rev().for_each(|grant| builder.put_grant(grant));
    for config_map in resources.config_maps.iter().rev() {
        if let Some(key) = key(&config_map.metadata) {
            builder.put_config_map(&key, config_map.data.as_ref());
        }
    }
    for secret in resources.secrets.iter().rev() {
        if let Some(key) = key(&secret.metadata) {
            builder.put_secret(&key, &secret.data);
        }
    }
    for (name, answer) in &resources.answers {
        builder.put_answer(name, answer.clone());
    }
    resources.routes.iter().rev().for_each(|route| builder.put_route(route));
    let Delta { changes, mut statuses, names, .. } = builder.settle();
    statuses.sort_unstable_by(|a, b| a.object.cmp(&b.object));
    let TableChanges { routes, endpoints, others, places } = changes;
    let mut routes: Vec<_> = routes.into_iter().filter_map(|(_, spec)| spec).collect();
    routes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let snapshot = Snapshot { routes, endpoints, others, places };
    let mut names: Vec<_> = names.wanted.into_iter().map(|wanted| wanted.name).collect();
    names.sort_unstable();
    let mut problems = builder.problems();
    problems.extend(authorities::problems(&builder, &resources.config_maps));
    problems.sort_by(|a, b| a.key.cmp(&b.key));
    (Plan { snapshot, statuses, names }, problems)
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
