//! Resources in, table and statuses out; pure.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::api::SniRoute;
use super::status::RouteStatus;
use crate::routing::Snapshot;

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
    /// The names of its listeners.
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

/// Turns resources into a plan. Pure: the same input gives the same plan.
pub fn build(_resources: &Resources, _installation: &Installation) -> Plan {
    Plan::default()
}
