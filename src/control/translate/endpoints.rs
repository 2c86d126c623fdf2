//! Finds the addresses of a Service in its EndpointSlices.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ahash::AHashMap as HashMap;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::control::api::SERVICE_NAME_LABEL;
use crate::routing::{ObjectKey, OtherAddresses};

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
    /// The addresses of ready endpoints, then those of terminating endpoints that still serve, then all
    /// others.
    ips: Box<[IpAddr]>,
    /// How many of them are of ready endpoints.
    ready: usize,
    /// How many of them are of endpoints that serve.
    serving: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServingState {
    Ready,
    /// It is terminating, and still serves.
    Leaving,
    /// It is not ready.
    Idle,
}

impl Slice {
    /// Reads every address of every endpoint. Skips addresses of another family than the slice's, and slices
    /// of the type FQDN.
    pub(super) fn of(slice: &EndpointSlice) -> Self {
        let (mut ips, mut leaving, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        for endpoint in slice.endpoints.iter().flatten() {
            let addresses = endpoint.addresses.iter();
            let addresses = addresses.filter_map(|text| address(&slice.address_type, text));
            match state(endpoint) {
                ServingState::Ready => ips.extend(addresses),
                ServingState::Leaving => leaving.extend(addresses),
                ServingState::Idle => idle.extend(addresses),
            }
        }
        let ready = ips.len();
        ips.append(&mut leaving);
        let serving = ips.len();
        ips.append(&mut idle);
        Slice {
            ports: tcp_ports(slice).map(|(name, number)| (name.into(), number)).collect(),
            ips: ips.into(),
            ready,
            serving,
        }
    }

    /// The addresses of all endpoints that serve.
    pub(super) fn ips(&self) -> &[IpAddr] {
        self.ips.get(..self.serving).unwrap_or_default()
    }

    /// The addresses of the endpoints in one state.
    fn ips_in(&self, state: ServingState) -> &[IpAddr] {
        let range = match state {
            ServingState::Ready => 0..self.ready,
            ServingState::Leaving => self.ready..self.serving,
            ServingState::Idle => self.serving..self.ips.len(),
        };
        self.ips.get(range).unwrap_or_default()
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
    /// How many addresses the slices have in all, in any state.
    listed: usize,
    /// Sorted and without duplicates. At most the port's share of the Service's limit.
    pub(super) addresses: Vec<SocketAddr>,
    /// Whether addresses were left out.
    pub(super) cut: bool,
    /// The addresses that the slices have besides.
    pub(super) others: OtherAddresses,
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
                usable.listed += slice.ips.len();
            }
        }
    }
    let share = share(&found);
    let lists_others = has_few_others(&found);
    let has_addresses = slices.clone().any(|slice| !slice.ips.is_empty());
    for slice in slices {
        for (name, port) in &slice.ports {
            if let Some(usable) = found.get_mut(&**name) {
                let ips = slice.ips_in(usable.state()).iter();
                let room = share.saturating_sub(usable.addresses.len());
                usable.addresses.extend(ips.take(room).map(|ip| SocketAddr::new(*ip, *port)));
                if let OtherAddresses::Known(others) = &mut usable.others
                    && lists_others
                {
                    let used =
                        if usable.ready > 0 { ServingState::Ready } else { ServingState::Leaving };
                    let states = [ServingState::Ready, ServingState::Leaving, ServingState::Idle];
                    let unused = states.into_iter().filter(|state| *state != used);
                    let unused = unused.flat_map(|state| slice.ips_in(state));
                    others.extend(unused.map(|ip| SocketAddr::new(*ip, *port)));
                }
            }
        }
    }
    for usable in found.values_mut() {
        usable.cut = usable.count() > share;
        usable.addresses.sort_unstable();
        usable.addresses.dedup();
        match &mut usable.others {
            // Where slices have addresses at other ports only, the port has just got another name.
            OtherAddresses::Known(_) if usable.listed == 0 && has_addresses => {
                usable.others = OtherAddresses::Unknown;
            }
            OtherAddresses::Known(others) if lists_others && !usable.cut => {
                others.retain(|address| usable.addresses.binary_search(address).is_err());
                others.sort_unstable();
                others.dedup();
            }
            others => *others = OtherAddresses::Unknown,
        }
    }
    found
}

/// Whether the ports together have so few other addresses that they are listed.
fn has_few_others(found: &HashMap<&str, PortEndpoints>) -> bool {
    let total = |total: usize, usable: &PortEndpoints| {
        let others = usable.listed.saturating_sub(usable.count());
        total.saturating_add(others.saturating_mul(usable.asked))
    };
    found.values().fold(0, total) <= ADDRESSES_OF_A_SERVICE
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
fn state(endpoint: &Endpoint) -> ServingState {
    let Some(conditions) = &endpoint.conditions else { return ServingState::Ready };
    match (conditions.ready.unwrap_or(true), conditions.serving, conditions.terminating) {
        (true, ..) => ServingState::Ready,
        (false, Some(true), Some(true)) => ServingState::Leaving,
        (false, ..) => ServingState::Idle,
    }
}

fn address(family: &str, text: &str) -> Option<IpAddr> {
    match family {
        "IPv4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "IPv6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    }
}
