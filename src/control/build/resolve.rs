//! From what a route names to the addresses behind it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::endpoints::{Named, Unresolved, is_local, usable_addresses};
use super::names::Answer;
use super::{Builder, ObjectKey};
use crate::control::api::{Address, DnsName};
use crate::routing::{BackendKey, RouteKey, ServicePort};

/// What a backend comes to.
#[derive(Debug, Default)]
pub(super) struct Resolution {
    /// Its endpoints, sorted, each once.
    pub(super) addresses: Vec<SocketAddr>,
    /// The DNS name that it leads to.
    pub(super) name: Option<DnsName>,
    /// What is wrong with it.
    pub(super) fault: Option<Unresolved>,
    /// Whether the route may not have it at all.
    pub(super) refused: bool,
}

impl Resolution {
    pub(super) fn found(addresses: Vec<SocketAddr>) -> Self {
        Resolution { addresses, ..Resolution::default() }
    }

    pub(super) fn failed(fault: Unresolved) -> Self {
        Resolution { fault: Some(fault), ..Resolution::default() }
    }

    pub(super) fn refused(fault: Unresolved) -> Self {
        Resolution { refused: true, ..Resolution::failed(fault) }
    }
}

impl Builder {
    /// What a backend comes to for a route: what it may not have, it does not get.
    pub(super) fn resolve_for(&self, route: &RouteKey, backend: &BackendKey) -> Resolution {
        match backend {
            BackendKey::Service { namespace, name, .. } => {
                let service = ObjectKey { namespace: namespace.clone(), name: name.clone() };
                if !self.grants.allow(&route.namespace, &service) {
                    return Resolution::refused(Unresolved::not_granted(route, &service));
                }
            }
            BackendKey::Address(address) => {
                let local = |address: SocketAddr| is_local(address.ip());
                if !self.installation.local_addresses && address.parse().is_ok_and(local) {
                    return Resolution::refused(Unresolved::local(address));
                }
            }
        }
        self.resolve(backend)
    }

    /// What a backend comes to.
    pub(super) fn resolve(&self, backend: &BackendKey) -> Resolution {
        match backend {
            BackendKey::Service { namespace, name, port } => {
                let service = ObjectKey { namespace: namespace.clone(), name: name.clone() };
                self.resolve_service(&service, port)
            }
            BackendKey::Address(address) => match address.parse() {
                Ok(Address::Socket(address)) => Resolution::found(vec![address]),
                Ok(Address::Name(name, port)) => self.resolve_name(name, port, "address"),
                // It was one when the route was read.
                Err(_) => Resolution::default(),
            },
        }
    }

    fn resolve_service(&self, service: &ObjectKey, port: &ServicePort) -> Resolution {
        let Some(ports) = self.services.get(service) else {
            return Resolution::failed(Unresolved::no_service(service));
        };
        match ports.find(service, port) {
            Ok(Named::Port(port_name)) => {
                let slices = self.slices.get(service).into_iter().flat_map(BTreeMap::values);
                Resolution::found(usable_addresses(slices, port_name))
            }
            Ok(Named::Name(name, port)) => self.resolve_name(name.clone(), port, "service.name"),
            Err(fault) => Resolution::failed(fault),
        }
    }

    /// The addresses of a name, as far as they are known; `field` is the one that led to it.
    fn resolve_name(&self, name: DnsName, port: u16, field: &'static str) -> Resolution {
        let mut resolution = Resolution::default();
        if let Some(Answer { addresses, fault }) = self.names.answer(&name) {
            let permitted = |ip: &&IpAddr| self.installation.local_addresses || !is_local(**ip);
            let sockets = addresses.iter().filter(permitted).map(|ip| SocketAddr::new(*ip, port));
            resolution.addresses = sockets.collect();
            resolution.addresses.sort_unstable();
            resolution.addresses.dedup();
            let found = !resolution.addresses.is_empty();
            resolution.fault = match fault {
                Some(fault) => Some(Unresolved::no_answer(&name, fault, found, field)),
                None if !found && !addresses.is_empty() => {
                    Some(Unresolved::local_name(&name, field))
                }
                None => None,
            };
        }
        resolution.name = Some(name);
        resolution
    }
}
