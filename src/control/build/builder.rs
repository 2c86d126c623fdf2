//! What a source has, and what a change of it comes to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ahash::{AHashMap as HashMap, AHashSet as HashSet};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::draft::{Draft, Finding, invalid_status};
use super::endpoints::{ServicePorts, Slice, service_of};
use super::grants::Grants;
use super::names::{Answer, NameChanges, Names};
use super::resolve::Resolution;
use super::{Installation, key};
use crate::control::api::{DnsName, ReferenceGrant, SniRoute};
use crate::control::status::RouteStatus;
use crate::routing::{
    BackendKey, Changes, Hostname, RouteKey, RouteSpec, ServicePort, conflicts_over,
};

/// Namespace and name of an object of any kind.
pub type ObjectKey = RouteKey;

/// Holds what a source has, and works out what a change of it comes to. Pure: what it says depends
/// on the objects alone, not on the order or the way in which they came.
///
/// It costs what there is to do: a change of endpoints concerns one backend, a change of a route
/// that route and those that claim the same hostnames, a change of a Service the routes that name
/// it.
#[derive(Debug)]
pub struct Builder {
    pub(super) installation: Installation,
    /// The routes of this installation.
    drafts: HashMap<RouteKey, Box<Draft>>,
    /// What is said of its routes that cannot be read.
    invalid: BTreeMap<RouteKey, RouteStatus>,
    /// Who claims a hostname.
    claims: HashMap<Hostname, BTreeSet<RouteKey>>,
    pub(super) services: HashMap<ObjectKey, ServicePorts>,
    /// The slices of a Service, by their own keys.
    pub(super) slices: HashMap<ObjectKey, BTreeMap<ObjectKey, Slice>>,
    /// The Service of a slice.
    slice_services: HashMap<ObjectKey, ObjectKey>,
    /// Who names a Service, by the port that is named.
    users: HashMap<ObjectKey, BTreeMap<ServicePort, BTreeSet<RouteKey>>>,
    pub(super) grants: Grants,
    pub(super) names: Names,
    dirty: Dirty,
}

/// What is to be looked at again.
#[derive(Debug, Default)]
struct Dirty {
    routes: HashSet<RouteKey>,
    hostnames: HashSet<Hostname>,
    /// Services whose ports changed.
    services: HashSet<ObjectKey>,
    /// Services whose endpoints changed.
    endpoints: HashSet<ObjectKey>,
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
    /// The statuses of the routes that were looked at again, in the order of their keys. Some may
    /// be as they were.
    pub statuses: Vec<RouteStatus>,
    /// What is to be resolved.
    pub names: NameChanges,
}

impl Builder {
    /// A builder that has nothing.
    pub fn new(installation: Installation) -> Self {
        Builder {
            installation,
            drafts: HashMap::new(),
            invalid: BTreeMap::new(),
            claims: HashMap::new(),
            services: HashMap::new(),
            slices: HashMap::new(),
            slice_services: HashMap::new(),
            users: HashMap::new(),
            grants: Grants::default(),
            names: Names::default(),
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
            self.grants.add_user(&key, &service.namespace);
            let users = self.users.entry(service).or_default().entry(port).or_default();
            users.insert(key.clone());
        }
        if draft.contends() {
            for hostname in &draft.spec.hostnames {
                self.claims.entry(hostname.clone()).or_default().insert(key.clone());
                self.dirty.hostnames.insert(hostname.clone());
            }
        }
        self.drafts.insert(key, Box::new(draft));
    }

    /// A route is there that cannot be read, as far as its `class` tells whose it is.
    pub fn put_invalid_route(&mut self, metadata: &ObjectMeta, class: Option<&str>, why: &str) {
        let Some(key) = key(metadata) else { return };
        self.remove_route(&key);
        if self.installation.serves(class) {
            let status = invalid_status(key.clone(), metadata, why);
            self.invalid.insert(key, status);
        }
    }

    /// A route is gone.
    pub fn remove_route(&mut self, key: &RouteKey) {
        self.dirty.routes.insert(key.clone());
        self.invalid.remove(key);
        let Some(draft) = self.drafts.remove(key) else { return };
        self.names.set_user(key, &draft.names, &BTreeSet::new());
        for (service, port) in draft.services() {
            self.grants.remove_user(key, &service.namespace);
            let Some(ports) = self.users.get_mut(&service) else { continue };
            if let Some(users) = ports.get_mut(&port) {
                users.remove(key);
            }
            ports.retain(|_, users| !users.is_empty());
            if ports.is_empty() {
                self.users.remove(&service);
            }
        }
        for hostname in draft.spec.hostnames {
            let Some(claims) = self.claims.get_mut(&hostname) else { continue };
            claims.remove(key);
            if claims.is_empty() {
                self.claims.remove(&hostname);
            }
            self.dirty.hostnames.insert(hostname);
        }
    }

    /// A Service is there, or is different.
    pub fn put_service(&mut self, service: &Service) {
        let Some(key) = key(&service.metadata) else { return };
        let ports = ServicePorts::of(service);
        if self.services.get(&key) != Some(&ports) {
            self.services.insert(key.clone(), ports);
            self.dirty.services.insert(key);
        }
    }

    /// A Service is gone.
    pub fn remove_service(&mut self, key: &ObjectKey) {
        if self.services.remove(key).is_some() {
            self.dirty.services.insert(key.clone());
        }
    }

    /// An EndpointSlice is there, or is different.
    pub fn put_slice(&mut self, slice: &EndpointSlice) {
        let Some(key) = key(&slice.metadata) else { return };
        let service = service_of(slice, &key);
        if self.slice_services.get(&key) != service.as_ref() {
            self.remove_slice(&key);
        }
        let Some(service) = service else { return };
        let slice = Slice::of(slice);
        let slices = self.slices.entry(service.clone()).or_default();
        if slices.get(&key) != Some(&slice) {
            slices.insert(key.clone(), slice);
            self.slice_services.insert(key, service.clone());
            self.dirty.endpoints.insert(service);
        }
    }

    /// An EndpointSlice is gone.
    pub fn remove_slice(&mut self, key: &ObjectKey) {
        let Some(service) = self.slice_services.remove(key) else { return };
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.remove(key);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        self.dirty.endpoints.insert(service);
    }

    /// A grant is there, or is different.
    pub fn put_grant(&mut self, grant: &ReferenceGrant) {
        let Some(key) = key(&grant.metadata) else { return };
        if self.grants.put(&key, grant) {
            self.dirty.granting.insert(key.namespace);
        }
    }

    /// A grant is gone.
    pub fn remove_grant(&mut self, key: &ObjectKey) {
        if self.grants.remove(key) {
            self.dirty.granting.insert(key.namespace.clone());
        }
    }

    /// The resolver has said something of a name.
    pub fn put_answer(&mut self, name: &DnsName, answer: Answer) {
        if self.names.put(name, answer) {
            self.dirty.names.insert(name.clone());
        }
    }

    /// Whether some route leads to a name of which nothing is known yet.
    pub fn awaits_names(&self) -> bool {
        self.names.is_pending()
    }

    /// Has the next [`Builder::settle`] tell of all routes, as the first one does.
    pub fn tell_all(&mut self) {
        self.dirty.routes.extend(self.drafts.keys().chain(self.invalid.keys()).cloned());
    }

    /// Works out what the changes since the last time come to.
    pub fn settle(&mut self) -> Settled {
        let Dirty { mut routes, hostnames, services, endpoints, granting, names } =
            std::mem::take(&mut self.dirty);
        for hostname in &hostnames {
            self.settle_conflicts(hostname, &mut routes);
        }
        for service in services {
            let users = self.users.get(&service).into_iter().flat_map(BTreeMap::values);
            routes.extend(users.flatten().cloned());
        }
        routes.extend(granting.iter().flat_map(|namespace| self.grants.users(namespace)).cloned());
        routes.extend(names.iter().flat_map(|name| self.names.users(name)).cloned());

        let mut settled = Settled::default();
        settled.changes.routes.reserve(routes.len());
        settled.statuses.reserve(routes.len());
        for key in &routes {
            let spec = self.settle_route(key, &mut settled);
            settled.changes.routes.insert(key.clone(), spec);
        }
        let mut counted = HashSet::new();
        for service in endpoints {
            for (port, users) in self.users.get(&service).into_iter().flatten() {
                let others: Vec<&RouteKey> = users.iter().filter(|u| !routes.contains(u)).collect();
                // Those that were settled have brought the endpoints of their backends along.
                if others.is_empty() {
                    continue;
                }
                let backend = BackendKey::Service {
                    namespace: service.namespace.clone(),
                    name: service.name.clone(),
                    port: port.clone(),
                };
                let addresses = self.resolve(&backend).addresses;
                settled.changes.endpoints.insert(backend, addresses);
                counted.extend(others.into_iter().cloned());
            }
        }
        for key in counted {
            settled.statuses.extend(self.count_again(&key));
        }
        settled.statuses.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        settled.names = self.names.settle();
        settled
    }

    /// All that is not as it should be, in the order of the routes' keys.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> =
            self.drafts.values().flat_map(|draft| draft.findings()).collect();
        findings.sort_by(|a, b| a.key.cmp(&b.key));
        findings
    }

    /// Whether nothing is left of anything.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.drafts.is_empty()
            && self.invalid.is_empty()
            && self.claims.is_empty()
            && self.services.is_empty()
            && self.slices.is_empty()
            && self.slice_services.is_empty()
            && self.users.is_empty()
            && self.grants.is_empty()
            && self.names.is_empty()
    }

    /// Tells those that claim `hostname` who owns it; marks those for whom that is news.
    fn settle_conflicts(&mut self, hostname: &Hostname, routes: &mut HashSet<RouteKey>) {
        let Some(claims) = self.claims.get(hostname) else { return };
        // As it is with almost all.
        if let (Some(only), 1) = (claims.first(), claims.len()) {
            let draft = self.drafts.get_mut(only);
            if draft.is_some_and(|draft| draft.set_conflict(hostname, None)) {
                routes.insert(only.clone());
            }
            return;
        }
        let claimants: Vec<&RouteSpec> =
            claims.iter().filter_map(|key| Some(&self.drafts.get(key)?.spec)).collect();
        let conflicts = conflicts_over(hostname, &claimants);
        let keys: Vec<RouteKey> = claimants.iter().map(|claimant| claimant.key.clone()).collect();
        for (key, conflict) in keys.into_iter().zip(conflicts) {
            let draft = self.drafts.get_mut(&key);
            if draft.is_some_and(|draft| draft.set_conflict(hostname, conflict)) {
                routes.insert(key);
            }
        }
    }

    /// Works out one route: what it is in the table, its status, and its backends' endpoints.
    fn settle_route(&mut self, key: &RouteKey, settled: &mut Settled) -> Option<RouteSpec> {
        settled.statuses.extend(self.invalid.get(key).cloned());
        let backends = self.drafts.get(key)?.backends.iter();
        let resolved: Vec<Resolution> =
            backends.map(|(backend, _)| self.resolve_for(key, backend)).collect();
        let draft = self.drafts.get_mut(key)?;
        let names = std::mem::take(&mut draft.names);
        draft.resolve(&resolved);
        self.names.set_user(key, &names, &draft.names);
        settled.statuses.push(draft.status());
        let spec = draft.served().cloned()?;
        let permitted = draft.backends.iter().zip(resolved).filter(|(_, found)| !found.refused);
        let endpoints = permitted.map(|((backend, _), found)| (backend.clone(), found.addresses));
        settled.changes.endpoints.extend(endpoints);
        Some(spec)
    }

    /// The status of a route whose backends have got other endpoints, if that changes it.
    fn count_again(&mut self, key: &RouteKey) -> Option<RouteStatus> {
        let backends = self.drafts.get(key)?.spec.backends.iter();
        let endpoints = backends.map(|(backend, _)| self.resolve(backend).addresses.len()).sum();
        let draft = self.drafts.get_mut(key)?;
        draft.set_endpoints(endpoints).then(|| draft.status())
    }
}
