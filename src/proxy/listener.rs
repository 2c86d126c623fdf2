//! A listener, as connections see it.

use crate::config::{self, Protocol};
use crate::routing::{ListenerRef, Scope};

/// What a bind serves: a name, a protocol and settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The scope in which its hostnames may conflict.
    pub scope: Scope,
    /// Its name in the scope, by which routes refer to it.
    pub name: String,
    /// The protocol of the clients.
    pub protocol: Protocol,
    /// Whether a connection that is refused gets a TLS alert before it is closed.
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

    /// The form in which a lookup takes it.
    pub fn reference(&self) -> ListenerRef<'_> {
        ListenerRef { scope: &self.scope, name: &self.name }
    }
}
