//! Which endpoint gets the next connection.
//!
//! Endpoints are tried in the order of their [`Standing`], and within one standing as the route's
//! policy has it. What a choice costs does not grow with the number of endpoints, but where nearly
//! all of them are of a lesser standing.

use std::cell::Cell;
use std::cmp::{Ordering, Reverse};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use crate::routing::{
    ActiveConnection, Endpoint, EndpointSet, Moment, Policy, Route, Standing, Turns, WINDOW,
    hash_ip, mix,
};

/// How many endpoints of a backend are looked at to find one of a standing. Beyond that, if nearly
/// all of so many are dead, one that is well may be missed.
const MOST_LOOKED_AT: usize = 256;
/// Of so many endpoints in all, the one with the fewest connections is found; of more, the better of
/// two that are drawn by their share, which is nearly as even (Mitzenmacher, "The Power of Two
/// Choices", 2001).
const COMPARED: usize = 16;
/// A route has at most 16 backends; any beyond these would not be chosen.
const MOST_BACKENDS: usize = u64::BITS as usize;

/// A connection that an endpoint is wanted for.
#[derive(Debug)]
pub struct Wish<'a> {
    /// The client's address.
    pub source: IpAddr,
    /// Endpoints that were tried for it already.
    pub tried: &'a [SocketAddr],
    /// A fresh random number.
    pub random: u64,
    /// The present.
    pub now: Moment,
    /// How many endpoints were looked at so far.
    pub looked_at: Cell<usize>,
}

impl<'a> Wish<'a> {
    /// A wish of this moment.
    pub fn new(source: IpAddr, tried: &'a [SocketAddr], random: u64) -> Self {
        Wish { source, tried, random, now: Moment::now(), looked_at: Cell::new(0) }
    }

    fn admits(&self, endpoint: &Endpoint, worst: Standing) -> bool {
        self.looked_at.set(self.looked_at.get() + 1);
        endpoint.standing(self.now) <= worst && !self.tried.contains(&endpoint.address)
    }

    /// A random number for the use `number`.
    fn random(&self, number: usize) -> u64 {
        mix(self.random ^ mix(number as u64))
    }
}

/// Chooses an endpoint of `route`, passing over those that were tried. Backends of weight 0, and
/// those that have none of the best standing that is left, give their share to the others.
///
/// The endpoint counts the connection from now on, so that choices made at the same time see each
/// other. Endpoints that come last are chosen all the same when there is no other.
pub fn choose(route: &Route, wish: &Wish<'_>) -> Option<ActiveConnection> {
    let first = wish.tried.is_empty();
    // A client is a trial for one endpoint that may be dead still, and not for several.
    let orders = [Standing::Well, Standing::Due, Standing::Unrouted, Standing::Resting];
    let endpoint = orders.into_iter().skip(usize::from(first)).find_map(|worst| {
        let policy = match route.spec.policy {
            // Where one has failed, the next in turn may be its neighbour on the same machine, and
            // the one with the fewest connections has so few because it takes none.
            Policy::RoundRobin | Policy::LeastConnections if !first || worst > Standing::Due => {
                Policy::Random
            }
            policy => policy,
        };
        match policy {
            Policy::RoundRobin => in_turn(route, wish, worst),
            Policy::LeastConnections => least(route, wish, worst),
            Policy::Random => at_random(route, wish, worst, 0).map(|(endpoint, _)| endpoint),
            Policy::SourceAddress => by_source(route, wish, worst),
        }
    })?;
    endpoint.begin_trial(wish.now);
    Some(endpoint.begin())
}

/// Where `route` sends the client at `source` while all endpoints are well, if that is settled by
/// its address.
pub fn endpoint_of_source(route: &Route, source: IpAddr) -> Option<SocketAddr> {
    let settled = route.spec.policy == Policy::SourceAddress;
    settled
        .then(|| choose(route, &Wish::new(source, &[], 0)))?
        .map(|active| active.endpoint().address)
}

/// The backends of a route that may have an endpoint for a wish.
struct Candidates<'a> {
    route: &'a Route,
    /// One bit for each that turned out to have none.
    spent: u64,
}

impl<'a> Candidates<'a> {
    fn of(route: &'a Route) -> Self {
        Candidates { route, spent: 0 }
    }

    /// Their places in the route, and their weights.
    fn iter(&self) -> impl Iterator<Item = (usize, u32)> + use<'a> {
        let spent = self.spent;
        let weights = self.route.backends.iter().map(|backend| backend.weight).enumerate();
        weights
            .take(MOST_BACKENDS)
            .filter(move |(index, weight)| *weight > 0 && spent & (1 << index) == 0)
    }

    /// One by weight.
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

    /// What `pick` finds in the endpoints of one backend, of which it is given the place and the
    /// weight too; `next` is the order in which the backends are searched.
    fn find<T>(
        &mut self,
        next: impl Fn(&Self) -> Option<usize>,
        pick: impl Fn(&EndpointSet, usize, u32) -> Option<T>,
    ) -> Option<T> {
        for _ in 0..self.route.backends.len() {
            let index = next(self)?;
            let backend = self.route.backends.get(index)?;
            if let Some(picked) = pick(&backend.backend.endpoints(), index, backend.weight) {
                return Some(picked);
            }
            self.spent |= 1 << index;
        }
        None
    }
}

/// An endpoint of a set: the one at `start`, if it is admitted, or else any that is, by chance. Not
/// the next one, which would get the share of all before it.
fn pick<'s>(
    set: &'s EndpointSet,
    wish: &Wish<'_>,
    worst: Standing,
    start: usize,
) -> Option<&'s Arc<Endpoint>> {
    let admitted = |endpoint: &&Arc<Endpoint>| wish.admits(endpoint, worst);
    let random = |number: usize| wish.random(number) as usize;
    let first = set.get(start.checked_rem(set.len())?).filter(admitted);
    first.or_else(|| match set.len() <= MOST_LOOKED_AT {
        true => any(set.iter().filter(admitted), random),
        false => (0..MOST_LOOKED_AT)
            .find_map(|number| set.get(random(number) % set.len()).filter(admitted)),
    })
}

/// One of `all` by chance.
fn any<T>(all: impl Iterator<Item = T>, random: impl Fn(usize) -> usize) -> Option<T> {
    all.enumerate().fold(None, |chosen, (number, one)| match random(number) % (number + 1) {
        0 => Some(one),
        _ => chosen,
    })
}

/// Any, by weight, and its load. Different `salt`s draw different ones.
fn at_random(
    route: &Route,
    wish: &Wish<'_>,
    worst: Standing,
    salt: usize,
) -> Option<(Arc<Endpoint>, Load)> {
    let (backend, endpoint) = (wish.random(salt), wish.random(!salt) as usize);
    Candidates::of(route).find(
        |left| left.draw(backend),
        |set, _, weight| {
            let endpoint = pick(set, wish, worst, endpoint)?;
            Some((Arc::clone(endpoint), Load::of(endpoint, set.len(), weight)))
        },
    )
}

/// Smooth weighted round robin, as nginx has it: each turn every candidate gains its weight, and
/// the one that has gained most is chosen and gives back what all gained. Within a backend, each
/// endpoint in turn.
fn in_turn(route: &Route, wish: &Wish<'_>, worst: Standing) -> Option<Arc<Endpoint>> {
    let several = route.backends.len() > 1;
    let mut turns = several.then(|| route.turns.lock().unwrap_or_else(PoisonError::into_inner));
    let most_gained = |turns: &Turns, left: &Candidates<'_>| {
        let gains = left.iter().map(|(index, weight)| {
            let gained = turns.gained.get(index).copied().unwrap_or_default();
            (gained.saturating_add(i64::from(weight)), Reverse(index))
        });
        gains.max().map(|(_, Reverse(index))| index)
    };
    let mut candidates = Candidates::of(route);
    let (index, endpoint) = candidates.find(
        |left| match &turns {
            Some(turns) if turns.begun => most_gained(turns, left),
            _ => left.draw(wish.random),
        },
        |set, index, _| {
            let start = route.backends.get(index)?.backend.turn.fetch_add(1, Relaxed);
            pick(set, wish, worst, start).map(|endpoint| (index, Arc::clone(endpoint)))
        },
    )?;
    if let Some(turns) = &mut turns {
        advance(turns, &candidates, index);
    }
    Some(endpoint)
}

/// The turn was that of the backend `chosen`.
fn advance(turns: &mut Turns, candidates: &Candidates<'_>, chosen: usize) {
    turns.begun = true;
    let mut total = 0i64;
    for (index, weight) in candidates.iter() {
        if let Some(gained) = turns.gained.get_mut(index) {
            *gained = gained.saturating_add(i64::from(weight));
            total = total.saturating_add(i64::from(weight));
        }
    }
    if let Some(gained) = turns.gained.get_mut(chosen) {
        *gained = gained.saturating_sub(total);
    }
}

/// The connections of an endpoint for each unit of its share, which is weight / endpoints.
#[derive(Clone, Copy)]
struct Load {
    connections: u128,
    weight: u128,
}

impl Load {
    /// That of an endpoint once it has one connection more.
    fn of(endpoint: &Endpoint, endpoints: usize, weight: u32) -> Self {
        let connections = (endpoint.active() as u128 + 1) * endpoints as u128;
        Load { connections, weight: u128::from(weight) }
    }

    fn compare(self, other: Self) -> Ordering {
        (self.connections * other.weight).cmp(&(other.connections * self.weight))
    }
}

/// The endpoint with the fewest connections for its share, or nearly the fewest.
fn least(route: &Route, wish: &Wish<'_>, worst: Standing) -> Option<Arc<Endpoint>> {
    let sizes = route.backends.iter().map(|backend| backend.backend.endpoints().len());
    if sizes.sum::<usize>() <= COMPARED {
        return least_of_all(route, wish, worst);
    }
    let (one, load) = at_random(route, wish, worst, 1)?;
    match at_random(route, wish, worst, 2) {
        Some((other, less)) if less.compare(load).is_lt() => Some(other),
        _ => Some(one),
    }
}

/// The endpoint with the fewest connections for its share; among equals one by chance.
fn least_of_all(route: &Route, wish: &Wish<'_>, worst: Standing) -> Option<Arc<Endpoint>> {
    let mut best: Option<(Arc<Endpoint>, Load)> = None;
    let mut equals = 0;
    for (index, weight) in Candidates::of(route).iter() {
        let Some(backend) = route.backends.get(index) else { continue };
        let set = backend.backend.endpoints();
        for endpoint in set.iter().filter(|endpoint| wish.admits(endpoint, worst)) {
            let load = Load::of(endpoint, set.len(), weight);
            match best.as_ref().map_or(Ordering::Less, |(_, least)| load.compare(*least)) {
                Ordering::Less => equals = 1,
                Ordering::Equal => equals += 1,
                Ordering::Greater => continue,
            }
            if wish.random(equals).is_multiple_of(equals as u64) {
                best = Some((Arc::clone(endpoint), load));
            }
        }
    }
    best.map(|(endpoint, _)| endpoint)
}

/// Rendezvous hashing: every replica sends a source to the same endpoint, and when an endpoint
/// goes only its own sources move, as nearly as [`EndpointSet::of_source`] has it.
fn by_source(route: &Route, wish: &Wish<'_>, worst: Standing) -> Option<Arc<Endpoint>> {
    let source = hash_ip(wish.source);
    let score = |index: usize, weight: u32| {
        // Uniform in (0, 1); the logarithm makes the shares follow the weights.
        let hash = mix(source ^ mix(index as u64));
        let uniform = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -f64::from(weight) / uniform.ln()
    };
    let best = |left: &Candidates<'_>| {
        let scores = left.iter().map(|(index, weight)| (index, score(index, weight)));
        scores.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| index)
    };
    let windows = MOST_LOOKED_AT / WINDOW;
    Candidates::of(route).find(best, |set, _, _| {
        set.of_source(source, windows, |endpoint| wish.admits(endpoint, worst)).cloned()
    })
}

#[cfg(test)]
mod tests;
