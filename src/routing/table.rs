//! The whole set of routes, laid out for lookup.

use std::sync::Arc;

use ahash::{AHashMap as HashMap, AHashSet as HashSet};

use super::claim::{Hasher, RouteEntry};
use super::hosts::HostIndex;
use super::lookup::Match;
use super::shards::Shards;
use super::{ListenerRef, ObjectKey, Route, RouteKey, RouteStats, Scope};

/// The whole set of routes as the data plane sees it. Immutable; a change makes a new one, which
/// shares with the old all that is the same.
#[derive(Debug, Default)]
pub struct Table {
    routes: Shards<RouteEntry>,
    /// Those of [`Scope::Config`].
    config: HostIndex,
    /// Those of each Gateway that has any.
    gateways: HashMap<ObjectKey, Arc<HostIndex>>,
    hasher: Hasher,
    retired: Box<[(RouteKey, Arc<RouteStats>)]>,
    generation: u64,
}

impl Table {
    /// A copy with these changes: each key's new route, or `None` to remove it. No key is there twice.
    /// `retired` are the counts of removed routes.
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
        Table {
            routes: self.routes.with(old().map(keyed).collect(), new().map(keyed).collect()),
            config: with(&self.config, &Scope::Config),
            gateways,
            hasher: self.hasher.clone(),
            retired: retired.into(),
            generation: self.generation + 1,
        }
    }

    /// The route that takes a connection: the greatest by hostname and then by
    /// [`RouteSpec::precedence`](super::RouteSpec::precedence) among those that match its name,
    /// listener and ALPN. Once a hostname that covers the name is claimed and no claim to it suits
    /// the connection, only routes of the namespace that has the oldest of these claims are
    /// considered: what is claimed never falls to another namespace.
    ///
    /// `name` is normalised, `None` when the client named none; `offers` are the protocols that the
    /// client offers, of which the first [`MOST_OFFERS`](super::MOST_OFFERS) count. Of the
    /// hostnames that cover the name, the first
    /// [`MOST_CLAIMED_HOSTNAMES`](super::MOST_CLAIMED_HOSTNAMES) that are claimed are considered.
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

    /// The hostnames of a scope, if any are claimed there.
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

    /// The route of this key.
    pub fn route(&self, key: &RouteKey) -> Option<&Arc<Route>> {
        let mut same_hash =
            self.routes.with_hash(self.hasher.hash(key)).iter().map(|keyed| &keyed.route);
        same_hash.find(|route| route.spec.key == *key)
    }

    /// All routes, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter().map(|keyed| &keyed.route)
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.routes.keys()
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The counts of removed routes, kept for a while so that their last connections are
    /// still reported.
    pub fn retired(&self) -> &[(RouteKey, Arc<RouteStats>)] {
        &self.retired
    }

    /// How many hostnames have an owner, those of each scope by themselves.
    pub fn hostnames(&self) -> usize {
        let gateways = self.gateways.values().map(|hosts| hosts.len()).sum::<usize>();
        self.config.len() + gateways
    }

    /// How many tables came before this one; 0 is the empty table before the first.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}
