//! Settings: from flags, environment and file to one typed [`Config`].
//!
//! A setting has one name over the three layers: `drain.delay` in the file, `--drain-delay`,
//! `SLUICE_DRAIN_DELAY`. Flags beat environment beats file; the first layer that has a setting has
//! the whole of it, lists too. For `log.level` alone, `RUST_LOG` comes between the flag and
//! `SLUICE_LOG_LEVEL`. Relative paths are relative to the working directory, in every layer.
//!
//! The table in `settings.rs` is all that knows the settings: the flags, their help, the variables,
//! the keys of the file and the log of what is in force are made from it.

mod document;
mod fault;
mod file;
mod flags;
mod layers;
mod listen;
mod setting;
mod settings;
mod types;
mod values;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;
use std::{fs, thread};

use self::document::ConfigDocument;
pub use self::fault::ConfigError;
pub use self::flags::Flags;
use self::layers::Layer;
use self::settings::SETTINGS;
pub use self::types::{
    AccessLogMode, Addresses, Config, Drain, ListenerConfig, OtherPeers, OwnObjectName, OwnService,
    Protocol, ProxyProtocolIn, ProxyTimeouts, RouteSource, TrustedPeers, WhenFull,
};
pub use self::values::hostnames_below;
use crate::logging::{Log, LogFormat};
use crate::policy::{Exceeded, Layers, Policy, Timeout};
use crate::routing::HostnamesBelow;

impl Config {
    /// Reads the three layers. `variable` looks up the environment.
    pub fn load(
        flags: &Flags,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Config, ConfigError> {
        let document = read_file(flags, &variable)?;
        let file = document.as_ref().map_or_else(|| Ok(Layer::new()), file::layer)?;
        let layers = [flags.layer(), layers::environment(&variable)?, file];

        let mut config = Config::default();
        for setting in SETTINGS {
            if let Some(given) = layers.iter().find_map(|layer| layer.get(setting.name)) {
                if given.is_in_file() && config.has_in_policy(setting.name) {
                    let message = format!("policy.{} is the same; leave one out", setting.name);
                    return Err(given.origin.error(setting, message.into()));
                }
                (setting.set)(&mut config, &given.values)
                    .map_err(|fault| given.origin.error(setting, fault))?;
            }
        }
        let in_cluster = variable("KUBERNETES_SERVICE_HOST").is_some();
        config.source = match config.source {
            RouteSource::Kubernetes if !config.routes.is_empty() => {
                return Err(ConfigError::TwoSources);
            }
            RouteSource::Kubernetes => RouteSource::Kubernetes,
            _ if !config.routes.is_empty() => RouteSource::Files,
            RouteSource::Auto if in_cluster || config.kubeconfig.is_some() => {
                RouteSource::Kubernetes
            }
            RouteSource::Auto | RouteSource::Files => return Err(ConfigError::NoRoutes),
        };
        if config.source == RouteSource::Files && config.state_dir.is_some() {
            return Err(ConfigError::StateOfFiles);
        }
        if config.access_log_start && config.access_log != AccessLogMode::All {
            return Err(ConfigError::StartWithoutEnd);
        }
        config.check_ceiling()?;
        Ok(config)
    }

    /// Whether the policy has what a setting is another name for.
    fn has_in_policy(&self, setting: &str) -> bool {
        let timeouts = &self.policy.timeouts;
        setting == "timeouts.connect" && timeouts.connect.is_some()
            || setting == "timeouts.idle" && timeouts.idle.is_some()
    }

    /// The layers below a route's own policy.
    pub fn policy_layers(&self) -> Layers {
        let max = self.timeouts.max.and_then(Timeout::new);
        Layers::new(&self.policy, self.policy_ceiling.clone()).with_max(max)
    }

    /// A route that asks for nothing would exceed what others may ask for.
    fn check_ceiling(&self) -> Result<(), ConfigError> {
        let layers = self.policy_layers();
        let default = Layers::new(&self.policy, Policy::default());
        let (default, _) = default.effective(&Policy::default());
        // As if a route asked for the defaults.
        match layers.effective(&default.policy).1.into_iter().next() {
            Some(Exceeded { field, asked, ceiling }) => {
                Err(ConfigError::CeilingTooLow { field, default: asked, ceiling })
            }
            None => Ok(()),
        }
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
            source: RouteSource::Auto,
            kubeconfig: None,
            namespaces: Vec::new(),
            dns_servers: Vec::new(),
            addresses: Addresses::default(),
            own_services: Vec::new(),
            node: None,
            zone: None,
            state_dir: None,
            routes: Vec::new(),
            class: "sluice".to_owned(),
            require_class: false,
            hostnames_below: HostnamesBelow::Anyone,
            write_status: true,
            lease: None,
            terminate: false,
            resumption: true,
            ticket_keys: None,
            lease_duration: Duration::from_secs(15),
            workers: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            policy: Policy::default(),
            policy_ceiling: Policy::default(),
            timeouts: ProxyTimeouts {
                hello: Duration::from_secs(5),
                handshake: Duration::from_secs(10),
                stall: Some(Duration::from_mins(5)),
                max: None,
            },
            max_hello: 16_384,
            max_hellos: None,
            checks_per_second: NonZeroU32::MIN.saturating_add(199),
            when_full: WhenFull::Fair,
            drain: Drain { delay: Duration::from_secs(5), timeout: Duration::from_secs(30) },
            access_log: AccessLogMode::All,
            access_log_start: false,
            log: Log { level: "info".to_owned(), format: LogFormat::Auto },
        }
    }
}

fn read_file(
    flags: &Flags,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<ConfigDocument>, ConfigError> {
    let (path, place) = match &flags.file {
        Some(path) => (path.clone(), format!("--{}", settings::FILE)),
        None => match layers::file_variable(variable)? {
            Some(found) => found,
            None => return Ok(None),
        },
    };
    match fs::read_to_string(&path) {
        Ok(text) => ConfigDocument::parse(path.into(), &text).map(Some),
        Err(source) => Err(ConfigError::Unreadable { place, path: path.into(), source }),
    }
}
