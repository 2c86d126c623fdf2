//! From a Service's port to the addresses behind it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::control::api::{DnsName, SERVICE_NAME_LABEL, dns_name};
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

    pub(super) fn local(address: &str) -> Self {
        Unresolved {
            reason: "AddressNotPermitted",
            field: "address",
            message: format!(
                "{address} is local to the machine that sluice runs on; write an address of the \
                 network"
            ),
        }
    }

    pub(super) fn local_name(name: &str, field: &'static str) -> Self {
        Unresolved {
            reason: "AddressNotPermitted",
            field,
            message: format!("{name} has only addresses local to the machine that sluice runs on"),
        }
    }

    /// `held` tells whether there are addresses of an earlier answer.
    pub(super) fn no_answer(name: &str, why: &str, held: bool, field: &'static str) -> Self {
        let meanwhile = if held { "; its last known addresses are still used" } else { "" };
        Unresolved {
            reason: "NameNotResolved",
            field,
            message: format!("{name} cannot be resolved: {why}{meanwhile}"),
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

/// The metadata services that are not on the link: Amazon's by IPv6, Azure's, Alibaba's, Oracle's.
const METADATA_SERVICES: [IpAddr; 4] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// Whether an address leads to this machine itself or to what only its link knows, such as the
/// metadata service of a cloud: places that not everybody who may write a route may reach.
pub(super) fn is_local(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    if METADATA_SERVICES.contains(&ip) {
        return true;
    }
    match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
        }
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
