//! From what a route names to the addresses behind it.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use super::endpoints::{Named, ServicePorts, Unresolved, usable_addresses};
use super::grants::Grants;
use super::names::{Answer, Names};
use super::own::Own;
use super::services::Services;
use crate::control::api::{Address, DnsName};
use crate::reach::{Reach, Refusal};
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
    pub(super) own: Own,
    /// Where routes may lead at all.
    pub(super) reach: Reach,
    /// The addresses of the machine that sluice runs on.
    pub(super) machine: HashSet<IpAddr>,
}

impl Targets {
    /// What a backend comes to for a route: what it may not have, it does not get.
    pub(super) fn resolve_for(&self, route: &RouteKey, backend: &BackendKey) -> Resolution {
        if let BackendKey::Service { service, .. } = backend
            && !self.grants.allow(route.namespace(), service)
        {
            return Resolution::refused(Unresolved::not_granted(route, service));
        }
        self.resolve(backend)
    }

    /// What a backend comes to.
    pub(super) fn resolve(&self, backend: &BackendKey) -> Resolution {
        match backend {
            BackendKey::Service { service, .. } if self.own.has_service(service) => {
                let what = format_args!("Service {service}");
                Resolution::refused(Unresolved::leads_to_itself(what, "service.name"))
            }
            BackendKey::Service { service, port } => self.resolve_service(service, port),
            BackendKey::Address(address) => match address.parse() {
                Ok(Address::Socket(address)) => {
                    let resolution = self.permitted(vec![address], "address");
                    let refused = resolution.addresses.is_empty();
                    Resolution { refused, ..resolution }
                }
                Ok(Address::Name(name, port)) => self.resolve_name(name, port, "address"),
                // It was one when the route was read.
                Err(_) => Resolution::default(),
            },
        }
    }

    /// Whether a backend may have an endpoint of `endpoints`, whether that is permitted or not. All
    /// that have names may: there are load balancers that have a name alone.
    pub(super) fn may_meet(&self, backend: &BackendKey, endpoints: &HashSet<SocketAddr>) -> bool {
        match backend {
            BackendKey::Address(address) => match address.parse() {
                Ok(Address::Socket(address)) => endpoints.contains(&address),
                Ok(Address::Name(..)) => true,
                Err(_) => false,
            },
            BackendKey::Service { service, .. } => {
                self.services.ports(service).is_some_and(ServicePorts::has_name)
                    || self.services.slices(service).any(|slice| {
                        let ends = |port| slice.ips().map(move |ip| SocketAddr::new(ip, port));
                        slice.ports().flat_map(ends).any(|end| endpoints.contains(&end))
                    })
            }
        }
    }

    /// Whether any endpoint of a Service is one that nothing may connect to.
    pub(super) fn has_refused(&self, service: &ObjectKey) -> bool {
        let mut slices = self.services.slices(service);
        slices.any(|slice| {
            slice
                .ports()
                .any(|port| slice.ips().any(|ip| self.judge(SocketAddr::new(ip, port)).is_err()))
        })
    }

    fn judge(&self, endpoint: SocketAddr) -> Result<(), Refusal> {
        self.reach.judge(endpoint, self.own.endpoints(), |ip| self.machine.contains(&ip))
    }

    /// Those of `addresses` that may be connected to; `field` is the one that led to them.
    fn permitted(&self, mut addresses: Vec<SocketAddr>, field: &'static str) -> Resolution {
        let mut first = None;
        addresses.retain(|address| match self.judge(*address) {
            Ok(()) => true,
            Err(why) => {
                // What networks are excluded is the installation's own business, unless nothing is
                // left.
                let by_setting = matches!(why, Refusal::Denied(_) | Refusal::NotAllowed);
                if first.is_none_or(|(_, _, of_setting)| of_setting && !by_setting) {
                    first = Some((*address, why, by_setting));
                }
                // An address may move to another machine. The data plane knows.
                why == Refusal::OwnPort
            }
        });
        let left = !addresses.is_empty();
        let told = first.filter(|(.., by_setting)| !by_setting || !left);
        let fault = told.map(|(address, why, _)| {
            let only_own = left && addresses.len() == 1 && addresses.first() == Some(&address);
            Unresolved::not_permitted(address, why, left && !only_own, field)
        });
        Resolution { addresses, fault, ..Resolution::default() }
    }

    fn resolve_service(&self, service: &ObjectKey, port: &ServicePort) -> Resolution {
        let Some(ports) = self.services.ports(service) else {
            return Resolution::failed(Unresolved::no_service(service));
        };
        match ports.find(service, port) {
            Ok(Named::Port(port_name)) => {
                let addresses = usable_addresses(self.services.slices(service), port_name);
                self.permitted(addresses, "service.name")
            }
            Ok(Named::Name(name, port)) => self.resolve_name(name.clone(), port, "service.name"),
            Err(fault) => Resolution::failed(fault),
        }
    }

    /// The addresses of a name, as far as they are known; `field` is the one that led to it.
    fn resolve_name(&self, name: DnsName, port: u16, field: &'static str) -> Resolution {
        if self.own.has_name(&name, port) {
            let what = format_args!("{name}:{port}");
            return Resolution::refused(Unresolved::leads_to_itself(what, field));
        }
        let mut resolution = Resolution::default();
        if let Some(Answer { addresses, fault }) = self.names.answer(&name) {
            let mut sockets: Vec<SocketAddr> =
                addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
            sockets.sort_unstable();
            sockets.dedup();
            resolution = self.permitted(sockets, field);
            if let Some(fault) = fault {
                let found = !resolution.addresses.is_empty();
                resolution.fault = Some(Unresolved::no_answer(&name, fault, found, field));
            } else if let Some(refused) = &mut resolution.fault {
                refused.message = format!("{name} has the address {}", refused.message);
            }
        }
        resolution.name = Some(name);
        resolution
    }
}
