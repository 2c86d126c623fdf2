//! A route with its resolved references and conflicts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Installation;
use super::conditions::{ObjectVersion, Problem, ReadFailure};
use super::conflict;
use super::names::Rank;
use super::notes::{Note, NoteSide};
use super::policy::Policies;
use super::resolve::{Resolution, ResolutionCache, Targets};
use super::route_tls::RouteTls;
use super::routes::RoutePresence;
use super::unreadable::UnreadableRoute;
use super::unresolved::Unresolved;
use crate::control::api::{BackendTarget, DnsName, ListenerName, SniRoute};
use crate::routing::{
    Age, Attachment, BackendKey, ClaimConflict, Demand, Hostname, Hostnames, ObjectKey, ObjectRef,
    RouteKey, RouteSpec, Scope, ServicePort, TableChanges,
};

/// A route with everything that the builder knows about it.
#[derive(Debug)]
pub(super) struct ResolvedRoute {
    /// Its entry in the table, if it is served: without hostnames and backends that it may not have.
    pub(super) spec: RouteSpec,
    /// Every hostname that it names, each once.
    pub(super) claimed: Hostnames,
    /// The existing listeners that it names.
    bound: Vec<Box<str>>,
    /// Every backend that it names.
    pub(super) backends: Vec<(BackendKey, u32)>,
    /// The DNS names that its backends lead to.
    pub(super) names: BTreeSet<DnsName>,
    /// How many endpoints its backends have.
    pub(super) endpoints: usize,
    /// A message about settings that exceed the installation's limits.
    pub(super) exceeded: Arc<str>,
    pub(super) object: ObjectVersion,
    /// The failure to read it, if any.
    pub(super) read_failure: Option<ReadFailure>,
    pub(super) listeners: Vec<Problem>,
    /// The conflicts of its claims.
    pub(super) conflicts: BTreeMap<Hostname, Arc<ClaimConflict>>,
    /// Notes on hostnames and wildcards of other namespaces.
    pub(super) notes: BTreeMap<(Hostname, NoteSide), Note>,
    pub(super) refs: Vec<Problem>,
    /// How it serves TLS, if it does.
    pub(super) tls: Option<Box<RouteTls>>,
}

impl ResolvedRoute {
    pub(super) fn new(
        key: RouteKey,
        route: &SniRoute,
        installation: &Installation,
        policies: &mut Policies,
    ) -> Self {
        let (metadata, spec) = (&route.metadata, &route.spec);
        let mut resolved =
            ResolvedRoute::claiming(key, metadata, &spec.hostnames, &spec.listeners, installation);
        (resolved.spec.policy, resolved.exceeded) = policies.effective(spec.policy());
        resolved.spec.alpn = spec.alpn.iter().map(|protocol| protocol.as_str().into()).collect();
        resolved.backends = backends(&resolved.spec.key, route);
        let on_tcp = resolved.is_on_tcp_alone(installation);
        let tls = |tls| Box::new(RouteTls::new(resolved.spec.key.object(), tls, on_tcp));
        resolved.tls = spec.tls.as_ref().map(tls);
        resolved
    }

    /// A route of which no version could be read.
    pub(super) fn unreadable(
        key: RouteKey,
        route: &UnreadableRoute,
        installation: &Installation,
    ) -> Self {
        let (hostnames, listeners) = match &route.claims {
            Some(claims) => (&*claims.hostnames, &*claims.listeners),
            None => Default::default(),
        };
        let mut resolved =
            ResolvedRoute::claiming(key, &route.metadata, hostnames, listeners, installation);
        resolved.read_failure = Some(ReadFailure::Always(route.why.clone()));
        resolved
    }

    /// A route with claims, and without backends yet.
    fn claiming(
        key: RouteKey,
        metadata: &ObjectMeta,
        hostnames: &[Hostname],
        listeners: &[ListenerName],
        installation: &Installation,
    ) -> Self {
        let mut resolved = ResolvedRoute {
            backends: Vec::new(),
            claimed: distinct(hostnames),
            bound: Vec::new(),
            names: BTreeSet::new(),
            endpoints: 0,
            spec: RouteSpec {
                created: metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()),
                ..RouteSpec::new(key, Hostnames::default())
            },
            exceeded: Arc::default(),
            object: ObjectVersion::of(metadata),
            read_failure: None,
            listeners: Vec::new(),
            conflicts: BTreeMap::new(),
            notes: BTreeMap::new(),
            refs: Vec::new(),
            tls: None,
        };
        resolved.bind(listeners, installation);
        resolved
    }

    /// Sets the existing listeners, and a problem for each other one.
    fn bind(&mut self, listeners: &[ListenerName], installation: &Installation) {
        let known = &installation.listeners;
        for (index, listener) in listeners.iter().enumerate() {
            if known.is_empty() || known.iter().any(|name| name == listener.as_str()) {
                self.bound.push(listener.as_str().into());
            } else {
                self.listeners.push(Problem {
                    key: self.spec.key.clone(),
                    field: format!("spec.listeners[{index}]"),
                    reason: "UnknownListener",
                    message: format!("there is no listener {:?}", listener.as_str()),
                });
            }
        }
    }

    /// Takes over what an earlier version of the route has had to serve TLS.
    pub(super) fn inherit(&mut self, before: &mut RoutePresence) {
        if let RoutePresence::Present(former) = before
            && let (Some(tls), Some(former)) = (&mut self.tls, &mut former.tls)
        {
            tls.inherit(former);
        }
    }

    /// Whether all of its listeners are of the protocol `tcp`.
    fn is_on_tcp_alone(&self, installation: &Installation) -> bool {
        let is_tcp = |name: &str| installation.tcp_listeners.iter().any(|tcp| tcp == name);
        let listeners = &installation.listeners;
        match self.bound.is_empty() {
            true => !listeners.is_empty() && listeners.iter().all(|name| is_tcp(name)),
            false => self.bound.iter().all(|name| is_tcp(name)),
        }
    }

    /// Whether it is a version of this object.
    pub(super) fn is_of(&self, metadata: &ObjectMeta) -> bool {
        self.object.uid.as_deref() == metadata.uid.as_deref()
    }

    /// Whether any version of it could be read.
    pub(super) fn was_read(&self) -> bool {
        !matches!(self.read_failure, Some(ReadFailure::Always(_)))
    }

    /// Keeps the last version that could be read, because the new one cannot.
    pub(super) fn keep_as_it_was(&mut self, route: &UnreadableRoute) {
        self.object = ObjectVersion::of(&route.metadata);
        self.read_failure = Some(ReadFailure::Latest(route.why.clone()));
    }

    /// Whether it claims its hostnames: some listener exists for it. If none of its listeners exists, the
    /// list is empty, which otherwise means all listeners.
    pub(super) fn contends(&self) -> bool {
        self.listeners.is_empty() || !self.bound.is_empty()
    }

    /// Sets the conflict of a claim. Returns whether it has changed.
    pub(super) fn set_conflict(
        &mut self,
        hostname: Hostname,
        conflict: Option<Arc<ClaimConflict>>,
    ) -> bool {
        set(&mut self.conflicts, hostname, conflict)
    }

    /// Sets a note on a hostname. Returns whether it has changed.
    pub(super) fn set_note(&mut self, place: (Hostname, NoteSide), note: Option<Note>) -> bool {
        set(&mut self.notes, place, note)
    }

    /// The age of its claims.
    pub(super) fn age(&self) -> Age {
        Age::new(self.spec.created, self.spec.key.clone())
    }

    /// The connections that it asks for.
    pub(super) fn demand(&self) -> Demand {
        Demand {
            listeners: self.bound.clone().into(),
            alpn: self.spec.alpn.clone().into(),
            reserved: !self.was_read(),
        }
    }

    /// `metadata.uid` of its object.
    pub(super) fn uid(&self) -> Option<&Arc<str>> {
        self.object.uid.as_ref()
    }

    /// The ports of Services that it names.
    pub(super) fn services(&self) -> impl Iterator<Item = (&ObjectKey, &ServicePort)> {
        self.backends.iter().filter_map(|(backend, _)| match backend {
            BackendKey::Service { service, port } => Some((service, port)),
            BackendKey::Address { .. } => None,
        })
    }

    /// Whether it names a port of a Service.
    pub(super) fn names_port(&self, service: &ObjectKey, port: &ServicePort) -> bool {
        self.services().any(|named| named == (service, port))
    }

    /// The Secrets and ConfigMaps that it names to serve TLS.
    pub(super) fn tls_objects(&self) -> impl Iterator<Item = &ObjectRef> {
        self.tls.iter().flat_map(|tls| tls.objects())
    }

    /// The namespaces of the objects that it names, some of them several times.
    pub(super) fn named_namespaces(&self) -> impl Iterator<Item = &str> {
        let services = self.services().map(|(service, _)| service.namespace());
        services.chain(self.tls_objects().map(ObjectRef::namespace))
    }

    /// Its rank among the routes of its namespace.
    pub(super) fn rank(&self) -> Rank {
        Rank { created: self.spec.created.unwrap_or(i64::MAX), route: self.spec.key.clone() }
    }

    /// Resolves its backends, and how it serves TLS. If it is served, adds the addresses to `changes`.
    pub(super) fn resolve(
        &mut self,
        targets: &Targets,
        cache: &mut ResolutionCache,
        changes: &mut TableChanges,
    ) {
        let served = self.rejected().is_none();
        self.spec.attachments = [self.attachment()].into();
        self.refs.clear();
        self.names.clear();
        self.spec.backends.clear();
        self.endpoints = 0;
        for (index, (backend, weight)) in self.backends.iter().enumerate() {
            let found = targets.resolve(&self.spec.key, backend, cache);
            if let Some(Unresolved { reason, field, message }) = found.fault.as_deref() {
                self.refs.push(Problem {
                    key: self.spec.key.clone(),
                    field: format!("spec.backends[{index}].{field}"),
                    reason,
                    message: message.clone(),
                });
            }
            if !found.refused {
                self.spec.backends.push((backend.clone(), *weight));
                self.names.extend(found.name.clone());
                self.endpoints += found.addresses.len();
                if served && !changes.endpoints.contains_key(backend) {
                    let Resolution { addresses, others, places, .. } = &*found;
                    changes.set_addresses(backend.clone(), addresses, others, places);
                }
            }
        }
        if let Some(tls) = &mut self.tls {
            let tickets = targets.tickets.as_ref();
            let termination = tls.resolve(&self.spec, targets, tickets, &mut self.refs);
            self.spec.termination = Some(termination);
        }
    }

    /// Counts the endpoints of its backends. Returns whether the number has changed.
    pub(super) fn count_endpoints(
        &mut self,
        targets: &Targets,
        cache: &mut ResolutionCache,
    ) -> bool {
        let backends = self.spec.backends.iter();
        let counts = backends
            .map(|(backend, _)| targets.resolve(&self.spec.key, backend, cache).addresses.len());
        let endpoints = counts.sum();
        std::mem::replace(&mut self.endpoints, endpoints) != endpoints
    }

    /// Its entry in the table; `None` if it could get no connections.
    pub(super) fn served(&self) -> Option<&RouteSpec> {
        (self.was_read() && self.rejected().is_none()).then_some(&self.spec)
    }

    /// An `SniRoute` is attached to the configuration's listeners.
    fn attachment(&self) -> Attachment {
        let (scope, listeners) = (Scope::Config, self.bound.clone());
        Attachment { scope, listeners, hostnames: self.served_hostnames() }
    }

    /// The hostnames that it has in the table.
    fn served_hostnames(&self) -> Hostnames {
        if self.conflicts.is_empty() {
            return self.claimed.clone();
        }
        let conflict = |hostname: &Hostname<&str>| self.conflicts.get(&hostname.owned());
        let is_served =
            |hostname: &Hostname<&str>| !conflict(hostname).is_some_and(|one| one.is_left_out());
        let served: Hostnames = self.claimed.iter().filter(is_served).collect();
        match self.conflicts.get(&Hostname::Any).map(|conflict| &**conflict) {
            Some(ClaimConflict::ForeignOn { served: on, .. }) => served.with_any_on(on.clone()),
            _ => served,
        }
    }

    pub(super) fn rejected(&self) -> Option<&'static str> {
        let lost = || self.conflicts.values().filter(|conflict| conflict.is_whole());
        match self.contends() {
            false => Some("UnknownListener"),
            true if lost().next().is_some() && lost().count() == self.claimed.len() => {
                Some(conflict::reason(lost().map(|conflict| &**conflict)))
            }
            true => None,
        }
    }
}

/// Each hostname once, in the order of their first mentions.
fn distinct(hostnames: &[Hostname]) -> Hostnames {
    let mut seen = BTreeSet::new();
    hostnames.iter().map(Hostname::borrowed).filter(|hostname| seen.insert(*hostname)).collect()
}

fn backends(route_key: &RouteKey, route: &SniRoute) -> Vec<(BackendKey, u32)> {
    let backends = route.spec.backends.iter();
    backends
        .map(|backend| {
            let key = match &backend.target {
                BackendTarget::Address(address) => {
                    BackendKey::address(route_key.namespace(), &address.to_string())
                }
                BackendTarget::Service(service) => BackendKey::Service {
                    service: ObjectKey::new(
                        match &service.namespace {
                            Some(namespace) => namespace.as_str(),
                            None => route_key.namespace(),
                        },
                        service.name.as_str(),
                    ),
                    port: service.port.clone(),
                },
            };
            (key, backend.weight)
        })
        .collect()
}

/// Inserts a value into a map, or removes it. Returns whether the map has changed.
fn set<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> bool {
    if map.get(&key) == value.as_ref() {
        return false;
    }
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
    true
}
