//! Services, their slices, and the routes that name them.

use ahash::AHashMap as HashMap;

use super::endpoints::{ServicePorts, Slice};
use super::few::Few;
use crate::routing::{ObjectKey, RouteKey, ServicePort};

/// All Services that are there or that routes name.
#[derive(Debug, Default)]
pub(super) struct Services {
    known: HashMap<ObjectKey, Box<Known>>,
    /// The Service of a slice.
    of_slices: HashMap<ObjectKey, ObjectKey>,
    /// Those of which there is news.
    dirty: Vec<ObjectKey>,
}

#[derive(Debug, Default)]
struct Known {
    /// What the Service says, if it is there.
    ports: Option<ServicePorts>,
    /// By their own keys.
    slices: Few<ObjectKey, Slice>,
    /// Who names it, by the port that is named.
    users: Few<ServicePort, Few<RouteKey>>,
    news: News,
    /// Whether it had endpoints that are refused when that was last looked at.
    refused: bool,
}

/// What changed about a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    pub(super) ports: bool,
    pub(super) endpoints: bool,
}

impl Services {
    /// A Service is there, or is different.
    pub(super) fn put(&mut self, key: ObjectKey, ports: ServicePorts) {
        let known = self.known.entry(key.clone()).or_default();
        if known.ports.as_ref() != Some(&ports) {
            known.ports = Some(ports);
            self.tell(key, News { ports: true, endpoints: false });
        }
    }

    /// A Service is gone.
    pub(super) fn remove(&mut self, key: &ObjectKey) {
        let known = self.known.get_mut(key);
        if known.is_some_and(|known| known.ports.take().is_some()) {
            self.tell(key.clone(), News { ports: true, endpoints: false });
        }
    }

    /// A slice of `service` is there, or is different.
    pub(super) fn put_slice(&mut self, key: ObjectKey, service: ObjectKey, slice: Slice) {
        if self.of_slices.get(&key).is_some_and(|before| *before != service) {
            self.remove_slice(&key);
        }
        let known = self.known.entry(service.clone()).or_default();
        if known.slices.get(&key) != Some(&slice) {
            known.slices.insert(key.clone(), slice);
            self.of_slices.insert(key, service.clone());
            self.tell(service, News { ports: false, endpoints: true });
        }
    }

    /// A slice is gone.
    pub(super) fn remove_slice(&mut self, key: &ObjectKey) {
        let Some(service) = self.of_slices.remove(key) else { return };
        if let Some(known) = self.known.get_mut(&service) {
            known.slices.remove(key);
        }
        self.tell(service, News { ports: false, endpoints: true });
    }

    /// Notes that `route` names a port of `service`.
    pub(super) fn add_user(&mut self, service: &ObjectKey, port: &ServicePort, route: &RouteKey) {
        let ports = &mut self.known.entry(service.clone()).or_default().users;
        match ports.get_mut(port) {
            Some(users) => users.insert(route.clone(), ()),
            None => ports.insert(port.clone(), Few::One(route.clone(), ())),
        }
    }

    /// Notes that `route` no longer names a port of `service`.
    pub(super) fn remove_user(
        &mut self,
        service: &ObjectKey,
        port: &ServicePort,
        route: &RouteKey,
    ) {
        let Some(known) = self.known.get_mut(service) else { return };
        if let Some(users) = known.users.get_mut(port) {
            users.remove(route);
            if users.is_empty() {
                known.users.remove(port);
            }
        }
        if known.is_nothing() {
            self.known.remove(service);
        }
    }

    /// What a Service says of its ports; nothing if it is not there.
    pub(super) fn ports(&self, service: &ObjectKey) -> Option<&ServicePorts> {
        self.known.get(service)?.ports.as_ref()
    }

    /// The slices of a Service.
    pub(super) fn slices(&self, service: &ObjectKey) -> impl Iterator<Item = &Slice> + Clone {
        self.known.get(service).into_iter().flat_map(|known| known.slices.values())
    }

    /// Notes whether some endpoints of a Service are refused. Returns whether that is news.
    pub(super) fn set_refused(&mut self, service: &ObjectKey, refused: bool) -> bool {
        let Some(known) = self.known.get_mut(service) else { return false };
        std::mem::replace(&mut known.refused, refused) != refused
    }

    /// The ports of a Service that routes name, and those routes.
    pub(super) fn users(
        &self,
        service: &ObjectKey,
    ) -> impl Iterator<Item = (&ServicePort, &Few<RouteKey>)> {
        self.known.get(service).into_iter().flat_map(|known| known.users.iter())
    }

    /// The Services of which there is news since the last time, each once, and the news.
    pub(super) fn take_news(&mut self) -> Vec<(ObjectKey, News)> {
        let dirty = std::mem::take(&mut self.dirty);
        let news = dirty.into_iter().filter_map(|service| {
            let known = self.known.get_mut(&service)?;
            let news = std::mem::take(&mut known.news);
            if known.is_nothing() {
                self.known.remove(&service);
            }
            Some((service, news))
        });
        news.collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.of_slices.is_empty() && self.dirty.is_empty()
    }

    fn tell(&mut self, service: ObjectKey, news: News) {
        let Some(known) = self.known.get_mut(&service) else { return };
        if known.news == News::default() {
            self.dirty.push(service);
        }
        known.news.ports |= news.ports;
        known.news.endpoints |= news.endpoints;
    }
}

impl Known {
    /// Whether there is nothing to know, nor to tell.
    fn is_nothing(&self) -> bool {
        self.ports.is_none()
            && self.slices.is_empty()
            && self.users.is_empty()
            && self.news == News::default()
    }
}
