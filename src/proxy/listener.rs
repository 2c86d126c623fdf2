//! A listener of the data plane.

use crate::config::{self, Protocol};
use crate::routing::{ListenerRef, Scope};

/// A listener: a name, a protocol and settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The scope of its hostnames.
    pub scope: Scope,
    /// Its name in the scope, as routes use it.
    pub name: String,
    /// The protocol of its clients.
    pub protocol: Protocol,
    /// Whether a refused connection gets a TLS alert before it is closed.
    pub alerts: bool,
}

/// The id of a bind, unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct BindId(pub(super) u64);

impl Listener {
    /// A listener of the configuration.
    pub fn of(config: &config::ListenerConfig) -> Self {
        Listener {
            scope: Scope::Config,
            name: config.name.clone(),
            protocol: config.protocol,
            alerts: config.alerts,
        }
    }

    /// The listener in the form for lookups.
    pub fn reference(&self) -> ListenerRef<'_> {
        ListenerRef { scope: &self.scope, name: &self.name }
    }
}
