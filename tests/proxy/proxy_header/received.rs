//! Headers that proxies send to sluice.

use std::io::Write;

use sluice::config::{OtherPeers, Protocol, TrustedPeers};
use sluice::outcome::Outcome;
use sluice::proxy_protocol::{LOCAL, Version};

use super::*;
use crate::support::{
    Backend, End, connect, exchange, hello, listener, millis, open, target, wait_until,
};

#[test]
fn the_client_of_a_trusted_proxy_is_the_one_in_the_header() {
    let hello = hello("a.test");
    for version in [Version::V1, Version::V2] {
        let backend = Backend::new();
        let plane = Plane::with(vec![target("a.test", &[backend.address()])], requiring);
        let bytes = [header(version), hello.clone()].concat();
        // At once, in two pieces that are cut anywhere, and byte by byte.
        for cut in [bytes.len(), 1, 20, header(version).len(), header(version).len() + 1] {
            let mut client = connect(plane.address());
            client.write_all(&bytes[..cut]).unwrap();
            client.write_all(&bytes[cut..]).unwrap();
            let mut server = backend.accept_with(&hello);
            exchange(&mut client, &mut server);
        }
        let mut client = connect(plane.address());
        bytes.iter().for_each(|byte| client.write_all(&[*byte]).unwrap());
        let mut server = backend.accept_with(&hello);
        exchange(&mut client, &mut server);
        let peer = client.local_addr().unwrap().to_string();
        drop((client, server));
        plane.assert_ended(&[("a.test", Outcome::Completed, 6)]);
        let bytes_up = hello.len() as u64 + 4;
        assert_eq!(plane.bytes("a.test").0, 6 * bytes_up, "the header is not the client's");
        let line = line_with(plane, "peer", &peer);
        assert_eq!(line["source"], CLIENT);
        assert_eq!(line["id"].as_str().map(str::len), Some(16), "{line}");
    }
}

#[test]
fn a_listener_of_any_protocol_reads_it_as_well() {
    let backend = Backend::new();
    let plane = Plane::with(vec![target("*", &[backend.address()])], |config| {
        config.listeners = vec![listener("https", Protocol::Tcp, false)];
        requiring(config);
    });
    let mut client = open(plane.address(), &[&header(Version::V2)[..], b"any"].concat());
    let mut server = backend.accept_with(b"any");
    exchange(&mut client, &mut server);
    drop((client, server));
    assert_eq!(only_line(plane)["source"], CLIENT);
}

#[test]
fn a_trusted_proxy_has_to_send_one_unless_it_is_told_otherwise() {
    let backend = Backend::new();
    let routes = || vec![target("a.test", &[backend.address()])];
    let plane = Plane::with(routes(), requiring);
    is_refused(open(plane.address(), &hello("a.test")));
    plane.assert_ended(&[("", Outcome::BadPreamble, 1)]);
    let line = only_line(plane);
    let cause = line["cause"].as_str().unwrap();
    assert!(cause.ends_with("is in proxyProtocol.from, and sent no PROXY header"), "{line}");

    let plane = Plane::with(routes(), trusting(TrustedPeers::Accept, OtherPeers::Plain));
    let hello = hello("a.test");
    let mut client = open(plane.address(), &hello);
    exchange(&mut client, &mut backend.accept_with(&hello));
    let mut client = open(plane.address(), &[header(Version::V2), hello.clone()].concat());
    exchange(&mut client, &mut backend.accept_with(&hello));
}

#[test]
fn an_invalid_header_is_refused_with_what_is_wrong() {
    let plane = Plane::with(vec![], requiring);
    is_refused(open(plane.address(), b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n"));
    plane.assert_ended(&[("", Outcome::BadPreamble, 1)]);
    let line = only_line(plane);
    assert!(line["cause"].as_str().unwrap().starts_with("the PROXY header is invalid: "), "{line}");
}

#[test]
fn a_header_of_a_stranger_is_recognised_and_never_believed() {
    for bytes in [header(Version::V1), header(Version::V2)] {
        for trusts in [true, false] {
            let plane = Plane::with(vec![], |config| {
                if trusts {
                    requiring(config);
                }
            });
            let client = stranger(plane.address(), &bytes);
            let peer = client.local_addr().unwrap().to_string();
            is_refused(client);
            // In pieces, of which the first says little.
            let mut client = stranger(plane.address(), &bytes[..1]);
            client.write_all(&bytes[1..]).unwrap();
            is_refused(client);
            plane.assert_ended(&[("", Outcome::UntrustedProxyHeader, 2)]);
            let line = line_with(plane, "source", &peer);
            let cause = line["cause"].as_str().unwrap();
            let expected =
                "sent a PROXY header, and is not in proxyProtocol.from of listener https";
            assert!(cause.starts_with(&peer) && cause.ends_with(expected), "{cause}");
        }
    }
    // What only begins like one is something else.
    let plane = Plane::start(vec![]);
    is_refused(open(plane.address(), b"PROPFIND / HTTP/1.1\r\n\r\n"));
    is_refused(open(plane.address(), b"\r\n"));
    plane.assert_ended(&[("", Outcome::NotTls, 2)]);
}

#[test]
fn strangers_are_clients_or_are_refused() {
    let backend = Backend::new();
    let hello = hello("a.test");
    let routes = || vec![target("a.test", &[backend.address()])];
    let plane = Plane::with(routes(), requiring);
    let mut client = stranger(plane.address(), &hello);
    exchange(&mut client, &mut backend.accept_with(&hello));
    drop(client);
    let plane = Plane::with(routes(), trusting(TrustedPeers::Require, OtherPeers::Refuse));
    is_refused(stranger(plane.address(), b""));
    plane.assert_ended(&[("", Outcome::AccessDenied, 1)]);
}

#[test]
fn a_proxy_that_speaks_for_itself_is_no_client() {
    let plane = Plane::with(vec![], requiring);
    is_refused(open(plane.address(), &LOCAL));
    is_refused(open(plane.address(), b"PROXY UNKNOWN\r\n"));
    is_refused(open(plane.address(), b""));
    plane.assert_ended(&[("", Outcome::NoHello, 3)]);
}

#[test]
fn a_header_that_does_not_end_is_not_waited_for() {
    let plane = Plane::with(vec![], |config| {
        requiring(config);
        config.timeouts.hello = millis(200);
    });
    let mut slow = open(plane.address(), &header(Version::V2)[..20]);
    // One deadline for both.
    let mut slower = open(plane.address(), &header(Version::V2));
    for client in [&mut slow, &mut slower] {
        assert_eq!(rest(client), (vec![], End::Eof));
    }
    plane.assert_ended(&[("", Outcome::BadPreamble, 1), ("", Outcome::HelloTimeout, 1)]);
    let silent = open(plane.address(), b"");
    wait_until("nobody waits for a header", || plane.count("", Outcome::BadPreamble) == 2);
    drop(silent);
}

/// Its health checks do not depend on the clients that are admitted.
#[test]
fn a_proxy_that_names_no_client_is_judged_when_it_wants_a_route() {
    let backend = Backend::new();
    let plane = Plane::with(vec![target("a.test", &[backend.address()])], |config| {
        requiring(config);
        config.listeners[0].access = only(&["192.0.2.0/24"]);
    });
    is_refused(open(plane.address(), &LOCAL));
    plane.assert_ended(&[("", Outcome::NoHello, 1)]);
    is_refused(open(plane.address(), &[&LOCAL[..], &hello("a.test")].concat()));
    plane.assert_ended(&[("", Outcome::NoHello, 1), ("a.test", Outcome::AccessDenied, 1)]);
    assert!(!backend.is_wanted());
}
