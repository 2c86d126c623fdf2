use std::collections::{BTreeSet, HashMap};

use super::search::MOST_LOOKS;
use super::*;
use crate::routing::{
    Availability, BackendKey, ENDPOINT_REST, Hostname, Moment, RouteKey, RouteSpec, Snapshot,
    TrafficPolicy, channel,
};

fn address(backend: usize, endpoint: usize) -> SocketAddr {
    let [high, low] = (endpoint as u16).to_be_bytes();
    SocketAddr::from(([10, high, backend as u8, low], 443))
}

fn client(number: u32) -> IpAddr {
    std::net::Ipv4Addr::from(0xc612_0000 + number).into()
}

/// A route whose backends have these weights and numbers of endpoints.
fn route(policy: Balancing, backends: &[(u32, usize)]) -> Arc<Route> {
    let key = |index: usize| BackendKey::Address(index.to_string().into());
    let spec = RouteSpec {
        backends: backends.iter().enumerate().map(|(i, (weight, _))| (key(i), *weight)).collect(),
        policy: TrafficPolicy { balancing: policy, ..TrafficPolicy::default() },
        ..RouteSpec::new(RouteKey::sni_route("ns", "r"), Hostname::Exact("a.com").into())
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

fn pick(route: &Route, source: IpAddr, tried: &[SocketAddr], random: u64) -> Option<SocketAddr> {
    let request = EndpointRequest::new(source, tried, random);
    choose(route, &request).map(|active| active.endpoint().address)
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
fn round_robin_follows_the_weights_and_spreads_turns_evenly() {
    let route = route(Balancing::RoundRobin, &[(5, 1), (1, 1), (1, 1)]);
    let round_robin: Vec<_> = (0..7).map(|_| pick(&route, client(0), &[], 0).unwrap()).collect();
    let of = |n| round_robin.iter().filter(|t| **t == address(n, 0)).count();
    assert_eq!((of(0), of(1), of(2)), (5, 1, 1));
    let heaviest_run = round_robin.chunk_by(|a, b| a == b).map(<[_]>::len).max();
    assert!(heaviest_run <= Some(2), "{round_robin:?}");
}

#[test]
fn round_robin_takes_the_endpoints_of_a_backend_in_turn() {
    let route = route(Balancing::RoundRobin, &[(1, 3)]);
    let round_robin: Vec<_> = (0..6).map(|_| pick(&route, client(0), &[], 0).unwrap()).collect();
    let first = (0..3).find(|n| round_robin[0] == address(0, *n)).unwrap();
    assert_eq!(round_robin, [0, 1, 2, 3, 4, 5].map(|n| address(0, (first + n) % 3)));
}

#[test]
fn a_dead_endpoint_gets_its_turn_and_no_more() {
    for endpoints in [2, 3] {
        let route = route(Balancing::RoundRobin, &[(1, endpoints)]);
        let dead = address(0, 0);
        let retries = (0..60)
            .filter(|_| pick(&route, client(0), &[], 0) == Some(dead))
            .filter(|_| pick(&route, client(0), &[dead], 0).is_some())
            .count();
        assert_eq!(retries, 60 / endpoints);
    }
}

#[test]
fn no_endpoint_is_tried_twice() {
    for policy in Balancing::ALL {
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
fn backends_without_weight_or_endpoints_get_no_connections() {
    for policy in Balancing::ALL {
        let all = shares(&route(policy, &[(0, 1), (90, 0), (10, 1)]), 50);
        assert_eq!(all, HashMap::from([(2, 50)]), "{policy:?}");
        assert!(pick(&route(policy, &[(0, 1), (5, 0)]), client(0), &[], 0).is_none());
    }
}

#[test]
fn random_and_source_address_follow_the_weights() {
    for policy in [Balancing::Random, Balancing::SourceAddress] {
        let all = shares(&route(policy, &[(3, 2), (1, 1)]), 4000);
        assert!((2800..3200).contains(&all[&0]), "{policy:?}: {all:?}");
    }
}

#[test]
fn least_connections_follows_the_shares() {
    let route = route(Balancing::LeastConnections, &[(3, 1), (1, 1)]);
    let open: Vec<_> = (0..40)
        .map(|_| choose(&route, &EndpointRequest::new(client(0), &[], 0)).unwrap())
        .collect();
    let first = open.iter().filter(|c| c.endpoint().address == address(0, 0)).count();
    assert_eq!(first, 30);
    let (drop_first, _keep): (Vec<_>, Vec<_>) =
        open.into_iter().partition(|c| c.endpoint().address == address(0, 0));
    drop(drop_first);
    assert_eq!(pick(&route, client(0), &[], 0), Some(address(0, 0)));
}

#[test]
fn a_source_keeps_its_endpoint_when_others_are_removed() {
    let many = route(Balancing::SourceAddress, &[(1, 8)]);
    for n in 0..500 {
        let before = pick(&many, client(n), &[], u64::from(n)).unwrap();
        assert_eq!(pick(&many, client(n), &[], u64::from(n) + 1), Some(before));
        let gone = address(0, 3);
        let after = pick(&many, client(n), &[gone], 0).unwrap();
        assert!(before == gone || after == before);
    }
}

/// The endpoints of one backend of a route.
fn endpoints(route: &Route, backend: usize) -> Vec<Arc<Endpoint>> {
    route.backends[backend].backend.endpoints().to_vec()
}

/// How often each endpoint is chosen by `count` clients of one moment.
fn chosen(route: &Route, count: u32, now: Moment) -> HashMap<SocketAddr, u32> {
    let mut chosen = HashMap::new();
    let choice = |n: u32| {
        let request =
            EndpointRequest { now, ..EndpointRequest::new(client(n), &[], mix(u64::from(n))) };
        choose(route, &request).unwrap()
    };
    // It is not known yet how their attempts end.
    let open: Vec<_> = (0..count).map(choice).collect();
    for active in &open {
        *chosen.entry(active.endpoint().address).or_default() += 1;
    }
    chosen
}

#[test]
fn a_failed_endpoint_is_tried_last_and_then_by_one_client() {
    for policy in Balancing::ALL {
        let route = route(policy, &[(1, 4)]);
        let (dead, now) = (address(0, 2), Moment::now());
        endpoints(&route, 0)[2].failed(now);
        assert_eq!(chosen(&route, 400, now).get(&dead), None, "{policy:?}");
        let later = now + ENDPOINT_REST;
        assert_eq!(chosen(&route, 400, later).get(&dead), Some(&1), "{policy:?}");
        endpoints(&route, 0)[2].succeeded();
        assert!(chosen(&route, 400, later).contains_key(&dead), "{policy:?}");
    }
}

#[test]
fn if_all_endpoints_have_failed_all_are_tried() {
    for policy in Balancing::ALL {
        let route = route(policy, &[(1, 3), (2, 1)]);
        let now = Moment::now();
        for endpoint in endpoints(&route, 0).iter().chain(&endpoints(&route, 1)) {
            endpoint.failed(now);
        }
        assert_eq!(chosen(&route, 400, now).len(), 4, "{policy:?}");
        // One whose rest is over goes before those that rest.
        endpoints(&route, 0)[1].succeeded();
        let tried = [address(0, 0)];
        let request = EndpointRequest { now, ..EndpointRequest::new(client(1), &tried, 1) };
        let next = choose(&route, &request).unwrap();
        assert_eq!(next.endpoint().address, address(0, 1), "{policy:?}");
    }
}

#[test]
fn a_retry_is_no_trial_while_other_endpoints_are_healthy() {
    for policy in Balancing::ALL {
        let route = route(policy, &[(1, 4)]);
        let (now, tried) = (Moment::now(), [address(0, 0)]);
        endpoints(&route, 0)[..3].iter().for_each(|endpoint| endpoint.failed(now));
        for n in 0..100 {
            let later = now + ENDPOINT_REST;
            let request = EndpointRequest {
                now: later,
                ..EndpointRequest::new(client(n), &tried, mix(n.into()))
            };
            let next = choose(&route, &request).unwrap();
            assert_eq!(next.endpoint().address, address(0, 3), "{policy:?}");
        }
    }
}

#[test]
fn the_share_of_dead_endpoints_is_spread_over_all_healthy_ones() {
    for policy in Balancing::ALL {
        let route = route(policy, &[(1, 6)]);
        let now = Moment::now();
        endpoints(&route, 0)[..3].iter().for_each(|endpoint| endpoint.failed(now));
        let shares = chosen(&route, 6000, now);
        assert_eq!(shares.len(), 3);
        assert!(shares.values().all(|n| (1750..2250).contains(n)), "{policy:?}: {shares:?}");
    }
}

#[test]
fn retries_choose_a_random_endpoint_except_with_source_address() {
    for policy in Balancing::ALL {
        let route = route(policy, &[(1, 6)]);
        let tried = [address(0, 0), address(0, 1)];
        let next: HashMap<_, u32> = (0..600).fold(HashMap::new(), |mut next, n| {
            let one = pick(&route, client(7), &tried, mix(n)).unwrap();
            *next.entry(one).or_default() += 1;
            next
        });
        match policy {
            Balancing::SourceAddress => assert_eq!(next.len(), 1),
            _ => assert!(next.values().all(|n| (90..220).contains(n)), "{policy:?}: {next:?}"),
        }
    }
}

/// Three dead backends do not keep the clients from the one that lives, though it weighs little.
#[test]
fn a_light_backend_replaces_dead_heavy_ones() {
    for policy in Balancing::ALL {
        let route = route(policy, &[(90, 1), (90, 1), (90, 1), (10, 1)]);
        let now = Moment::now();
        (0..3).for_each(|backend| endpoints(&route, backend)[0].failed(now));
        assert_eq!(chosen(&route, 30, now), HashMap::from([(address(3, 0), 30)]), "{policy:?}");
    }
}

#[test]
fn processes_that_start_together_begin_with_different_endpoints() {
    for policy in [Balancing::RoundRobin, Balancing::LeastConnections, Balancing::Random] {
        let first = |backends: &[(u32, usize)], n| {
            pick(&route(policy, backends), client(0), &[], mix(n)).unwrap()
        };
        let among_endpoints: BTreeSet<_> = (0..200).map(|n| first(&[(1, 6)], n)).collect();
        assert_eq!(among_endpoints.len(), 6, "{policy:?}");
        let backends = [(2, 1), (1, 1), (1, 1)];
        let among_backends: BTreeSet<_> = (0..200).map(|n| first(&backends, n)).collect();
        // The one with the fewest connections for its weight is the heaviest.
        let least = if policy == Balancing::LeastConnections { 1 } else { 3 };
        assert_eq!(among_backends.len(), least, "{policy:?}");
    }
}

#[test]
fn the_better_of_two_distributes_connections_by_share() {
    let open = |backends: &[(u32, usize)], count: u32| {
        let route = route(Balancing::LeastConnections, backends);
        let request = |n| EndpointRequest::new(client(n), &[], mix(u64::from(n)));
        let open: Vec<_> = (0..count).map(|n| choose(&route, &request(n)).unwrap()).collect();
        let active = |backend| -> Vec<usize> {
            endpoints(&route, backend).iter().map(|endpoint| endpoint.active()).collect()
        };
        let active: Vec<Vec<usize>> = (0..backends.len()).map(active).collect();
        drop(open);
        active
    };
    let active = open(&[(3, 100), (1, 100)], 4000);
    assert!((2900..3100).contains(&active[0].iter().sum::<usize>()), "{active:?}");
    assert!(active[0].iter().all(|n| (24..36).contains(n)), "{active:?}");
    // One endpoint that is to have as much as a hundred others together.
    let active = open(&[(1, 1), (1, 100)], 4000);
    assert!((1900..2100).contains(&active[0][0]), "{active:?}");
}

#[test]
fn a_trial_whose_client_leaves_is_repeated_by_the_next_client() {
    for policy in Balancing::ALL {
        let route = route(policy, &[(1, 2)]);
        let (now, all) = (Moment::now(), endpoints(&route, 0));
        all[1].failed(now + ENDPOINT_REST);
        all[0].failed(now);
        let later = now + ENDPOINT_REST;
        for _ in 0..3 {
            let request = EndpointRequest { now: later, ..EndpointRequest::new(client(0), &[], 0) };
            let trial = choose(&route, &request).unwrap();
            assert!(Arc::ptr_eq(trial.endpoint(), &all[0]), "{policy:?}");
            assert_eq!(all[0].availability(later), Availability::Resting);
        }
        let request = EndpointRequest { now: later, ..EndpointRequest::new(client(0), &[], 0) };
        choose(&route, &request).unwrap().settle(Endpoint::succeeded);
        assert_eq!(all[0].availability(later), Availability::Well, "what it has shown stays");
    }
}

/// How many endpoints were looked at for a wish, the choices before it included.
fn looked_at(request: &EndpointRequest<'_>) -> usize {
    MOST_LOOKS - request.looks_left()
}

#[test]
fn a_choice_among_very_many_endpoints_checks_few() {
    const MANY: usize = 60_000;
    for policy in Balancing::ALL {
        let route = route(policy, &[(1, MANY)]);
        let most = |now: Moment, expected: usize| {
            for n in 0..200 {
                let request =
                    EndpointRequest { now, ..EndpointRequest::new(client(n), &[], mix(n.into())) };
                assert!(choose(&route, &request).is_some());
                assert!(looked_at(&request) <= expected, "{policy:?}: {}", looked_at(&request));
            }
        };
        let now = Moment::now();
        most(now, if policy == Balancing::LeastConnections { 2 } else { 1 });
        endpoints(&route, 0).iter().step_by(2).for_each(|endpoint| endpoint.failed(now));
        most(now, 40);
        endpoints(&route, 0).iter().for_each(|endpoint| endpoint.failed(now));
        most(now, MOST_LOOKS / 2);
    }
}

/// All that one client can cost: 16 large backends whose endpoints fail one after the other.
#[test]
fn all_choices_for_a_client_together_check_few_endpoints() {
    const TRIES: usize = 17;
    for policy in Balancing::ALL {
        let route = route(policy, &[(1, 300); 16]);
        let now = Moment::now();
        (0..16).flat_map(|n| endpoints(&route, n)).for_each(|endpoint| endpoint.failed(now));
        let (mut tried, mut search) = (Vec::new(), SearchState::default());
        for n in 0..TRIES as u64 {
            let request = EndpointRequest {
                now,
                ..EndpointRequest::again(client(1), &tried, mix(n), search)
            };
            let next = choose(&route, &request).unwrap().endpoint().address;
            let looked_at = looked_at(&request);
            assert!(looked_at <= MOST_LOOKS, "{policy:?}: {looked_at}");
            search = request.search;
            assert!(!tried.contains(&next), "{policy:?}");
            tried.push(next);
        }
    }
}

/// However much is dead, a little of each backend is looked at.
#[test]
fn a_healthy_light_backend_is_found_among_large_dead_ones() {
    for policy in Balancing::ALL {
        let mut backends = [(100, 300); 16];
        backends[15] = (1, 1);
        let route = route(policy, &backends);
        let now = Moment::now();
        (0..15).flat_map(|n| endpoints(&route, n)).for_each(|endpoint| endpoint.failed(now));
        assert_eq!(chosen(&route, 50, now), HashMap::from([(address(15, 0), 50)]), "{policy:?}");
    }
}

/// Two draws that begin at dead endpoints are two all the same.
#[test]
fn the_better_of_two_is_found_among_many_dead_endpoints() {
    let route = route(Balancing::LeastConnections, &[(1, 40)]);
    let (now, all) = (Moment::now(), endpoints(&route, 0));
    all[2..].iter().for_each(|endpoint| endpoint.failed(now));
    let _busy: Vec<_> = (0..1000).map(|_| all[0].begin(now)).collect();
    let idle = (0..1000).filter(|n| pick(&route, client(1), &[], mix(*n)) == Some(all[1].address));
    // Three of four; one of two, if both draws were the same.
    let idle = idle.count();
    assert!((680..820).contains(&idle), "{idle}");
}

#[test]
fn a_family_without_a_route_is_avoided_for_the_same_client_in_all_backends() {
    for policy in Balancing::ALL {
        let key = |n: usize| BackendKey::Address(n.to_string().into());
        let spec = route(policy, &[(1, 0); 16]).spec.clone();
        let addresses = |n: usize| -> Vec<SocketAddr> {
            let ipv6 = (0..40).map(|m| ([0xfd00, 0, 0, 0, 0, 0, n as u16, m], 443).into());
            ipv6.chain([address(n, 0)]).collect()
        };
        let endpoints = (0..16).map(|n| (key(n), addresses(n))).collect();
        let (mut writer, reader) = channel();
        writer.apply(Snapshot { routes: vec![spec], endpoints });
        let route = Arc::clone(reader.table().routes().next().unwrap());
        let first: SocketAddr = "[fd00::1]:443".parse().unwrap();
        let (tried, mut search) = ([first], SearchState::default());
        search.unrouted(first);
        for n in 0..50 {
            let request = EndpointRequest::again(client(n), &tried, mix(n.into()), search.clone());
            let next = choose(&route, &request).unwrap();
            assert!(next.endpoint().address.is_ipv4(), "{policy:?}");
        }
    }
}

#[test]
fn removing_one_of_very_many_endpoints_moves_few_other_sources() {
    const SOURCES: u32 = 5_000;
    let all: Vec<SocketAddr> = (0..1000).map(|n| address(0, n)).collect();
    let key = || BackendKey::Address("0".into());
    let (mut writer, reader) = channel();
    let spec = route(Balancing::SourceAddress, &[(1, 0)]).spec.clone();
    let mut serve = |addresses: Vec<SocketAddr>| -> Vec<SocketAddr> {
        let endpoints = [(key(), addresses)].into_iter().collect();
        writer.apply(Snapshot { routes: vec![spec.clone()], endpoints });
        let route = Arc::clone(reader.table().routes().next().unwrap());
        (0..SOURCES).map(|n| pick(&route, client(n), &[], 0).unwrap()).collect()
    };
    let before = serve(all.clone());
    let counts = before.iter().fold(HashMap::new(), |mut counts: HashMap<_, u32>, endpoint| {
        *counts.entry(*endpoint).or_default() += 1;
        counts
    });
    // 5 each.
    assert!(counts.len() > 950 && counts.values().all(|n| *n < 20), "{counts:?}");

    let gone = |endpoint: &SocketAddr| all[..50].contains(endpoint);
    let after = serve(all[50..].to_vec());
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
    let (own, others): (Vec<_>, Vec<_>) = moved.partition(|(before, _)| gone(before));
    assert_eq!(own.len(), before.iter().filter(|endpoint| gone(endpoint)).count());
    assert!(others.len() * 2 <= own.len() * 3, "{} and {} of others", own.len(), others.len());
    // One that comes back gets its own.
    assert_eq!(serve(all.clone()), before);
}

/// Health does not change where a source goes that is not concerned.
#[test]
fn the_second_choice_of_a_source_is_stable() {
    for count in [4, 1000] {
        let route = route(Balancing::SourceAddress, &[(1, count)]);
        let first = pick(&route, client(5), &[], 0).unwrap();
        let second = pick(&route, client(5), &[first], 1).unwrap();
        let dead = endpoints(&route, 0).into_iter().find(|e| e.address == first).unwrap();
        dead.failed(Moment::now());
        for n in 0..20 {
            assert_eq!(pick(&route, client(5), &[], n), Some(second));
            assert_eq!(pick(&route, client(5), &[first], n), Some(second));
        }
        dead.succeeded();
        assert_eq!(pick(&route, client(5), &[], 3), Some(first));
    }
}
