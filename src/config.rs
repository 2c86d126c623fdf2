//! Settings: from flags, environment and file to one typed [`Config`].

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that `sluice run` needs to know, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where clients connect to. Never empty. Several may share a name.
    pub listeners: Vec<Listener>,
    /// Where metrics and probes are served.
    pub admin: SocketAddr,
    /// Files and folders of manifests. Never empty.
    pub routes: Vec<PathBuf>,
    /// The class of this installation.
    pub class: String,
    /// Whether routes that name no class are left alone.
    pub require_class: bool,
    /// How many data-plane threads.
    pub workers: NonZeroUsize,
    /// The installation's own deadlines.
    pub timeouts: Timeouts,
    /// The largest ClientHello in bytes of handshake.
    pub max_hello: usize,
    /// How a termination is carried out.
    pub drain: Drain,
    /// Which connections the access log has.
    pub access_log: AccessLog,
    /// How sluice logs.
    pub log: Log,
}

/// One address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The name that routes refer to.
    pub name: String,
    /// Where it listens; port 0 takes any free one.
    pub address: SocketAddr,
    /// What clients speak there.
    pub protocol: Protocol,
    /// Whether a connection that is refused gets a TLS alert before it is closed.
    pub alerts: bool,
    /// Whether it was asked for, or is a default that a machine without its address family can do
    /// without.
    pub optional: bool,
}

/// What clients speak on a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// TLS: the server name decides.
    #[default]
    Tls,
    /// Anything: the listener's route for `*` takes every connection.
    Tcp,
}

/// Deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to a whole ClientHello.
    pub hello: Duration,
    /// For one attempt to connect to one endpoint.
    pub connect: Duration,
    /// Without a byte in either direction.
    pub idle: Duration,
}

/// How a termination is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long new connections are still accepted, while load balancers learn that this replica
    /// is unready.
    pub delay: Duration,
    /// How long established connections may take to end after that.
    pub timeout: Duration,
}

/// Which connections the access log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    Off,
    /// Those that did not complete.
    Errors,
    /// All.
    All,
}

/// How sluice logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A filter in the syntax of `RUST_LOG`.
    pub level: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}
