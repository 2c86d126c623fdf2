//! The ends of connections: orderly ones are passed on as such, and no other.

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rcgen::PKCS_ECDSA_P256_SHA256;
use sluice::outcome::Outcome;
use sluice::policy::{OnRemoval, Spread, Timeout};

use super::Site;
use super::peer::{TlsEnd, exchange};
use crate::support::{End, Target, expect, millis, reset, rest, target, wait_until};

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
    assert_eq!(client.rest(), (vec![], TlsEnd::Cut));
    site.plane.assert_ended(&[("a.test", Outcome::DownstreamReset, 1)]);
    let lines = site.plane.access_log();
    assert_eq!(lines[0]["cause"], "the connection has ended without close_notify");
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

/// A `close_notify` would say that nothing is missing.
#[test]
fn what_is_cut_off_is_no_end() {
    let closing = |target: Target| {
        target.policy(|policy| {
            policy.endpoints.on_removal = Some(OnRemoval::Close);
            policy.endpoints.close_over = Some(Spread::new(millis(0)));
        })
    };
    let mut site = Site::with(closing);
    let (mut client, mut server) = site.pair();
    let elsewhere = [SocketAddr::from(([127, 0, 0, 9], 9))];
    let parts = site.authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    let changed = closing(target("a.test", &elsewhere).terminated(parts, None));
    exchange(&mut client, &mut server);
    let (over, more) = (AtomicBool::new(false), server.try_clone().unwrap());
    let end = thread::scope(|scope| {
        // Never in a pause, whenever it is cut off.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) && (&more).write_all(b"more").is_ok() {
                thread::sleep(millis(5));
            }
        });
        client.expect(b"more");
        site.plane.apply(vec![changed]);
        let end = client.rest().1;
        over.store(true, Ordering::Relaxed);
        end
    });
    assert_eq!(end, TlsEnd::Cut);
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
