//! The real binary between real TLS clients and real TLS servers, as an operator runs it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod client;
mod recut;
mod server;
mod sluice;

mod checks;
mod churn;
mod command;
mod early_data;
mod escaping;
mod faults;
mod fragments;
mod live;
mod matrix;
mod metrics;
mod names;
mod proxy_headers;
mod terminate;
