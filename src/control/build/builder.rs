//! What a source has, and what a change of it comes to.

use std::collections::{BTreeMap, BTreeSet, HashSet as StdHashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use ahash::{AHashMap as HashMap, AHashSet as HashSet};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::claims::{ClaimNews, Claims};
use super::draft::{Draft, Finding, invalid_status};
use super::endpoints::{ServicePorts, Slice, service_of};
use super::grants::Grants;
use super::names::{Answer, NameChanges, Names};
use super::own::Own;
use super::resolve::Targets;
use super::routes::{Routes, State};
use super::services::Services;
use super::{Installation, key};
use crate::control::api::{DnsName, Kind, ReferenceGrant, SniRoute};
use crate::control::status::{HostnameMove, MovedRoute, RouteStatus};
use crate::routing::{BackendKey, Changes, Hostname, ObjectKey, RouteKey, RouteSpec};

/// Holds what a source has, and works out what a change of it comes to. Pure: what it says depends
/// on the objects alone, not on the order or the way in which they came.
///
/// It costs what there is to do: a change of endpoints concerns one backend, a change of a route
/// that route and those that claim the same hostnames, a change of a Service the routes that name
/// it.
#[derive(Debug)]
pub struct Builder {
    installation: Installation,
    routes: Routes,
    claims: Claims,
    pub(super) targets: Targets,
    dirty: Dirty,
}

/// What is to be looked at again, besides routes.
#[derive(Debug, Default)]
struct Dirty {
    /// The uids of the routes that went, as far as they came from an API server.
    gone: HashMap<RouteKey, Arc<str>>,
    /// Namespaces whose grants changed.
    granting: HashSet<Arc<str>>,
    /// Names with other answers.
    names: HashSet<DnsName>,
}

/// What came of the changes since the last time.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// For the data plane.
    pub changes: Changes,
    /// The statuses of the routes that were looked at again, in no order. Some may be as they were.
    pub statuses: Vec<RouteStatus>,
    /// What is to be resolved.
    pub names: NameChanges,
    /// The addresses of the installation's own Services, if they have changed.
    pub own_endpoints: Option<Arc<StdHashSet<SocketAddr>>>,
    /// The hostnames that went from one namespace to another, by the routes there.
    pub moves: Vec<HostnameMove>,
}

impl Builder {
    /// A builder that has nothing.
    pub fn new(installation: Installation) -> Self {
        Builder {
            targets: Targets {
                services: Services::default(),
                grants: Grants::default(),
                names: Names::default(),
                own: Own::new(
                    &installation.own_services,
                    installation.reach.listening.iter().map(|one| one.address.port()),
                ),
                reach: installation.reach.clone(),
                machine: installation.machine.iter().copied().collect(),
            },
            claims: Claims::new(installation.names_below),
            installation,
            routes: Routes::default(),
            dirty: Dirty::default(),
        }
    }

    /// A route is there, or is different. One of another class is as good as none.
    pub fn put_route(&mut self, route: &SniRoute) {
        let Some(key) = key(&route.metadata) else { return };
        self.remove_route(&key);
        if !self.installation.serves(route.spec.class_name.as_ref().map(|class| class.as_str())) {
            return;
        }
        let draft = Draft::new(key.clone(), route, &self.installation);
        for (service, port) in draft.services() {
            self.targets.grants.add_user(&key, service.namespace());
            self.targets.services.add_user(service, port, &key);
        }
        if draft.contends() {
            let (age, demand) = (draft.age(), Arc::new(draft.demand()));
            for hostname in draft.claimed.iter() {
                self.claims.add(hostname.owned(), &age, &demand);
            }
        }
        self.routes.set(key, State::Read(Box::new(draft)));
    }

    /// A route is there that cannot be read, as far as its `class` tells whose it is. Returns whether
    /// it is this installation's.
    pub fn put_invalid_route(
        &mut self,
        metadata: &ObjectMeta,
        class: Option<&str>,
        why: &str,
    ) -> bool {
        if let Some(key) = key(metadata) {
            self.remove_route(&key);
            if self.installation.serves(class) {
                let status = invalid_status(key.clone(), metadata, why);
                self.routes.set(key, State::Invalid(Box::new(status)));
            }
        }
        self.installation.serves(class)
    }

    /// A route is gone.
    pub fn remove_route(&mut self, key: &RouteKey) {
        let State::Read(draft) = self.routes.remove(key) else { return };
        self.targets.names.set_user(key, draft.spec.created, &draft.names, &BTreeSet::new());
        for (service, port) in draft.services() {
            self.targets.grants.remove_user(key, service.namespace());
            self.targets.services.remove_user(service, port, key);
        }
        let age = draft.age();
        draft.claimed.iter().for_each(|hostname| self.claims.remove(hostname.owned(), &age));
        if let Some(uid) = draft.uid() {
            self.dirty.gone.insert(key.clone(), Arc::clone(uid));
        }
    }

    /// A Service is there, or is different.
    pub fn put_service(&mut self, service: &Service) {
        let Some(key) = key(&service.metadata) else { return };
        self.targets.own.put_service(&key, service);
        self.targets.services.put(key, ServicePorts::of(service));
    }

    /// A Service is gone.
    pub fn remove_service(&mut self, key: &ObjectKey) {
        self.targets.own.remove_service(key);
        self.targets.services.remove(key);
    }

    /// An EndpointSlice is there, or is different.
    pub fn put_slice(&mut self, slice: &EndpointSlice) {
        let Some(key) = key(&slice.metadata) else { return };
        let Some(service) = service_of(slice, &key) else { return self.remove_slice(&key) };
        let slice = Slice::of(slice);
        self.targets.own.put_slice(&key, &service, &slice);
        self.targets.services.put_slice(key, service, slice);
    }

    /// An EndpointSlice is gone.
    pub fn remove_slice(&mut self, key: &ObjectKey) {
        self.targets.own.remove_slice(key);
        self.targets.services.remove_slice(key);
    }

    /// A grant is there, or is different.
    pub fn put_grant(&mut self, grant: &ReferenceGrant) {
        let Some(key) = key(&grant.metadata) else { return };
        if self.targets.grants.put(&key, grant) {
            self.dirty.granting.insert(key.namespace().into());
        }
    }

    /// A grant is gone.
    pub fn remove_grant(&mut self, key: &ObjectKey) {
        if self.targets.grants.remove(key) {
            self.dirty.granting.insert(key.namespace().into());
        }
    }

    /// An object of this kind is gone.
    pub fn remove(&mut self, kind: Kind, key: &ObjectKey) {
        match kind {
            Kind::SniRoute => self.remove_route(key),
            Kind::Service => self.remove_service(key),
            Kind::EndpointSlice => self.remove_slice(key),
            Kind::ReferenceGrant => self.remove_grant(key),
        }
    }

    /// The resolver has said something of a name.
    pub fn put_answer(&mut self, name: &DnsName, answer: Answer) {
        if self.targets.names.put(name, answer) {
            self.dirty.names.insert(name.clone());
        }
    }

    /// Whether some route leads to a name of which nothing is known yet.
    pub fn awaits_names(&self) -> bool {
        self.targets.names.is_pending()
    }

    /// Has the next [`Builder::settle`] tell of all routes, as the first one does.
    pub fn tell_all(&mut self) {
        self.routes.mark_all();
    }

    /// Works out what the changes since the last time come to.
    pub fn settle(&mut self) -> Settled {
        for namespace in &self.dirty.granting {
            self.claims.grants_changed(namespace);
        }
        let own_endpoints = self.settle_own();
        let moves = self.settle_claims();
        let services = self.targets.services.take_news();
        for (service, news) in &services {
            // Which of its endpoints are refused is told in the statuses of its routes.
            let named = self.targets.services.users(service).next().is_some();
            let refused = named && self.targets.has_refused(service);
            if self.targets.services.set_refused(service, refused) || refused || news.ports {
                let users = self.targets.services.users(service);
                let users = users.flat_map(|(_, users)| users.keys());
                users.for_each(|key| self.routes.mark(key));
            }
        }
        for namespace in std::mem::take(&mut self.dirty.granting) {
            self.targets.grants.users(&namespace).for_each(|key| self.routes.mark(key));
        }
        for name in std::mem::take(&mut self.dirty.names) {
            self.targets.names.users(&name).for_each(|key| self.routes.mark(key));
        }

        let routes = self.routes.begin_round();
        let mut settled = Settled { moves, own_endpoints, ..Settled::default() };
        settled.changes.routes.reserve(routes.len());
        settled.changes.endpoints.reserve(routes.len());
        settled.statuses.reserve(routes.len());
        for key in routes {
            let spec = self.settle_route(&key, &mut settled);
            settled.changes.routes.push((key, spec));
        }
        let endpoints = services.into_iter().filter(|(_, news)| news.endpoints);
        self.settle_endpoints(endpoints.map(|(service, _)| service), &mut settled);
        settled.names = self.targets.names.settle();
        settled
    }

    /// All that is not as it should be, in the order of the routes' keys.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self.routes.drafts().flat_map(Draft::findings).collect();
        findings.sort_by(|a, b| a.key.cmp(&b.key));
        findings
    }

    /// Whether nothing is left of anything.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.routes.is_empty()
            && self.claims.is_empty()
            && self.targets.services.is_empty()
            && self.targets.grants.is_empty()
            && self.targets.names.is_empty()
            && self.targets.own.is_empty()
    }

    /// Has the routes looked at again that lead to what has become the installation's own, or is
    /// no longer. Returns all that is, if that has changed.
    fn settle_own(&mut self) -> Option<Arc<StdHashSet<SocketAddr>>> {
        let before = Arc::clone(self.targets.own.endpoints());
        if !self.targets.own.settle() {
            return None;
        }
        let now = Arc::clone(self.targets.own.endpoints());
        let changed: StdHashSet<SocketAddr> = before.symmetric_difference(&now).copied().collect();
        let mut concerned = HashMap::new();
        let keys: Vec<RouteKey> = self
            .routes
            .drafts()
            .filter(|draft| {
                draft.backends.iter().any(|(backend, _)| {
                    *concerned
                        .entry(backend.clone())
                        .or_insert_with(|| self.targets.may_meet(backend, &changed))
                })
            })
            .map(|draft| draft.spec.key.clone())
            .collect();
        keys.iter().for_each(|key| self.routes.mark(key));
        Some(now)
    }

    /// Has the routes learn what became of their claims; marks those for which that is news.
    fn settle_claims(&mut self) -> Vec<HostnameMove> {
        let ClaimNews { verdicts, notes, moves } = self.claims.settle(&self.targets.grants);
        for (key, hostname, verdict) in verdicts {
            self.routes.tell(&key, |draft| draft.set_verdict(hostname, verdict));
        }
        for (key, place, note) in notes {
            self.routes.tell(&key, |draft| draft.set_note(place, note));
        }
        let mut hostnames: BTreeMap<(RouteKey, RouteKey), Vec<Hostname>> = BTreeMap::new();
        for (hostname, from, to) in moves {
            hostnames.entry((from, to)).or_default().push(hostname);
        }
        let gone = std::mem::take(&mut self.dirty.gone);
        let moved = |key: RouteKey| {
            let uid = self.routes.draft(&key).and_then(Draft::uid).or_else(|| gone.get(&key));
            MovedRoute { uid: uid.cloned(), key }
        };
        let moves = hostnames.into_iter().map(|((from, to), mut hostnames)| {
            hostnames.sort_unstable();
            HostnameMove { hostnames, from: moved(from), to: moved(to) }
        });
        moves.collect()
    }

    /// Works out one route: what it is in the table, its status, and its backends' endpoints.
    fn settle_route(&mut self, key: &RouteKey, settled: &mut Settled) -> Option<RouteSpec> {
        match self.routes.look_at(key)? {
            State::Gone => {
                self.routes.forget(key);
                None
            }
            State::Invalid(status) => {
                settled.statuses.push(RouteStatus::clone(status));
                None
            }
            State::Read(draft) => {
                let names = std::mem::take(&mut draft.names);
                draft.resolve(&self.targets, &mut settled.changes.endpoints);
                self.targets.names.set_user(key, draft.spec.created, &names, &draft.names);
                settled.statuses.push(draft.status());
                draft.served().cloned()
            }
        }
    }

    /// Works out the endpoints of `services` for the routes that are not looked at anyway, which
    /// bring the endpoints of their backends along.
    fn settle_endpoints(
        &mut self,
        services: impl Iterator<Item = ObjectKey>,
        settled: &mut Settled,
    ) {
        let mut counted = HashSet::new();
        for service in services {
            for (port, users) in self.targets.services.users(&service) {
                let others: Vec<&RouteKey> =
                    users.keys().filter(|key| self.routes.is_passed_over(key)).collect();
                if others.is_empty() {
                    continue;
                }
                let backend = BackendKey::Service { service: service.clone(), port: port.clone() };
                let addresses = self.targets.resolve(&backend).addresses;
                settled.changes.endpoints.insert(backend, addresses);
                counted.extend(others.into_iter().cloned());
            }
        }
        settled.statuses.extend(counted.iter().filter_map(|key| self.count_again(key)));
    }

    /// The status of a route whose backends have got other endpoints, if that changes it.
    fn count_again(&mut self, key: &RouteKey) -> Option<RouteStatus> {
        let backends = self.routes.draft(key)?.spec.backends.iter();
        let endpoints = backends.map(|(key, _)| self.targets.resolve(key).addresses.len()).sum();
        let draft = self.routes.draft_mut(key)?;
        draft.set_endpoints(endpoints).then(|| draft.status())
    }
}
