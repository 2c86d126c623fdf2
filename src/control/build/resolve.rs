//! From what a route names to the addresses behind it.

use std::net::{IpAddr, SocketAddr};

use super::endpoints::{Named, Unresolved, is_local, usable_addresses};
use super::grants::Grants;
use super::names::{Answer, Names};
use super::services::Services;
use crate::control::api::{Address, DnsName};
use crate::routing::{BackendKey, ObjectKey, RouteKey, ServicePort};

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

/// What routes may lead to.
#[derive(Debug)]
pub(super) struct Targets {
    pub(super) services: Services,
    pub(super) grants: Grants,
    pub(super) names: Names,
    /// Whether routes may lead to this machine itself and to its link's own addresses.
    pub(super) local_addresses: bool,
}

impl Targets {
    /// What a backend comes to for a route: what it may not have, it does not get.
    pub(super) fn resolve_for(&self, route: &RouteKey, backend: &BackendKey) -> Resolution {
        match backend {
            BackendKey::Service { service, .. } => {
                if !self.grants.allow(route.namespace(), service) {
                    return Resolution::refused(Unresolved::not_granted(route, service));
                }
            }
            BackendKey::Address(address) => {
                let local = |address: SocketAddr| is_local(address.ip());
                if !self.local_addresses && address.parse().is_ok_and(local) {
                    return Resolution::refused(Unresolved::local(address));
                }
            }
        }
        self.resolve(backend)
    }

    /// What a backend comes to.
    pub(super) fn resolve(&self, backend: &BackendKey) -> Resolution {
        match backend {
            BackendKey::Service { service, port } => self.resolve_service(service, port),
            BackendKey::Address(address) => match address.parse() {
                Ok(Address::Socket(address)) => Resolution::found(vec![address]),
                Ok(Address::Name(name, port)) => self.resolve_name(name, port, "address"),
                // It was one when the route was read.
                Err(_) => Resolution::default(),
            },
        }
    }

    fn resolve_service(&self, service: &ObjectKey, port: &ServicePort) -> Resolution {
        let Some(ports) = self.services.ports(service) else {
            return Resolution::failed(Unresolved::no_service(service));
        };
        match ports.find(service, port) {
            Ok(Named::Port(port_name)) => {
                Resolution::found(usable_addresses(self.services.slices(service), port_name))
            }
            Ok(Named::Name(name, port)) => self.resolve_name(name.clone(), port, "service.name"),
            Err(fault) => Resolution::failed(fault),
        }
    }

    /// The addresses of a name, as far as they are known; `field` is the one that led to it.
    fn resolve_name(&self, name: DnsName, port: u16, field: &'static str) -> Resolution {
        let mut resolution = Resolution::default();
        if let Some(Answer { addresses, fault }) = self.names.answer(&name) {
            let permitted = |ip: &&IpAddr| self.local_addresses || !is_local(**ip);
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
