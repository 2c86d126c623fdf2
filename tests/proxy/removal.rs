//! Connections whose endpoint leaves its backend.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use sluice::outcome::Outcome;
use sluice::policy::{OnRemoval, Policy, Spread, Timeout};
use sluice::routing::{BackendKey, OtherAddresses, Snapshot};

use crate::support::{
    Backend, Blackhole, End, Plane, Target, exchange, expect, expect_reset, hello, is_over, millis,
    open, open_narrow, rest, target, wait_until,
};

/// A policy that closes connections of removed endpoints within this time.
fn closing(over: Duration) -> impl Fn(&mut Policy) {
    move |policy| {
        policy.endpoints.on_removal = Some(OnRemoval::Close);
        policy.endpoints.close_over = Some(Spread::new(over));
    }
}

/// A route that closes connections of removed endpoints at once.
fn closer(hostname: &str, endpoints: &[SocketAddr]) -> Target {
    target(hostname, endpoints).policy(closing(Duration::ZERO))
}

/// Both ends of a connection to `hostname`.
struct Pair {
    client: TcpStream,
    server: TcpStream,
}

impl Pair {
    fn open(plane: &Plane, hostname: &str, backend: &Backend) -> Self {
        let hello = hello(hostname);
        let client = open(plane.address(), &hello);
        Pair { client, server: backend.accept_with(&hello) }
    }

    #[track_caller]
    fn goes_on(&mut self) {
        exchange(&mut self.client, &mut self.server);
    }

    /// Both ends get an orderly end.
    #[track_caller]
    fn ends(mut self) {
        assert_eq!(rest(&mut self.client), (vec![], End::Eof));
        assert_eq!(rest(&mut self.server), (vec![], End::Eof));
    }
}

/// Waits until the workers have handled all earlier changes: a client that comes later is served.
fn settle(plane: &Plane, pairs: &mut [&mut Pair]) {
    // What a change ends at once is over before the next bytes are relayed.
    for _ in 0..3 {
        pairs.iter_mut().for_each(|pair| pair.goes_on());
    }
    assert_eq!(plane.count("a.test", Outcome::EndpointRemoved), 0);
}

#[test]
fn a_route_that_closes_ends_just_the_connections_of_what_is_gone() {
    let (goes, stays) = (Backend::new(), Backend::new());
    let both = [goes.address(), stays.address()];
    let mut plane = Plane::start(vec![closer("a.test", &both), target("b.test", &both[..1])]);
    let mut to: HashMap<bool, Vec<Pair>> = HashMap::new();
    for _ in 0..8 {
        let hello = hello("a.test");
        let client = open(plane.address(), &hello);
        let mut server = None;
        wait_until("the endpoint", || {
            let wanted = [goes.accept_waiting(), stays.accept_waiting()];
            server = wanted.into_iter().enumerate().find_map(|(index, one)| Some((index, one?)));
            server.is_some()
        });
        let (index, mut server) = server.unwrap();
        expect(&mut server, &hello);
        to.entry(index == 0).or_default().push(Pair { client, server });
    }
    let mut other_route = Pair::open(&plane, "b.test", &goes);
    let (gone, mut kept) = (to.remove(&true).unwrap(), to.remove(&false).unwrap());
    // The backend of the other route keeps the address.
    plane.apply(vec![closer("a.test", &both[1..]), target("b.test", &both[..1])]);
    let count = gone.len() as u64;
    gone.into_iter().for_each(Pair::ends);
    wait_until("the outcomes", || plane.count("a.test", Outcome::EndpointRemoved) == count);
    kept.iter_mut().for_each(Pair::goes_on);
    other_route.goes_on();
    drop((kept, other_route));
    let ended = [
        ("a.test", Outcome::EndpointRemoved, count),
        ("a.test", Outcome::Completed, 8 - count),
        ("b.test", Outcome::Completed, 1),
    ];
    plane.assert_ended(&ended);
}

/// A change of the route, whatever it is, is no removal.
#[test]
fn what_else_changes_closes_nothing() {
    let backend = Backend::new();
    let here = [backend.address()];
    let elsewhere = [SocketAddr::from(([127, 0, 0, 9], 9))];
    let mut plane = Plane::start(vec![closer("a.test", &here)]);
    let mut pair = Pair::open(&plane, "a.test", &backend);
    let keeper = || target("a.test", &elsewhere);
    for change in [
        // Another backend of the route has the address now.
        vec![closer("a.test", &elsewhere).and(1, &here)],
        vec![closer("a.test", &here)],
        vec![closer("a.test", &here).with(|spec| spec.backends[0].1 = 0)],
        // The route names another backend.
        vec![closer("a.test", &elsewhere).naming(BackendKey::address("", "other"))],
        vec![closer("a.test", &here)],
        // There is no such route, and then one again, whose backend is another object.
        vec![],
        vec![closer("a.test", &here)],
        // The endpoint is gone while the route keeps.
        vec![keeper()],
        vec![closer("a.test", &elsewhere)],
        vec![closer("a.test", &[])],
    ] {
        plane.apply(change);
        settle(&plane, &mut [&mut pair]);
    }
}

#[test]
fn the_policy_at_the_time_of_the_removal_decides() {
    let backend = Backend::new();
    let here = [backend.address()];
    for _ in 0..20 {
        let mut plane = Plane::start(vec![target("a.test", &here)]);
        let mut pair = Pair::open(&plane, "a.test", &backend);
        // At once, so that the workers see both changes together.
        plane.apply(vec![target("a.test", &[])]);
        plane.apply(vec![closer("a.test", &[])]);
        settle(&plane, &mut [&mut pair]);
        // With the removal.
        plane.apply(vec![target("a.test", &here)]);
        let closed = Pair::open(&plane, "a.test", &backend);
        plane.apply(vec![closer("a.test", &[])]);
        plane.apply(vec![target("a.test", &[])]);
        closed.ends();
    }
}

#[test]
fn a_route_that_is_made_again_closes_what_it_had_before() {
    let backend = Backend::new();
    let here = [backend.address()];
    let mut plane = Plane::start(vec![closer("a.test", &here)]);
    let pair = Pair::open(&plane, "a.test", &backend);
    plane.apply(vec![]);
    plane.apply(vec![closer("a.test", &here)]);
    plane.apply(vec![closer("a.test", &[])]);
    pair.ends();
    plane.assert_ended(&[("a.test", Outcome::EndpointRemoved, 1)]);
}

#[test]
fn an_endpoint_that_is_not_ready_is_not_gone() {
    let backend = Backend::new();
    let here = [backend.address()];
    let mut plane = Plane::start(vec![closer("a.test", &here)]);
    let mut pair = Pair::open(&plane, "a.test", &backend);
    let others = |others: OtherAddresses| {
        let target = closer("a.test", &[]);
        let key = target.spec.backends[0].0.clone();
        move |snapshot: &mut Snapshot| drop(snapshot.others.insert(key.clone(), others.clone()))
    };
    let known = OtherAddresses::Known(here.to_vec());
    plane.apply_with(vec![closer("a.test", &[])], others(known.clone()));
    settle(&plane, &mut [&mut pair]);
    plane.apply_with(vec![closer("a.test", &[])], others(OtherAddresses::Unknown));
    settle(&plane, &mut [&mut pair]);
    plane.apply_with(vec![closer("a.test", &[])], others(known));
    settle(&plane, &mut [&mut pair]);
    plane.apply(vec![closer("a.test", &[])]);
    pair.ends();
}

/// A saved table may be old.
#[test]
fn a_table_of_another_origin_closes_nothing() {
    let backend = Backend::new();
    let mut plane = Plane::start(vec![closer("a.test", &[backend.address()])]);
    let mut pair = Pair::open(&plane, "a.test", &backend);
    plane.start_over(vec![closer("a.test", &[])]);
    settle(&plane, &mut [&mut pair]);
}

#[test]
fn connections_are_closed_over_a_time_unless_the_endpoint_comes_back() {
    const COUNT: usize = 40;
    let backend = Backend::new();
    let here = [backend.address()];
    let over = millis(2000);
    let slow = |endpoints: &[SocketAddr]| vec![target("a.test", endpoints).policy(closing(over))];
    let mut plane = Plane::start(slow(&here));
    let pairs: Vec<_> = (0..COUNT).map(|_| Pair::open(&plane, "a.test", &backend)).collect();
    let open = |pairs: &[Pair]| pairs.iter().filter(|pair| !is_over(&pair.client)).count();

    let begun = Instant::now();
    plane.apply(slow(&[]));
    wait_until("the first", || open(&pairs) < COUNT);
    assert!(open(&pairs) > 0, "all at once");
    wait_until("a third", || open(&pairs) < COUNT * 2 / 3);
    assert!(begun.elapsed() > over / 10, "{:?}", begun.elapsed());
    plane.apply(slow(&here));
    while begun.elapsed() < over + millis(500) {
        std::thread::sleep(millis(50));
    }
    let left = open(&pairs);
    assert!(left > 0, "it was back before their turn");

    plane.apply(slow(&[]));
    wait_until("the last", || open(&pairs) == 0);
    drop(pairs);
    plane.assert_ended(&[("a.test", Outcome::EndpointRemoved, COUNT as u64)]);
}

#[test]
fn a_connection_that_is_being_opened_ends_as_well() {
    let blackhole = Blackhole::new();
    let patient = |endpoints: &[SocketAddr]| {
        vec![closer("a.test", endpoints).policy(|policy| {
            policy.timeouts.connect = Timeout::new(Duration::from_secs(60));
        })]
    };
    let mut plane = Plane::start(patient(&[blackhole.address()]));
    let endpoint = plane.endpoints().remove(0);
    let hello = hello("a.test");
    let mut client = open(plane.address(), &hello);
    wait_until("the attempt", || endpoint.active() == 1);
    plane.apply(patient(&[]));
    let mut server = blackhole.accept_late();
    assert_eq!(rest(&mut client), (vec![], End::Eof));
    assert_eq!(rest(&mut server), (hello, End::Eof));
    drop((client, server));
    plane.assert_ended(&[("a.test", Outcome::EndpointRemoved, 1)]);
}

/// It gets the end, and a reset later.
#[test]
#[ignore = "slow: a peer has five seconds to close"]
fn a_peer_that_does_not_read_is_reset() {
    let backend = Backend::narrow();
    let mut plane = Plane::start(vec![closer("a.test", &[backend.address()])]);
    let hello = hello("a.test");
    let client = open_narrow(plane.address(), &hello);
    let mut server = backend.accept_with(&hello);
    server.set_nonblocking(true).unwrap();
    let mut last = Instant::now();
    while last.elapsed() < millis(500) {
        if server.write(&[7; 64 * 1024]).is_ok() {
            last = Instant::now();
        }
    }
    server.set_nonblocking(false).unwrap();
    let begun = Instant::now();
    plane.apply(vec![closer("a.test", &[])]);
    assert_eq!(rest(&mut server), (vec![], End::Eof), "it is told at once");
    assert!(begun.elapsed() < millis(3000), "{:?}", begun.elapsed());
    plane.assert_ended(&[("a.test", Outcome::EndpointRemoved, 1)]);
    let took = begun.elapsed();
    assert!((millis(4500)..millis(15_000)).contains(&took), "{took:?}");
    expect_reset(client);
}

#[test]
fn a_connection_whose_client_has_said_all_ends_as_well() {
    let backend = Backend::new();
    let mut plane = Plane::start(vec![closer("a.test", &[backend.address()])]);
    let mut pair = Pair::open(&plane, "a.test", &backend);
    pair.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut pair.server), (vec![], End::Eof));
    plane.apply(vec![closer("a.test", &[])]);
    assert_eq!(rest(&mut pair.client), (vec![], End::Eof));
    drop(pair);
    plane.assert_ended(&[("a.test", Outcome::EndpointRemoved, 1)]);
}
