//! Settings: from flags, environment and file to one typed [`Config`].
//!
//! A setting has one name over the three layers: `drain.delay` in the file, `--drain-delay`,
//! `SLUICE_DRAIN_DELAY`. Flags beat environment beats file; the first layer that has a setting has
//! the whole of it, lists too. For `log.level` alone, `RUST_LOG` comes between the flag and
//! `SLUICE_LOG_LEVEL`. Relative paths are relative to the working directory, in every layer.
//!
//! The table in `settings.rs` is all that knows the settings: the flags, their help, the variables,
//! the keys of the file and the log of what is in force are made from it.

mod file;
mod flags;
mod layers;
mod listen;
mod settings;
mod values;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, io, thread};

pub use flags::Flags;

use crate::cidr::Cidr;
use file::Document;
use layers::Layer;
use settings::SETTINGS;

use crate::duration::display;

/// Everything that `sluice run` needs to know, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where clients connect to. Never empty. Several may share a name.
    pub listeners: Vec<Listener>,
    /// Where metrics and probes are served.
    pub admin: SocketAddr,
    /// Where routes come from.
    pub source: Source,
    /// How to reach the API server outside a cluster.
    pub kubeconfig: Option<PathBuf>,
    /// The namespaces that are watched in the API server; all if it is empty.
    pub namespaces: Vec<String>,
    /// The DNS servers that names of backends are looked up at; the system's if it is empty.
    pub dns_servers: Vec<SocketAddr>,
    /// Which addresses endpoints may have.
    pub addresses: Addresses,
    /// The Services of this installation, which are no backends.
    pub own_services: Vec<OwnService>,
    /// The folder in which the table is saved, if it is to be. Only with [`Source::Kubernetes`].
    pub state_dir: Option<PathBuf>,
    /// Files and folders of manifests. Never empty once loaded with [`Source::Files`].
    pub routes: Vec<PathBuf>,
    /// The class of this installation.
    pub class: String,
    /// Whether routes that name no class are left alone.
    pub require_class: bool,
    /// Which namespaces may claim hostnames below a wildcard.
    pub hostnames_below: HostnamesBelow,
    /// Whether the status of routes, and Events on them, are written to the API server.
    pub write_status: bool,
    /// Which Lease says which replica writes them; one that follows from the class if there is none
    /// here.
    pub lease: Option<Lease>,
    /// How long a replica that is not heard of any more keeps the Lease.
    pub lease_duration: Duration,
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
    /// Whether the access log has a line when the upstream connection stands, too. Only with
    /// [`AccessLog::All`].
    pub access_log_start: bool,
    /// How sluice logs.
    pub log: Log,
}

/// Why there is no configuration. The message says where the fault is and what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A layer has what no setting takes.
    #[error("{place}: {message}")]
    Invalid {
        /// The flag, the variable, or file, line and name.
        place: String,
        /// What is wrong there.
        message: String,
    },
    /// The configuration file cannot be read.
    #[error("{place}: cannot read {path:?}")]
    Unreadable {
        /// What names the file.
        place: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is nothing to serve.
    #[error(
        "no routes: give a file or folder of SniRoute manifests with --routes PATH \
         (or SLUICE_ROUTES, or routes: in the configuration file), or a cluster with --kubeconfig"
    )]
    NoRoutes,
    /// Two sources at once.
    #[error("routes come from kubernetes or from files, not from both: leave out source or routes")]
    TwoSources,
    /// Files are there whenever sluice is.
    #[error(
        "stateDir is for routes from kubernetes: a table that comes from files is never saved; \
         leave it out"
    )]
    StateOfFiles,
    /// What starts would not end in the log.
    #[error(
        "accessLogStart has a line for the start of each connection, so accessLog has to be all, for \
         their ends; set that, or leave accessLogStart out"
    )]
    StartWithoutEnd,
    /// A route would have a longer time for asking nothing than it may ask for.
    #[error(
        "timeouts.max: {} is shorter than {name}, which is {} and holds for routes that ask for \
         nothing; lengthen the one or shorten the other",
        display(*max),
        display(*value)
    )]
    MaxTooShort {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: Duration,
        /// The longest that a route may ask for.
        max: Duration,
    },
}

impl Config {
    /// Reads the three layers. `variable` looks up the environment.
    pub fn load(
        flags: &Flags,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Config, ConfigError> {
        let document = read_file(flags, &variable)?;
        let file = document.as_ref().map_or_else(|| Ok(Layer::new()), Document::layer)?;
        let layers = [flags.layer(), layers::environment(&variable)?, file];

        let mut config = Config::default();
        for setting in SETTINGS {
            if let Some(given) = layers.iter().find_map(|layer| layer.get(setting.name)) {
                (setting.set)(&mut config, &given.values)
                    .map_err(|fault| given.origin.error(setting, fault))?;
            }
        }
        let in_cluster = variable("KUBERNETES_SERVICE_HOST").is_some();
        config.source = match config.source {
            Source::Kubernetes if !config.routes.is_empty() => {
                return Err(ConfigError::TwoSources);
            }
            Source::Kubernetes => Source::Kubernetes,
            _ if !config.routes.is_empty() => Source::Files,
            Source::Auto if in_cluster || config.kubeconfig.is_some() => Source::Kubernetes,
            Source::Auto | Source::Files => return Err(ConfigError::NoRoutes),
        };
        if config.source == Source::Files && config.state_dir.is_some() {
            return Err(ConfigError::StateOfFiles);
        }
        if config.access_log_start && config.access_log != AccessLog::All {
            return Err(ConfigError::StartWithoutEnd);
        }
        config.timeouts.check()?;
        Ok(config)
    }

    /// Every setting with its value, in one line: `class=sluice drain.delay=5s ...`. The names are
    /// those of the file.
    pub fn in_force(&self) -> String {
        let pairs = SETTINGS.iter().map(|setting| {
            let value = (setting.show)(self);
            match value.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') {
                true => format!("{}={value:?}", setting.name),
                false => format!("{}={value}", setting.name),
            }
        });
        pairs.collect::<Vec<_>>().join(" ")
    }
}

impl Default for Config {
    /// Every setting that has a default; `routes` has none.
    fn default() -> Config {
        Config {
            listeners: listen::defaults(),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 9901)),
            source: Source::Auto,
            kubeconfig: None,
            namespaces: Vec::new(),
            dns_servers: Vec::new(),
            addresses: Addresses::default(),
            own_services: Vec::new(),
            state_dir: None,
            routes: Vec::new(),
            class: "sluice".to_owned(),
            require_class: false,
            hostnames_below: HostnamesBelow::Anyone,
            write_status: true,
            lease: None,
            lease_duration: Duration::from_secs(15),
            workers: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            timeouts: Timeouts {
                hello: Duration::from_secs(5),
                connect: Duration::from_secs(5),
                idle: Duration::from_hours(1),
                stall: Some(Duration::from_mins(5)),
                max: None,
            },
            max_hello: 16_384,
            drain: Drain { delay: Duration::from_secs(5), timeout: Duration::from_secs(30) },
            access_log: AccessLog::All,
            access_log_start: false,
            log: Log { level: "info".to_owned(), format: LogFormat::Auto },
        }
    }
}

/// Which namespaces may claim hostnames below a wildcard that belongs to one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostnamesBelow {
    /// Each.
    #[default]
    Anyone,
    /// The owner of the wildcard, and those with which it shares it.
    Owner,
}

impl HostnamesBelow {
    /// The word in the setting.
    pub fn as_str(self) -> &'static str {
        match self {
            HostnamesBelow::Anyone => "Anyone",
            HostnamesBelow::Owner => "Owner",
        }
    }

    /// Reads the word.
    ///
    /// # Errors
    /// When it is another one.
    pub fn parse(text: &str) -> Result<Self, String> {
        values::hostnames_below(text)
    }
}

/// Where routes come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// What the other settings and the surroundings suggest; decided while the configuration is
    /// loaded.
    #[default]
    Auto,
    /// The API server.
    Kubernetes,
    /// Manifests.
    Files,
}

impl Source {
    /// The word that stands for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Auto => "auto",
            Source::Kubernetes => "kubernetes",
            Source::Files => "files",
        }
    }
}

/// One address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The name that routes refer to.
    pub name: String,
    /// Where it listens; port 0 takes any free one. `0.0.0.0` and `[::]` are left out where the
    /// machine does not have the family, if there is another address of the same name.
    pub address: SocketAddr,
    /// What clients speak there.
    pub protocol: Protocol,
    /// Whether a connection that is refused gets a TLS alert before it is closed.
    pub alerts: bool,
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

/// The name of a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its namespace; the replica's own if there is none here.
    pub namespace: Option<String>,
    /// Its name there.
    pub name: String,
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Which addresses endpoints may have.
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
pub struct Timeouts {
    /// From accept to a whole ClientHello.
    pub hello: Duration,
    /// For one attempt to connect to one endpoint.
    pub connect: Duration,
    /// Without a byte in either direction.
    pub idle: Duration,
    /// For a client that takes next to nothing of what there is for it; `None` is for ever.
    pub stall: Option<Duration>,
    /// The longest that a route may ask for; `None` is no bound.
    pub max: Option<Duration>,
}

impl Timeouts {
    /// What holds for one attempt to connect, where a route asks for `own`.
    pub fn connect_of(&self, own: Option<Duration>) -> Duration {
        own.map_or(self.connect, |own| self.capped(own))
    }

    /// How long a connection may be idle, where a route asks for `own`.
    pub fn idle_of(&self, own: Option<Duration>) -> Duration {
        own.map_or(self.idle, |own| self.capped(own))
    }

    fn capped(&self, own: Duration) -> Duration {
        self.max.map_or(own, |max| own.min(max))
    }

    fn check(&self) -> Result<(), ConfigError> {
        let all = [("timeouts.connect", self.connect), ("timeouts.idle", self.idle)];
        let longer = |max: Duration| all.into_iter().find(|(_, value)| *value > max);
        match self.max.and_then(|max| longer(max).map(|longer| (longer, max))) {
            Some(((name, value), max)) => Err(ConfigError::MaxTooShort { name, value, max }),
            None => Ok(()),
        }
    }
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

impl AccessLog {
    /// The word in the setting.
    pub fn as_str(self) -> &'static str {
        match self {
            AccessLog::Off => "off",
            AccessLog::Errors => "errors",
            AccessLog::All => "all",
        }
    }
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

impl LogFormat {
    /// The word in the setting.
    pub fn as_str(self) -> &'static str {
        match self {
            LogFormat::Auto => "auto",
            LogFormat::Json => "json",
            LogFormat::Text => "text",
        }
    }
}

impl ConfigError {
    fn invalid(place: String, message: String) -> ConfigError {
        ConfigError::Invalid { place, message }
    }
}

fn read_file(
    flags: &Flags,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<Document>, ConfigError> {
    let (path, place) = match &flags.file {
        Some(path) => (path.clone(), format!("--{}", settings::FILE)),
        None => match layers::file_variable(variable)? {
            Some(found) => found,
            None => return Ok(None),
        },
    };
    let document = Document::read(Path::new(&path));
    document.map(Some).map_err(|source| ConfigError::Unreadable {
        place,
        path: path.into(),
        source,
    })
}
