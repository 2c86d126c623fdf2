//! Finds the route of a connection, and an endpoint of the route. Pure: no I/O.
//!
//! * [`ObjectRef`] and [`RouteKey`] identify objects and routes.
//! * [`Hostname`] is a hostname that a route claims; its `Ord` is the precedence between claims.
//! * A [`Scope`] is a set of listeners among which hostnames conflict. An [`Attachment`] has the listeners
//!   of a scope that have the route.
//! * [`RouteSpec`] is a route as defined by the control plane. [`Route`] is the route in the data plane,
//!   with state that is kept across tables.
//! * [`Table`] finds the route of a name without allocating.
//! * [`TableWriter`] publishes tables from the control plane, [`TableReader`] reads them in the workers.
//!
//! Endpoints are stored in their [`Backend`], outside the table: a change of endpoints stores a new
//! [`EndpointSet`] and makes no new table. The result of recent attempts to connect is an endpoint's
//! [`Availability`], which depends on the [`HealthRule`] of the route: when endpoints are ejected, and which active
//! checks count.

mod attachment;
mod backend;
mod backend_key;
mod balance;
mod checks;
mod claim;
mod claims;
mod deferred_drop;
mod ejection;
mod endpoint;
mod hash_ring;
mod health;
mod health_rule;
mod hostname;
mod hostnames;
mod hosts;
mod interned;
mod key;
mod locality;
mod lookup;
mod other_addresses;
mod ownership;
mod policy;
mod protocol_index;
mod publish;
mod removal;
mod route;
mod shards;
mod slow_start;
mod subscribers;
mod table;
pub mod wire;

pub use attachment::{Attachment, Attachments, ListenerRef, Scope};
pub use backend::{Backend, EndpointSet};
pub use backend_key::{BackendKey, ServicePort};
pub use balance::{
    EndpointRequest, NoEndpoint, SearchState, choose, ring_in_use, settled_endpoint,
};
pub use checks::{CheckEntry, CheckMethod, CheckParams, CheckState, CheckVerdict, TlsCheck};
pub use ejection::{Ejected, EjectionRule, FailureKind, MOST_FAILURES};
pub use endpoint::{ActiveConnection, Endpoint};
pub use hash_ring::mix;
pub use health::{Availability, ENDPOINT_REST, FAMILY_REST, Moment};
pub use health_rule::HealthRule;
pub use hostname::{Hostname, InvalidHostname};
pub use hostnames::{AnyOn, Hostnames};
pub use interned::Interned;
pub use key::{Kind, ObjectKey, ObjectRef, Referrer, RouteKey};
pub use locality::{EndpointPlace, EndpointPlaces, Ring};
pub use lookup::{MOST_CLAIMED_HOSTNAMES, MOST_OFFERS, Match, MatchKind};
pub use other_addresses::OtherAddresses;
pub use ownership::{
    Age, ClaimConflict, Claimant, Demand, HostnamesBelow, MOST_ROUTES_A_HOSTNAME, judge, judge_any,
    owners_of_any,
};
pub use policy::{ProxyHeader, RaceRule, TrafficPolicy};
pub use publish::{ApplyResult, Snapshot, TableChanges, TableReader, TableWriter, channel};
pub use removal::{RemovalEffect, Removals};
use route::RoundRobin;
pub use route::{Route, RouteSpec, RouteStats, WeightedBackend};
pub use table::Table;
