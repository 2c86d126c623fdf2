//! The routing table.

use std::sync::Arc;

use ahash::{AHashMap as HashMap, AHashSet as HashSet};

use super::claim::{Hasher, RouteEntry};
use super::hosts::HostIndex;
use super::lookup::Match;
use super::shards::Shards;
use super::{ListenerRef, ObjectKey, Route, RouteKey, RouteStats, Scope};

/// All routes, in the form for lookups. Immutable; a change makes a new table, which shares all unchanged
/// parts with the old one.
#[derive(Debug, Default)]
pub struct Table {
    routes: Shards<RouteEntry>,
    /// The hostnames of [`Scope::Config`].
    config: HostIndex,
    /// The hostnames of each Gateway with routes.
    gateways: HashMap<ObjectKey, Arc<HostIndex>>,
    hasher: Hasher,
    retired: Box<[(RouteKey, Arc<RouteStats>)]>,
    generation: u64,
}

impl Table {
    /// A new table with these changes: the new route of each key, or `None` to remove it. Each key occurs
    /// once. `retired` are the counters of removed routes.
    pub(super) fn with(
        &self,
        changes: &[(RouteKey, Option<Arc<Route>>)],
        retired: Vec<(RouteKey, Arc<RouteStats>)>,
    ) -> Self {
        let old = || changes.iter().filter_map(|(key, _)| self.route(key));
        let new = || changes.iter().filter_map(|(_, route)| route.as_ref());
        let keyed = |route: &Arc<Route>| RouteEntry::new(route, &self.hasher);
        let with = |hosts: &HostIndex, scope: &Scope| hosts.with(scope, old(), new(), &self.hasher);
        let attachments = old().chain(new()).flat_map(|route| &route.spec.attachments);
        let scopes: HashSet<&Scope> = attachments.map(|attachment| &attachment.scope).collect();
        let mut gateways = self.gateways.clone();
        for scope in scopes {
            let Scope::Gateway(gateway) = scope else { continue };
            let before = gateways.remove(gateway).unwrap_or_default();
            let hosts = with(&before, scope);
            if hosts.len() > 0 {
                gateways.insert(gateway.clone(), Arc::new(hosts));
            }
        }
        let mut gone: Vec<RouteEntry> = old().map(keyed).collect();
        let mut come: Vec<RouteEntry> = new().map(keyed).collect();
        Table {
            routes: self.routes.with(&mut gone, &mut come),
            config: with(&self.config, &Scope::Config),
            gateways,
            hasher: self.hasher.clone(),
            retired: retired.into(),
            generation: self.generation + 1,
        }
    }

    /// The route for a connection. Among the routes that match the name, listener and ALPN, the greatest
    /// wins, by hostname and then by [`RouteSpec::precedence`](super::RouteSpec::precedence). If a claimed
    /// hostname covers the name and none of its claims accepts the connection, then only routes of the
    /// namespace with the oldest of these claims are considered: no other namespace gets connections for a
    /// claimed name.
    ///
    /// `name` must be normalised; `None` is a client without a name. `offers` are the client's protocols, of
    /// which the first [`MOST_OFFERS`](super::MOST_OFFERS) are used. Of the hostnames that cover the name,
    /// the first [`MOST_CLAIMED_HOSTNAMES`](super::MOST_CLAIMED_HOSTNAMES) claimed ones are considered.
    /// Allocates nothing.
    pub fn lookup<'o, 'l>(
        &self,
        name: Option<&str>,
        listener: impl Into<ListenerRef<'l>>,
        offers: impl IntoIterator<Item = &'o [u8]>,
    ) -> Option<Match<'_>> {
        let ListenerRef { scope, name: listener } = listener.into();
        self.hosts(scope)?.lookup(name, listener, offers.into_iter(), &self.hasher)
    }

    /// The hostnames of a scope, if any are claimed.
    pub(super) fn hosts(&self, scope: &Scope) -> Option<&HostIndex> {
        match scope {
            Scope::Config => Some(&self.config),
            Scope::Gateway(gateway) => self.gateways.get(gateway).map(|hosts| &**hosts),
        }
    }

    #[cfg(test)]
    pub(super) fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// The route with this key.
    pub fn route(&self, key: &RouteKey) -> Option<&Arc<Route>> {
        let mut same_hash =
            self.routes.with_hash(self.hasher.hash(key)).iter().map(|keyed| &keyed.route);
        same_hash.find(|route| route.spec.key == *key)
    }

    /// All routes, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter().map(|keyed| &keyed.route)
    }

    /// The number of routes.
    pub fn len(&self) -> usize {
        self.routes.keys()
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The counters of removed routes, kept for some time so that their last connections are reported.
    pub fn retired(&self) -> &[(RouteKey, Arc<RouteStats>)] {
        &self.retired
    }

    /// The number of claimed hostnames, counted separately for each scope.
    pub fn hostnames(&self) -> usize {
        let gateways = self.gateways.values().map(|hosts| hosts.len()).sum::<usize>();
        self.config.len() + gateways
    }

    /// The number of earlier tables; 0 is the empty table before the first.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}
