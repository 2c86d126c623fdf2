//! What the settings come to.

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::cidr::Cidr;
use crate::logging::Log;
use crate::policy::{Access, Limits, Policy};
use crate::routing::HostnamesBelow;

/// The validated configuration of `sluice run`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The listeners. Never empty. Several may share a name.
    pub listeners: Vec<ListenerConfig>,
    /// The address of the admin port.
    pub admin: SocketAddr,
    /// The source of routes.
    pub source: RouteSource,
    /// The kubeconfig for the API server, outside a cluster.
    pub kubeconfig: Option<PathBuf>,
    /// The namespaces that are watched in the API server; all if it is empty.
    pub namespaces: Vec<String>,
    /// The DNS servers for names of backends; those of the system if it is empty.
    pub dns_servers: Vec<SocketAddr>,
    /// Which addresses endpoints may have.
    pub addresses: Addresses,
    /// The Services of this installation, which are no backends.
    pub own_services: Vec<OwnService>,
    /// The node of this process, if it is known.
    pub node: Option<String>,
    /// Its zone, if that is known.
    pub zone: Option<String>,
    /// The folder of the saved table, if the table is to be saved. Only with [`RouteSource::Kubernetes`].
    pub state_dir: Option<PathBuf>,
    /// Files and folders of manifests. Never empty once loaded with [`RouteSource::Files`].
    pub routes: Vec<PathBuf>,
    /// The class of this installation.
    pub class: String,
    /// Whether routes without a class are ignored.
    pub require_class: bool,
    /// Which namespaces may claim hostnames below a wildcard.
    pub hostnames_below: HostnamesBelow,
    /// Whether the status of routes, and Events on them, are written to the API server.
    pub write_status: bool,
    /// The Lease of the replica that writes them; if there is none here, its name follows from the class.
    pub lease: Option<OwnObjectName>,
    /// How long a replica that has ended abruptly keeps the Lease.
    pub lease_duration: Duration,
    /// Whether routes may serve TLS, with the keys of Secrets.
    pub terminate: bool,
    /// Whether clients may resume TLS sessions, by tickets.
    pub resumption: bool,
    /// The Secret with the keys of tickets that replicas share; without it, each has its own.
    pub ticket_keys: Option<OwnObjectName>,
    /// The number of workers.
    pub workers: NonZeroUsize,
    /// The defaults of routes' policies.
    pub policy: Policy,
    /// What no route's policy exceeds, besides [`ProxyTimeouts::max`].
    pub policy_ceiling: Policy,
    /// The installation's own deadlines.
    pub timeouts: ProxyTimeouts,
    /// The largest ClientHello in bytes of handshake.
    pub max_hello: usize,
    /// How many connections may have an incomplete ClientHello; a quarter of all if it is not set.
    pub max_hellos: Option<usize>,
    /// How many active health checks may begin in a second.
    pub checks_per_second: NonZeroU32,
    /// What becomes of new clients when the process has no room for them.
    pub when_full: WhenFull,
    /// The settings of the drain after SIGTERM.
    pub drain: Drain,
    /// The connections that are in the access log.
    pub access_log: AccessLogMode,
    /// Whether the access log also has a line when the upstream is connected. Only with
    /// [`AccessLogMode::All`].
    pub access_log_start: bool,
    /// How sluice logs.
    pub log: Log,
}

/// The source of routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteSource {
    /// Chosen from other settings and the environment, while the configuration is loaded.
    #[default]
    Auto,
    /// The API server.
    Kubernetes,
    /// Manifests.
    Files,
}

impl RouteSource {
    /// The word that stands for it.
    pub fn as_str(self) -> &'static str {
        match self {
            RouteSource::Auto => "auto",
            RouteSource::Kubernetes => "kubernetes",
            RouteSource::Files => "files",
        }
    }
}

/// What becomes of new clients when the process has no room for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// A connection of the client that has most gives way, if that has four times as many as the new one's.
    #[default]
    Fair,
    /// They are refused.
    Refuse,
}

impl WhenFull {
    /// Both.
    pub const ALL: [WhenFull; 2] = [WhenFull::Fair, WhenFull::Refuse];

    /// The word in the setting.
    pub fn as_str(self) -> &'static str {
        match self {
            WhenFull::Fair => "Fair",
            WhenFull::Refuse => "Refuse",
        }
    }
}

/// One address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// The name that routes refer to.
    pub name: String,
    /// The address; port 0 takes any free port. `0.0.0.0` and `[::]` are skipped if the machine lacks the
    /// address family and the listener has another address.
    pub address: SocketAddr,
    /// The protocol of the clients.
    pub protocol: Protocol,
    /// Whether a connection that is refused gets a TLS alert before it is closed.
    pub alerts: bool,
    /// The proxies that say who their clients are.
    pub proxy_protocol: Option<ProxyProtocolIn>,
    /// The clients that are admitted.
    pub access: Access,
    /// The limits on its connections.
    pub limits: Limits,
}

impl ListenerConfig {
    /// A listener of TLS for all clients.
    pub fn new(name: &str, address: SocketAddr) -> Self {
        ListenerConfig {
            name: name.to_owned(),
            address,
            protocol: Protocol::default(),
            alerts: false,
            proxy_protocol: None,
            access: Access::default(),
            limits: Limits::default(),
        }
    }
}

/// From which peers a listener reads a PROXY header.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub struct ProxyProtocolIn {
    /// The networks of the proxies. A header of anybody else is never believed.
    pub from: Vec<Cidr>,
    /// Whether these may also connect without a header.
    #[serde(default)]
    pub trusted: TrustedPeers,
    /// What becomes of everybody else.
    #[serde(default)]
    pub others: OtherPeers,
}

/// Whether trusted peers have to send a PROXY header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TrustedPeers {
    /// They have to.
    #[default]
    Require,
    /// They may also connect without one.
    Accept,
}

/// What becomes of peers that are not trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum OtherPeers {
    /// They are clients.
    #[default]
    Plain,
    /// They are refused.
    Refuse,
}

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// TLS: the route is found by the server name.
    #[default]
    Tls,
    /// Any protocol: the listener's route for `*` takes all connections.
    Tcp,
}

/// The name of an object of this installation, such as its Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnObjectName {
    /// Its namespace; the replica's own if there is none here.
    pub namespace: Option<String>,
    /// Its name there.
    pub name: String,
}

impl fmt::Display for OwnObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The networks in which endpoints may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The networks that they may be in; any if it is empty.
    pub allow: Vec<Cidr>,
    /// The networks that they may not be in, whatever `allow` has.
    pub deny: Vec<Cidr>,
}

/// The name of a Service that leads to this installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnService {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

impl fmt::Display for OwnService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyTimeouts {
    /// From accept to a whole ClientHello.
    pub hello: Duration,
    /// From the ClientHello to the end of a TLS handshake that sluice serves.
    pub handshake: Duration,
    /// For a client that takes next to nothing of what there is for it; `None` is for ever.
    pub stall: Option<Duration>,
    /// The longest that a route may ask for; `None` is no bound.
    pub max: Option<Duration>,
}

/// The settings of the drain after SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long new connections are still accepted, while load balancers learn that this replica
    /// is unready.
    pub delay: Duration,
    /// How long established connections may take to end after that.
    pub timeout: Duration,
}

/// The connections that are in the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogMode {
    /// None.
    Off,
    /// Those that did not complete.
    Errors,
    /// All.
    All,
}

impl AccessLogMode {
    /// The word in the setting.
    pub fn as_str(self) -> &'static str {
        match self {
            AccessLogMode::Off => "off",
            AccessLogMode::Errors => "errors",
            AccessLogMode::All => "all",
        }
    }
}
