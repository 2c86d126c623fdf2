//! From a Service's port to the addresses behind it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServicePort as PortSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::DEFAULT_NAMESPACE;
use crate::control::api::SERVICE_NAME_LABEL;
use crate::routing::ServicePort;

/// Namespace and name of a Service.
type ServiceKey<'r> = (&'r str, &'r str);

/// The Services and their endpoints, indexed.
pub(super) struct Cluster<'r> {
    services: HashMap<ServiceKey<'r>, &'r Service>,
    slices: HashMap<ServiceKey<'r>, Vec<&'r EndpointSlice>>,
}

/// Why a reference leads nowhere.
pub(super) struct Unresolved {
    /// One CamelCase word.
    pub(super) reason: &'static str,
    /// The field of the backend that is at fault.
    pub(super) field: &'static str,
    /// For people.
    pub(super) message: String,
}

impl<'r> Cluster<'r> {
    pub(super) fn new(services: &'r [Service], slices: &'r [EndpointSlice]) -> Self {
        let mut cluster = Cluster { services: HashMap::new(), slices: HashMap::new() };
        for service in services {
            if let Some(name) = service.metadata.name.as_deref() {
                let namespace = namespace(service.metadata.namespace.as_deref());
                cluster.services.entry((namespace, name)).or_insert(service);
            }
        }
        for slice in slices {
            let labels = slice.metadata.labels.as_ref();
            if let Some(name) = labels.and_then(|labels| labels.get(SERVICE_NAME_LABEL)) {
                let namespace = namespace(slice.metadata.namespace.as_deref());
                cluster.slices.entry((namespace, name)).or_default().push(slice);
            }
        }
        cluster
    }

    /// The endpoints of a Service's port, sorted, each once.
    pub(super) fn endpoints(
        &self,
        namespace: &str,
        name: &str,
        port: &ServicePort,
    ) -> Result<Vec<SocketAddr>, Unresolved> {
        let service = self.services.get(&(namespace, name)).ok_or_else(|| Unresolved {
            reason: "BackendNotFound",
            field: "service.name",
            message: format!("there is no Service {namespace}/{name}"),
        })?;
        let spec = service.spec.as_ref();
        if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
            return Err(Unresolved {
                reason: "UnsupportedService",
                field: "service.name",
                message: format!(
                    "Service {namespace}/{name} is an ExternalName; names are not resolved yet"
                ),
            });
        }
        let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        let found = find_port(ports, port).map_err(|why| Unresolved {
            reason: "PortNotFound",
            field: "service.port",
            message: format!("Service {namespace}/{name} {why}"),
        })?;
        let slices = self.slices.get(&(namespace, name)).map_or(&[][..], Vec::as_slice);
        Ok(usable_addresses(slices, found.name.as_deref().unwrap_or_default()))
    }
}

fn namespace(given: Option<&str>) -> &str {
    given.unwrap_or(DEFAULT_NAMESPACE)
}

fn find_port<'s>(ports: &'s [PortSpec], wanted: &ServicePort) -> Result<&'s PortSpec, String> {
    let meant = |port: &&PortSpec| match wanted {
        ServicePort::Number(number) => port.port == i32::from(*number),
        ServicePort::Name(name) => port.name.as_deref() == Some(&**name),
    };
    if let Some(port) = ports.iter().filter(|port| is_tcp(port.protocol.as_deref())).find(meant) {
        return Ok(port);
    }
    Err(match ports.iter().find(meant) {
        Some(port) => {
            let protocol = port.protocol.as_deref().unwrap_or_default();
            format!("has port {wanted} for {protocol} only; sluice routes TCP")
        }
        None => format!("has no port {wanted}{}", offered(ports)),
    })
}

fn offered(ports: &[PortSpec]) -> String {
    let shown: Vec<String> = ports
        .iter()
        .map(|port| match &port.name {
            Some(name) => format!("{} ({name})", port.port),
            None => port.port.to_string(),
        })
        .collect();
    if shown.is_empty() { String::new() } else { format!("; it has {}", shown.join(", ")) }
}

fn is_tcp(protocol: Option<&str>) -> bool {
    matches!(protocol, None | Some("TCP"))
}

/// The ready endpoints; if there are none, those that still serve while they terminate.
fn usable_addresses(slices: &[&EndpointSlice], port_name: &str) -> Vec<SocketAddr> {
    let addresses_of = |wanted: fn(&Endpoint) -> bool| {
        let mut addresses: Vec<SocketAddr> =
            slices.iter().flat_map(|slice| slice_addresses(slice, port_name, wanted)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    };
    let ready = addresses_of(is_ready);
    if ready.is_empty() { addresses_of(serves_while_terminating) } else { ready }
}

/// A condition that is not there means ready.
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn serves_while_terminating(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().is_some_and(|conditions| {
        conditions.serving == Some(true) && conditions.terminating == Some(true)
    })
}

/// Every address of every wanted endpoint, at every port of that name. Addresses that are not of
/// the slice's family are passed over, and so are slices of names (FQDN).
fn slice_addresses<'s>(
    slice: &'s EndpointSlice,
    port_name: &'s str,
    wanted: fn(&Endpoint) -> bool,
) -> impl Iterator<Item = SocketAddr> + use<'s> {
    let numbers: Vec<u16> = slice
        .ports
        .iter()
        .flatten()
        .filter(|port| is_tcp(port.protocol.as_deref()))
        .filter(|port| port.name.as_deref().unwrap_or_default() == port_name)
        .filter_map(|port| u16::try_from(port.port?).ok().filter(|&number| number > 0))
        .collect();
    slice
        .endpoints
        .iter()
        .flatten()
        .filter(move |endpoint| wanted(endpoint))
        .flat_map(|endpoint| &endpoint.addresses)
        .filter_map(|text| parse_address(&slice.address_type, text))
        .flat_map(move |ip| {
            numbers.iter().map(|&port| SocketAddr::new(ip, port)).collect::<Vec<_>>()
        })
}

fn parse_address(family: &str, text: &str) -> Option<IpAddr> {
    match family {
        "IPv4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "IPv6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    }
}
