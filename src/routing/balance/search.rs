//! The search for one endpoint, with a limit on the number of checked endpoints.

use std::cell::{Cell, OnceCell};
use std::iter::once;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::routing::{Availability, Endpoint, Moment, Route, mix};

/// The maximum number of endpoints that are checked for one client, over all backends and choices. Each
/// choice uses at most half of the rest, and at least one. If nearly all endpoints are dead, a healthy one
/// may be missed.
pub(super) const MOST_LOOKS: usize = 512;
/// The maximum size of a set that is shuffled completely. Of larger sets, some endpoints are drawn.
const MOST_SHUFFLED: usize = 256;
/// The maximum number of endpoints that are asked whether any of a route passes its active checks.
const MOST_ASKED: usize = 256;
/// The maximum number of draws of an endpoint while others start slowly.
const MOST_DRAWS: usize = 16;

/// A connection that needs an endpoint.
#[derive(Debug)]
pub struct EndpointRequest<'a> {
    /// The client's address.
    pub source: IpAddr,
    /// The server name, if the client sent one.
    pub name: Option<&'a str>,
    /// Endpoints that were tried for it already.
    pub tried: &'a [SocketAddr],
    /// A fresh random number.
    pub random: u64,
    /// The current time.
    pub now: Moment,
    /// The state of the search, if endpoints were tried for it already.
    pub search: SearchState,
}

/// The state of the search for one client, over several choices.
#[derive(Clone, Debug)]
pub struct SearchState {
    /// How many endpoints may still be checked.
    looks: Cell<u16>,
    /// Whether the kernel had no route to an IPv4 address, or an IPv6 address.
    unrouted: [bool; 2],
    /// Whether an endpoint of the route passes its active checks, once that has mattered.
    any_passes: OnceCell<bool>,
}

impl Default for SearchState {
    fn default() -> Self {
        SearchState {
            looks: Cell::new(MOST_LOOKS as u16),
            unrouted: [false; 2],
            any_passes: OnceCell::new(),
        }
    }
}

impl SearchState {
    /// Records that the kernel has no route to this address, and so perhaps none to others of its family.
    pub fn unrouted(&mut self, address: SocketAddr) {
        let [ipv4, ipv6] = &mut self.unrouted;
        *(if is_ipv4(address) { ipv4 } else { ipv6 }) = true;
    }

    fn avoids(&self, address: SocketAddr) -> bool {
        let [ipv4, ipv6] = self.unrouted;
        if is_ipv4(address) { ipv4 } else { ipv6 }
    }
}

fn is_ipv4(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_ipv4()
}

/// The rank of an endpoint for one client; the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EndpointRank {
    /// It may have another connection.
    Free {
        /// Whether the active checks of the route have failed, while other endpoints pass them.
        fails_checks: bool,
        prospect: Prospect,
    },
    /// It has as many connections as the route allows.
    Full,
}

/// What is known of earlier attempts to connect to an endpoint; the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Prospect {
    /// Healthy, as far as is known.
    Well,
    /// It has failed, and its pause is over: the next attempt is a trial.
    Due,
    /// The kernel had no route to another address of its family, for this client.
    Doubtful,
    /// The kernel recently had no route to an address of its family, in its backend.
    Unrouted,
    /// An attempt has failed recently, or a trial is running.
    Resting,
    /// The route has ejected it.
    Ejected,
}

fn is_full(endpoint: &Endpoint, route: &Route) -> bool {
    route.spec.policy.endpoint_limit().is_some_and(|most| endpoint.active() >= most)
}

impl<'a> EndpointRequest<'a> {
    /// The request of a client without a server name and earlier attempts.
    pub fn new(source: IpAddr, tried: &'a [SocketAddr], random: u64) -> Self {
        EndpointRequest {
            source,
            name: None,
            tried,
            random,
            now: Moment::now(),
            search: SearchState::default(),
        }
    }

    fn rank(&self, endpoint: &Endpoint, route: &Route) -> EndpointRank {
        if is_full(endpoint, route) {
            return EndpointRank::Full;
        }
        let fails_checks = route.health_rule().fails_checks(endpoint) && self.any_passes(route);
        EndpointRank::Free { fails_checks, prospect: self.prospect(endpoint, route) }
    }

    fn prospect(&self, endpoint: &Endpoint, route: &Route) -> Prospect {
        match endpoint.availability(self.now, route.health_rule().ejection) {
            Availability::Well | Availability::Due if self.search.avoids(endpoint.address) => {
                Prospect::Doubtful
            }
            Availability::Well => Prospect::Well,
            Availability::Due => Prospect::Due,
            Availability::Unrouted => Prospect::Unrouted,
            Availability::Resting => Prospect::Resting,
            Availability::Ejected | Availability::Unhealthy => Prospect::Ejected,
        }
    }

    /// Whether an endpoint that may have the connection passes the active checks. If none does, the check is
    /// more likely wrong than all endpoints, and its verdicts distinguish nothing. Of very many endpoints, some are
    /// asked.
    fn any_passes(&self, route: &Route) -> bool {
        let rule = route.health_rule();
        let passes = |one: &Arc<Endpoint>| !is_full(one, route) && !rule.fails_checks(one);
        let ask = || {
            let mut left = MOST_ASKED;
            let mut backends = route.backends.iter().filter(|backend| backend.weight > 0).count();
            let mut used = route.backends.iter().filter(|backend| backend.weight > 0);
            used.any(|backend| {
                let set = backend.backend.endpoints();
                let share = left.checked_div(backends).unwrap_or_default().max(1).min(set.len());
                (left, backends) = (left.saturating_sub(share), backends.saturating_sub(1));
                let mut asked = shuffled(set.len(), self.random).take(share);
                asked.any(|index| set.get(index).is_some_and(passes))
            })
        };
        *self.search.any_passes.get_or_init(ask)
    }

    /// How many endpoints this choice may check.
    pub(super) fn allowance(&self) -> u16 {
        (self.search.looks.get() / 2).max(1)
    }

    /// A random number for the use `number`.
    pub(super) fn random(&self, number: usize) -> u64 {
        mix(self.random ^ mix(number as u64))
    }
}

/// A search for one endpoint, with a limit on the endpoints it looks at.
pub(super) struct EndpointSearch<'w> {
    pub(super) request: &'w EndpointRequest<'w>,
    pub(super) route: &'w Route,
    most: u16,
    left: Cell<u16>,
    /// Over which time the weight of an endpoint that comes back grows.
    slow_start: Option<Duration>,
}

impl<'w> EndpointSearch<'w> {
    pub(super) fn new(request: &'w EndpointRequest<'w>, route: &'w Route, most: u16) -> Self {
        EndpointSearch { request, route, most, left: Cell::new(most), slow_start: None }
    }

    /// Lets the weight of an endpoint that comes back grow over this time.
    pub(super) fn starting_slowly(self, slow_start: Option<Duration>) -> Self {
        EndpointSearch { slow_start, ..self }
    }

    /// The index of an endpoint, in place of `start`, after those that start slowly have refused what exceeds
    /// their weights. What one refuses goes to any by chance, so that all have their shares in the end.
    fn after_slow_starts(&self, set: &[Arc<Endpoint>], start: usize) -> usize {
        if self.slow_start.is_none() {
            return start;
        }
        let (mut index, mut random) = (start, self.request.random(!start));
        for _ in 0..MOST_DRAWS {
            let check = self.route.check.as_ref();
            let part = set.get(index).map(|one| one.part(self.request.now, self.slow_start, check));
            if part.is_none_or(|part| part.takes(random)) {
                return index;
            }
            let drawn = mix(random);
            index = (drawn as usize).checked_rem(set.len()).unwrap_or(start);
            random = mix(drawn);
        }
        start
    }

    /// How many endpoints were checked.
    pub(super) fn spent(&self) -> u16 {
        self.most.saturating_sub(self.left.get())
    }

    /// How many endpoints may still be checked.
    pub(super) fn left(&self) -> u16 {
        self.left.get()
    }

    /// Whether the search may stop at this rank. A client is used for at most one trial.
    pub(super) fn is_good(&self, rank: EndpointRank) -> bool {
        let first = self.request.tried.is_empty();
        let prospect = if first { Prospect::Due } else { Prospect::Well };
        rank <= EndpointRank::Free { fails_checks: false, prospect }
    }

    /// Whether an endpoint was not tried yet, and is good.
    pub(super) fn likes(&self, endpoint: &Endpoint) -> bool {
        self.look(endpoint).is_some_and(|rank| self.is_good(rank))
    }

    /// The rank of an endpoint; `None` if it was tried already.
    pub(super) fn look(&self, endpoint: &Endpoint) -> Option<EndpointRank> {
        if self.request.tried.contains(&endpoint.address) {
            return None;
        }
        for looks in [&self.left, &self.request.search.looks] {
            looks.set(looks.get().saturating_sub(1));
        }
        Some(self.request.rank(endpoint, self.route))
    }

    /// The first of the best among the first `share` of `endpoints`. Stops at a good one.
    pub(super) fn best_of<'s>(
        &self,
        endpoints: impl Iterator<Item = &'s Arc<Endpoint>>,
        share: u16,
    ) -> Option<(EndpointRank, &'s Arc<Endpoint>)> {
        let ranked = endpoints.filter_map(|endpoint| Some((self.look(endpoint)?, endpoint)));
        let mut best: Option<(EndpointRank, &Arc<Endpoint>)> = None;
        for (rank, endpoint) in ranked.take(share.into()) {
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, endpoint));
            }
            if self.is_good(rank) {
                break;
            }
        }
        best
    }
}

/// The endpoint at `start`, if it is good, or else the best one found in a random order. A search from
/// `start` onwards would give an endpoint the shares of all bad ones before it.
pub(super) fn pick<'s>(
    set: &'s [Arc<Endpoint>],
    search: &EndpointSearch<'_>,
    start: usize,
    share: u16,
) -> Option<(EndpointRank, &'s Arc<Endpoint>)> {
    let random = search.request.random(start);
    let start = search.after_slow_starts(set, start.checked_rem(set.len())?);
    let others = shuffled(set.len(), random).filter(|index| *index != start);
    let order = once(start).chain(others).filter_map(|index| set.get(index));
    search.best_of(order, share)
}

/// The numbers below `size` in a random order. If `size` is very large, only some of them.
fn shuffled(size: usize, random: u64) -> impl Iterator<Item = usize> {
    let mut numbers: [u8; MOST_SHUFFLED] = std::array::from_fn(|number| number as u8);
    (0..size.min(MOST_SHUFFLED)).map(move |turn| {
        let random = mix(random ^ turn as u64) as usize;
        if size > MOST_SHUFFLED {
            return random % size;
        }
        numbers.swap(turn, turn + random % (size - turn));
        numbers.get(turn).map_or(turn, |number| usize::from(*number))
    })
}

#[cfg(test)]
impl EndpointRequest<'_> {
    pub(super) fn looks_left(&self) -> usize {
        self.search.looks.get().into()
    }
}
