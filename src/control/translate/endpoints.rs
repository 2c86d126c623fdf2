//! Finds the addresses of a Service in its EndpointSlices.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ahash::AHashMap as HashMap;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::control::api::SERVICE_NAME_LABEL;
use crate::routing::ObjectKey;

/// The maximum number of addresses of a Service, over all ports that routes name. A slice of 1.4 MB can have
/// 100,000 addresses at each of 20,000 ports.
pub(super) const ADDRESSES_OF_A_SERVICE: usize = 100_000;

/// The Service of a slice. It is in the slice's namespace.
pub(super) fn service_of(slice: &EndpointSlice, key: &ObjectKey) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some(ObjectKey::new(key.namespace(), name))
}

/// The parts of an EndpointSlice that routing needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// The TCP ports by name; the name is empty for an unnamed port.
    ports: Box<[(Box<str>, u16)]>,
    /// The addresses of ready endpoints, then those of terminating endpoints that still serve.
    ips: Box<[IpAddr]>,
    /// How many of them are of ready endpoints.
    ready: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServingState {
    Ready,
    /// It is terminating, and still serves.
    Leaving,
}

impl Slice {
    /// Reads every address of every endpoint that serves. Skips addresses of another family than the
    /// slice's, and slices of the type FQDN.
    pub(super) fn of(slice: &EndpointSlice) -> Self {
        let (mut ips, mut leaving) = (Vec::new(), Vec::new());
        for endpoint in slice.endpoints.iter().flatten() {
            let addresses = endpoint.addresses.iter();
            let addresses = addresses.filter_map(|text| address(&slice.address_type, text));
            match state(endpoint) {
                Some(ServingState::Ready) => ips.extend(addresses),
                Some(ServingState::Leaving) => leaving.extend(addresses),
                None => {}
            }
        }
        let ready = ips.len();
        ips.append(&mut leaving);
        Slice {
            ports: tcp_ports(slice).map(|(name, number)| (name.into(), number)).collect(),
            ips: ips.into(),
            ready,
        }
    }

    /// The addresses of all endpoints that serve.
    pub(super) fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    /// The addresses of the endpoints in one state.
    fn ips_in(&self, state: ServingState) -> &[IpAddr] {
        let (ready, leaving) = self.ips.split_at_checked(self.ready).unwrap_or_default();
        match state {
            ServingState::Ready => ready,
            ServingState::Leaving => leaving,
        }
    }
}

/// The TCP ports of a slice by name; the name is empty for an unnamed port.
pub(super) fn tcp_ports(slice: &EndpointSlice) -> impl Iterator<Item = (&str, u16)> {
    let ports = slice.ports.iter().flatten();
    let ports = ports.filter(|port| matches!(port.protocol.as_deref(), None | Some("TCP")));
    ports.filter_map(|port| {
        let number = u16::try_from(port.port?).ok().filter(|&number| number > 0)?;
        Some((port.name.as_deref().unwrap_or_default(), number))
    })
}

/// Every address of a slice, including those of endpoints that do not serve.
pub(super) fn all_addresses(slice: &EndpointSlice) -> impl Iterator<Item = IpAddr> {
    let texts = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
    texts.filter_map(|text| address(&slice.address_type, text))
}

/// The endpoints at one port of a Service.
#[derive(Debug, Default)]
pub(super) struct PortEndpoints {
    /// How many of the requested ports have this name.
    asked: usize,
    ready: usize,
    leaving: usize,
    /// Sorted and without duplicates. At most the port's share of the Service's limit.
    pub(super) addresses: Vec<SocketAddr>,
    /// Whether addresses were left out.
    pub(super) cut: bool,
}

impl PortEndpoints {
    /// The number of addresses: of the ready endpoints, or, if no slice has any, of the terminating
    /// endpoints that still serve.
    pub(super) fn count(&self) -> usize {
        if self.ready > 0 { self.ready } else { self.leaving }
    }

    fn state(&self) -> ServingState {
        if self.ready > 0 { ServingState::Ready } else { ServingState::Leaving }
    }
}

/// The endpoints at the ports with these names. Scans each slice twice, independent of the number of ports.
pub(super) fn usable_endpoints<'s>(
    slices: impl Iterator<Item = &'s Slice> + Clone,
    names: impl Iterator<Item = &'s str>,
) -> HashMap<&'s str, PortEndpoints> {
    let mut found: HashMap<&str, PortEndpoints> = HashMap::new();
    for name in names {
        found.entry(name).or_default().asked += 1;
    }
    for slice in slices.clone() {
        for (name, _) in &slice.ports {
            if let Some(usable) = found.get_mut(&**name) {
                usable.ready += slice.ips_in(ServingState::Ready).len();
                usable.leaving += slice.ips_in(ServingState::Leaving).len();
            }
        }
    }
    let share = share(&found);
    for slice in slices {
        for (name, port) in &slice.ports {
            if let Some(usable) = found.get_mut(&**name) {
                let ips = slice.ips_in(usable.state()).iter();
                let room = share.saturating_sub(usable.addresses.len());
                usable.addresses.extend(ips.take(room).map(|ip| SocketAddr::new(*ip, *port)));
            }
        }
    }
    for usable in found.values_mut() {
        usable.cut = usable.count() > share;
        usable.addresses.sort_unstable();
        usable.addresses.dedup();
    }
    found
}

/// The maximum number of addresses for each port: no limit if the Service is within its limit, else an equal
/// share.
fn share(found: &HashMap<&str, PortEndpoints>) -> usize {
    let total = |total: usize, usable: &PortEndpoints| {
        total.saturating_add(usable.count().saturating_mul(usable.asked))
    };
    if found.values().fold(0, total) <= ADDRESSES_OF_A_SERVICE {
        return usize::MAX;
    }
    let asked = found.values().filter(|usable| usable.count() > 0).map(|usable| usable.asked);
    (ADDRESSES_OF_A_SERVICE / asked.sum::<usize>().max(1)).max(1)
}

/// A missing condition means ready.
fn state(endpoint: &Endpoint) -> Option<ServingState> {
    let conditions = endpoint.conditions.as_ref();
    if conditions.and_then(|conditions| conditions.ready).unwrap_or(true) {
        return Some(ServingState::Ready);
    }
    let conditions = conditions?;
    let leaving = conditions.serving == Some(true) && conditions.terminating == Some(true);
    leaving.then_some(ServingState::Leaving)
}

fn address(family: &str, text: &str) -> Option<IpAddr> {
    match family {
        "IPv4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "IPv6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    }
}
