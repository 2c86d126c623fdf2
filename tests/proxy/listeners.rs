//! Several listeners, and those whose clients may speak anything.

use std::io::Write;
use std::net::Shutdown;

use sluice::config::{Config, Protocol};
use sluice::outcome::Outcome;

use crate::support::{
    Backend, End, Plane, answering, ask, connect, expect, hello, listener, open, rest, target,
};

fn tls_and_tcp(config: &mut Config) {
    config.listeners = vec![
        listener("https", Protocol::Tls, false),
        listener("other", Protocol::Tls, false),
        listener("plain", Protocol::Tcp, false),
    ];
}

#[test]
fn a_server_may_speak_first_where_the_protocol_is_tcp() {
    let backend = Backend::new();
    let plane = Plane::with(vec![target("*", &[backend.address()])], tls_and_tcp);
    let mut client = connect(plane.address_of("plain"));
    let mut server = backend.accept();
    server.write_all(b"220 ready\r\n").unwrap();
    expect(&mut client, b"220 ready\r\n");
    client.write_all(b"QUIT\r\n").unwrap();
    expect(&mut server, b"QUIT\r\n");
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut client), (vec![], End::Eof));
    drop(client);
    assert_eq!(rest(&mut server), (vec![], End::Eof));
    plane.assert_ended(&[("*", Outcome::Completed, 1)]);
    assert_eq!(plane.bytes("*"), (6, 11));
}

#[test]
fn a_hello_is_no_hello_where_the_protocol_is_tcp() {
    let (named, any) = (Backend::new(), Backend::new());
    let targets = vec![target("a.test", &[named.address()]), target("*", &[any.address()])];
    let plane = Plane::with(targets, tls_and_tcp);
    let hello = hello("a.test");
    let _client = open(plane.address_of("plain"), &hello);
    any.accept_with(&hello);
    assert!(!named.is_wanted());
}

#[test]
fn without_a_route_for_any_name_tcp_clients_find_none() {
    let backend = Backend::new();
    let plane = Plane::with(vec![target("a.test", &[backend.address()])], tls_and_tcp);
    let mut client = connect(plane.address_of("plain"));
    assert_eq!(rest(&mut client), (vec![], End::Eof));
    plane.assert_ended(&[("", Outcome::NoRoute, 1)]);
}

#[test]
fn a_route_that_names_a_listener_is_there_and_nowhere_else() {
    let only = |name: &'static str| {
        move |spec: &mut sluice::routing::RouteSpec| {
            *spec = spec.clone().on(&[name]);
        }
    };
    let plane = Plane::with(
        vec![
            target("a.test", &[answering("other")]).with(only("other")),
            target("*", &[answering("plain")]).with(only("plain")),
        ],
        tls_and_tcp,
    );
    assert_eq!(ask(plane.address_of("other"), "a.test"), "other");
    assert_eq!(ask(plane.address_of("https"), "a.test"), "");
    assert_eq!(ask(plane.address_of("other"), "b.test"), "");
    let mut client = open(plane.address_of("plain"), b"hi");
    assert_eq!(rest(&mut client), (b"plain".to_vec(), End::Eof));
    drop(client);
    plane.assert_ended(&[
        ("a.test", Outcome::Completed, 1),
        ("*", Outcome::Completed, 1),
        ("", Outcome::NoRoute, 2),
    ]);
}

#[test]
fn ipv6_clients_reach_ipv4_backends() {
    let plane = Plane::with(vec![target("a.test", &[answering("served")])], |config| {
        config.listeners[0].address = "[::1]:0".parse().unwrap();
    });
    assert_eq!(ask(plane.address(), "a.test"), "served");
}
