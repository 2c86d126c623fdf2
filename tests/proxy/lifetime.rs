//! Connections that last as long as their route allows.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use sluice::outcome::Outcome;
use sluice::policy::Timeout;

use crate::support::{
    Backend, End, Plane, exchange, expect, hello, is_over, millis, open, rest, target,
};

/// A silence of this length is a pause.
const PAUSE: Duration = Duration::from_millis(500);

/// Both ends of a connection with this lifetime.
fn mortal(lifetime: Duration) -> (Plane, TcpStream, TcpStream) {
    let backend = Backend::new();
    let target = target("a.test", &[backend.address()])
        .policy(|policy| policy.timeouts.lifetime = Timeout::new(lifetime));
    let plane = Plane::start(vec![target]);
    let hello = hello("a.test");
    let client = open(plane.address(), &hello);
    let server = backend.accept_with(&hello);
    (plane, client, server)
}

#[test]
fn a_silent_connection_ends_with_its_lifetime() {
    let begun = Instant::now();
    let (plane, mut client, mut server) = mortal(millis(1000));
    exchange(&mut client, &mut server);
    assert_eq!(rest(&mut client), (vec![], End::Eof));
    assert_eq!(rest(&mut server), (vec![], End::Eof));
    let took = begun.elapsed();
    assert!((millis(900)..millis(3000)).contains(&took), "{took:?}");
    drop((client, server));
    plane.assert_ended(&[("a.test", Outcome::Lifetime, 1)]);
}

#[test]
fn a_connection_ends_in_the_first_pause_after_its_lifetime() {
    let long = millis(1500);
    // On a busy machine, the traffic may pause by itself.
    let undisturbed = (0..5).any(|_| {
        let (plane, mut client, mut server) = mortal(millis(200));
        let (begun, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
        while begun.elapsed() < long && !is_over(&client) {
            // In one direction is enough.
            server.write_all(b"more").unwrap();
            expect(&mut client, b"more");
            longest = longest.max(last.elapsed());
            last = Instant::now();
            thread::sleep(millis(20));
        }
        if longest > PAUSE / 2 {
            return false;
        }
        assert!(!is_over(&client), "it has ended without a pause");
        assert_eq!(rest(&mut client), (vec![], End::Eof));
        assert!(last.elapsed() >= PAUSE - millis(50), "{:?}", last.elapsed());
        drop((client, server));
        plane.assert_ended(&[("a.test", Outcome::Lifetime, 1)]);
        true
    });
    assert!(undisturbed, "the machine is too busy");
}

#[test]
#[ignore = "slow: a connection may go on for half a minute after its lifetime"]
fn a_connection_without_a_pause_ends_half_a_minute_after_its_lifetime() {
    let (plane, client, mut server) = mortal(millis(200));
    let begun = Instant::now();
    let reading = thread::spawn({
        let mut client = client.try_clone().unwrap();
        move || rest(&mut client).0.len()
    });
    while server.write_all(b"more").is_ok() && begun.elapsed() < Duration::from_secs(60) {
        thread::sleep(millis(20));
    }
    let took = begun.elapsed();
    assert!((Duration::from_secs(29)..Duration::from_secs(45)).contains(&took), "{took:?}");
    assert!(reading.join().unwrap() > 1000);
    drop(client);
    plane.assert_ended(&[("a.test", Outcome::Lifetime, 1)]);
}

/// Whoever does not close when the other side has is reset.
#[test]
#[ignore = "slow: a peer has five seconds to close"]
fn a_peer_that_does_not_close_is_reset() {
    let (plane, mut client, mut server) = mortal(millis(200));
    assert_eq!(rest(&mut client), (vec![], End::Eof));
    let begun = Instant::now();
    assert_eq!(rest(&mut server), (vec![], End::Eof));
    drop(server);
    while client.write_all(b"more").is_ok() {
        thread::sleep(millis(20));
    }
    let took = begun.elapsed();
    assert!((millis(4500)..millis(15_000)).contains(&took), "{took:?}");
    plane.assert_ended(&[("a.test", Outcome::Lifetime, 1)]);
}
