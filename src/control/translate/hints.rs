//! The hints of EndpointSlices: which endpoints are meant for the clients of which nodes and zones.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::Endpoint;

use crate::routing::{EndpointPlace, Ring};

/// Where this process runs, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnPlace {
    /// The name of its node.
    pub node: Option<String>,
    /// The name of its zone.
    pub zone: Option<String>,
}

/// What the hints of one kind, for nodes or for zones, say about an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Hint {
    Absent,
    /// It is meant for the node or zone of this process.
    Here,
    Elsewhere,
}

/// Where an endpoint is, and for whom it is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct HintedPlace {
    node: Option<Arc<str>>,
    zone: Option<Arc<str>>,
    for_node: Hint,
    for_zone: Hint,
}

/// Whether every endpoint of a port has hints. Like kube-proxy, sluice ignores those for nodes if an endpoint
/// has none for nodes, and the same for zones: the EndpointSlice controller leaves hints out when it cannot
/// distribute the load, and while it changes them, some endpoints have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HintsInUse {
    nodes: bool,
    zones: bool,
}

impl HintedPlace {
    pub(super) fn of(endpoint: &Endpoint, own: &OwnPlace) -> Self {
        let hints = endpoint.hints.as_ref();
        let nodes = hints.and_then(|hints| hints.for_nodes.as_deref()).unwrap_or_default();
        let zones = hints.and_then(|hints| hints.for_zones.as_deref()).unwrap_or_default();
        HintedPlace {
            node: endpoint.node_name.as_deref().map(Into::into),
            zone: endpoint.zone.as_deref().map(Into::into),
            for_node: hint(nodes.iter().map(|node| &*node.name), own.node.as_deref()),
            for_zone: hint(zones.iter().map(|zone| &*zone.name), own.zone.as_deref()),
        }
    }

    /// The place, with its ring if these hints are in use.
    pub(super) fn place(&self, hints: HintsInUse) -> EndpointPlace {
        let ring = match (self.for_node, self.for_zone) {
            (Hint::Here, _) if hints.nodes => Ring::Node,
            (_, Hint::Here) if hints.zones => Ring::Zone,
            _ => Ring::Any,
        };
        EndpointPlace { node: self.node.clone(), zone: self.zone.clone(), ring }
    }
}

/// All: each of no endpoints has them.
impl Default for HintsInUse {
    fn default() -> Self {
        HintsInUse { nodes: true, zones: true }
    }
}

impl HintsInUse {
    /// For endpoints that only serve because no other is left.
    pub(super) const NONE: HintsInUse = HintsInUse { nodes: false, zones: false };

    /// Those that an endpoint in this place has.
    pub(super) fn of(place: &HintedPlace) -> Self {
        HintsInUse { nodes: place.for_node != Hint::Absent, zones: place.for_zone != Hint::Absent }
    }

    /// Those that are in both.
    pub(super) fn and(self, other: HintsInUse) -> Self {
        HintsInUse { nodes: self.nodes && other.nodes, zones: self.zones && other.zones }
    }
}

fn hint<'h>(mut names: impl Iterator<Item = &'h str>, own: Option<&str>) -> Hint {
    let Some(first) = names.next() else { return Hint::Absent };
    let is_here = |name: &str| own == Some(name);
    match is_here(first) || names.any(is_here) {
        true => Hint::Here,
        false => Hint::Elsewhere,
    }
}
