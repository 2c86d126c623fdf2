//! Which route owns a connection, decided without I/O.
//!
//! * [`ObjectKey`] tells objects apart.
//! * [`Hostname`] is what a route claims; its `Ord` is the precedence between claims.
//! * A [`Scope`] has the listeners among which hostnames conflict; an [`Attachment`] says which of
//!   them have a route.
//! * [`RouteSpec`] is a route as the control plane asks for it; [`Route`] is the same route as the
//!   data plane serves it, with the state that outlives a change of the table.
//! * [`Table`] answers "who owns this name" without allocating.
//! * [`Writer`] and [`Reader`] carry tables from the one control plane to the many workers.
//!
//! Endpoints live in their [`Backend`], apart from the host table: a change of endpoints stores one
//! new [`EndpointSet`] and rebuilds nothing. What recent attempts to connect have shown of an
//! endpoint is its [`Standing`].

mod attachment;
mod backend;
mod balance;
mod claim;
mod claims;
mod crowd;
mod health;
mod hostname;
mod hostnames;
mod hosts;
mod kept;
mod key;
mod ownership;
mod policy;
mod route;
mod scatter;
mod search;
mod shards;
mod swap;
mod table;
pub mod wire;

pub use attachment::{Attachment, Attachments, ListenerRef, Scope};
pub use backend::{ActiveConnection, Backend, BackendKey, Endpoint, EndpointSet, ServicePort};
pub use balance::{Effort, Wish, choose, endpoint_of_source};
pub use health::{ENDPOINT_REST, FAMILY_REST, Moment, Standing};
pub use hostname::{Hostname, InvalidHostname};
pub use hostnames::{AnyOn, Hostnames};
pub use key::{Kind, ObjectKey, ObjectRef, Referrer, RouteKey};
pub use ownership::{
    Age, Claimant, Demand, MOST_ROUTES_A_HOSTNAME, Verdict, judge, judge_any, owners_of_any,
};
pub use policy::{Balancing, Timeouts, TrafficPolicy, UnknownBalancing};
use route::Turns;
pub use route::{Route, RouteSpec, RouteStats, WeightedBackend};
pub use scatter::{hash_ip, mix};
pub use search::{MOST_CLAIMED_HOSTNAMES, MOST_OFFERS, Match, MatchKind};
pub use swap::{Applied, Changes, Reader, Snapshot, Writer, channel};
pub use table::Table;
