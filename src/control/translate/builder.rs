//! The builder: stores the objects of a source and translates their changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ahash::{AHashMap as HashMap, AHashSet as HashSet};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::claims::Claims;
use super::conditions::Problem;
use super::delta::{Delta, DeltaComputation};
use super::endpoints::{Slice, service_of};
use super::grants::Grants;
use super::names::{DnsAnswer, DnsNames};
use super::own_addresses::OwnAddresses;
use super::policy::Policies;
use super::ports::ServicePorts;
use super::resolve::Targets;
use super::resolved_route::ResolvedRoute;
use super::routes::{RoutePresence, Routes};
use super::services::KnownServices;
use super::tls_objects::{PermittedObjects, TlsObjects};
use super::{Installation, key, sni_route_key};
use crate::control::api::{DnsName, ReferenceGrant, SecretData, SniRoute};
use crate::routing::{Kind, ObjectKey, ObjectRef, RouteKey};

/// Stores the objects of a source, and translates their changes. Pure: the result depends only on the
/// objects, not on the order in which they arrived.
///
/// The cost depends on the change: a change of endpoints concerns one backend; a change of a route, that
/// route and those that claim the same hostnames; a change of a Service, the routes that name it.
#[derive(Debug)]
pub struct Builder {
    pub(super) installation: Installation,
    policies: Policies,
    pub(super) routes: Routes,
    pub(super) claims: Claims,
    pub(super) targets: Targets,
    pub(super) dirty: Dirty,
}

/// The changes to process, besides those of routes.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// The uids of deleted routes from an API server.
    pub(super) gone: HashMap<RouteKey, Arc<str>>,
    /// Namespaces whose grants have changed.
    pub(super) granting: HashSet<Arc<str>>,
    /// DNS names with new answers.
    pub(super) names: HashSet<DnsName>,
}

impl Builder {
    /// A builder without objects.
    pub fn new(installation: Installation) -> Self {
        Builder::with(installation, TlsObjects::new(false))
    }

    /// A builder to which all Secrets and ConfigMaps are put, so that one that was not put does not exist. Without
    /// [`Installation::termination`], none is stored.
    pub fn of_all_objects(installation: Installation) -> Self {
        let tls = TlsObjects::new(installation.termination.is_some());
        Builder::with(installation, tls)
    }

    fn with(installation: Installation, tls: TlsObjects) -> Self {
        Builder {
            targets: Targets {
                services: KnownServices::default(),
                grants: Grants::default(),
                names: DnsNames::default(),
                own: OwnAddresses::new(
                    &installation.own_services,
                    installation.reach.listening.clone(),
                ),
                tls,
                tickets: installation.termination.clone(),
                reach: installation.reach.clone(),
                machine: installation.machine.iter().copied().collect(),
                #[cfg(test)]
                judged: std::cell::Cell::default(),
            },
            policies: Policies::new(installation.layers.clone()),
            claims: Claims::new(installation.hostnames_below),
            installation,
            routes: Routes::default(),
            dirty: Dirty::default(),
        }
    }

    /// Adds or updates a route. A route of another class is treated as deleted.
    pub fn put_route(&mut self, route: &SniRoute) {
        let Some(key) = sni_route_key(&route.metadata) else { return };
        if !self.installation.serves(route.spec.class_name.as_ref().map(|class| class.as_str())) {
            return self.remove_route(&key);
        }
        let policies = &mut self.policies;
        let resolved = ResolvedRoute::new(key, route, &self.installation, policies);
        self.put_resolved(resolved);
    }

    pub(super) fn put_resolved(&mut self, mut resolved: ResolvedRoute) {
        let key = resolved.spec.key.clone();
        let mut before = self.routes.remove(&key);
        resolved.inherit(&mut before);
        // New users first, so that a backend that both versions name is not resolved again.
        for (service, port) in resolved.services() {
            self.targets.services.add_user(service, port, &key);
        }
        let rank = resolved.rank();
        resolved.tls_objects().for_each(|object| self.targets.tls.add_user(object, &rank));
        self.leave(&key, before, Some(&resolved));
        for namespace in resolved.named_namespaces() {
            self.targets.grants.add_user(&key, namespace);
        }
        if resolved.contends() {
            let (age, demand) = (resolved.age(), Arc::new(resolved.demand()));
            for hostname in resolved.claimed.iter() {
                self.claims.add(hostname.owned(), &age, &demand);
            }
        }
        self.routes.set(key, RoutePresence::Present(Box::new(resolved)));
    }

    /// Removes a route.
    pub fn remove_route(&mut self, key: &RouteKey) {
        let before = self.routes.remove(key);
        self.leave(key, before, None);
    }

    /// Removes the old version of a route, except for the Services and names that the version `now` still
    /// uses.
    fn leave(&mut self, key: &RouteKey, before: RoutePresence, now: Option<&ResolvedRoute>) {
        let RoutePresence::Present(resolved) = before else { return };
        self.targets.names.set_user(key, resolved.spec.created, &resolved.names, &BTreeSet::new());
        for namespace in resolved.named_namespaces() {
            self.targets.grants.remove_user(key, namespace);
        }
        if let Some(tls) = &resolved.tls {
            self.targets.tls.set_permitted(&tls.permitted, &PermittedObjects::new());
        }
        let rank = resolved.rank();
        let still_names = |object: &ObjectRef| {
            let now = now.filter(|now| now.rank() == rank);
            now.is_some_and(|now| now.tls_objects().any(|named| named == object))
        };
        for object in resolved.tls_objects().filter(|object| !still_names(object)) {
            self.targets.tls.remove_user(object, &rank);
        }
        for (service, port) in resolved.services() {
            if !now.is_some_and(|now| now.names_port(service, port)) {
                self.targets.services.remove_user(service, port, key);
            }
        }
        let age = resolved.age();
        resolved.claimed.iter().for_each(|hostname| self.claims.remove(hostname.owned(), &age));
        if let Some(uid) = resolved.uid() {
            self.dirty.gone.insert(key.clone(), Arc::clone(uid));
        }
    }

    /// Adds or updates a Service.
    pub fn put_service(&mut self, service: &Service) {
        let Some(key) = key(&service.metadata) else { return };
        self.targets.own.put_service(&key, service);
        self.targets.services.put(key, ServicePorts::of(service));
    }

    /// Removes a Service.
    pub fn remove_service(&mut self, key: &ObjectKey) {
        self.targets.own.remove_service(key);
        self.targets.services.remove(key);
    }

    /// Adds or updates an EndpointSlice.
    pub fn put_slice(&mut self, slice: &EndpointSlice) {
        let Some(key) = key(&slice.metadata) else { return };
        let Some(service) = service_of(slice, &key) else { return self.remove_slice(&key) };
        self.targets.own.put_slice(&key, &service, slice);
        self.targets.services.put_slice(key, service, Slice::of(slice, &self.installation.place));
    }

    /// Removes an EndpointSlice.
    pub fn remove_slice(&mut self, key: &ObjectKey) {
        self.targets.own.remove_slice(key);
        self.targets.services.remove_slice(key);
    }

    /// Adds or updates a grant.
    pub fn put_grant(&mut self, grant: &ReferenceGrant) {
        let Some(key) = key(&grant.metadata) else { return };
        if self.targets.grants.put(&key, grant) {
            self.dirty.granting.insert(key.namespace().into());
        }
    }

    /// Handles a grant that cannot be read. Returns whether the last version that could be read stays in
    /// use; if there is none, it grants nothing.
    pub fn keep_grant(&mut self, metadata: &ObjectMeta) -> bool {
        let Some(key) = key(metadata) else { return false };
        let is_kept = self.targets.grants.has(&key, metadata.uid.as_deref());
        if !is_kept {
            self.remove_grant(&key);
        }
        is_kept
    }

    /// Removes a grant.
    pub fn remove_grant(&mut self, key: &ObjectKey) {
        if self.targets.grants.remove(key) {
            self.dirty.granting.insert(key.namespace().into());
        }
    }

    /// Removes an object of any kind.
    pub fn remove(&mut self, kind: Kind, key: &ObjectKey) {
        match kind {
            Kind::SniRoute | Kind::TlsRoute => {
                self.remove_route(&RouteKey::of_rule(ObjectRef::new(kind, key.clone()), 0));
            }
            Kind::Service => self.remove_service(key),
            Kind::EndpointSlice => self.remove_slice(key),
            Kind::ReferenceGrant => self.remove_grant(key),
            Kind::ConfigMap => self.remove_config_map(key),
            Kind::Secret => self.remove_secret(key),
        }
    }

    /// Updates the addresses of a DNS name.
    pub fn put_answer(&mut self, name: &DnsName, answer: DnsAnswer) {
        if self.targets.names.put(name, answer) {
            self.dirty.names.insert(name.clone());
        }
    }

    /// Whether a route leads to a DNS name that has no answer yet.
    pub fn awaits_names(&self) -> bool {
        self.targets.names.is_pending()
    }

    /// Adds or updates a Secret that routes may name. One that no route is known to name is not stored, unless all
    /// objects are put ([`Builder::of_all_objects`]).
    pub fn put_secret(&mut self, key: &ObjectKey, data: &SecretData) {
        let secret = ObjectRef::new(Kind::Secret, key.clone());
        if self.targets.tls.stores(&secret) {
            self.targets.tls.put_secret(secret, data);
        }
    }

    /// Handles a Secret that does not exist, or exists no longer.
    pub fn remove_secret(&mut self, key: &ObjectKey) {
        self.targets.tls.remove(ObjectRef::new(Kind::Secret, key.clone()));
    }

    /// Adds or updates a ConfigMap that routes may name, by its `data`; see [`Builder::put_secret`].
    pub fn put_config_map(&mut self, key: &ObjectKey, data: Option<&BTreeMap<String, String>>) {
        let config_map = ObjectRef::new(Kind::ConfigMap, key.clone());
        if self.targets.tls.stores(&config_map) {
            let authorities = data.and_then(|data| data.get(SecretData::AUTHORITIES));
            self.targets.tls.put_config_map(config_map, authorities.map(String::as_str));
        }
    }

    /// Handles a ConfigMap that does not exist, or exists no longer.
    pub fn remove_config_map(&mut self, key: &ObjectKey) {
        self.targets.tls.remove(ObjectRef::new(Kind::ConfigMap, key.clone()));
    }

    /// Handles a Secret or ConfigMap that cannot be read. `cause` is for people, and holds nothing of the object. What
    /// was read of it before stays in use.
    pub fn reference_unread(&mut self, reference: &ObjectRef, cause: &str) {
        self.targets.tls.set_unread(reference, cause);
    }

    /// Sets the time, in seconds since 1970: statuses tell which certificates are not valid. Returns whether a
    /// certificate became valid, or expired, since the last time.
    pub fn set_time(&mut self, now: i64) -> bool {
        self.targets.tls.set_time(now)
    }

    /// Whether a Secret or ConfigMap that routes name was neither read, nor reported as missing or unreadable.
    pub fn awaits_references(&self) -> bool {
        self.targets.tls.is_pending()
    }

    /// Makes the next [`Builder::settle`] return all routes, like the first one.
    pub fn tell_all(&mut self) {
        self.routes.mark_all();
        self.targets.own.tell_all();
    }

    /// The installation's own Services that do not exist, and whose addresses are therefore unknown.
    pub fn missing_own_services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.targets.own.missing()
    }

    /// Translates the changes since the last time, at once.
    pub fn settle(&mut self) -> Delta {
        let mut computation = self.begin_delta();
        loop {
            if let Some(delta) = computation.go_on(usize::MAX) {
                return delta;
            }
        }
    }

    /// Starts to translate the changes since the last time, in slices. If the computation is dropped before
    /// its end, the builder must be dropped, too: the result so far is lost.
    pub fn begin_delta(&mut self) -> DeltaComputation<'_> {
        DeltaComputation::of(self)
    }

    /// All problems, in the order of the routes' keys.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> =
            self.routes.all_resolved().flat_map(ResolvedRoute::problems).collect();
        problems.sort_by(|a, b| a.key.cmp(&b.key));
        problems
    }

    /// Whether no state is left.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.routes.is_empty()
            && self.claims.is_empty()
            && self.targets.services.is_empty()
            && self.targets.grants.is_empty()
            && self.targets.names.is_empty()
            && self.targets.own.is_empty()
            && self.targets.tls.is_empty()
    }
}
