//! From a Service's port to the addresses behind it.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::names::{ADDRESSES_OF_A_NAME, NAMES_OF_A_NAMESPACE, NameFault};
use crate::control::api::{DnsName, SERVICE_NAME_LABEL, dns_name};
use crate::reach::Refusal;
use crate::routing::{ObjectKey, RouteKey, ServicePort};

/// What a Service says about its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServicePorts {
    /// For a Service of type ExternalName: what it says, and the name that this is, if it is one.
    external_name: Option<(Box<str>, Option<DnsName>)>,
    ports: Vec<Port>,
}

/// What a port of a Service stands for.
#[derive(Debug)]
pub(super) enum Named<'s> {
    /// Endpoints of slices, which know the port by this name; "" if it has none.
    Port(&'s str),
    /// A DNS name and the port there.
    Name(&'s DnsName, u16),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Port {
    name: Option<Box<str>>,
    number: i32,
    /// `None` for TCP.
    protocol: Option<Box<str>>,
}

/// Why a reference leads nowhere.
#[derive(Debug)]
pub(super) struct Unresolved {
    /// One CamelCase word.
    pub(super) reason: &'static str,
    /// The field of the backend that is at fault.
    pub(super) field: &'static str,
    /// For people.
    pub(super) message: String,
}

impl Unresolved {
    pub(super) fn no_service(key: &ObjectKey) -> Self {
        Unresolved {
            reason: "BackendNotFound",
            field: "service.name",
            message: format!("there is no Service {key}"),
        }
    }

    pub(super) fn not_granted(route: &RouteKey, service: &ObjectKey) -> Self {
        Unresolved {
            reason: "RefNotPermitted",
            field: "service.namespace",
            message: format!(
                "no ReferenceGrant in namespace {} lets the SniRoutes of {} refer to Service {}",
                service.namespace(),
                route.namespace(),
                service.name()
            ),
        }
    }

    /// Nothing may connect to an endpoint; `field` is the one that led there. `left` tells whether
    /// there are others.
    pub(super) fn not_permitted(
        endpoint: SocketAddr,
        why: Refusal,
        left: bool,
        field: &'static str,
    ) -> Self {
        let ip = endpoint.ip();
        match (why.is_own(), left) {
            (true, false) => Unresolved::leads_to_itself_by(format!("{endpoint} {why}"), field),
            (true, true) => Unresolved {
                reason: "LeadsToItself",
                field,
                message: format!("{endpoint} {why}, and gets no connection"),
            },
            (false, _) => Unresolved {
                reason: "AddressNotPermitted",
                field,
                message: match left {
                    true => format!("{ip} {why}, and gets no connection"),
                    false => format!("{ip} {why}; write an address of the network"),
                },
            },
        }
    }

    /// The installation is itself what a backend names.
    pub(super) fn leads_to_itself(what: impl Display, field: &'static str) -> Self {
        Unresolved::leads_to_itself_by(format!("{what} leads to sluice itself"), field)
    }

    fn leads_to_itself_by(said: String, field: &'static str) -> Self {
        Unresolved {
            reason: "LeadsToItself",
            field,
            message: format!("{said}; name what is behind sluice"),
        }
    }

    /// `held` tells whether there are addresses of an earlier answer.
    pub(super) fn no_answer(
        name: &str,
        fault: &NameFault,
        held: bool,
        field: &'static str,
    ) -> Self {
        match fault {
            NameFault::NotResolved(why) => {
                let meanwhile = if held { "; its last known addresses are still used" } else { "" };
                Unresolved {
                    reason: "NameNotResolved",
                    field,
                    message: format!("{name} cannot be resolved: {why}{meanwhile}"),
                }
            }
            NameFault::TooManyNames => Unresolved {
                reason: "TooManyNames",
                field,
                message: format!(
                    "{name} is not looked up: the routes of this namespace lead to more than \
                     {NAMES_OF_A_NAMESPACE} DNS names, of which those of the oldest routes are"
                ),
            },
            NameFault::TooManyAddresses => Unresolved {
                reason: "TooManyAddresses",
                field,
                message: format!(
                    "{name} has more than {ADDRESSES_OF_A_NAME} addresses, of which the first are \
                     used"
                ),
            },
        }
    }
}

impl ServicePorts {
    pub(super) fn of(service: &Service) -> Self {
        let spec = service.spec.as_ref();
        let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        ServicePorts {
            external_name: spec
                .filter(|spec| spec.type_.as_deref() == Some("ExternalName"))
                .map(|spec| spec.external_name.as_deref().unwrap_or_default())
                .map(|name| (name.into(), dns_name(name))),
            ports: ports
                .iter()
                .map(|port| Port {
                    name: port.name.as_deref().map(Into::into),
                    number: port.port,
                    protocol: port.protocol.as_deref().filter(|p| *p != "TCP").map(Into::into),
                })
                .collect(),
        }
    }

    /// Whether it stands for a DNS name.
    pub(super) fn has_name(&self) -> bool {
        self.external_name.is_some()
    }

    /// What the port that a route means stands for.
    pub(super) fn find(
        &self,
        key: &ObjectKey,
        wanted: &ServicePort,
    ) -> Result<Named<'_>, Unresolved> {
        let missing = |why| Unresolved {
            reason: "PortNotFound",
            field: "service.port",
            message: format!("Service {key} {why}"),
        };
        match &self.external_name {
            None => {
                let port = self.find_port(wanted).map_err(missing)?;
                Ok(Named::Port(port.name.as_deref().unwrap_or_default()))
            }
            Some((_, Some(name))) => Ok(Named::Name(name, self.outside(wanted).map_err(missing)?)),
            Some((text, None)) => Err(Unresolved {
                reason: "UnsupportedService",
                field: "service.name",
                message: format!(
                    "Service {key} has the externalName {text:?}, which is no DNS name"
                ),
            }),
        }
    }

    /// The port of an external name. Such a Service need not list its ports.
    fn outside(&self, wanted: &ServicePort) -> Result<u16, String> {
        match wanted {
            ServicePort::Number(number) if self.ports.is_empty() => Ok(*number),
            _ => u16::try_from(self.find_port(wanted)?.number)
                .map_err(|_| format!("has a port {wanted} that is no port")),
        }
    }

    fn find_port(&self, wanted: &ServicePort) -> Result<&Port, String> {
        let meant = |port: &&Port| match wanted {
            ServicePort::Number(number) => port.number == i32::from(*number),
            ServicePort::Name(name) => port.name.as_deref() == Some(&**name),
        };
        let mut tcp = self.ports.iter().filter(|port| port.protocol.is_none());
        if let Some(port) = tcp.find(meant) {
            return Ok(port);
        }
        Err(match self.ports.iter().find(meant) {
            Some(port) => {
                let protocol = port.protocol.as_deref().unwrap_or_default();
                format!("has port {wanted} for {protocol} only; sluice routes TCP")
            }
            None => format!("has no port {wanted}{}", offered(&self.ports)),
        })
    }
}

fn offered(ports: &[Port]) -> String {
    let shown: Vec<String> = ports
        .iter()
        .map(|port| match &port.name {
            Some(name) => format!("{} ({name})", port.number),
            None => port.number.to_string(),
        })
        .collect();
    if shown.is_empty() { String::new() } else { format!("; it has {}", shown.join(", ")) }
}

/// The Service of a slice, which is in the same namespace.
pub(super) fn service_of(slice: &EndpointSlice, key: &ObjectKey) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some(ObjectKey::new(key.namespace(), name))
}

/// What an EndpointSlice says that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// Its TCP ports by name, "" for one without.
    ports: Vec<(Box<str>, u16)>,
    addresses: Vec<(IpAddr, State)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// It terminates, and serves until it is done.
    Leaving,
}

impl Slice {
    /// The addresses of all endpoints that serve.
    pub(super) fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(|(ip, _)| *ip)
    }

    /// The numbers of all ports.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.iter().map(|(_, number)| *number)
    }

    /// Every address of every endpoint that serves. Addresses that are not of the slice's family
    /// are passed over, and so are slices of names (FQDN).
    pub(super) fn of(slice: &EndpointSlice) -> Self {
        let ports = slice.ports.iter().flatten();
        let endpoints = slice.endpoints.iter().flatten();
        Slice {
            ports: ports
                .filter(|port| matches!(port.protocol.as_deref(), None | Some("TCP")))
                .filter_map(|port| {
                    let number = u16::try_from(port.port?).ok().filter(|&number| number > 0)?;
                    Some((port.name.as_deref().unwrap_or_default().into(), number))
                })
                .collect(),
            addresses: endpoints
                .filter_map(|endpoint| Some((endpoint, state(endpoint)?)))
                .flat_map(|(endpoint, state)| endpoint.addresses.iter().map(move |a| (a, state)))
                .filter_map(|(text, state)| Some((address(&slice.address_type, text)?, state)))
                .collect(),
        }
    }
}

/// The ready endpoints; if there are none in any slice, those that still serve while they
/// terminate.
pub(super) fn usable_addresses<'s>(
    slices: impl Iterator<Item = &'s Slice> + Clone,
    port_name: &str,
) -> Vec<SocketAddr> {
    let addresses_in = |wanted: State| {
        let mut addresses = Vec::new();
        for slice in slices.clone() {
            let ports = slice.ports.iter().filter(|(name, _)| **name == *port_name);
            for (_, port) in ports {
                let fit = slice.addresses.iter().filter(|(_, state)| *state == wanted);
                addresses.extend(fit.map(|(ip, _)| SocketAddr::new(*ip, *port)));
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    };
    let ready = addresses_in(State::Ready);
    if ready.is_empty() { addresses_in(State::Leaving) } else { ready }
}

/// A condition that is not there means ready.
fn state(endpoint: &Endpoint) -> Option<State> {
    let conditions = endpoint.conditions.as_ref();
    if conditions.and_then(|conditions| conditions.ready).unwrap_or(true) {
        return Some(State::Ready);
    }
    let conditions = conditions?;
    let leaving = conditions.serving == Some(true) && conditions.terminating == Some(true);
    leaving.then_some(State::Leaving)
}

fn address(family: &str, text: &str) -> Option<IpAddr> {
    match family {
        "IPv4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "IPv6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    }
}
