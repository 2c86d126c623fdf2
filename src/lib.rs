//! sluice routes TLS connections by the server name of their ClientHello, without opening them.
//!
//! The map, from the rim to the core:
//!
//! | module | what it is | may name, of ours |
//! |---|---|---|
//! | [`app`] | binds everything, runs it, drains it; the only one that knows every part | all |
//! | [`control`] | the control plane: manifests in, a table and statuses out | `routing`, `reach`, `duration`, `yaml` |
//! | [`proxy`] | the data plane: the life of a connection | `routing`, `reach`, `machine`, `tls`, `outcome`, `config`, `metrics`, `access_log`, `heartbeat` |
//! | [`admin`] | the admin port: metrics, probes, the routes in force | `routing`, `reach`, `control::status`, `metrics`, `readiness`, `duration` |
//! | [`explain`] | which route wins, and why | `routing`, `tls`, `admin::report` |
//! | [`metrics`] | what is measured | `routing`, `outcome`, `reach` |
//! | [`access_log`] | one line for each connection | `tls`, `outcome`, `line_queue`, `cidr` |
//! | [`readiness`] | what the probes report | nothing |
//! | [`heartbeat`] | signs of life of threads | nothing |
//! | [`cli`] | the command line | `config` |
//! | [`config`] | the settings | `logging`, `duration`, `cidr`, `yaml` |
//! | [`logging`] | the log | `line_queue` |
//! | [`line_queue`] | lines for an output that may stall | nothing |
//! | [`machine`] | which addresses are this machine's | nothing |
//! | [`reach`] | pure: where routes may lead | `cidr` |
//! | [`routing`] | pure: which route owns a connection | `outcome`, `duration` |
//! | [`tls`] | pure: bytes in, a typed ClientHello out | nothing |
//! | [`yaml`] | pure: text in, values with their lines out | nothing |
//! | [`outcome`], [`duration`], [`cidr`] | pure: how connections end; durations and networks as people write them | nothing |
//!
//! Invariants: `control` and `proxy` never import each other, and meet only in `routing`;
//! `routing` and `tls` do no I/O and know neither tokio nor Kubernetes. `tests/parts/walls.rs` holds
//! them, and this map to the truth.
//! Nothing that a peer or a manifest can cause panics, and there is no `unsafe`.

pub mod access_log;
pub mod admin;
pub mod app;
pub mod cidr;
pub mod cli;
pub mod config;
pub mod control;
pub mod duration;
pub mod explain;
pub mod heartbeat;
pub mod line_queue;
pub mod logging;
pub mod machine;
pub mod metrics;
pub mod outcome;
pub mod proxy;
pub mod reach;
pub mod readiness;
pub mod routing;
pub mod tls;
pub mod yaml;
