//! The settings of the data plane.

use crate::config::{self, Config, RouteSource};
use crate::reach::{OwnEndpoints, Reach};

/// The settings that all workers share.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) timeouts: config::ProxyTimeouts,
    pub(super) max_hello: usize,
    pub(super) max_hellos: Option<usize>,
    pub(super) when_full: config::WhenFull,
    pub(super) access_log: config::AccessLogMode,
    pub(super) access_log_start: bool,
    pub(super) workers: usize,
    /// The rules for endpoint addresses.
    pub(super) reach: Reach,
    /// The addresses of the installation's own Services.
    pub(super) own_endpoints: OwnEndpoints,
}

impl Settings {
    /// The settings of a configuration.
    pub(super) fn of(config: &Config) -> Self {
        Settings {
            timeouts: config.timeouts,
            max_hello: config.max_hello,
            max_hellos: config.max_hellos,
            when_full: config.when_full,
            access_log: config.access_log,
            access_log_start: config.access_log_start,
            workers: config.workers.get(),
            reach: Reach {
                local_addresses: config.source != RouteSource::Kubernetes,
                allow: config.addresses.allow.clone(),
                deny: config.addresses.deny.clone(),
                ..Reach::default()
            },
            own_endpoints: OwnEndpoints::default(),
        }
    }
}
