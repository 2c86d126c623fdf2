//! The data plane through real connections: what each side of a connection sees, and what is
//! counted. Most tests run it in their own process; those about descriptors, memory, signals and
//! the access log run the real binary.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod accepts;
mod access;
mod access_log;
mod activation;
mod alerts;
mod binds;
mod bulk;
mod costs;
mod crowd;
mod deadlines;
mod descriptors;
mod drain;
mod ejection;
mod endpoints;
mod failover;
mod families;
mod far;
mod faults;
mod half_close;
mod held;
mod lifetime;
mod limits;
mod listeners;
mod loops;
mod near;
mod outcomes;
mod proxy_header;
mod removal;
mod replay;
mod resets;
mod rounds;
mod routes;
mod signals;
mod spread;
mod stalled;
mod stalls;
mod support;
mod terminate;
mod threads;
mod urgent;
mod vanish;
