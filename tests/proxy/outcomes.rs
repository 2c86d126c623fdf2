//! Every way in which a connection ends: what the client sees of it, and that it is counted once.
//! `limit_exceeded` is in `descriptors.rs`.

use std::io::Write;
use std::net::Shutdown;

use sluice::config::Protocol;
use sluice::outcome::Outcome;
use sluice::policy::Timeout;

use crate::support::{
    Backend, Blackhole, End, Plane, exchange, fresh, hello, hello_with_any_name,
    hello_without_name, listener, malformed_hello, millis, open, refusing, reset, rest, target,
    wait_until,
};

/// A client that says `bytes` is turned away without a word, and counted under `outcome`.
#[track_caller]
fn refused(plane: &Plane, bytes: &[u8], route: &str, outcome: Outcome) {
    let mut client = open(plane.address(), bytes);
    assert_eq!(rest(&mut client), (vec![], End::Eof));
    plane.assert_ended(&[(route, outcome, 1)]);
    assert_eq!(plane.bytes(route), (0, 0));
}

#[test]
fn completed() {
    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    let hello = hello("a.test");
    let mut client = open(plane.address(), &hello);
    let mut server = backend.accept_with(&hello);
    server.write_all(b"an answer").unwrap();
    drop(server);
    assert_eq!(rest(&mut client), (b"an answer".to_vec(), End::Eof));
    drop(client);
    plane.assert_ended(&[("a.test", Outcome::Completed, 1)]);
    assert_eq!(plane.bytes("a.test"), (hello.len() as u64, 9));
}

#[test]
fn no_sni() {
    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    refused(&plane, &hello_without_name(), "", Outcome::NoSni);
}

#[test]
fn without_a_name_the_route_for_any_name_is_taken() {
    let backend = Backend::new();
    let plane = Plane::start(vec![target("*", &[backend.address()])]);
    let hello = hello_without_name();
    let client = open(plane.address(), &hello);
    drop(backend.accept_with(&hello));
    drop(client);
    wait_until("the end", || plane.bytes("*") == (hello.len() as u64, 0));
}

#[test]
fn not_tls() {
    let plane = Plane::start(vec![]);
    refused(&plane, b"GET / HTTP/1.1\r\n\r\n", "", Outcome::NotTls);
}

#[test]
fn malformed_hello_is_routed_by_nobody() {
    let backend = Backend::new();
    let plane = Plane::start(vec![target("*", &[backend.address()])]);
    refused(&plane, &malformed_hello(), "", Outcome::MalformedHello);
    assert!(!backend.is_wanted());
}

#[test]
fn hello_too_large_is_told_at_its_header() {
    let plane = Plane::start(vec![]);
    refused(&plane, b"\x16\x03\x01\x40\x00\x01\xff\xff\xff", "", Outcome::HelloTooLarge);
}

#[test]
fn hello_too_large_by_the_setting() {
    let plane = Plane::with(vec![], |config| config.max_hello = 128);
    refused(&plane, &hello("a.test")[..20], "", Outcome::HelloTooLarge);
}

#[test]
fn hello_timeout() {
    let plane = Plane::with(vec![], |config| config.timeouts.hello = millis(100));
    refused(&plane, b"", "", Outcome::HelloTimeout);
}

#[test]
fn no_route() {
    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    refused(&plane, &hello("b.test"), "", Outcome::NoRoute);
}

#[test]
fn no_endpoints() {
    let plane = Plane::start(vec![target("a.test", &[])]);
    refused(&plane, &hello("a.test"), "a.test", Outcome::NoEndpoints);
}

#[test]
fn connect_failed() {
    let (address, _socket) = refusing();
    let plane = Plane::start(vec![target("a.test", &[address])]);
    refused(&plane, &hello("a.test"), "a.test", Outcome::ConnectFailed);
}

#[test]
fn connect_timeout() {
    let blackhole = Blackhole::new();
    let plane = Plane::with(vec![target("a.test", &[blackhole.address()])], |config| {
        config.policy.timeouts.connect = Timeout::new(millis(100));
    });
    refused(&plane, &hello("a.test"), "a.test", Outcome::ConnectTimeout);
}

#[test]
fn idle_timeout() {
    let backend = Backend::new();
    let plane = Plane::with(vec![target("a.test", &[backend.address()])], |config| {
        config.policy.timeouts.idle = Timeout::new(millis(150));
    });
    let hello = hello("a.test");
    let mut client = open(plane.address(), &hello);
    let mut server = backend.accept_with(&hello);
    assert_eq!(rest(&mut client), (vec![], End::Eof));
    assert_eq!(rest(&mut server), (vec![], End::Eof));
    plane.assert_ended(&[("a.test", Outcome::IdleTimeout, 1)]);
    assert_eq!(plane.bytes("a.test"), (hello.len() as u64, 0));
}

#[test]
fn downstream_reset_before_the_hello_is_whole() {
    let plane = Plane::start(vec![]);
    let hello = hello("a.test");
    let mut ends = open(plane.address(), &hello[..hello.len() / 2]);
    ends.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut ends), (vec![], End::Eof));
    reset(open(plane.address(), &hello[..hello.len() / 2]));
    plane.assert_ended(&[("", Outcome::DownstreamReset, 2)]);
}

#[test]
fn no_hello() {
    let plane = Plane::start(vec![]);
    let mut ends = open(plane.address(), b"");
    ends.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut ends), (vec![], End::Eof));
    drop(open(plane.address(), b""));
    reset(open(plane.address(), b""));
    plane.assert_ended(&[("", Outcome::NoHello, 3)]);
}

/// There is no hello, but health checks there are.
#[test]
fn no_hello_of_clients_without_a_byte_where_nobody_looks() {
    let backend = Backend::new();
    let plane = Plane::with(vec![target("*", &[backend.address()])], |config| {
        config.listeners = vec![listener("plain", Protocol::Tcp, false)];
    });
    let silent = open(plane.address(), b"");
    let server = backend.accept();
    reset(silent);
    plane.assert_ended(&[("*", Outcome::NoHello, 1)]);
    drop(server);
    let said = open(plane.address(), b"a");
    let server = backend.accept_with(b"a");
    reset(said);
    plane.assert_ended(&[("*", Outcome::NoHello, 1), ("*", Outcome::DownstreamReset, 1)]);
    drop(server);
    // To end in good order without a byte is legal.
    drop(open(plane.address(), b""));
    drop(backend.accept());
    plane.assert_ended(&[
        ("*", Outcome::NoHello, 1),
        ("*", Outcome::DownstreamReset, 1),
        ("*", Outcome::Completed, 1),
    ]);
}

#[test]
fn names_that_no_server_has_are_for_the_route_for_any_name_alone() {
    let (any, named) = (Backend::new(), Backend::new());
    let names: [&[u8]; 8] = [
        b"10.1.2.3",
        b"2001:db8::7",
        b"*",
        b"*.a.test",
        b"x.a.test:443",
        b"",
        b"x.a.test\0",
        b"x.\xff.a.test",
    ];
    let targets = || {
        ["a.test", "*.a.test", "*.test"].map(|name| target(name, &[named.address()])).into_iter()
    };
    let plane = Plane::start(targets().chain([target("*", &[any.address()])]).collect());
    for name in names {
        let hello = hello_with_any_name(name);
        let client = open(plane.address(), &hello);
        drop(any.accept_with(&hello));
        drop(client);
    }
    plane.assert_active(0);
    assert!(!named.is_wanted());
    drop(plane);

    let plane = Plane::start(targets().collect());
    for name in names {
        assert_eq!(rest(&mut open(plane.address(), &hello_with_any_name(name))).1, End::Eof);
    }
    plane.assert_ended(&[("", Outcome::NoSni, names.len() as u64)]);
    assert!(!named.is_wanted());
    let log = plane.access_log();
    for name in names.map(|name| name.escape_ascii().to_string()) {
        let line = log.iter().find(|line| line["serverName"] == name).expect(&name);
        assert!(line["cause"].as_str().unwrap().starts_with("the server name "), "{line}");
    }
}

#[test]
fn hello_too_large_of_a_flood_of_tiny_records() {
    let plane = Plane::with(vec![], |config| config.max_hello = 1024);
    let message = [&[1, 0, 4, 0][..], &[0; 600]].concat();
    let records: Vec<u8> = message.iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect();
    assert!(records.len() > 2 * 1024 + 512);
    refused(&plane, &records, "", Outcome::HelloTooLarge);
}

#[test]
fn a_loop_is_the_third_of_a_hello() {
    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    let hello = hello("a.test");
    let mut first = open(plane.address(), &hello);
    let mut first_server = backend.accept_with(&hello);
    let second = open(plane.address(), &hello);
    let second_server = backend.accept_with(&hello);
    assert_eq!(rest(&mut open(plane.address(), &hello)), (vec![], End::Eof));
    plane.assert_active(2);
    assert!(plane.has_ended("a.test", Outcome::Loop));
    exchange(&mut first, &mut first_server);
    // Another, and the same once one of the two is over.
    let other = open(plane.address(), &fresh(&hello));
    let other_server = backend.accept();
    drop((second, second_server));
    plane.assert_active(2);
    let again = open(plane.address(), &hello);
    let again_server = backend.accept_with(&hello);
    drop((first, first_server, other, other_server, again, again_server));
    plane.assert_active(0);
}

#[test]
fn downstream_reset() {
    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    let hello = hello("a.test");
    let client = open(plane.address(), &hello);
    let mut server = backend.accept_with(&hello);
    reset(client);
    assert_eq!(rest(&mut server).1, End::Reset);
    plane.assert_ended(&[("a.test", Outcome::DownstreamReset, 1)]);
}

#[test]
fn upstream_reset() {
    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    let hello = hello("a.test");
    let mut client = open(plane.address(), &hello);
    reset(backend.accept_with(&hello));
    assert_eq!(rest(&mut client), (vec![], End::Reset));
    plane.assert_ended(&[("a.test", Outcome::UpstreamReset, 1)]);
    assert_eq!(plane.bytes("a.test"), (hello.len() as u64, 0));
}

#[test]
fn drained_at_every_stage() {
    let (backend, blackhole) = (Backend::new(), Blackhole::new());
    let targets =
        vec![target("a.test", &[backend.address()]), target("b.test", &[blackhole.address()])];
    let plane = Plane::start(targets);
    let mut silent = open(plane.address(), b"");
    let hello_a = hello("a.test");
    let mut relayed = open(plane.address(), &hello_a);
    let mut server = backend.accept_with(&hello_a);
    let mut connecting = open(plane.address(), &hello("b.test"));
    wait_until("all to be there", || {
        let table = plane.reader.table();
        let endpoints = table.routes().map(|route| route.backends[0].backend.endpoints());
        let active: usize = endpoints.map(|endpoints| endpoints[0].active()).sum();
        active == 2 && plane.metrics.connections.total() == 3
    });
    plane.running().abort();
    assert_eq!(rest(&mut silent).1, End::Eof);
    assert_eq!(rest(&mut connecting).1, End::Eof);
    assert_eq!(rest(&mut relayed).1, End::Reset);
    assert_eq!(rest(&mut server).1, End::Reset);
    plane.assert_ended(&[
        ("", Outcome::Drained, 1),
        ("a.test", Outcome::Drained, 1),
        ("b.test", Outcome::Drained, 1),
    ]);
}

#[test]
fn every_attempt_is_counted_once() {
    let (backend, (dead, _socket)) = (Backend::new(), refusing());
    let plane = Plane::start(vec![
        target("a.test", &[backend.address()]),
        target("b.test", &[dead]),
        target("c.test", &[]),
    ]);
    for _ in 0..20 {
        for hello in
            [hello("b.test"), hello("c.test"), hello("d.test"), hello_without_name(), vec![0]]
        {
            rest(&mut open(plane.address(), &hello));
        }
        let mut client = open(plane.address(), &hello("a.test"));
        drop(backend.accept_with(&hello("a.test")[..5]));
        rest(&mut client);
    }
    wait_until("the end of all", || plane.metrics.durations.connection.get_sample_count() >= 120);
    assert_eq!(plane.metrics.durations.connection.get_sample_count(), 120);
    assert_eq!(plane.metrics.durations.hello.get_sample_count(), 100);
    assert_eq!(plane.metrics.durations.connect.get_sample_count(), 20);
    assert_eq!(plane.access_log().len(), 120);
}
