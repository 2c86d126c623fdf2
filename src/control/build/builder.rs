//! What a source has, and what a change of it comes to.

use std::collections::{BTreeMap, BTreeSet, HashSet as StdHashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use ahash::{AHashMap as HashMap, AHashSet as HashSet};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::claims::{ClaimNews, Claims};
use super::draft::Draft;
use super::endpoints::{Slice, service_of};
use super::grants::Grants;
use super::names::{Answer, NameChanges, Names};
use super::own::Own;
use super::ports::ServicePorts;
use super::resolve::{Found, LookedUp, Targets};
use super::routes::{Routes, State};
use super::services::{PortChange, PortNews, Services};
use super::told::Finding;
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
    pub(super) installation: Installation,
    pub(super) routes: Routes,
    pub(super) claims: Claims,
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
                #[cfg(test)]
                judged: std::cell::Cell::default(),
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
        if !self.installation.serves(route.spec.class_name.as_ref().map(|class| class.as_str())) {
            return self.remove_route(&key);
        }
        self.put_draft(Draft::new(key, route, &self.installation));
    }

    pub(super) fn put_draft(&mut self, draft: Draft) {
        let key = draft.spec.key.clone();
        // First what it names now: what is named before and after is not worked out anew.
        let before = self.routes.remove(&key);
        for (service, port) in draft.services() {
            self.targets.services.add_user(service, port, &key);
        }
        self.leave(&key, before, Some(&draft));
        for (service, _) in draft.services() {
            self.targets.grants.add_user(&key, service.namespace());
        }
        if draft.contends() {
            let (age, demand) = (draft.age(), Arc::new(draft.demand()));
            for hostname in draft.claimed.iter() {
                self.claims.add(hostname.owned(), &age, &demand);
            }
        }
        self.routes.set(key, State::Here(Box::new(draft)));
    }

    /// A route is gone.
    pub fn remove_route(&mut self, key: &RouteKey) {
        let before = self.routes.remove(key);
        self.leave(key, before, None);
    }

    /// Forgets what a route was, but for what it still names `now`.
    fn leave(&mut self, key: &RouteKey, before: State, now: Option<&Draft>) {
        let State::Here(draft) = before else { return };
        self.targets.names.set_user(key, draft.spec.created, &draft.names, &BTreeSet::new());
        for (service, port) in draft.services() {
            self.targets.grants.remove_user(key, service.namespace());
            if !now.is_some_and(|now| now.names_port(service, port)) {
                self.targets.services.remove_user(service, port, key);
            }
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
        self.targets.own.put_slice(&key, &service, slice);
        self.targets.services.put_slice(key, service, Slice::of(slice));
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

    /// A grant is there that cannot be read. Returns whether it is kept as it was when it was read
    /// last; if it never was, it grants nothing.
    pub fn keep_grant(&mut self, metadata: &ObjectMeta) -> bool {
        let Some(key) = key(metadata) else { return false };
        let is_kept = self.targets.grants.has(&key, metadata.uid.as_deref());
        if !is_kept {
            self.remove_grant(&key);
        }
        is_kept
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
        self.targets.own.tell_all();
    }

    /// Those of the installation's own Services that are not there, so that nothing is known of what
    /// leads to them.
    pub fn missing_own_services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.targets.own.missing()
    }

    /// Works out what the changes since the last time come to.
    pub fn settle(&mut self) -> Settled {
        for namespace in &self.dirty.granting {
            self.claims.grants_changed(namespace);
        }
        let own_endpoints = self.settle_own();
        let moves = self.settle_claims();
        let mut settled = Settled { moves, own_endpoints, ..Settled::default() };
        let counted = self.settle_services(&mut settled);
        for namespace in std::mem::take(&mut self.dirty.granting) {
            self.targets.grants.users(&namespace).for_each(|key| self.routes.mark(key));
        }
        for name in std::mem::take(&mut self.dirty.names) {
            self.targets.names.users(&name).for_each(|key| self.routes.mark(key));
        }

        let mut looked_up = LookedUp::default();
        let routes = self.routes.take_dirty();
        settled.changes.routes.reserve(routes.len());
        settled.changes.endpoints.reserve(routes.len());
        settled.statuses.reserve(routes.len());
        for key in routes {
            let spec = self.settle_route(&key, &mut looked_up, &mut settled);
            settled.changes.routes.push((key, spec));
        }
        for key in &counted {
            settled.statuses.extend(self.count_again(key, &mut looked_up));
        }
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

    /// Has the Services and routes looked at again that lead to what has become the installation's
    /// own, or is no longer. Returns all that is, if that has changed.
    fn settle_own(&mut self) -> Option<Arc<StdHashSet<SocketAddr>>> {
        let news = self.targets.own.settle()?;
        let mut meeting: HashMap<BackendKey, bool> = HashMap::new();
        for draft in self.routes.drafts() {
            for (backend, _) in &draft.backends {
                if !meeting.contains_key(backend) {
                    meeting.insert(backend.clone(), self.targets.may_meet(backend, &news));
                }
            }
        }
        let by_address = |draft: &&Draft| {
            let mut addresses = draft.backends.iter().map(|(backend, _)| backend);
            addresses.any(|backend| is_address(backend) && meeting.get(backend) == Some(&true))
        };
        let concerned = self.routes.drafts().filter(by_address);
        let concerned: Vec<RouteKey> = concerned.map(|draft| draft.spec.key.clone()).collect();
        concerned.iter().for_each(|key| self.routes.mark(key));
        for (backend, meets) in meeting {
            if let (BackendKey::Service { service, .. }, true) = (backend, meets) {
                self.targets.services.mark(&service);
            }
        }
        Some(Arc::clone(self.targets.own.endpoints()))
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

    /// Works out the Services of which there is news, and has the routes looked at again to which
    /// that matters. Returns those that may have another number of endpoints, and nothing else.
    fn settle_services(&mut self, settled: &mut Settled) -> HashSet<RouteKey> {
        let mut counted = HashSet::new();
        while let Some(service) = self.targets.services.next_news() {
            for PortNews { port, found, change } in self.targets.settle_service(&service) {
                let users = self.targets.services.users(&service, &port);
                match change {
                    PortChange::Whole => users.for_each(|key| self.routes.mark(key)),
                    PortChange::Count => counted.extend(users.cloned()),
                    PortChange::Addresses => {}
                }
                if let Found::Resolved(resolution) = found {
                    let backend = BackendKey::Service { service: service.clone(), port };
                    settled.changes.endpoints.insert(backend, resolution.addresses.to_vec());
                }
            }
        }
        counted
    }

    /// Works out one route: what it is in the table, its status, and its backends' endpoints.
    fn settle_route(
        &mut self,
        key: &RouteKey,
        looked_up: &mut LookedUp,
        settled: &mut Settled,
    ) -> Option<RouteSpec> {
        match self.routes.look_at(key)? {
            State::Gone => {
                self.routes.forget(key);
                None
            }
            State::Here(draft) => {
                let names = std::mem::take(&mut draft.names);
                draft.resolve(&self.targets, looked_up, &mut settled.changes.endpoints);
                self.targets.names.set_user(key, draft.spec.created, &names, &draft.names);
                settled.statuses.push(draft.status());
                draft.served().cloned()
            }
        }
    }

    /// The status of a route whose backends have got other endpoints, if that changes it.
    fn count_again(&mut self, key: &RouteKey, looked_up: &mut LookedUp) -> Option<RouteStatus> {
        let draft = self.routes.draft_mut(key)?;
        draft.count_endpoints(&self.targets, looked_up).then(|| draft.status())
    }
}

fn is_address(backend: &BackendKey) -> bool {
    matches!(backend, BackendKey::Address(_))
}
