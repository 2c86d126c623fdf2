//! Resolves backends to addresses.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ahash::AHashMap as HashMap;

use super::endpoints::{ADDRESSES_OF_A_SERVICE, PortEndpoints, Slice, usable_endpoints};
use super::grants::Grants;
use super::names::{DnsAnswer, DnsNames};
use super::own_addresses::{OwnAddressChanges, OwnAddresses};
use super::ports::{PortMeaning, ServicePorts};
use super::services::{KnownServices, PortChange, PortUpdate};
use super::tls_objects::TlsObjects;
use super::unresolved::Unresolved;
use crate::control::api::{Address, DnsName};
use crate::reach::{EndpointRefusal, Reach};
use crate::routing::{
    BackendKey, EndpointPlace, EndpointPlaces, Kind, ObjectKey, OtherAddresses, RouteKey,
    ServicePort,
};
use crate::termination::TicketKeys;

/// The result of resolving a backend.
#[derive(Debug, PartialEq)]
pub(super) struct Resolution {
    /// Its endpoints, sorted, each once.
    pub(super) addresses: Box<[SocketAddr]>,
    /// The addresses that it has besides. They are unknown where a problem, or a name of DNS, leaves open
    /// whether an address that is missing exists.
    pub(super) others: OtherAddresses,
    /// The places of its endpoints, in their order. Empty if none is known.
    pub(super) places: EndpointPlaces,
    /// The DNS name of the backend, if it has one.
    pub(super) name: Option<DnsName>,
    /// The problem with the backend, if any.
    pub(super) fault: Option<Box<Unresolved>>,
    /// Whether the route may not use the backend at all.
    pub(super) refused: bool,
}

/// The target of a Service's port, without regard to grants.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PortTarget {
    Resolved(Arc<Resolution>),
    /// The addresses of this DNS name.
    Name(DnsName, u16),
}

/// Results that are shared by all routes of one computation.
#[derive(Debug, Default)]
pub(super) struct ResolutionCache {
    /// The results for DNS names.
    names: HashMap<(DnsName, u16, &'static str), Arc<Resolution>>,
    /// Whether the routes of a kind may refer to a Service, by their namespace.
    allowed: HashMap<(Kind, ObjectKey), HashMap<Box<str>, bool>>,
}

/// Everything that is needed to resolve backends.
#[derive(Debug)]
pub(super) struct Targets {
    pub(super) services: KnownServices,
    pub(super) grants: Grants,
    pub(super) names: DnsNames,
    pub(super) own: OwnAddresses,
    /// What routes name to serve TLS.
    pub(super) tls: TlsObjects,
    /// The keys of session tickets, if the installation serves TLS.
    pub(super) tickets: Option<TicketKeys>,
    /// The rules for endpoint addresses.
    pub(super) reach: Reach,
    /// The addresses of the machine that sluice runs on.
    pub(super) machine: HashSet<IpAddr>,
    /// How many endpoints were judged.
    #[cfg(test)]
    pub(super) judged: std::cell::Cell<usize>,
}

impl Default for Resolution {
    fn default() -> Self {
        Resolution {
            addresses: Box::default(),
            others: OtherAddresses::Unknown,
            places: EndpointPlaces::default(),
            name: None,
            fault: None,
            refused: false,
        }
    }
}

impl Resolution {
    fn failed(fault: Unresolved) -> Self {
        Resolution { fault: Some(Box::new(fault)), ..Resolution::default() }
    }

    fn refused(fault: Unresolved) -> Self {
        Resolution { refused: true, ..Resolution::failed(fault) }
    }
}

impl PortTarget {
    /// The difference to `before`, if any.
    pub(super) fn change_from(&self, before: Option<&PortTarget>) -> Option<PortChange> {
        let (PortTarget::Resolved(now), Some(PortTarget::Resolved(before))) = (self, before) else {
            return (before != Some(self)).then_some(PortChange::Whole);
        };
        if (&now.fault, &now.name, now.refused) != (&before.fault, &before.name, before.refused) {
            Some(PortChange::Whole)
        } else if now.addresses.len() != before.addresses.len() {
            Some(PortChange::Count)
        } else {
            (now != before).then_some(PortChange::Addresses)
        }
    }
}

impl Targets {
    /// Resolves a backend for a route, with regard to grants. All changed Services must have been resolved
    /// before.
    pub(super) fn resolve(
        &self,
        route: &RouteKey,
        backend: &BackendKey,
        cache: &mut ResolutionCache,
    ) -> Arc<Resolution> {
        match backend {
            BackendKey::Service { service, .. } if !self.allow(route, service, cache) => {
                Arc::new(Resolution::refused(Unresolved::not_granted(route, service)))
            }
            BackendKey::Service { service, port } => match self.services.found(service, port) {
                Some(PortTarget::Resolved(resolution)) => Arc::clone(resolution),
                Some(PortTarget::Name(name, port)) => {
                    self.resolve_name(name, *port, "service.name", cache)
                }
                None => Arc::default(),
            },
            BackendKey::Address { address, .. } => match address.parse() {
                Ok(Address::Socket(address)) => {
                    let resolution = self.permitted(vec![address], "address");
                    let refused = resolution.addresses.is_empty();
                    Arc::new(Resolution { refused, ..resolution })
                }
                Ok(Address::Name(name, port)) => self.resolve_name(&name, port, "address", cache),
                // The address was validated when the route was parsed.
                Err(_) => Arc::default(),
            },
        }
    }

    fn allow(&self, route: &RouteKey, service: &ObjectKey, cache: &mut ResolutionCache) -> bool {
        let namespace = route.namespace();
        if namespace == service.namespace() {
            return true;
        }
        let known = cache.allowed.entry((route.kind(), service.clone())).or_default();
        known.get(namespace).copied().unwrap_or_else(|| {
            let allowed = self.grants.allows(route.referrer(), Kind::Service, service);
            known.insert(namespace.into(), allowed);
            allowed
        })
    }

    /// Resolves the named ports of a Service. Returns those that have changed, and the number of steps.
    pub(super) fn settle_service(&mut self, service: &ObjectKey) -> (Vec<PortUpdate>, usize) {
        let (found, shared_out) = self.resolve_service(service);
        let addresses = found.iter().map(|(_, found)| match found {
            PortTarget::Resolved(resolution) => 1 + resolution.addresses.len() / 8,
            PortTarget::Name(..) => 1,
        });
        let steps = 1 + addresses.sum::<usize>();
        (self.services.set_found(service, found, shared_out), steps)
    }

    /// Whether a change of the installation's own addresses may concern a backend. Every backend with a DNS
    /// name may be concerned, because a load balancer may have only a name. Of a Service, the addresses are
    /// checked, not the ports.
    pub(super) fn may_meet(&self, backend: &BackendKey, own: &OwnAddressChanges) -> bool {
        match backend {
            BackendKey::Address { address, .. } => match address.parse() {
                Ok(Address::Socket(address)) => own.has(address),
                Ok(Address::Name(..)) => true,
                Err(_) => false,
            },
            BackendKey::Service { service, .. } => {
                let meets = |slice: &Slice| slice.ips().iter().any(|ip| own.has_ip(*ip));
                // Checking that many addresses takes longer than resolving the Service again.
                self.services.ports(service).is_some_and(ServicePorts::has_name)
                    || self.services.count_ips(service) > ADDRESSES_OF_A_SERVICE
                    || self.services.slices(service).any(meets)
            }
        }
    }

    fn judge(&self, endpoint: SocketAddr) -> Result<(), EndpointRefusal> {
        #[cfg(test)]
        self.judged.set(self.judged.get() + 1);
        self.reach.judge(endpoint, self.own.endpoints(), |ip| self.machine.contains(&ip))
    }

    /// The permitted ones of `addresses`; the others get no connections. `field` is the route's field that names them.
    fn permitted(&self, mut addresses: Vec<SocketAddr>, field: &'static str) -> Resolution {
        let (mut first, mut refused) = (None, Vec::new());
        addresses.retain(|address| match self.judge(*address) {
            Ok(()) => true,
            Err(why) => {
                // Addresses that a setting excludes are reported only if none is left.
                let by_setting =
                    matches!(why, EndpointRefusal::Denied(_) | EndpointRefusal::NotAllowed);
                if first.is_none_or(|(_, _, of_setting)| of_setting && !by_setting) {
                    first = Some((*address, why, by_setting));
                }
                // The address may move to another machine, so the data plane checks it again.
                let is_kept = why == EndpointRefusal::OwnPort;
                if !is_kept {
                    refused.push(*address);
                }
                is_kept
            }
        });
        let left = !addresses.is_empty();
        let told = first.filter(|(.., by_setting)| !by_setting || !left);
        let fault = told.map(|(address, why, _)| {
            let only_own = left && addresses.len() == 1 && addresses.first() == Some(&address);
            Box::new(Unresolved::not_permitted(address, why, left && !only_own, field))
        });
        let (addresses, others) = (addresses.into(), OtherAddresses::Known(refused));
        Resolution { addresses, others, fault, ..Resolution::default() }
    }

    /// The targets of the named ports of a Service, and whether the limit on its addresses was applied.
    fn resolve_service(&self, service: &ObjectKey) -> (Vec<(ServicePort, PortTarget)>, bool) {
        let named = self.services.named(service);
        let all = |resolution: Resolution| {
            let found = PortTarget::Resolved(Arc::new(resolution));
            (named.clone().map(|port| (port.clone(), found.clone())).collect(), false)
        };
        if self.own.has_service(service) {
            let what = format_args!("Service {service}");
            let fault = Unresolved::leads_to_itself(what, "service.name");
            return all(Resolution::refused(fault));
        }
        let Some(ports) = self.services.ports(service) else {
            let gone = Resolution::failed(Unresolved::no_service(service));
            return all(Resolution { others: OtherAddresses::default(), ..gone });
        };
        let index = ports.index();
        let meant: Vec<_> = named.map(|port| (port, index.find(service, port))).collect();
        let names = meant.iter().filter_map(|(_, meant)| match meant {
            Ok(PortMeaning::Endpoints(name)) => Some(*name),
            _ => None,
        });
        let usable = usable_endpoints(self.services.slices(service), names);
        let shared_out = usable.values().any(|usable| usable.cut);
        let at_ports =
            usable.into_iter().map(|(name, usable)| (name, self.at_port(service, usable)));
        let at_ports: HashMap<&str, PortTarget> = at_ports.collect();
        let found = meant.into_iter().filter_map(|(port, meant)| {
            let found = match meant {
                Ok(PortMeaning::Endpoints(name)) => at_ports.get(name)?.clone(),
                Ok(PortMeaning::Name(name, port)) => PortTarget::Name(name.clone(), port),
                Err(fault) => PortTarget::Resolved(Arc::new(Resolution::failed(fault))),
            };
            Some((port.clone(), found))
        });
        (found.collect(), shared_out)
    }

    fn at_port(&self, service: &ObjectKey, usable: PortEndpoints) -> PortTarget {
        let (cut, all, used) = (usable.cut, usable.count(), usable.addresses.len());
        let places = usable.addresses.iter().copied().zip(usable.places);
        let is_known = |place: &EndpointPlace| *place != EndpointPlace::default();
        let places: Vec<_> = places.filter(|(_, place)| is_known(place)).collect();
        let mut resolution = self.permitted(usable.addresses, "service.name");
        resolution.places = places_of(&resolution.addresses, places);
        match (&mut resolution.others, usable.others) {
            (OtherAddresses::Known(others), OtherAddresses::Known(unused)) => others.extend(unused),
            (others, unknown) => *others = unknown,
        }
        if cut {
            resolution.fault = Some(Box::new(Unresolved::too_many_addresses(service, all, used)));
        }
        PortTarget::Resolved(Arc::new(resolution))
    }

    /// The known addresses of a DNS name. `field` is the route's field that names it.
    fn resolve_name(
        &self,
        name: &DnsName,
        port: u16,
        field: &'static str,
        cache: &mut ResolutionCache,
    ) -> Arc<Resolution> {
        let known = cache.names.entry((name.clone(), port, field));
        Arc::clone(known.or_insert_with(|| Arc::new(self.look_up(name, port, field))))
    }

    fn look_up(&self, name: &DnsName, port: u16, field: &'static str) -> Resolution {
        if self.own.has_name(name, port) {
            let what = format_args!("{name}:{port}");
            return Resolution::refused(Unresolved::leads_to_itself(what, field));
        }
        let mut resolution = Resolution::default();
        if let Some(DnsAnswer { addresses, fault }) = self.names.answer(name) {
            let mut sockets: Vec<SocketAddr> =
                addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
            sockets.sort_unstable();
            sockets.dedup();
            resolution = self.permitted(sockets, field);
            if let Some(fault) = fault {
                let found = !resolution.addresses.is_empty();
                resolution.fault = Some(Box::new(Unresolved::no_answer(name, fault, found, field)));
            } else if let Some(refused) = &mut resolution.fault {
                refused.message = format!("{name} has the address {}", refused.message);
            }
        }
        resolution.name = Some(name.clone());
        // The next answer may leave out addresses that exist.
        resolution.others = OtherAddresses::Unknown;
        resolution
    }
}

/// The places of these addresses, in their order. Both are sorted by address; `placed` may have others, and lack
/// some.
fn places_of(
    addresses: &[SocketAddr],
    placed: Vec<(SocketAddr, Arc<EndpointPlace>)>,
) -> EndpointPlaces {
    if placed.is_empty() {
        return EndpointPlaces::default();
    }
    let mut placed = placed.into_iter().peekable();
    let place = |address: &SocketAddr| {
        while placed.next_if(|(other, _)| other < address).is_some() {}
        placed.next_if(|(other, _)| other == address).map(|(_, place)| place).unwrap_or_default()
    };
    addresses.iter().map(place).collect()
}
