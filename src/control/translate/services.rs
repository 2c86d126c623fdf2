//! Services with their EndpointSlices, and the routes that name them.

use ahash::AHashMap as HashMap;

use super::endpoints::Slice;
use super::ports::ServicePorts;
use super::resolve::PortTarget;
use super::small_map::SmallMap;
use crate::routing::{ObjectKey, RouteKey, ServicePort};

/// All Services that exist or that routes name.
#[derive(Debug, Default)]
pub(super) struct KnownServices {
    known: HashMap<ObjectKey, Box<KnownService>>,
    /// The Service of a slice.
    of_slices: HashMap<ObjectKey, ObjectKey>,
    /// Named Services that have changed.
    dirty: Vec<ObjectKey>,
}

#[derive(Debug, Default)]
struct KnownService {
    /// The ports of the Service, if it exists.
    ports: Option<ServicePorts>,
    /// The slices by their own keys.
    slices: SmallMap<ObjectKey, Slice>,
    /// The ports that routes name.
    named: SmallMap<ServicePort, NamedPort>,
    /// Whether it has too many addresses, so that each port gets only its share.
    shared_out: bool,
    /// Whether it is in [`KnownServices::dirty`].
    dirty: bool,
}

/// A port that routes name.
#[derive(Debug, Default)]
struct NamedPort {
    users: SmallMap<RouteKey>,
    /// Its target, once it was resolved.
    found: Option<PortTarget>,
}

/// A port whose target has changed.
#[derive(Debug)]
pub(super) struct PortUpdate {
    pub(super) port: ServicePort,
    pub(super) found: PortTarget,
    pub(super) change: PortChange,
}

/// The change of a port's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PortChange {
    /// Other endpoints, and the same number.
    Addresses,
    /// Another number of endpoints.
    Count,
    /// Another problem or target, so all routes that name it must be processed again.
    Whole,
}

impl KnownServices {
    /// Adds or updates a Service.
    pub(super) fn put(&mut self, key: ObjectKey, ports: ServicePorts) {
        let known = self.known.entry(key.clone()).or_default();
        if known.ports.as_ref() != Some(&ports) {
            known.ports = Some(ports);
            self.mark(&key);
        }
    }

    /// Removes a Service.
    pub(super) fn remove(&mut self, key: &ObjectKey) {
        let known = self.known.get_mut(key);
        if known.is_some_and(|known| known.ports.take().is_some()) {
            self.mark(key);
        }
    }

    /// Adds or updates a slice of `service`.
    pub(super) fn put_slice(&mut self, key: ObjectKey, service: ObjectKey, slice: Slice) {
        if self.of_slices.get(&key).is_some_and(|before| *before != service) {
            self.remove_slice(&key);
        }
        let known = self.known.entry(service.clone()).or_default();
        if known.slices.get(&key) != Some(&slice) {
            known.slices.insert(key.clone(), slice);
            self.mark(&service);
            self.of_slices.insert(key, service);
        }
    }

    /// Removes a slice.
    pub(super) fn remove_slice(&mut self, key: &ObjectKey) {
        let Some(service) = self.of_slices.remove(key) else { return };
        if let Some(known) = self.known.get_mut(&service) {
            known.slices.remove(key);
        }
        self.mark(&service);
    }

    /// Adds a route that names a port of `service`.
    pub(super) fn add_user(&mut self, service: &ObjectKey, port: &ServicePort, route: &RouteKey) {
        let known = self.known.entry(service.clone()).or_default();
        match known.named.get_mut(port) {
            Some(named) => named.users.insert(route.clone(), ()),
            None => {
                let named = NamedPort { users: SmallMap::One(route.clone(), ()), found: None };
                known.named.insert(port.clone(), named);
                self.mark(service);
            }
        }
    }

    /// Removes a route that named a port of `service`.
    pub(super) fn remove_user(
        &mut self,
        service: &ObjectKey,
        port: &ServicePort,
        route: &RouteKey,
    ) {
        let Some(known) = self.known.get_mut(service) else { return };
        let Some(named) = known.named.get_mut(port) else { return };
        named.users.remove(route);
        if named.users.is_empty() {
            known.named.remove(port);
            // The others may have its share.
            if known.shared_out || known.is_nothing() {
                self.mark(service);
            }
        }
    }

    /// The ports of a Service; `None` if it does not exist.
    pub(super) fn ports(&self, service: &ObjectKey) -> Option<&ServicePorts> {
        self.known.get(service)?.ports.as_ref()
    }

    /// The slices of a Service.
    pub(super) fn slices(&self, service: &ObjectKey) -> impl Iterator<Item = &Slice> + Clone {
        self.known.get(service).into_iter().flat_map(|known| known.slices.values())
    }

    /// How many addresses the slices of a Service have, at any of its ports.
    pub(super) fn count_ips(&self, service: &ObjectKey) -> usize {
        self.slices(service).map(|slice| slice.ips().len()).sum()
    }

    /// The ports of a Service that routes name.
    pub(super) fn named(&self, service: &ObjectKey) -> impl Iterator<Item = &ServicePort> + Clone {
        self.known
            .get(service)
            .into_iter()
            .flat_map(|known| known.named.iter().map(|(port, _)| port))
    }

    /// The routes that name a port of a Service.
    pub(super) fn users(
        &self,
        service: &ObjectKey,
        port: &ServicePort,
    ) -> impl Iterator<Item = &RouteKey> + use<'_> {
        let named = self.known.get(service).and_then(|known| known.named.get(port));
        named.into_iter().flat_map(|named| named.users.keys())
    }

    /// The last resolved target of a named port.
    pub(super) fn found(&self, service: &ObjectKey, port: &ServicePort) -> Option<&PortTarget> {
        self.known.get(service)?.named.get(port)?.found.as_ref()
    }

    /// Stores the targets of a Service's ports. Returns those that have changed. `shared_out`: whether each
    /// port has only its share of addresses.
    pub(super) fn set_found(
        &mut self,
        service: &ObjectKey,
        found: Vec<(ServicePort, PortTarget)>,
        shared_out: bool,
    ) -> Vec<PortUpdate> {
        let Some(known) = self.known.get_mut(service) else { return Vec::new() };
        known.shared_out = shared_out;
        let news = found.into_iter().filter_map(|(port, found)| {
            let named = known.named.get_mut(&port)?;
            let change = found.change_from(named.found.as_ref())?;
            named.found = Some(found.clone());
            Some(PortUpdate { port, found, change })
        });
        news.collect()
    }

    /// The next named Service that has changed.
    pub(super) fn next_news(&mut self) -> Option<ObjectKey> {
        let service = self.dirty.pop()?;
        if let Some(known) = self.known.get_mut(&service) {
            known.dirty = false;
        }
        Some(service)
    }

    /// Marks a Service to be resolved again, if any route names it.
    pub(super) fn mark(&mut self, service: &ObjectKey) {
        let Some(known) = self.known.get_mut(service) else { return };
        if known.is_nothing() {
            self.known.remove(service);
        } else if !known.named.is_empty() && !std::mem::replace(&mut known.dirty, true) {
            self.dirty.push(service.clone());
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.of_slices.is_empty() && self.dirty.is_empty()
    }
}

impl KnownService {
    fn is_nothing(&self) -> bool {
        self.ports.is_none() && self.slices.is_empty() && self.named.is_empty()
    }
}
