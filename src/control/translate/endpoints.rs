//! Finds the addresses of a Service in its EndpointSlices.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use ahash::AHashMap as HashMap;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::hints::{HintedPlace, HintsInUse, OwnPlace};
use crate::control::api::SERVICE_NAME_LABEL;
use crate::routing::{EndpointPlace, ObjectKey, OtherAddresses};

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
    /// The place of each address, as an index of `places`.
    at: Box<[u32]>,
    /// The different places of its endpoints.
    places: Box<[HintedPlace]>,
    /// The hints that every ready endpoint has.
    hints: HintsInUse,
    /// How many of the addresses are of ready endpoints.
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
    pub(super) fn of(slice: &EndpointSlice, own: &OwnPlace) -> Self {
        let (mut all, mut leaving, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        let (mut places, mut hints) = (SlicePlaces::default(), HintsInUse::default());
        for endpoint in slice.endpoints.iter().flatten() {
            let (place, state) = (HintedPlace::of(endpoint, own), state(endpoint));
            if state == ServingState::Ready {
                hints = hints.and(HintsInUse::of(&place));
            }
            let place = places.index_of(place);
            let addresses = endpoint.addresses.iter();
            let addresses = addresses.filter_map(|text| address(&slice.address_type, text));
            let addresses = addresses.map(|ip| (ip, place));
            match state {
                ServingState::Ready => all.extend(addresses),
                ServingState::Leaving => leaving.extend(addresses),
                ServingState::Idle => idle.extend(addresses),
            }
        }
        let ready = all.len();
        all.append(&mut leaving);
        let serving = all.len();
        all.append(&mut idle);
        let (ips, at): (Vec<IpAddr>, Vec<u32>) = all.into_iter().unzip();
        Slice {
            ports: tcp_ports(slice).map(|(name, number)| (name.into(), number)).collect(),
            ips: ips.into(),
            at: at.into(),
            places: places.all.into(),
            hints,
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
        self.ips.get(self.range(state)).unwrap_or_default()
    }

    fn range(&self, state: ServingState) -> Range<usize> {
        match state {
            ServingState::Ready => 0..self.ready,
            ServingState::Leaving => self.ready..self.serving,
            ServingState::Idle => self.serving..self.ips.len(),
        }
    }

    /// The endpoints in one state at a port, with their places if these hints are in use. The cost depends on how
    /// many of them are taken.
    fn placed(
        &self,
        state: ServingState,
        port: u16,
        hints: HintsInUse,
    ) -> impl Iterator<Item = (SocketAddr, Arc<EndpointPlace>)> {
        // Endpoints of one place share it.
        let mut places: HashMap<u32, Arc<EndpointPlace>> = HashMap::new();
        let at = self.at.get(self.range(state)).unwrap_or_default();
        self.ips_in(state).iter().zip(at).map(move |(ip, index)| {
            let place = places.entry(*index).or_insert_with(|| {
                let place = self.places.get(*index as usize);
                Arc::new(place.map(|place| place.place(hints)).unwrap_or_default())
            });
            (SocketAddr::new(*ip, port), Arc::clone(place))
        })
    }
}

/// The different places of a slice's endpoints.
#[derive(Default)]
struct SlicePlaces {
    all: Vec<HintedPlace>,
    known: HashMap<HintedPlace, u32>,
}

impl SlicePlaces {
    fn index_of(&mut self, place: HintedPlace) -> u32 {
        if let Some(index) = self.known.get(&place) {
            return *index;
        }
        // The slice has fewer endpoints than that.
        let index = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        self.all.push(place.clone());
        self.known.insert(place, index);
        index
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
    /// The hints that every ready endpoint has.
    hints: HintsInUse,
    /// Sorted and without duplicates. At most the port's share of the Service's limit.
    pub(super) addresses: Vec<SocketAddr>,
    /// Their places, in the same order.
    pub(super) places: Vec<Arc<EndpointPlace>>,
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

    /// The hints that are in use.
    fn hints(&self) -> HintsInUse {
        if self.ready > 0 { self.hints } else { HintsInUse::NONE }
    }

    /// Counts the addresses of a slice.
    fn count_those_of(&mut self, slice: &Slice) {
        self.ready += slice.ips_in(ServingState::Ready).len();
        self.leaving += slice.ips_in(ServingState::Leaving).len();
        self.listed += slice.ips.len();
        self.hints = self.hints.and(slice.hints);
    }

    /// Sets the endpoints, in any order. Of one in several places, the nearest counts.
    fn set(&mut self, mut placed: Vec<(SocketAddr, Arc<EndpointPlace>)>) {
        placed.sort_unstable();
        placed.dedup_by(|(a, _), (b, _)| a == b);
        (self.addresses, self.places) = placed.into_iter().unzip();
    }

    /// Adds the addresses of a slice that get no connections.
    fn add_others_of(&mut self, slice: &Slice, port: u16) {
        let used = self.state();
        if let OtherAddresses::Known(others) = &mut self.others {
            let states = [ServingState::Ready, ServingState::Leaving, ServingState::Idle];
            let unused = states.into_iter().filter(|state| *state != used);
            let unused = unused.flat_map(|state| slice.ips_in(state));
            others.extend(unused.map(|ip| SocketAddr::new(*ip, port)));
        }
    }

    /// Sorts the other addresses, if they are known. `has_addresses` is whether any slice has an address.
    fn finish_others(&mut self, lists_others: bool, has_addresses: bool) {
        match &mut self.others {
            // Where slices have addresses at other ports only, the port has just got another name.
            OtherAddresses::Known(_) if self.listed == 0 && has_addresses => {
                self.others = OtherAddresses::Unknown;
            }
            OtherAddresses::Known(others) if lists_others && !self.cut => {
                others.retain(|address| self.addresses.binary_search(address).is_err());
                others.sort_unstable();
                others.dedup();
            }
            others => *others = OtherAddresses::Unknown,
        }
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
                usable.count_those_of(slice);
            }
        }
    }
    let (share, lists_others) = (share(&found), has_few_others(&found));
    let has_addresses = slices.clone().any(|slice| !slice.ips.is_empty());
    let mut placed: HashMap<&str, Vec<_>> = HashMap::new();
    for slice in slices {
        for (name, port) in &slice.ports {
            if let Some(usable) = found.get_mut(&**name) {
                let endpoints = placed.entry(&**name).or_default();
                let room = share.saturating_sub(endpoints.len());
                endpoints.extend(slice.placed(usable.state(), *port, usable.hints()).take(room));
                if lists_others {
                    usable.add_others_of(slice, *port);
                }
            }
        }
    }
    for (name, usable) in &mut found {
        usable.cut = usable.count() > share;
        usable.set(placed.remove(name).unwrap_or_default());
        usable.finish_others(lists_others, has_addresses);
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
