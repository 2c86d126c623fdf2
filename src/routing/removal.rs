//! Endpoints that leave their backends, and what that means for their connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap as HashMap;

use super::{BackendKey, RouteKey, Table};
use crate::policy::OnRemoval;

/// The addresses that left their backends with one change.
#[derive(Debug)]
pub struct Removals {
    /// The table after the change. The policies of that time decide.
    table: Arc<Table>,
    /// The backends that had each address.
    gone: HashMap<SocketAddr, Vec<BackendKey>>,
    /// Whether connections may be closed for it.
    closes: bool,
}

/// What a removal means for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalEffect {
    /// Nothing: its route still has the address.
    Unconcerned,
    /// It goes on, as far as its endpoint lives.
    Keep,
    /// It is to be closed within this time.
    Close(Duration),
}

impl Removals {
    pub(super) fn new(
        table: Arc<Table>,
        gone: HashMap<SocketAddr, Vec<BackendKey>>,
        closes: bool,
    ) -> Self {
        Removals { table, gone, closes }
    }

    /// Whether the address has left any backend. This is for a first, fast check.
    pub fn concern(&self, address: SocketAddr) -> bool {
        self.gone.contains_key(&address)
    }

    /// The effect on a connection of `route` to `address`. Only a backend that the route names at that time
    /// can make it close the connection: a change of the route alone does not.
    pub fn effect(&self, route: &RouteKey, address: SocketAddr) -> RemovalEffect {
        let Some(backends) = self.gone.get(&address) else { return RemovalEffect::Unconcerned };
        let Some(route) = self.table.route(route) else { return RemovalEffect::Keep };
        if route.has_address(address) {
            return RemovalEffect::Unconcerned;
        }
        let mut named = route.spec.backends.iter().map(|(backend, _)| backend);
        match route.spec.policy.on_removal() {
            (OnRemoval::Close, over) if self.closes && named.any(|key| backends.contains(key)) => {
                RemovalEffect::Close(over)
            }
            _ => RemovalEffect::Keep,
        }
    }
}
