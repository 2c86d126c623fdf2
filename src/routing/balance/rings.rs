//! The choice among the rings of one backend: near endpoints first.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::search::{EndpointRank, EndpointRequest, EndpointSearch, pick};
use crate::routing::{Endpoint, EndpointSet, Ring, Route};

/// The number of endpoints of a ring that are looked at to find whether all start slowly.
const MOST_COMPARED: usize = 16;
/// The random numbers of rings differ from those of other uses.
const RING_SALT: usize = usize::MAX / 3;

/// A found endpoint.
pub(super) struct Found {
    pub(super) endpoint: Arc<Endpoint>,
    /// Its ring, if that had a part in the choice.
    pub(super) ring: Option<Ring>,
}

/// The ring of a backend that the next connection of a route goes to: the nearest one with a good
/// endpoint. `None` if there is none, or if all endpoints are equally near to the route.
pub fn ring_in_use(set: &EndpointSet, route: &Route) -> Option<Ring> {
    let request = EndpointRequest::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), &[], 0);
    let search = EndpointSearch::new(&request, route, request.allowance());
    near_rings(set, route).find(|(_, endpoints)| endpoints.iter().any(|one| search.likes(one)))?.0
}

/// The endpoints of a backend by ring, the nearest first; all at once if the route prefers none, or if none is
/// nearer than others.
pub(super) fn near_rings<'s>(
    set: &'s EndpointSet,
    route: &Route,
) -> impl Iterator<Item = (Option<Ring>, &'s [Arc<Endpoint>])> + use<'s> {
    let rings = set.rings().filter(|_| route.spec.policy.prefers_near());
    let all = rings.is_none().then_some((None, &**set));
    let by_ring = rings
        .into_iter()
        .flat_map(|rings| Ring::ALL.into_iter().map(move |ring| (Some(ring), rings.of(ring))));
    all.into_iter().chain(by_ring)
}

/// Whether the next connection may stay in this ring. A near ring whose good endpoints all start slowly takes a part
/// of the connections, as great as the greatest of their parts; the next ring gets the others.
pub(super) fn stays(
    ring: Option<Ring>,
    endpoints: &[Arc<Endpoint>],
    search: &EndpointSearch<'_>,
) -> bool {
    let near = ring.filter(|ring| *ring != Ring::Any);
    let (Some(near), Some(slow_start)) = (near, search.route.spec.policy.slow_start()) else {
        return true;
    };
    let request = search.request;
    let random = request.random(RING_SALT ^ near as usize);
    let check = search.route.check.as_ref();
    let part = |one: &Endpoint| one.part(request.now, Some(slow_start), check);
    let takes = |one: &&Arc<Endpoint>| part(one).takes(random);
    // Among many, it is rare that all start slowly.
    endpoints.len() > MOST_COMPARED || endpoints.iter().filter(takes).any(|one| search.likes(one))
}

/// What [`pick`] finds in the nearest ring with a good endpoint, or else the best of all rings. Also returns the
/// number of endpoints in the ring. What a ring refuses goes to the next one with a good endpoint.
pub(super) fn pick_near(
    set: &EndpointSet,
    search: &EndpointSearch<'_>,
    start: usize,
    share: u16,
) -> Option<(EndpointRank, Found, usize)> {
    let mut refused: Option<(EndpointRank, Found, usize)> = None;
    let mut best: Option<(EndpointRank, Found, usize)> = None;
    let end = search.left().saturating_sub(share);
    for (ring, endpoints) in near_rings(set, search.route) {
        let left = search.left().saturating_sub(end).max(1);
        // Half of the rest, so that many dead endpoints of one ring leave something for the next one.
        let share = if matches!(ring, None | Some(Ring::Any)) { left } else { left.div_ceil(2) };
        let Some((rank, endpoint)) = pick(endpoints, search, start, share) else { continue };
        let found = || (rank, Found { endpoint: Arc::clone(endpoint), ring }, endpoints.len());
        if search.is_good(rank) {
            if stays(ring, endpoints, search) {
                return Some(found());
            }
            refused.get_or_insert_with(found);
        } else if best.as_ref().is_none_or(|(least, ..)| rank < *least) {
            best = Some(found());
        }
    }
    refused.or(best)
}
