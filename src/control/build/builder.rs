//! What a source has, and what a change of it comes to.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::draft::{Draft, Finding, invalid_status};
use super::endpoints::{ServicePorts, Slice, Unresolved, service_of, usable_addresses};
use super::{Installation, key};
use crate::control::api::SniRoute;
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
    installation: Installation,
    /// The routes of this installation.
    drafts: BTreeMap<RouteKey, Draft>,
    /// What is said of its routes that cannot be read.
    invalid: BTreeMap<RouteKey, RouteStatus>,
    /// Who claims a hostname.
    claims: HashMap<Hostname, BTreeSet<RouteKey>>,
    services: HashMap<ObjectKey, ServicePorts>,
    /// The slices of a Service, by their own keys.
    slices: HashMap<ObjectKey, BTreeMap<ObjectKey, Slice>>,
    /// The Service of a slice.
    slice_services: HashMap<ObjectKey, ObjectKey>,
    /// Who names a Service, by the port that is named.
    users: HashMap<ObjectKey, BTreeMap<ServicePort, BTreeSet<RouteKey>>>,
    dirty: Dirty,
}

/// What is to be looked at again.
#[derive(Debug, Default)]
struct Dirty {
    routes: BTreeSet<RouteKey>,
    hostnames: HashSet<Hostname>,
    /// Services whose ports changed.
    services: HashSet<ObjectKey>,
    /// Services whose endpoints changed.
    endpoints: HashSet<ObjectKey>,
}

/// What came of the changes since the last time.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// For the data plane.
    pub changes: Changes,
    /// The statuses of the routes that were looked at again, in the order of their keys. Some may
    /// be as they were.
    pub statuses: Vec<RouteStatus>,
}

impl Builder {
    /// A builder that has nothing.
    pub fn new(installation: Installation) -> Self {
        Builder {
            installation,
            drafts: BTreeMap::new(),
            invalid: BTreeMap::new(),
            claims: HashMap::new(),
            services: HashMap::new(),
            slices: HashMap::new(),
            slice_services: HashMap::new(),
            users: HashMap::new(),
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
        for (service, port) in draft.spec.backends.iter().filter_map(|(key, _)| service(key)) {
            let users = self.users.entry(service).or_default().entry(port).or_default();
            users.insert(key.clone());
        }
        if draft.contends() {
            for hostname in &draft.spec.hostnames {
                self.claims.entry(hostname.clone()).or_default().insert(key.clone());
                self.dirty.hostnames.insert(hostname.clone());
            }
        }
        self.drafts.insert(key, draft);
    }

    /// A route is there that cannot be read, as far as its `class` tells whose it is.
    pub fn put_invalid_route(&mut self, metadata: &ObjectMeta, class: Option<&str>, why: &str) {
        let Some(key) = key(metadata) else { return };
        self.remove_route(&key);
        if self.installation.serves(class) {
            let status = invalid_status(key.clone(), metadata.generation, why);
            self.invalid.insert(key, status);
        }
    }

    /// A route is gone.
    pub fn remove_route(&mut self, key: &RouteKey) {
        self.dirty.routes.insert(key.clone());
        self.invalid.remove(key);
        let Some(draft) = self.drafts.remove(key) else { return };
        for (service, port) in draft.spec.backends.iter().filter_map(|(key, _)| service(key)) {
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

    /// Works out what the changes since the last time come to.
    pub fn settle(&mut self) -> Settled {
        let Dirty { mut routes, hostnames, services, endpoints } = std::mem::take(&mut self.dirty);
        for hostname in &hostnames {
            self.settle_conflicts(hostname, &mut routes);
        }
        for service in services {
            let users = self.users.get(&service).into_iter().flat_map(BTreeMap::values);
            routes.extend(users.flatten().cloned());
        }

        let mut settled = Settled::default();
        for key in routes {
            let spec = self.settle_route(&key, &mut settled);
            settled.changes.routes.insert(key, spec);
        }
        for service in endpoints {
            for port in self.users.get(&service).into_iter().flat_map(BTreeMap::keys) {
                let backend = BackendKey::Service {
                    namespace: service.namespace.clone(),
                    name: service.name.clone(),
                    port: port.clone(),
                };
                let addresses = self.endpoints(&backend).unwrap_or_default();
                settled.changes.endpoints.insert(backend, addresses);
            }
        }
        settled
    }

    /// All that is not as it should be, in the order of the routes' keys.
    pub(super) fn findings(&self) -> Vec<Finding> {
        self.drafts.values().flat_map(Draft::findings).collect()
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
    }

    /// Tells those that claim `hostname` who owns it; marks those for whom that is news.
    fn settle_conflicts(&mut self, hostname: &Hostname, routes: &mut BTreeSet<RouteKey>) {
        let Some(claims) = self.claims.get(hostname) else { return };
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
        // Taken out meanwhile, so that the rest can be read.
        let mut draft = self.drafts.remove(key)?;
        draft.resolve(|backend| self.endpoints(backend).map(drop));
        settled.statuses.push(draft.status());
        let spec = draft.served().cloned();
        for (backend, _) in spec.iter().flat_map(|spec| &spec.backends) {
            let addresses = self.endpoints(backend).unwrap_or_default();
            settled.changes.endpoints.insert(backend.clone(), addresses);
        }
        self.drafts.insert(key.clone(), draft);
        spec
    }

    /// The endpoints of a backend, sorted, each once.
    fn endpoints(&self, backend: &BackendKey) -> Result<Vec<SocketAddr>, Unresolved> {
        let Some((service, port)) = service(backend) else {
            let BackendKey::Address(address) = backend else { return Ok(Vec::new()) };
            return Ok(address.parse().into_iter().collect());
        };
        let ports = self.services.get(&service).ok_or_else(|| Unresolved::no_service(&service))?;
        let port_name = ports.find(&service, &port)?;
        let slices = self.slices.get(&service).into_iter().flat_map(BTreeMap::values);
        Ok(usable_addresses(slices, port_name))
    }
}

fn service(backend: &BackendKey) -> Option<(ObjectKey, ServicePort)> {
    match backend {
        BackendKey::Service { namespace, name, port } => {
            let key = ObjectKey { namespace: namespace.clone(), name: name.clone() };
            Some((key, port.clone()))
        }
        BackendKey::Address(_) => None,
    }
}
