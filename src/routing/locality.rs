//! Where endpoints are, and how near they are to this process.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How near an endpoint is, by the hints of its EndpointSlice. The nearest is the least.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub enum Ring {
    /// It is meant for the clients of this node.
    Node,
    /// It is meant for the clients of this zone.
    Zone,
    /// It is meant for others, or nobody says for whom.
    #[default]
    Any,
}

impl Ring {
    /// All of them, the nearest first.
    pub const ALL: [Ring; 3] = [Ring::Node, Ring::Zone, Ring::Any];

    /// The word in metrics and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Ring::Node => "node",
            Ring::Zone => "zone",
            Ring::Any => "any",
        }
    }
}

/// Where an endpoint is. Their order begins with the nearest.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointPlace {
    /// How near it is.
    pub ring: Ring,
    /// The name of its node.
    pub node: Option<Arc<str>>,
    /// The name of its zone.
    pub zone: Option<Arc<str>>,
}

/// The places of a backend's endpoints, in their order. Empty if none is known.
pub type EndpointPlaces = Box<[Arc<EndpointPlace>]>;

/// The endpoints of a set by ring. It exists only if some are near.
#[derive(Debug)]
pub(super) struct Rings<T> {
    /// All endpoints, the nearest first.
    endpoints: Box<[T]>,
    /// How many are in [`Ring::Node`].
    node: usize,
    /// How many are in [`Ring::Node`] or [`Ring::Zone`].
    zone: usize,
}

impl<T: Clone> Rings<T> {
    /// Sorts endpoints by their places, which are in the order of the endpoints.
    pub(super) fn new(endpoints: &[T], places: &[Arc<EndpointPlace>]) -> Option<Self> {
        let within = |most: Ring| places.iter().filter(|place| place.ring <= most).count();
        let (node, zone) = (within(Ring::Node), within(Ring::Zone));
        if zone == 0 || places.len() != endpoints.len() {
            return None;
        }
        let in_ring = |ring: Ring| {
            let pairs = endpoints.iter().zip(places);
            pairs.filter(move |(_, place)| place.ring == ring).map(|(endpoint, _)| endpoint)
        };
        let endpoints = Ring::ALL.into_iter().flat_map(in_ring).cloned().collect();
        Some(Rings { endpoints, node, zone })
    }

    /// The endpoints of a ring.
    pub(super) fn of(&self, ring: Ring) -> &[T] {
        let range: Range<usize> = match ring {
            Ring::Node => 0..self.node,
            Ring::Zone => self.node..self.zone,
            Ring::Any => self.zone..self.endpoints.len(),
        };
        self.endpoints.get(range).unwrap_or_default()
    }
}
