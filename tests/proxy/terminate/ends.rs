//! The ends of connections: orderly ones are passed on as such, and no other.

use std::io::Write;
use std::net::Shutdown;

use sluice::outcome::Outcome;
use sluice::policy::Timeout;

use super::Site;
use super::peer::{TlsEnd, exchange};
use crate::support::{End, expect, millis, reset, rest, wait_until};

#[test]
fn a_client_ends_first() {
    let site = Site::new();
    let (mut client, mut server) = site.pair();
    client.send(b"request");
    client.close();
    assert_eq!(rest(&mut server), (b"request".to_vec(), End::Eof));
    server.write_all(b"answer").unwrap();
    client.expect(b"answer");
    server.write_all(b"more").unwrap();
    drop(server);
    assert_eq!(client.rest(), (b"more".to_vec(), TlsEnd::Closed));
    site.plane.assert_ended(&[("a.test", Outcome::Completed, 1)]);
}

#[test]
fn a_server_ends_first() {
    let site = Site::new();
    let (mut client, mut server) = site.pair();
    exchange(&mut client, &mut server);
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), (vec![], TlsEnd::Closed));
    client.send(b"late");
    expect(&mut server, b"late");
    client.close();
    assert_eq!(rest(&mut server), (vec![], End::Eof));
    site.plane.assert_ended(&[("a.test", Outcome::Completed, 1)]);
}

/// Many clients do. A server that has closed hears nothing more, and to one that has not, what it has may be half an
/// upload.
#[test]
fn a_client_that_has_everything_needs_no_close_notify() {
    let site = Site::new();
    let (mut client, mut server) = site.pair();
    server.write_all(b"all").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), (b"all".to_vec(), TlsEnd::Closed));
    client.send(b"half an upl");
    expect(&mut server, b"half an upl");
    drop(client);
    assert_eq!(rest(&mut server), (vec![], End::Reset));
    site.plane.assert_ended(&[("a.test", Outcome::Completed, 1)]);
}

#[test]
fn the_end_of_a_clients_connection_alone_is_no_end() {
    let site = Site::new();
    let (mut client, mut server) = site.pair();
    client.send(b"half a req");
    expect(&mut server, b"half a req");
    client.socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut server), (vec![], End::Reset));
    assert_eq!(client.rest().1, TlsEnd::Reset);
    site.plane.assert_ended(&[("a.test", Outcome::DownstreamReset, 1)]);
}

#[test]
fn resets_are_passed_on() {
    let site = Site::new();
    let (mut client, mut server) = site.pair();
    exchange(&mut client, &mut server);
    reset(server);
    assert_eq!(client.rest(), (vec![], TlsEnd::Reset));
    let (mut client, mut server) = site.pair();
    exchange(&mut client, &mut server);
    reset(client.socket);
    assert_eq!(rest(&mut server), (vec![], End::Reset));
    site.plane.assert_ended(&[
        ("a.test", Outcome::UpstreamReset, 1),
        ("a.test", Outcome::DownstreamReset, 1),
    ]);
}

/// TLS forbids nothing more to a client that was told the end than to send no `close_notify` of its own.
#[test]
fn garbage_of_a_client_ends_in_a_reset() {
    let site = Site::new();
    let (mut client, mut server) = site.pair();
    exchange(&mut client, &mut server);
    client.socket.write_all(b"\x17\x03\x03\x00\x20").unwrap();
    client.socket.write_all(&[7; 32]).unwrap();
    assert_eq!(rest(&mut server), (vec![], End::Reset));
    site.plane.assert_ended(&[("a.test", Outcome::DownstreamReset, 1)]);
    let lines = site.plane.access_log();
    assert!(lines[0]["cause"].as_str().is_some_and(|cause| cause.contains("decrypt")), "{lines:?}");
}

#[test]
fn a_lifetime_ends_in_order() {
    let site = Site::with(|target| {
        target.policy(|policy| policy.timeouts.lifetime = Timeout::new(millis(300)))
    });
    let (mut client, mut server) = site.pair();
    exchange(&mut client, &mut server);
    assert_eq!(client.rest(), (vec![], TlsEnd::Closed));
    assert_eq!(rest(&mut server), (vec![], End::Eof));
    // It is over as soon as both have closed, too.
    client.close();
    drop((client, server));
    site.plane.assert_ended(&[("a.test", Outcome::Lifetime, 1)]);
}

#[test]
fn an_idle_connection_ends_in_order() {
    let site = Site::with(|target| {
        target.policy(|policy| policy.timeouts.idle = Timeout::new(millis(200)))
    });
    let (mut client, mut server) = site.pair();
    exchange(&mut client, &mut server);
    assert_eq!(client.rest(), (vec![], TlsEnd::Closed));
    assert_eq!(rest(&mut server), (vec![], End::Eof));
    site.plane.assert_ended(&[("a.test", Outcome::IdleTimeout, 1)]);
}

#[test]
fn a_drain_waits_for_the_connection_and_then_resets_it() {
    let site = Site::new();
    let (mut client, mut server) = site.pair();
    site.plane.running().close();
    exchange(&mut client, &mut server);
    site.plane.running().abort();
    assert_eq!(client.rest(), (vec![], TlsEnd::Reset));
    assert_eq!(rest(&mut server), (vec![], End::Reset));
    wait_until("the record", || site.plane.has_ended("a.test", Outcome::Drained));
}
