//! Load balancing: chooses the endpoint of a connection.
//!
//! Endpoints are tried in the order of their rank ([`search`]), and within one rank by the route's policy.
//! Of each backend, the endpoints of the nearest ring are tried first, and then those of the next one.
//! All choices for one client together look at a limited number of endpoints, so their cost does not grow
//! with the number of backends and endpoints.

mod rings;
mod search;

use std::cmp::{Ordering, Reverse};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

pub use self::rings::ring_in_use;
use self::rings::{Found, near_rings, pick_near, stays};
use self::search::{EndpointRank, EndpointSearch};
pub use self::search::{EndpointRequest, SearchState};
use super::{ActiveConnection, Endpoint, EndpointSet, Moment, RoundRobin, Route, mix};
use crate::policy::Balancing;

/// Up to this many endpoints, all are compared to find the one with the fewest connections. Of more, the
/// better of two random ones is used, which is nearly as even (Mitzenmacher, "The Power of Two Choices",
/// 2001).
const COMPARED: usize = 16;
/// A route has at most 16 backends; any beyond these would not be chosen.
const MOST_BACKENDS: usize = u64::BITS as usize;
/// How often an endpoint is searched, if the one that was found is full by the time it counts the connection.
const MOST_SEARCHES: usize = 3;

/// Chooses an endpoint of `route` that was not tried yet. Backends with weight 0, and those without an
/// endpoint of the best rank, give their share to the others. Endpoints of a low rank are chosen if there
/// is no better one.
///
/// The endpoint counts the connection from now on, so concurrent choices see each other.
///
/// # Errors
/// When no endpoint is left, or none that may have another connection.
pub fn choose(
    route: &Route,
    request: &EndpointRequest<'_>,
) -> Result<ActiveConnection, NoEndpoint> {
    let policy = &route.spec.policy;
    if route.check.is_some() {
        route.backends.iter().for_each(|share| share.backend.set_used());
    }
    // Another worker may take the last place of an endpoint between the search and the count.
    for _ in 0..MOST_SEARCHES {
        let Found { endpoint, ring } = find(route, request).ok_or(NoEndpoint::NoneLeft)?;
        let begun = endpoint.begin_below(policy.endpoint_limit(), request.now, policy.ejection());
        if let Some(active) = begun {
            return Ok(active.in_ring(ring));
        }
    }
    Err(NoEndpoint::AllFull)
}

/// Why no endpoint was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEndpoint {
    /// The route has none that was not tried.
    NoneLeft,
    /// All have as many connections as the route allows.
    AllFull,
}

fn find(route: &Route, request: &EndpointRequest<'_>) -> Option<Found> {
    let (first, policy) = (request.tried.is_empty(), &route.spec.policy);
    let allowance = request.allowance();
    // With the fewest connections, a smaller weight is a higher load.
    let slow_start =
        policy.slow_start().filter(|_| policy.balancing() != Balancing::LeastConnections);
    let limited = |most: u16| EndpointSearch::new(request, route, most).starting_slowly(slow_start);
    // Half of the allowance is left for a second search, which accepts any endpoint.
    let search = limited(allowance / 2);
    let key = policy.key(request.source, request.name);
    let found = match policy.balancing() {
        // Not for retries: the next endpoint in turn may be on the same machine as the failed one, and the
        // endpoint with the fewest connections may have so few because it accepts none.
        Balancing::RoundRobin if first => in_turn(route, &search),
        Balancing::LeastConnections if first => least(route, &search),
        _ => {
            key.and_then(|key| by_key(route, &EndpointSearch::new(request, route, allowance), key))
        }
    };
    let rest = || limited(allowance.saturating_sub(search.spent()));
    found.or_else(|| Some(at_random(route, &rest(), 0)?.1.found))
}

/// The endpoint for a client while all endpoints are well, if the route's policy depends only on the client's
/// address and the server name. `None` for an unknown address.
pub fn settled_endpoint(
    route: &Route,
    source: Option<IpAddr>,
    name: Option<&str>,
) -> Option<SocketAddr> {
    let is_known = match route.spec.policy.balancing() {
        Balancing::SourceAddress => source.is_some(),
        Balancing::ServerName => source.is_some() || name.is_some(),
        Balancing::RoundRobin | Balancing::LeastConnections | Balancing::Random => false,
    };
    let source = source.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let request = EndpointRequest { name, ..EndpointRequest::new(source, &[], 0) };
    Some(is_known.then(|| choose(route, &request).ok())??.endpoint().address)
}

/// The backends of a route that may have an endpoint for a request.
struct Candidates<'a> {
    route: &'a Route,
    /// One bit for each backend that turned out to have no endpoint.
    spent: u64,
}

impl<'a> Candidates<'a> {
    fn of(route: &'a Route) -> Self {
        Candidates { route, spent: 0 }
    }

    /// The indexes and weights of the candidates.
    fn iter(&self) -> impl Iterator<Item = (usize, u32)> + use<'a> {
        let spent = self.spent;
        let weights = self.route.backends.iter().map(|backend| backend.weight).enumerate();
        weights
            .take(MOST_BACKENDS)
            .filter(move |(index, weight)| *weight > 0 && spent & (1 << index) == 0)
    }

    /// A random candidate, by weight.
    fn draw(&self, random: u64) -> Option<usize> {
        let total: u64 = self.iter().map(|(_, weight)| u64::from(weight)).sum();
        let mut point = random.checked_rem(total)?;
        let drawn = self.iter().find(|(_, weight)| {
            let found = point < u64::from(*weight);
            point = point.saturating_sub(u64::from(*weight));
            found
        });
        drawn.map(|(index, _)| index)
    }

    /// The best endpoint that `pick` finds in one backend, or the first good one. `pick` gets the backend's
    /// index and the number of endpoints it may check. `next` returns the order of the backends.
    fn search<T>(
        &mut self,
        search: &EndpointSearch<'_>,
        next: impl Fn(&Self) -> Option<usize>,
        pick: impl Fn(&EndpointSet, usize, u16) -> Option<(EndpointRank, T)>,
    ) -> Option<(EndpointRank, T)> {
        let mut best: Option<(EndpointRank, T)> = None;
        let count = self.route.backends.len().min(MOST_BACKENDS) as u16;
        for left in (1..=count).rev() {
            let Some(index) = next(self) else { break };
            let Some(backend) = self.route.backends.get(index) else { break };
            // Checking a few endpoints of each backend finds more than checking many of one.
            let share = (search.left() / left).max(1);
            if let Some((rank, found)) = pick(&backend.backend.endpoints(), index, share) {
                if search.is_good(rank) {
                    return Some((rank, found));
                }
                if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                    best = Some((rank, found));
                }
            }
            self.spent |= 1 << index;
            if search.left() == 0 && best.is_some() {
                break;
            }
        }
        best
    }
}

/// A found endpoint, and its load.
struct LoadedEndpoint {
    found: Found,
    load: Load,
}

/// A random endpoint, by weight, and its rank. Different values of `salt` give different ones.
fn at_random(
    route: &Route,
    search: &EndpointSearch<'_>,
    salt: usize,
) -> Option<(EndpointRank, LoadedEndpoint)> {
    let backend = search.request.random(salt);
    Candidates::of(route).search(
        search,
        |left| left.draw(backend),
        |set, index, share| {
            let start = search.request.random(!(salt + MOST_BACKENDS * index)) as usize;
            let (rank, found, among) = pick_near(set, search, start, share)?;
            let weight = route.backends.get(index)?.weight;
            let load = Load::of(&found.endpoint, among, weight, route, search.request.now);
            Some((rank, LoadedEndpoint { found, load }))
        },
    )
}

/// Smooth weighted round robin, as in nginx: each turn, every candidate gains its weight; the candidate with
/// the highest sum is chosen, and loses the total of all weights. The endpoints of a backend take turns.
///
/// Only good endpoints are chosen.
fn in_turn(route: &Route, search: &EndpointSearch<'_>) -> Option<Found> {
    let several = route.backends.len() > 1;
    let mut round_robin =
        several.then(|| route.round_robin.lock().unwrap_or_else(PoisonError::into_inner));
    let most_gained = |round_robin: &RoundRobin, left: &Candidates<'_>| {
        let gains = left.iter().map(|(index, weight)| {
            let gained = round_robin.gained.get(index).copied().unwrap_or_default();
            (gained.saturating_add(i64::from(weight)), Reverse(index))
        });
        gains.max().map(|(_, Reverse(index))| index)
    };
    let mut candidates = Candidates::of(route);
    let found = candidates.search(
        search,
        |left| match &round_robin {
            Some(round_robin) if round_robin.begun => most_gained(round_robin, left),
            _ => left.draw(search.request.random),
        },
        |set, index, share| {
            let start = route.backends.get(index)?.backend.turn.fetch_add(1, Relaxed);
            let (rank, found, _) = pick_near(set, search, start, share)?;
            Some((rank, (index, found)))
        },
    );
    let (_, (index, chosen)) = found.filter(|(rank, _)| search.is_good(*rank))?;
    if let Some(round_robin) = &mut round_robin {
        advance(round_robin, &candidates, index);
    }
    Some(chosen)
}

/// Advances the round robin after the backend `chosen` had its turn.
fn advance(round_robin: &mut RoundRobin, candidates: &Candidates<'_>, chosen: usize) {
    round_robin.begun = true;
    let mut total = 0i64;
    for (index, weight) in candidates.iter() {
        if let Some(gained) = round_robin.gained.get_mut(index) {
            *gained = gained.saturating_add(i64::from(weight));
            total = total.saturating_add(i64::from(weight));
        }
    }
    if let Some(gained) = round_robin.gained.get_mut(chosen) {
        *gained = gained.saturating_sub(total);
    }
}

/// The number of connections of an endpoint, relative to its share, which is weight / endpoints of its ring.
#[derive(Clone, Copy)]
struct Load {
    connections: u128,
    weight: u128,
}

impl Load {
    /// The load of an endpoint after one more connection.
    fn of(endpoint: &Endpoint, endpoints: usize, weight: u32, route: &Route, now: Moment) -> Self {
        let connections = (endpoint.active() as u128 + 1) * endpoints as u128;
        let part = endpoint.part(now, route.spec.policy.slow_start(), route.check.as_ref());
        Load { connections, weight: u128::from(weight) * u128::from(part.factor()) }
    }

    fn compare(self, other: Self) -> Ordering {
        (self.connections * other.weight).cmp(&(other.connections * self.weight))
    }
}

/// The good endpoint with the lowest load, or nearly the lowest.
fn least(route: &Route, search: &EndpointSearch<'_>) -> Option<Found> {
    let sizes = route.backends.iter().map(|backend| backend.backend.endpoints().len());
    if sizes.sum::<usize>() <= COMPARED {
        return least_of_all(route, search);
    }
    let draw = |salt: usize| {
        let found = at_random(route, search, salt);
        found.filter(|(rank, _)| search.is_good(*rank)).map(|(_, found)| found)
    };
    let one = draw(1)?;
    match draw(2) {
        Some(other) if other.load.compare(one.load).is_lt() => Some(other.found),
        _ => Some(one.found),
    }
}

/// The endpoint with the lowest load; of several equal ones, a random one. Of each backend, the endpoints of the
/// nearest ring with a good one are compared; what that refuses goes to the next one.
fn least_of_all(route: &Route, search: &EndpointSearch<'_>) -> Option<Found> {
    let mut best: Option<LoadedEndpoint> = None;
    let mut equals = 0;
    for (index, weight) in Candidates::of(route).iter() {
        let Some(backend) = route.backends.get(index) else { continue };
        let set = backend.backend.endpoints();
        let mut rings = near_rings(&set, route).filter_map(|(ring, all)| {
            let mut good = all.iter().filter(|one| search.likes(one)).peekable();
            good.peek().is_some().then_some((ring, all, good))
        });
        let Some(nearest) = rings.next() else { continue };
        let (ring, all, good) = match stays(nearest.0, nearest.1, search) {
            true => nearest,
            false => rings.find(|(ring, all, _)| stays(*ring, all, search)).unwrap_or(nearest),
        };
        for endpoint in good {
            let load = Load::of(endpoint, all.len(), weight, route, search.request.now);
            match best.as_ref().map_or(Ordering::Less, |least| load.compare(least.load)) {
                Ordering::Less => equals = 1,
                Ordering::Equal => equals += 1,
                Ordering::Greater => continue,
            }
            if search.request.random(equals).is_multiple_of(equals as u64) {
                let found = Found { endpoint: Arc::clone(endpoint), ring };
                best = Some(LoadedEndpoint { found, load });
            }
        }
    }
    best.map(|best| best.found)
}

/// Rendezvous hashing: all replicas choose the same endpoint for a key, and the removal of an endpoint or a
/// backend moves only its own keys, with the precision of [`EndpointSet::in_order_of`].
fn by_key(route: &Route, search: &EndpointSearch<'_>, key: u64) -> Option<Found> {
    let score = |index: usize, weight: u32| {
        // Uniform in (0, 1). With the logarithm, the shares follow the weights.
        let hash = mix(key ^ route.backends.get(index).map_or(0, |backend| backend.hash));
        let uniform = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -f64::from(weight) / uniform.ln()
    };
    let best = |left: &Candidates<'_>| {
        let scores = left.iter().map(|(index, weight)| (index, score(index, weight)));
        scores.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| index)
    };
    let found = Candidates::of(route).search(search, best, |set, _, share| {
        let (rank, endpoint) = search.best_of(set.in_order_of(key), share)?;
        Some((rank, Found { endpoint: Arc::clone(endpoint), ring: None }))
    });
    found.map(|(_, found)| found)
}

#[cfg(test)]
mod tests;
