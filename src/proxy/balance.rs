//! Which endpoint gets the next connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::routing::{ActiveConnection, Endpoint, EndpointSet, Policy, Route};

/// Chooses an endpoint of `route` for a client at `source`, passing over those in `tried`. Backends
/// of weight 0, and those with no endpoint left, give their share to the others.
///
/// `random` is a fresh random number. The endpoint counts the connection from now on, so that
/// choices made at the same time see each other.
pub(super) fn choose(
    route: &Route,
    source: IpAddr,
    tried: &[SocketAddr],
    random: u64,
) -> Option<ActiveConnection> {
    let sets: Vec<_> = route.backends.iter().map(|backend| backend.backend.endpoints()).collect();
    let candidates: Vec<Candidate<'_>> = route
        .backends
        .iter()
        .zip(&sets)
        .enumerate()
        .filter(|(_, (backend, set))| backend.weight > 0 && left(set, tried).next().is_some())
        .map(|(index, (backend, set))| Candidate { index, weight: backend.weight, set })
        .collect();
    let endpoint = match route.spec.policy {
        Policy::RoundRobin => {
            let candidate = smooth(route, &candidates)?;
            in_turn(route, candidate, tried)
        }
        Policy::LeastConnections => least(route, &candidates, tried),
        Policy::Random => {
            let total: u64 = candidates.iter().map(|candidate| u64::from(candidate.weight)).sum();
            let mut point = random.checked_rem(total)?;
            let candidate = candidates.iter().find(|candidate| {
                let weight = u64::from(candidate.weight);
                let found = point < weight;
                point = point.saturating_sub(weight);
                found
            })?;
            let count = left(candidate.set, tried).count();
            left(candidate.set, tried).nth(mix(random) as usize % count.max(1))
        }
        Policy::SourceAddress => by_source(&candidates, source, tried),
    };
    endpoint.map(|endpoint| endpoint.begin())
}

/// Where `route` sends the client at `source`, if that is settled by its address.
pub fn endpoint_of_source(route: &Route, source: IpAddr) -> Option<SocketAddr> {
    let settled = route.spec.policy == Policy::SourceAddress;
    settled.then(|| choose(route, source, &[], 0))?.map(|active| active.endpoint().address)
}

/// A backend that has an endpoint left.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    /// Its place in the route.
    index: usize,
    weight: u32,
    set: &'a EndpointSet,
}

fn left<'a>(
    set: &'a EndpointSet,
    tried: &'a [SocketAddr],
) -> impl Iterator<Item = &'a Arc<Endpoint>> {
    set.iter().filter(|endpoint| !tried.contains(&endpoint.address))
}

/// Smooth weighted round robin, as nginx has it: each turn every candidate gains its weight, and
/// the one that has gained most is chosen and gives back what all gained.
fn smooth<'c, 'a>(route: &Route, candidates: &'c [Candidate<'a>]) -> Option<&'c Candidate<'a>> {
    if let [only] = candidates {
        return Some(only);
    }
    let mut turns = route.turns.lock().unwrap_or_else(PoisonError::into_inner);
    let mut total = 0;
    let mut best: Option<(&Candidate<'_>, i64)> = None;
    for candidate in candidates {
        let Some(gained) = turns.get_mut(candidate.index) else { continue };
        let weight = i64::from(candidate.weight);
        total += weight;
        *gained = gained.saturating_add(weight);
        if best.is_none_or(|(_, most)| *gained > most) {
            best = Some((candidate, *gained));
        }
    }
    let (chosen, _) = best?;
    if let Some(gained) = turns.get_mut(chosen.index) {
        *gained = gained.saturating_sub(total);
    }
    Some(chosen)
}

/// Whose turn it is. Only a client's first endpoint takes a turn: if each retry took one as well,
/// the turns would keep step with an endpoint that is dead, and lead to it every time.
fn turn(route: &Route, candidate: &Candidate<'_>, tried: &[SocketAddr]) -> usize {
    let backend = route.backends.get(candidate.index);
    let turn = backend.map_or(0, |backend| {
        let turn = &backend.backend.turn;
        if tried.is_empty() {
            turn.fetch_add(1, Ordering::Relaxed)
        } else {
            turn.load(Ordering::Relaxed)
        }
    });
    turn % candidate.set.len().max(1)
}

fn in_turn<'a>(
    route: &Route,
    candidate: &Candidate<'a>,
    tried: &[SocketAddr],
) -> Option<&'a Arc<Endpoint>> {
    let start = turn(route, candidate, tried);
    let (before, from) = candidate.set.split_at_checked(start)?;
    from.iter().chain(before).find(|endpoint| !tried.contains(&endpoint.address))
}

/// The endpoint with the fewest connections for its share. Among equals each in turn.
fn least<'a>(
    route: &Route,
    candidates: &[Candidate<'a>],
    tried: &[SocketAddr],
) -> Option<&'a Arc<Endpoint>> {
    let mut best: Option<(&Arc<Endpoint>, u128, u128)> = None;
    for candidate in candidates {
        let (before, from) = candidate.set.split_at_checked(turn(route, candidate, tried))?;
        // Its share is weight / endpoints; its load is connections / share.
        let (endpoints, weight) = (candidate.set.len() as u128, u128::from(candidate.weight));
        for endpoint in from.iter().chain(before) {
            if tried.contains(&endpoint.address) {
                continue;
            }
            let load = (endpoint.active() as u128 + 1) * endpoints;
            if best.is_none_or(|(_, least, per)| load * per < least * weight) {
                best = Some((endpoint, load, weight));
            }
        }
    }
    best.map(|(endpoint, ..)| endpoint)
}

/// Rendezvous hashing: every replica sends a source to the same endpoint, and when an endpoint
/// goes only its own sources move.
fn by_source<'a>(
    candidates: &[Candidate<'a>],
    source: IpAddr,
    tried: &'a [SocketAddr],
) -> Option<&'a Arc<Endpoint>> {
    let source = hash_ip(source);
    let score = |weight: u32, key: u64| {
        // Uniform in (0, 1); the logarithm makes the shares follow the weights.
        let uniform = ((mix(source ^ key) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -f64::from(weight) / uniform.ln()
    };
    let backend = candidates.iter().max_by(|a, b| {
        let of = |candidate: &Candidate<'_>| score(candidate.weight, mix(candidate.index as u64));
        of(a).total_cmp(&of(b))
    })?;
    left(backend.set, tried).max_by_key(|endpoint| {
        mix(source ^ mix(hash_ip(endpoint.address.ip()) ^ u64::from(endpoint.address.port())))
    })
}

fn hash_ip(ip: IpAddr) -> u64 {
    let bits = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    mix(bits as u64 ^ mix((bits >> 64) as u64))
}

/// The finaliser of SplitMix64: every input bit reaches every output bit. Fixed, since replicas
/// have to agree.
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::routing::{BackendKey, Hostname, RouteKey, RouteSpec, Snapshot, Timeouts, channel};

    fn address(backend: usize, endpoint: usize) -> SocketAddr {
        SocketAddr::from(([10, 0, backend as u8, endpoint as u8], 443))
    }

    fn client(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0xc612_0000 + number).into()
    }

    /// A route whose backends have these weights and numbers of endpoints.
    fn route(policy: Policy, backends: &[(u32, usize)]) -> Arc<Route> {
        let key = |index: usize| BackendKey::Address(index.to_string().into());
        let spec = RouteSpec {
            key: RouteKey::new("ns", "r"),
            created: None,
            hostnames: Hostname::Exact("a.com").into(),
            listeners: vec![],
            alpn: vec![],
            backends: backends
                .iter()
                .enumerate()
                .map(|(i, (weight, _))| (key(i), *weight))
                .collect(),
            policy,
            timeouts: Timeouts::default(),
        };
        let endpoints = backends
            .iter()
            .enumerate()
            .map(|(i, (_, count))| (key(i), (0..*count).map(|n| address(i, n)).collect()))
            .collect();
        let (mut writer, reader) = channel();
        writer.apply(Snapshot { routes: vec![spec], endpoints });
        let table = reader.table();
        Arc::clone(table.routes().next().unwrap())
    }

    fn pick(
        route: &Route,
        source: IpAddr,
        tried: &[SocketAddr],
        random: u64,
    ) -> Option<SocketAddr> {
        choose(route, source, tried, random).map(|active| active.endpoint().address)
    }

    /// How often each backend was chosen in `count` turns.
    fn shares(route: &Route, count: u32) -> HashMap<u8, u32> {
        let mut shares = HashMap::new();
        for n in 0..count {
            let chosen = pick(route, client(n), &[], mix(u64::from(n))).unwrap();
            let SocketAddr::V4(v4) = chosen else { panic!("IPv6") };
            *shares.entry(v4.ip().octets()[2]).or_default() += 1;
        }
        shares
    }

    #[test]
    fn round_robin_follows_the_weights_and_spreads_the_turns() {
        let route = route(Policy::RoundRobin, &[(5, 1), (1, 1), (1, 1)]);
        let turns: Vec<_> = (0..7).map(|_| pick(&route, client(0), &[], 0).unwrap()).collect();
        let of = |n| turns.iter().filter(|t| **t == address(n, 0)).count();
        assert_eq!((of(0), of(1), of(2)), (5, 1, 1));
        let heaviest_run = turns.chunk_by(|a, b| a == b).map(<[_]>::len).max();
        assert!(heaviest_run <= Some(2), "{turns:?}");
    }

    #[test]
    fn round_robin_takes_the_endpoints_of_a_backend_in_turn() {
        let route = route(Policy::RoundRobin, &[(1, 3)]);
        let turns: Vec<_> = (0..6).map(|_| pick(&route, client(0), &[], 0).unwrap()).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2].map(|n| address(0, n)));
    }

    #[test]
    fn a_dead_endpoint_gets_its_turn_and_no_more() {
        for endpoints in [2, 3] {
            let route = route(Policy::RoundRobin, &[(1, endpoints)]);
            let dead = address(0, 0);
            let retries = (0..60)
                .filter(|_| pick(&route, client(0), &[], 0) == Some(dead))
                .filter(|_| pick(&route, client(0), &[dead], 0).is_some())
                .count();
            assert_eq!(retries, 60 / endpoints);
        }
    }

    #[test]
    fn nothing_is_tried_twice_and_then_there_is_nothing_left() {
        for policy in
            [Policy::RoundRobin, Policy::LeastConnections, Policy::Random, Policy::SourceAddress]
        {
            let route = route(policy, &[(9, 2), (1, 1)]);
            let mut tried = Vec::new();
            while let Some(next) = pick(&route, client(1), &tried, mix(tried.len() as u64)) {
                assert!(!tried.contains(&next), "{policy:?}");
                tried.push(next);
            }
            assert_eq!(tried.len(), 3, "{policy:?}");
        }
    }

    #[test]
    fn backends_without_weight_or_endpoints_give_way_to_the_others() {
        for policy in
            [Policy::RoundRobin, Policy::LeastConnections, Policy::Random, Policy::SourceAddress]
        {
            let all = shares(&route(policy, &[(0, 1), (90, 0), (10, 1)]), 50);
            assert_eq!(all, HashMap::from([(2, 50)]), "{policy:?}");
            assert!(pick(&route(policy, &[(0, 1), (5, 0)]), client(0), &[], 0).is_none());
        }
    }

    #[test]
    fn random_and_source_address_follow_the_weights() {
        for policy in [Policy::Random, Policy::SourceAddress] {
            let all = shares(&route(policy, &[(3, 2), (1, 1)]), 4000);
            assert!((2800..3200).contains(&all[&0]), "{policy:?}: {all:?}");
        }
    }

    #[test]
    fn least_connections_fills_up_by_share() {
        let route = route(Policy::LeastConnections, &[(3, 1), (1, 1)]);
        let open: Vec<_> = (0..40).map(|_| choose(&route, client(0), &[], 0).unwrap()).collect();
        let first = open.iter().filter(|c| c.endpoint().address == address(0, 0)).count();
        assert_eq!(first, 30);
        let (drop_first, _keep): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|c| c.endpoint().address == address(0, 0));
        drop(drop_first);
        assert_eq!(pick(&route, client(0), &[], 0), Some(address(0, 0)));
    }

    #[test]
    fn a_source_stays_with_its_endpoint_when_others_go() {
        let many = route(Policy::SourceAddress, &[(1, 8)]);
        for n in 0..500 {
            let before = pick(&many, client(n), &[], u64::from(n)).unwrap();
            assert_eq!(pick(&many, client(n), &[], u64::from(n) + 1), Some(before));
            let gone = address(0, 3);
            let after = pick(&many, client(n), &[gone], 0).unwrap();
            assert!(before == gone || after == before);
        }
    }
}
