//! The computation of a delta, in slices.

use std::collections::{BTreeMap, HashSet as StdHashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::vec::IntoIter;

use ahash::AHashSet as HashSet;

use super::builder::Builder;
use super::claims::ClaimChanges;
use super::names::NameChanges;
use super::own_addresses::OwnAddressChanges;
use super::resolve::{PortTarget, Resolution, ResolutionCache};
use super::resolved_route::ResolvedRoute;
use super::route_tls::RouteTls;
use super::routes::RoutePresence;
use super::services::{PortChange, PortUpdate};
use super::tls_objects::ReferenceChanges;
use crate::control::api::DnsName;
use crate::control::status::{HostnameMove, MovedRoute, RouteStatus};
use crate::routing::{
    BackendKey, Hostname, ObjectKey, ObjectRef, RouteKey, RouteSpec, TableChanges,
};

/// How many steps a slice has: some milliseconds.
pub const SLICE: usize = 2000;

/// The effect of the changes since the last time.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// For the data plane.
    pub changes: TableChanges,
    /// The statuses of the routes that were processed again, in no order. Some may be unchanged.
    pub statuses: Vec<RouteStatus>,
    /// Changes of the DNS names that are to be resolved.
    pub names: NameChanges,
    /// Changes of the Secrets and ConfigMaps that are to be read.
    pub references: ReferenceChanges,
    /// The addresses of the installation's own Services, if they have changed.
    pub own_endpoints: Option<Arc<StdHashSet<SocketAddr>>>,
    /// The hostnames that moved to another namespace, grouped by the two routes.
    pub moves: Vec<HostnameMove>,
}

/// Translates the changes since the last time, in slices. The result is returned as a whole, at the end. The
/// computation borrows the builder, so no object can change meanwhile.
#[derive(Debug)]
pub struct DeltaComputation<'b> {
    builder: &'b mut Builder,
    delta: Delta,
    /// The changes of the installation's own addresses, and the routes to check for them.
    own: Option<(OwnAddressChanges, IntoIter<RouteKey>)>,
    /// The Services that were already checked for them.
    met: HashSet<ObjectKey>,
    /// Namespaces with changed grants, and names with new answers. The routes that use them must be marked.
    granting: Vec<Arc<str>>,
    names: Vec<DnsName>,
    /// Secrets and ConfigMaps with new content. The routes that name them must be marked.
    tls_objects: Vec<ObjectRef>,
    cache: ResolutionCache,
    /// The routes to process, once they are known.
    routes: Option<IntoIter<RouteKey>>,
    /// Routes of which only the number of endpoints may have changed.
    counted: HashSet<RouteKey>,
    /// The remaining ones of these routes, once they are known.
    counting: Option<IntoIter<RouteKey>>,
    /// The hostnames that moved from one route to another.
    moves: BTreeMap<(RouteKey, RouteKey), Vec<Hostname>>,
}

impl<'b> DeltaComputation<'b> {
    pub(super) fn of(builder: &'b mut Builder) -> Self {
        let own = builder.targets.own.settle().map(|news| (news, builder.routes.keys()));
        let own_endpoints = own.is_some().then(|| Arc::clone(builder.targets.own.endpoints()));
        let granting: Vec<_> = builder.dirty.granting.drain().collect();
        granting.iter().for_each(|namespace| builder.claims.grants_changed(namespace));
        let names = builder.dirty.names.drain().collect();
        let tls_objects = builder.targets.tls.take_news();
        DeltaComputation {
            delta: Delta { own_endpoints, ..Delta::default() },
            own,
            met: HashSet::new(),
            granting,
            names,
            tls_objects,
            cache: ResolutionCache::default(),
            routes: None,
            counted: HashSet::new(),
            counting: None,
            moves: BTreeMap::new(),
            builder,
        }
    }

    /// Runs for about this many steps of a microsecond each. Returns the result at the end. The largest part
    /// that is not divided is one hostname with all its claims, or one Service with all its addresses.
    pub fn go_on(&mut self, steps: usize) -> Option<Delta> {
        let mut done = 0_usize;
        while done < steps {
            match self.step() {
                Some(steps) => done = done.saturating_add(steps),
                None => return Some(self.finish()),
            }
        }
        None
    }

    /// Does the next part. Returns its number of steps, or `None` if nothing is left.
    fn step(&mut self) -> Option<usize> {
        // Earlier parts mark work for later parts, never the reverse.
        self.meet_own()
            .or_else(|| self.settle_claims())
            .or_else(|| self.settle_service())
            .or_else(|| self.settle_crossed())
            .or_else(|| self.mark())
            .or_else(|| self.settle_next())
            .or_else(|| self.count_next())
    }

    /// Checks the next route for changes of the installation's own addresses. If they concern it, marks the
    /// route and the Services that it names.
    fn meet_own(&mut self) -> Option<usize> {
        let Builder { routes, targets, .. } = &mut *self.builder;
        let (news, keys) = self.own.as_mut()?;
        let key = keys.next()?;
        let mut is_concerned = false;
        let mut steps = 1;
        for (backend, _) in
            routes.resolved(&key).map(|resolved| &resolved.backends).into_iter().flatten()
        {
            match backend {
                BackendKey::Address { .. } => is_concerned |= targets.may_meet(backend, news),
                BackendKey::Service { service, .. } if self.met.insert(service.clone()) => {
                    steps += targets.services.count_ips(service) / 32;
                    if targets.may_meet(backend, news) {
                        targets.services.mark(service);
                    }
                }
                BackendKey::Service { .. } => {}
            }
        }
        if is_concerned {
            routes.mark(&key);
        }
        Some(steps)
    }

    /// Decides the claims of one hostname, and stores the result in the routes.
    fn settle_claims(&mut self) -> Option<usize> {
        let Builder { routes, claims, targets, .. } = &mut *self.builder;
        let mut news = ClaimChanges::default();
        let steps = claims.step(&targets.grants, &mut news)?;
        let steps = steps + news.conflicts.len() + news.notes.len();
        for (key, hostname, conflict) in news.conflicts {
            routes.tell(&key, |resolved| resolved.set_conflict(hostname, conflict));
        }
        for (key, place, note) in news.notes {
            routes.tell(&key, |resolved| resolved.set_note(place, note));
        }
        for (hostname, from, to) in news.moves {
            self.moves.entry((from, to)).or_default().push(hostname);
        }
        Some(steps)
    }

    /// Resolves a changed Service, and marks the routes that are concerned.
    fn settle_service(&mut self) -> Option<usize> {
        let Builder { routes, targets, .. } = &mut *self.builder;
        let service = targets.services.next_news()?;
        let (news, mut steps) = targets.settle_service(&service);
        for PortUpdate { port, found, change } in news {
            let users = targets.services.users(&service, &port);
            let users = users.inspect(|_| steps += 1);
            match change {
                PortChange::Whole => users.for_each(|key| routes.mark(key)),
                PortChange::Count => self.counted.extend(users.cloned()),
                PortChange::Addresses => {}
            }
            if let PortTarget::Resolved(resolution) = found {
                let backend = BackendKey::Service { service: service.clone(), port };
                let Resolution { addresses, others, places, .. } = &*resolution;
                self.delta.changes.set_addresses(backend, addresses, others, places);
            }
        }
        Some(steps)
    }

    /// Marks the routes that name the next Secret or ConfigMap that is one too many of a namespace, or no longer.
    fn settle_crossed(&mut self) -> Option<usize> {
        let Builder { routes, targets, .. } = &mut *self.builder;
        let mut steps = 1;
        for key in targets.tls.settle_crossed()? {
            routes.mark(key);
            steps += 1;
        }
        Some(steps)
    }

    /// Marks the routes that refer to a namespace with changed grants, to a DNS name with a new answer, or to a Secret
    /// or ConfigMap with new content.
    fn mark(&mut self) -> Option<usize> {
        let Builder { routes, targets, .. } = &mut *self.builder;
        let mut steps = 1;
        let mut mark = |key: &RouteKey| {
            routes.mark(key);
            steps += 1;
        };
        if let Some(namespace) = self.granting.pop() {
            targets.grants.users(&namespace).for_each(&mut mark);
        } else if let Some(object) = self.tls_objects.pop() {
            targets.tls.users(&object).for_each(&mut mark);
        } else {
            let name = self.names.pop()?;
            targets.names.users(&name).for_each(&mut mark);
        }
        Some(steps)
    }

    /// Translates the next route.
    fn settle_next(&mut self) -> Option<usize> {
        let changes = &mut self.delta.changes;
        let routes = self.routes.get_or_insert_with(|| {
            let routes = self.builder.routes.take_dirty();
            changes.routes.reserve(routes.len());
            changes.endpoints.reserve(routes.len());
            self.delta.statuses.reserve(routes.len());
            routes.into_iter()
        });
        let key = routes.next()?;
        let (spec, steps) = self.settle_route(&key);
        self.delta.changes.routes.push((key, spec));
        Some(steps)
    }

    /// Translates one route: its entry in the table, its status, and the endpoints of its backends.
    fn settle_route(&mut self, key: &RouteKey) -> (Option<RouteSpec>, usize) {
        let Builder { routes, targets, .. } = &mut *self.builder;
        let resolved = match routes.look_at(key) {
            Some(RoutePresence::Present(resolved)) => resolved,
            Some(RoutePresence::Gone) => {
                routes.forget(key);
                return (None, 1);
            }
            None => return (None, 1),
        };
        let names = std::mem::take(&mut resolved.names);
        let take = |tls: &mut Box<RouteTls>| std::mem::take(&mut tls.permitted);
        let permitted = resolved.tls.as_mut().map(take).unwrap_or_default();
        resolved.resolve(targets, &mut self.cache, &mut self.delta.changes);
        targets.names.set_user(key, resolved.spec.created, &names, &resolved.names);
        if let Some(tls) = &resolved.tls {
            targets.tls.set_permitted(&permitted, &tls.permitted);
        }
        self.delta.statuses.push(resolved.status());
        // The cost grows with its hostnames and backends.
        // Certificates are read elsewhere; here, a configuration of rustls is made of them.
        let tls = resolved.tls.as_ref().map_or(0, |_| 20);
        let steps = 4 + resolved.claimed.len() / 2 + 2 * resolved.backends.len() + tls;
        (resolved.served().cloned(), steps)
    }

    /// Updates the status of the next route of which only the number of endpoints may have changed.
    fn count_next(&mut self) -> Option<usize> {
        let counted = &mut self.counted;
        let keys = self.counting.get_or_insert_with(|| {
            std::mem::take(counted).into_iter().collect::<Vec<_>>().into_iter()
        });
        let key = keys.next()?;
        let Builder { routes, targets, .. } = &mut *self.builder;
        let Some(resolved) = routes.resolved_mut(&key) else { return Some(1) };
        if resolved.count_endpoints(targets, &mut self.cache) {
            self.delta.statuses.push(resolved.status());
        }
        Some(2 + resolved.backends.len() / 2)
    }

    fn finish(&mut self) -> Delta {
        let builder = &mut *self.builder;
        let gone = std::mem::take(&mut builder.dirty.gone);
        let moved = |key: RouteKey| {
            let uid = builder
                .routes
                .resolved(&key)
                .and_then(ResolvedRoute::uid)
                .or_else(|| gone.get(&key));
            MovedRoute { uid: uid.cloned(), object: key.object().clone() }
        };
        let moves = std::mem::take(&mut self.moves).into_iter();
        let moves = moves.map(|((from, to), mut hostnames)| {
            hostnames.sort_unstable();
            HostnameMove { hostnames, from: moved(from), to: moved(to) }
        });
        self.delta.moves = moves.collect();
        self.delta.names = builder.targets.names.settle();
        self.delta.references = builder.targets.tls.settle();
        std::mem::take(&mut self.delta)
    }
}
