//! sluice routes TLS connections by the server name of their ClientHello. It passes them on
//! unopened, or serves the TLS itself where a route says so.
//!
//! The modules, from the outermost to the innermost:
//!
//! | module | what it is | modules of the crate that it uses |
//! |---|---|---|
//! | [`app`] | starts all parts, runs and drains them; the only module that uses all others | all |
//! | [`control`] | the control plane: turns manifests into a table and statuses, and checks endpoints | `routing`, `reach`, `policy`, `termination`, `proxy_protocol`, `duration`, `yaml` |
//! | [`proxy`] | the data plane: serves connections | `routing`, `reach`, `machine`, `tls`, `termination`, `proxy_protocol`, `policy`, `limiter`, `outcome`, `config`, `metrics`, `access_log`, `heartbeat` |
//! | [`admin`] | the admin port: metrics, probes, the active routes and their limits | `routing`, `policy`, `limiter`, `termination`, `reach`, `control::status`, `metrics`, `readiness`, `duration` |
//! | [`explain`] | says which route takes a connection, and why | `routing`, `policy`, `tls`, `termination`, `admin::report`, `admin::limits`, `admin::certificates` |
//! | [`metrics`] | the metrics | `routing`, `outcome`, `reach`, `limiter`, `termination` |
//! | [`access_log`] | one line for each connection | `tls`, `outcome`, `line_queue`, `cidr` |
//! | [`readiness`] | what the probes report | `heartbeat` |
//! | [`heartbeat`] | tells whether threads still answer | nothing |
//! | [`cli`] | the command line | `config`, `routing` |
//! | [`config`] | the settings | `routing`, `logging`, `duration`, `cidr`, `policy`, `yaml` |
//! | [`logging`] | the log | `line_queue` |
//! | [`line_queue`] | writes lines to an output that may stall | nothing |
//! | [`machine`] | the addresses of this machine | nothing |
//! | [`reach`] | pure: which addresses routes may lead to | `cidr` |
//! | [`routing`] | pure: finds the route and the endpoint of a connection | `outcome`, `duration`, `policy`, `limiter`, `termination` |
//! | [`limiter`] | pure: decides about connections by limits | `policy` |
//! | [`policy`] | pure: how connections are treated, by routes and by the installation | `cidr`, `duration` |
//! | [`termination`] | pure: certificates, keys and settings of TLS that sluice serves itself | nothing |
//! | [`tls`] | pure: parses a ClientHello | nothing |
//! | [`proxy_protocol`] | pure: reads and writes PROXY headers | nothing |
//! | [`yaml`] | pure: parses YAML, and keeps the line of each value | nothing |
//! | [`outcome`], [`duration`], [`cidr`] | pure: how a connection ended; durations and networks in text form | nothing |
//!
//! Invariants: `control` and `proxy` never use each other; they share `routing`. `routing` and `tls` do
//! no I/O and use neither tokio nor Kubernetes types. `tests/parts/walls.rs` checks this, and the table
//! above. No input from a peer or a manifest causes a panic, and there is no `unsafe`.

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
pub mod limiter;
pub mod line_queue;
pub mod logging;
pub mod machine;
pub mod metrics;
pub mod outcome;
pub mod policy;
pub mod proxy;
pub mod proxy_protocol;
pub mod reach;
pub mod readiness;
pub mod routing;
pub mod termination;
pub mod tls;
pub mod yaml;
