//! The control plane: manifests in, a routing table and statuses out.
//!
//! Sources ([`files`]) gather [`build::Resources`]; [`build::build`] turns them, without I/O, into a
//! [`build::Plan`]; the plan's snapshot goes to the data plane through [`crate::routing::Writer`]
//! and its statuses to whoever reports them. What is served outlives the process in [`saved`].

pub mod api;
pub mod build;
mod burst;
pub mod dns;
pub mod files;
mod fnv;
pub mod kubernetes;
pub mod lease;
mod random;
pub mod saved;
pub mod status;
