//! What a bind serves, as connections see it.

use crate::config::{self, Protocol};
use crate::routing::{ListenerRef, Scope};

/// What clients find at a bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The listeners among which its hostnames conflict.
    pub scope: Scope,
    /// Its name there, by which routes refer to it.
    pub name: String,
    /// What clients speak.
    pub protocol: Protocol,
    /// Whether a connection that is refused gets a TLS alert before it is closed.
    pub alerts: bool,
}

/// Tells binds apart. None is used twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct BindId(pub(super) u64);

impl Listener {
    /// The listener that is configured.
    pub fn of(config: &config::ListenerConfig) -> Self {
        Listener {
            scope: Scope::Config,
            name: config.name.clone(),
            protocol: config.protocol,
            alerts: config.alerts,
        }
    }

    /// The same, as routes refer to it.
    pub fn by_name(&self) -> ListenerRef<'_> {
        ListenerRef { scope: &self.scope, name: &self.name }
    }
}
