mod bounds;
mod health;
mod keys;
mod limits;
mod near;
mod policies;
mod slow_start;
mod sources;

use std::collections::HashMap;

use super::*;
use crate::policy::Policy;
use crate::routing::{
    BackendKey, Hostname, Moment, RouteKey, RouteSpec, Snapshot, TrafficPolicy, channel,
};

fn address(backend: usize, endpoint: usize) -> SocketAddr {
    let [high, low] = (endpoint as u16).to_be_bytes();
    SocketAddr::from(([10, high, backend as u8, low], 443))
}

fn client(number: u32) -> IpAddr {
    std::net::Ipv4Addr::from(0xc612_0000 + number).into()
}

/// A route whose backends have these weights and numbers of endpoints.
fn route(policy: impl Into<Policy>, backends: &[(u32, usize)]) -> Arc<Route> {
    let key = |index: usize| BackendKey::address("", &index.to_string());
    let spec = RouteSpec {
        backends: backends.iter().enumerate().map(|(i, (weight, _))| (key(i), *weight)).collect(),
        policy: TrafficPolicy::of(&policy.into()),
        ..RouteSpec::new(RouteKey::sni_route("ns", "r"), Hostname::Exact("a.com").into())
    };
    let endpoints = backends
        .iter()
        .enumerate()
        .map(|(i, (_, count))| (key(i), (0..*count).map(|n| address(i, n)).collect()))
        .collect();
    let (mut writer, reader) = channel();
    writer.apply(Snapshot { routes: vec![spec], endpoints, ..Snapshot::default() });
    let table = reader.table();
    Arc::clone(table.routes().next().unwrap())
}

fn pick(route: &Route, source: IpAddr, tried: &[SocketAddr], random: u64) -> Option<SocketAddr> {
    let request = EndpointRequest::new(source, tried, random);
    choose(route, &request).ok().map(|active| active.endpoint().address)
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

/// The endpoints of one backend of a route.
fn endpoints(route: &Route, backend: usize) -> Vec<Arc<Endpoint>> {
    route.backends[backend].backend.endpoints().to_vec()
}

/// How often each endpoint is chosen by `count` clients at the same time.
fn chosen(route: &Route, count: u32, now: Moment) -> HashMap<SocketAddr, u32> {
    let mut chosen = HashMap::new();
    let choice = |n: u32| {
        let request =
            EndpointRequest { now, ..EndpointRequest::new(client(n), &[], mix(u64::from(n))) };
        choose(route, &request).unwrap()
    };
    // No attempt has a result yet.
    let open: Vec<_> = (0..count).map(choice).collect();
    for active in &open {
        *chosen.entry(active.endpoint().address).or_default() += 1;
    }
    chosen
}
