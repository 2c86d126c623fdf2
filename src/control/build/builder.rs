//! What a source has, and what a change of it comes to.

use std::collections::BTreeSet;
use std::sync::Arc;

use ahash::{AHashMap as HashMap, AHashSet as HashSet};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::draft::{Draft, Finding, invalid_status};
use super::endpoints::{ServicePorts, Slice, service_of};
use super::few::Few;
use super::grants::Grants;
use super::names::{Answer, NameChanges, Names};
use super::resolve::Targets;
use super::services::Services;
use super::{Installation, key};
use crate::control::api::{DnsName, ReferenceGrant, SniRoute};
use crate::control::status::RouteStatus;
use crate::routing::{
    BackendKey, Changes, Conflict, Hostname, ObjectKey, RouteKey, RouteSpec, conflicts_over,
};

/// Holds what a source has, and works out what a change of it comes to. Pure: what it says depends
/// on the objects alone, not on the order or the way in which they came.
///
/// It costs what there is to do: a change of endpoints concerns one backend, a change of a route
/// that route and those that claim the same hostnames, a change of a Service the routes that name
/// it.
#[derive(Debug)]
pub struct Builder {
    installation: Installation,
    /// The routes of this installation, and those that went since the last time.
    routes: HashMap<RouteKey, Route>,
    claims: HashMap<Hostname, Claims>,
    pub(super) targets: Targets,
    dirty: Dirty,
    /// How many times it was settled.
    settled: u64,
}

/// What is known of a route.
#[derive(Debug, Default)]
struct Route {
    state: State,
    /// Whether it is to be looked at again; then it is in [`Dirty::routes`].
    dirty: bool,
    /// When it was last looked at, as [`Builder::settled`] counts.
    settled: u64,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Gone,
    /// It cannot be read, and this is what is said of it.
    Invalid(Box<RouteStatus>),
    Read(Box<Draft>),
}

impl Route {
    fn draft(&self) -> Option<&Draft> {
        match &self.state {
            State::Read(draft) => Some(draft),
            State::Gone | State::Invalid(_) => None,
        }
    }

    fn draft_mut(&mut self) -> Option<&mut Draft> {
        match &mut self.state {
            State::Read(draft) => Some(draft),
            State::Gone | State::Invalid(_) => None,
        }
    }
}

/// Who claims a hostname.
#[derive(Debug, Default)]
struct Claims {
    claimants: Few<RouteKey>,
    /// Whether it is to be looked at again; then it is in [`Dirty::hostnames`].
    dirty: bool,
}

/// What is to be looked at again.
#[derive(Debug, Default)]
struct Dirty {
    routes: Vec<RouteKey>,
    hostnames: Vec<Hostname>,
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
}

impl Builder {
    /// A builder that has nothing.
    pub fn new(installation: Installation) -> Self {
        Builder {
            targets: Targets {
                services: Services::default(),
                grants: Grants::default(),
                names: Names::default(),
                local_addresses: installation.local_addresses,
            },
            installation,
            routes: HashMap::new(),
            claims: HashMap::new(),
            dirty: Dirty::default(),
            settled: 0,
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
            for hostname in &route.spec.hostnames {
                let claims = self.claims.entry(hostname.clone()).or_default();
                claims.claimants.insert(key.clone(), ());
                self.dirty.mark_hostname(hostname, claims);
            }
        }
        self.set_route(key, State::Read(Box::new(draft)));
    }

    /// A route is there that cannot be read, as far as its `class` tells whose it is.
    pub fn put_invalid_route(&mut self, metadata: &ObjectMeta, class: Option<&str>, why: &str) {
        let Some(key) = key(metadata) else { return };
        self.remove_route(&key);
        if self.installation.serves(class) {
            let status = invalid_status(key.clone(), metadata, why);
            self.set_route(key, State::Invalid(Box::new(status)));
        }
    }

    /// A route is gone.
    pub fn remove_route(&mut self, key: &RouteKey) {
        let Some(route) = self.routes.get_mut(key) else { return };
        self.dirty.mark_route(key, route);
        let State::Read(draft) = std::mem::take(&mut route.state) else { return };
        self.targets.names.set_user(key, &draft.names, &BTreeSet::new());
        for (service, port) in draft.services() {
            self.targets.grants.remove_user(key, service.namespace());
            self.targets.services.remove_user(service, port, key);
        }
        for hostname in draft.spec.hostnames.iter().map(Hostname::owned) {
            if let Some(claims) = self.claims.get_mut(&hostname) {
                claims.claimants.remove(key);
                self.dirty.mark_hostname(&hostname, claims);
            }
        }
    }

    /// A Service is there, or is different.
    pub fn put_service(&mut self, service: &Service) {
        let Some(key) = key(&service.metadata) else { return };
        self.targets.services.put(key, ServicePorts::of(service));
    }

    /// A Service is gone.
    pub fn remove_service(&mut self, key: &ObjectKey) {
        self.targets.services.remove(key);
    }

    /// An EndpointSlice is there, or is different.
    pub fn put_slice(&mut self, slice: &EndpointSlice) {
        let Some(key) = key(&slice.metadata) else { return };
        match service_of(slice, &key) {
            Some(service) => self.targets.services.put_slice(key, service, Slice::of(slice)),
            None => self.targets.services.remove_slice(&key),
        }
    }

    /// An EndpointSlice is gone.
    pub fn remove_slice(&mut self, key: &ObjectKey) {
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
        for (key, route) in &mut self.routes {
            self.dirty.mark_route(key, route);
        }
    }

    /// Works out what the changes since the last time come to.
    pub fn settle(&mut self) -> Settled {
        for hostname in std::mem::take(&mut self.dirty.hostnames) {
            self.settle_conflicts(&hostname);
        }
        let services = self.targets.services.take_news();
        for (service, _) in services.iter().filter(|(_, news)| news.ports) {
            let users = self.targets.services.users(service).flat_map(|(_, users)| users.keys());
            mark(&mut self.routes, &mut self.dirty, users);
        }
        for namespace in std::mem::take(&mut self.dirty.granting) {
            mark(&mut self.routes, &mut self.dirty, self.targets.grants.users(&namespace));
        }
        for name in std::mem::take(&mut self.dirty.names) {
            mark(&mut self.routes, &mut self.dirty, self.targets.names.users(&name));
        }

        self.settled += 1;
        let routes = std::mem::take(&mut self.dirty.routes);
        let mut settled = Settled::default();
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
        let mut findings: Vec<Finding> =
            self.routes.values().filter_map(Route::draft).flat_map(Draft::findings).collect();
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
    }

    fn set_route(&mut self, key: RouteKey, state: State) {
        let route = self.routes.entry(key.clone()).or_default();
        route.state = state;
        self.dirty.mark_route(&key, route);
    }

    /// Tells those that claim `hostname` who owns it; marks those for whom that is news.
    fn settle_conflicts(&mut self, hostname: &Hostname) {
        let Some(claims) = self.claims.get_mut(hostname) else { return };
        claims.dirty = false;
        // As it is with almost all.
        if let Few::One(only, ()) = &claims.claimants {
            let only = only.clone();
            self.tell_conflict(&only, hostname, None);
            return;
        }
        if claims.claimants.is_empty() {
            self.claims.remove(hostname);
            return;
        }
        let claimants = claims.claimants.keys();
        let claimants: Vec<&RouteSpec> =
            claimants.filter_map(|key| Some(&self.routes.get(key)?.draft()?.spec)).collect();
        let conflicts = conflicts_over(hostname, &claimants);
        let keys: Vec<RouteKey> = claimants.iter().map(|claimant| claimant.key.clone()).collect();
        for (key, conflict) in keys.iter().zip(conflicts) {
            self.tell_conflict(key, hostname, conflict);
        }
    }

    fn tell_conflict(&mut self, key: &RouteKey, hostname: &Hostname, conflict: Option<Conflict>) {
        let Some(route) = self.routes.get_mut(key) else { return };
        let draft = route.draft_mut();
        if draft.is_some_and(|draft| draft.set_conflict(hostname, conflict)) {
            self.dirty.mark_route(key, route);
        }
    }

    /// Works out one route: what it is in the table, its status, and its backends' endpoints.
    fn settle_route(&mut self, key: &RouteKey, settled: &mut Settled) -> Option<RouteSpec> {
        let route = self.routes.get_mut(key)?;
        route.dirty = false;
        route.settled = self.settled;
        match &mut route.state {
            State::Gone => {
                self.routes.remove(key);
                None
            }
            State::Invalid(status) => {
                settled.statuses.push(RouteStatus::clone(status));
                None
            }
            State::Read(draft) => {
                let names = std::mem::take(&mut draft.names);
                draft.resolve(&self.targets, &mut settled.changes.endpoints);
                self.targets.names.set_user(key, &names, &draft.names);
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
                let before = |key: &&RouteKey| {
                    self.routes.get(*key).is_some_and(|route| route.settled < self.settled)
                };
                let others: Vec<&RouteKey> = users.keys().filter(before).collect();
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
        let backends = self.routes.get(key)?.draft()?.spec.backends.iter();
        let endpoints = backends.map(|(key, _)| self.targets.resolve(key).addresses.len()).sum();
        let draft = self.routes.get_mut(key)?.draft_mut()?;
        draft.set_endpoints(endpoints).then(|| draft.status())
    }
}

impl Dirty {
    fn mark_route(&mut self, key: &RouteKey, route: &mut Route) {
        if !std::mem::replace(&mut route.dirty, true) {
            self.routes.push(key.clone());
        }
    }

    fn mark_hostname(&mut self, hostname: &Hostname, claims: &mut Claims) {
        if !std::mem::replace(&mut claims.dirty, true) {
            self.hostnames.push(hostname.clone());
        }
    }
}

/// Marks all routes of `keys`.
fn mark<'k>(
    routes: &mut HashMap<RouteKey, Route>,
    dirty: &mut Dirty,
    keys: impl Iterator<Item = &'k RouteKey>,
) {
    for key in keys {
        if let Some(route) = routes.get_mut(key) {
            dirty.mark_route(key, route);
        }
    }
}
