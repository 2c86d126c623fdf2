//! Routes that change while their connections live, and how connections are spread.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpStream;

use sluice::outcome::Outcome;
use sluice::policy::Balancing;

use crate::support::{
    Backend, End, Plane, answering, ask, exchange, fresh, hello, is_over, open, rest, target,
    wait_until,
};

/// Both ends of a connection to `backend`.
fn connected(plane: &Plane, backend: &Backend) -> (TcpStream, TcpStream) {
    let hello = hello("a.test");
    let client = open(plane.address(), &hello);
    (client, backend.accept_with(&hello))
}

#[test]
fn a_changed_route_is_for_the_next_connection() {
    let backend = Backend::new();
    let mut plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    let (mut client, mut server) = connected(&plane, &backend);
    let elsewhere = answering("elsewhere");
    for change in 0..100 {
        plane.apply(vec![
            target("a.test", &[elsewhere])
                .with(|spec| spec.alpn = vec![])
                .with(|spec| spec.created = Some(change)),
        ]);
        exchange(&mut client, &mut server);
    }
    assert_eq!(ask(plane.address(), "a.test"), "elsewhere");
    exchange(&mut client, &mut server);
    drop(client);
    assert_eq!(rest(&mut server), (vec![], End::Eof));
    drop(server);
    plane.assert_ended(&[("a.test", Outcome::Completed, 2)]);
}

#[test]
fn a_removed_route_keeps_its_connections_and_counts_them() {
    let backend = Backend::new();
    let mut plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    let (mut client, mut server) = connected(&plane, &backend);
    plane.apply(vec![]);
    assert_eq!(ask(plane.address(), "a.test"), "");
    exchange(&mut client, &mut server);
    drop(client);
    assert_eq!(rest(&mut server), (vec![], End::Eof));
    drop(server);
    plane.assert_ended(&[("a.test", Outcome::Completed, 1), ("", Outcome::NoRoute, 1)]);
    assert_eq!(plane.bytes("a.test"), (hello("a.test").len() as u64 + 4, 4));
}

#[test]
fn a_removed_endpoint_keeps_its_connections() {
    let (gone, stays) = (Backend::new(), Backend::new());
    let mut plane = Plane::start(vec![target("a.test", &[gone.address()])]);
    let (mut client, mut server) = connected(&plane, &gone);
    plane.apply(vec![target("a.test", &[stays.address()])]);
    let (_other_client, _other_server) = connected(&plane, &stays);
    assert!(!gone.is_wanted());
    exchange(&mut client, &mut server);
}

#[test]
fn round_robin_takes_endpoints_in_turn() {
    let endpoints = [answering("1"), answering("2"), answering("3")];
    let plane = Plane::start(vec![target("a.test", &endpoints)]);
    let answers: String = (0..9).map(|_| ask(plane.address(), "a.test")).collect();
    // From anywhere on.
    assert!(["123123123", "231231231", "312312312"].contains(&&*answers), "{answers}");
}

#[test]
fn round_robin_follows_the_weights() {
    let plane = Plane::start(vec![
        target("a.test", &[answering("light")])
            .and(3, &[answering("heavy")])
            .and(0, &[answering("never")]),
    ]);
    let mut answers = BTreeMap::new();
    for _ in 0..40 {
        *answers.entry(ask(plane.address(), "a.test")).or_insert(0) += 1;
    }
    assert_eq!(answers, BTreeMap::from([("light".to_owned(), 10), ("heavy".to_owned(), 30)]));
}

#[test]
fn least_connections_fills_up_what_is_free() {
    let backends = [Backend::new(), Backend::new(), Backend::new()];
    let addresses: Vec<_> = backends.iter().map(Backend::address).collect();
    let target = target("a.test", &addresses).balanced(Balancing::LeastConnections);
    let plane = Plane::start(vec![target]);
    let hello = hello("a.test");
    let counted = || -> usize {
        let table = plane.reader.table();
        let endpoints = table.routes().next().unwrap().backends[0].backend.endpoints();
        endpoints.iter().map(|endpoint| endpoint.active()).sum()
    };
    let mut clients = Vec::new();
    for number in 1..=backends.len() {
        clients.push(open(plane.address(), &fresh(&hello)));
        // One after another, so that each finds the others counted.
        wait_until("it is counted", || counted() == number);
    }
    let accept = |backend: &Backend| {
        let mut server = backend.accept();
        server.read_exact(&mut vec![0; hello.len()]).unwrap();
        server
    };
    let mut servers: Vec<_> = backends.iter().map(accept).collect();

    // The connection of the second ends: the next client is for it.
    drop(servers.remove(1));
    wait_until("its client hears of it", || clients.iter().any(is_over));
    clients.retain(|client| !is_over(client));
    assert_eq!(clients.len(), 2);
    plane.assert_active(2);
    clients.push(open(plane.address(), &hello));
    backends[1].accept_with(&hello);
}

#[test]
fn source_addresses_stay_with_their_endpoint() {
    let endpoints = [answering("1"), answering("2"), answering("3"), answering("4")];
    let target = target("a.test", &endpoints).balanced(Balancing::SourceAddress);
    let plane = Plane::start(vec![target]);
    let first = ask(plane.address(), "a.test");
    for _ in 0..10 {
        assert_eq!(ask(plane.address(), "a.test"), first);
    }
}

#[test]
fn server_names_stay_with_their_endpoint() {
    let endpoints = [answering("1"), answering("2"), answering("3"), answering("4")];
    let target = target("*.test", &endpoints).balanced(Balancing::ServerName);
    let plane = Plane::start(vec![target]);
    let of_names = || -> Vec<String> {
        (0..16).map(|number| ask(plane.address(), &format!("{number}.test"))).collect()
    };
    let first = of_names();
    assert!(first.iter().any(|answer| *answer != first[0]), "{first:?}");
    assert_eq!(of_names(), first);
}
