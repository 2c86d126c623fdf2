//! Which clients are admitted, by their addresses, and routes that admit none.

use std::net::{SocketAddr, TcpListener};

use sluice::outcome::Outcome;
use sluice::proxy::PassedSocket;
use sluice::proxy_protocol::{Extensions, Version};

use crate::proxy_header::{SERVED, header, header_of, is_refused, only, requiring, stranger};
use crate::support::{Backend, Plane, exchange, hello, open, open_from, target, wait_until};

#[test]
fn a_listener_admits_clients_by_their_addresses() {
    let hello = hello("a.test");
    let backend = Backend::new();
    let routes = || vec![target("a.test", &[backend.address()])];
    let plane = Plane::with(routes(), |config| config.listeners[0].access = only(&["127.0.0.1"]));
    // Before a byte is read.
    is_refused(stranger(plane.address(), b""));
    let mut client = open(plane.address(), &hello);
    exchange(&mut client, &mut backend.accept_with(&hello));
    drop(client);
    plane.assert_ended(&[("", Outcome::AccessDenied, 1), ("a.test", Outcome::Completed, 1)]);

    // Of a proxy's clients, theirs count.
    let plane = Plane::with(routes(), |config| {
        requiring(config);
        config.listeners[0].access = only(&["192.0.2.0/24"]);
    });
    let mut client = open(plane.address(), &[header(Version::V2), hello.clone()].concat());
    exchange(&mut client, &mut backend.accept_with(&hello));
    let other = header_of(Version::V2, "198.51.100.1:1", SERVED, Extensions::default());
    is_refused(open(plane.address(), &other));
    is_refused(stranger(plane.address(), b""));
    drop(client);
    plane.assert_ended(&[("", Outcome::AccessDenied, 2), ("a.test", Outcome::Completed, 1)]);
}

#[test]
fn a_route_admits_clients_by_their_addresses_before_it_connects() {
    let hello = hello("a.test");
    let backend = Backend::new();
    let route = target("a.test", &[backend.address()])
        .policy(|policy| policy.access = Some(only(&["127.0.0.1"])));
    let plane = Plane::start(vec![route]);
    is_refused(stranger(plane.address(), &hello));
    plane.assert_ended(&[("a.test", Outcome::AccessDenied, 1)]);
    assert!(!backend.is_wanted());
    let mut client = open(plane.address(), &hello);
    exchange(&mut client, &mut backend.accept_with(&hello));
}

#[test]
fn no_route_admits_more_than_the_ceiling() {
    let backend = Backend::new();
    let hello = hello("a.test");
    let route = target("a.test", &[backend.address()])
        .policy(|policy| policy.access = Some(only(&["127.0.0.0/8"])));
    let plane = Plane::with(vec![route], |config| {
        config.policy_ceiling.access = Some(only(&["127.0.0.1", "10.0.0.0/8"]));
    });
    is_refused(stranger(plane.address(), &hello));
    let mut client = open(plane.address(), &hello);
    exchange(&mut client, &mut backend.accept_with(&hello));
    drop(client);
    plane.assert_ended(&[("a.test", Outcome::AccessDenied, 1), ("a.test", Outcome::Completed, 1)]);
}

/// An IPv4 client of a socket of both families has an address of IPv6 there.
#[test]
fn an_ipv4_client_is_judged_as_one_whatever_the_socket() {
    let hello = hello("a.test");
    let backend = Backend::new();
    let socket = TcpListener::bind("[::]:0").unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], socket.local_addr().unwrap().port()));
    let passed = PassedSocket {
        name: Some("https".to_owned()),
        described: "a socket".to_owned(),
        socket: socket.into(),
    };
    let route = target("a.test", &[backend.address()]);
    let plane = Plane::with_passed(vec![route], passed, |config| {
        requiring(config);
        config.listeners[0].access = only(&["192.0.2.0/24", "127.0.0.3"]);
    });
    let mut client = open(address, &[header(Version::V2), hello.clone()].concat());
    exchange(&mut client, &mut backend.accept_with(&hello));
    is_refused(stranger(address, b""));
    let mut other = open_from(([127, 0, 0, 3], 0).into(), address, &hello);
    exchange(&mut other, &mut backend.accept_with(&hello));
    drop((client, other));
    plane.assert_ended(&[("", Outcome::AccessDenied, 1), ("a.test", Outcome::Completed, 2)]);
}

#[test]
fn a_suspended_route_keeps_what_it_has_and_takes_nothing_new() {
    let hello = hello("a.test");
    let backend = Backend::new();
    let route = || target("a.test", &[backend.address()]);
    let mut plane = Plane::start(vec![route()]);
    let mut client = open(plane.address(), &hello);
    let mut server = backend.accept_with(&hello);
    plane.apply(vec![route().policy(|policy| policy.suspend = Some(true))]);
    wait_until("it is refused", || {
        is_refused(open(plane.address(), &hello));
        plane.has_ended("a.test", Outcome::Suspended)
    });
    exchange(&mut client, &mut server);
}
