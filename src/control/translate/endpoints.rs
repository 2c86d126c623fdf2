//! From a Service's slices to the addresses behind it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ahash::AHashMap as HashMap;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::control::api::SERVICE_NAME_LABEL;
use crate::routing::ObjectKey;

/// How many addresses a Service may bring, those at all ports that routes name taken together. A
/// slice of 1.4 MB may have 100,000 addresses at each of 20,000 ports.
pub(super) const ADDRESSES_OF_A_SERVICE: usize = 100_000;

/// The Service of a slice, which is in the same namespace.
pub(super) fn service_of(slice: &EndpointSlice, key: &ObjectKey) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some(ObjectKey::new(key.namespace(), name))
}

/// What an EndpointSlice says that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// Its TCP ports by name, "" for one without.
    ports: Box<[(Box<str>, u16)]>,
    /// Those of ready endpoints, then those of endpoints that terminate and serve until they are
    /// done.
    ips: Box<[IpAddr]>,
    /// How many are of ready endpoints.
    ready: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServingState {
    Ready,
    /// It terminates, and serves until it is done.
    Leaving,
}

impl Slice {
    /// Every address of every endpoint that serves. Addresses that are not of the slice's family
    /// are passed over, and so are slices of names (FQDN).
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

    /// The addresses of endpoints in one state.
    fn ips_in(&self, state: ServingState) -> &[IpAddr] {
        let (ready, leaving) = self.ips.split_at_checked(self.ready).unwrap_or_default();
        match state {
            ServingState::Ready => ready,
            ServingState::Leaving => leaving,
        }
    }
}

/// The TCP ports of a slice by name, "" for one without.
pub(super) fn tcp_ports(slice: &EndpointSlice) -> impl Iterator<Item = (&str, u16)> {
    let ports = slice.ports.iter().flatten();
    let ports = ports.filter(|port| matches!(port.protocol.as_deref(), None | Some("TCP")));
    ports.filter_map(|port| {
        let number = u16::try_from(port.port?).ok().filter(|&number| number > 0)?;
        Some((port.name.as_deref().unwrap_or_default(), number))
    })
}

/// Every address of a slice, whether its endpoint serves or not.
pub(super) fn all_addresses(slice: &EndpointSlice) -> impl Iterator<Item = IpAddr> {
    let texts = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
    texts.filter_map(|text| address(&slice.address_type, text))
}

/// The endpoints at one port of a Service.
#[derive(Debug, Default)]
pub(super) struct PortEndpoints {
    /// How often the port is asked for.
    asked: usize,
    ready: usize,
    leaving: usize,
    /// Sorted, each once. At most the port's share of what the Service may bring.
    pub(super) addresses: Vec<SocketAddr>,
    /// Whether there are more.
    pub(super) cut: bool,
}

impl PortEndpoints {
    /// How many addresses there are: of the ready endpoints; if there are none in any slice, of
    /// those that still serve while they terminate.
    pub(super) fn count(&self) -> usize {
        if self.ready > 0 { self.ready } else { self.leaving }
    }

    fn state(&self) -> ServingState {
        if self.ready > 0 { ServingState::Ready } else { ServingState::Leaving }
    }
}

/// The endpoints at the ports that slices know by these names, for each as often as it is named.
/// Each slice is looked through twice, however many ports are asked for.
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

/// How many addresses each port may have: all, if they are not too many, or else the same number.
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

/// A condition that is not there means ready.
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
