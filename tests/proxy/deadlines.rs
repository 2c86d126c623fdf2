//! Deadlines: what they end, what keeps them off, and whose they are.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice::outcome::Outcome;
use sluice::policy::Timeout;

use crate::support::{
    Backend, Blackhole, Bulk, End, Flow, PATIENCE, Plane, connect, exchange, expect, expect_reset,
    hello, millis, open, open_narrow, rest, stall, target,
};

const LONG: Duration = Duration::from_secs(600);

/// Hears nothing from `stream` for `time`.
#[track_caller]
fn silence(stream: &mut TcpStream, time: Duration) {
    stream.set_read_timeout(Some(time)).unwrap();
    let error = stream.read(&mut [0]).expect_err("silence");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
}

#[test]
fn a_client_that_drips_its_hello_has_one_deadline_for_all_of_it() {
    let plane = Plane::with(vec![], |config| config.timeouts.hello = millis(300));
    let begun = Instant::now();
    let mut client = connect(plane.address());
    client.set_read_timeout(Some(millis(20))).unwrap();
    for byte in hello("a.test") {
        // Once the connection is closed, a write may fail.
        let _ = client.write_all(&[byte]);
        match client.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            ended => {
                assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
                break;
            }
        }
    }
    // Sluice's clock is a little coarser than this one.
    assert!(begun.elapsed() >= millis(250), "too early: {:?}", begun.elapsed());
    plane.assert_ended(&[("", Outcome::HelloTimeout, 1)]);
}

#[test]
fn the_deadline_of_the_hello_ends_with_it() {
    let backend = Backend::new();
    let hello = hello("a.test");
    let mut client = None;
    // It waits for sluice, and so is not late however busy the machine is.
    let _plane = Plane::with_waiting(
        vec![target("a.test", &[backend.address()])],
        |config| config.timeouts.hello = millis(100),
        |address| client = Some(open(address, &hello)),
    );
    let mut client = client.unwrap();
    let mut server = backend.accept_with(&hello);
    silence(&mut client, millis(400));
    exchange(&mut client, &mut server);
}

/// Both ends of a connection whose idle timeout is the installation's or the route's.
fn idle(installation: Duration, route: Option<Duration>) -> (Plane, TcpStream, TcpStream) {
    let backend = Backend::new();
    let target = target("a.test", &[backend.address()])
        .policy(|policy| policy.timeouts.idle = route.and_then(Timeout::new));
    let plane = Plane::with(vec![target], |config| {
        config.policy.timeouts.idle = Timeout::new(installation)
    });
    let hello = hello("a.test");
    let client = open(plane.address(), &hello);
    let server = backend.accept_with(&hello);
    (plane, client, server)
}

#[test]
fn a_route_may_be_idle_for_a_shorter_time() {
    // Before it is there, for the first byte of it begins its idle time.
    let begun = Instant::now();
    let (plane, mut client, mut server) = idle(LONG, Some(millis(150)));
    assert_eq!(rest(&mut client), (vec![], End::Eof));
    assert_eq!(rest(&mut server), (vec![], End::Eof));
    assert!(begun.elapsed() >= millis(100));
    plane.assert_ended(&[("a.test", Outcome::IdleTimeout, 1)]);
}

#[test]
fn a_route_may_be_idle_for_a_longer_time() {
    let (_plane, mut client, mut server) = idle(millis(100), Some(LONG));
    silence(&mut client, millis(500));
    exchange(&mut client, &mut server);
}

/// Beside one that has none and ends.
#[test]
fn traffic_in_either_direction_keeps_a_connection() {
    // Far longer than the pauses of the traffic, even where the machine has others to serve.
    let limit = Duration::from_secs(3);
    let backend = Backend::new();
    let plane = Plane::with(vec![target("a.test", &[backend.address()])], |config| {
        config.policy.timeouts.idle = Timeout::new(limit);
    });
    let pair = || {
        let hello = hello("a.test");
        (open(plane.address(), &hello), backend.accept_with(&hello))
    };
    let (mut up, mut down, mut half, mut silent) = (pair(), pair(), pair(), pair());
    half.0.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut half.1), (vec![], End::Eof));

    let begun = Instant::now();
    while begun.elapsed() < limit + limit / 4 {
        for (from, to) in
            [(&mut up.0, &mut up.1), (&mut down.1, &mut down.0), (&mut half.1, &mut half.0)]
        {
            from.write_all(b"alive").unwrap();
            expect(to, b"alive");
        }
        silence(&mut up.0, millis(60));
    }
    assert_eq!(rest(&mut silent.0), (vec![], End::Eof));
    for (client, mut server) in [up, down] {
        drop(client);
        assert_eq!(rest(&mut server), (vec![], End::Eof));
    }
    drop(half.1);
    assert_eq!(rest(&mut half.0), (vec![], End::Eof));
    plane.assert_ended(&[("a.test", Outcome::Completed, 3), ("a.test", Outcome::IdleTimeout, 1)]);
}

#[test]
fn a_half_closed_connection_is_idle_too() {
    let (plane, client, mut server) = idle(millis(150), None);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut server), (vec![], End::Eof));
    plane.assert_ended(&[("a.test", Outcome::IdleTimeout, 1)]);
}

/// In good order, the end would tell a slow reader that it has all.
#[test]
fn what_a_stalled_receiver_has_not_taken_ends_in_a_reset() {
    // By its pieces, what stalls is held in a pipe or in memory.
    for chunk in [1 << 20, 16 * 1024] {
        let backend = Backend::narrow();
        let plane = Plane::with(vec![target("a.test", &[backend.address()])], |config| {
            // Longer than a busy machine holds one side up.
            config.policy.timeouts.idle = Timeout::new(millis(2000));
        });
        let hello = hello("a.test");
        let client = open_narrow(plane.address(), &hello);
        let server = backend.accept_with(&hello);
        let mut flows = [Flow::new(&server, &client, &Arc::new(Bulk::new(1)), 0, chunk)];
        assert_eq!(stall(&mut flows, 64 << 20), 1);
        drop(flows);
        plane.assert_ended(&[("a.test", Outcome::IdleTimeout, 1)]);
        client.set_nonblocking(false).unwrap();
        expect_reset(client);
    }
}

#[test]
fn a_route_has_its_own_deadline_for_connects() {
    let blackhole = Blackhole::new();
    for (installation, route) in [(LONG, Some(millis(150))), (millis(150), None)] {
        let target = target("a.test", &[blackhole.address()])
            .policy(|policy| policy.timeouts.connect = route.and_then(Timeout::new));
        let plane = Plane::with(vec![target], |config| {
            config.policy.timeouts.connect = Timeout::new(installation)
        });
        let begun = Instant::now();
        let mut client = open(plane.address(), &hello("a.test"));
        assert_eq!(rest(&mut client), (vec![], End::Eof));
        assert!(begun.elapsed() >= millis(100));
        plane.assert_ended(&[("a.test", Outcome::ConnectTimeout, 1)]);
    }
    let target = target("a.test", &[blackhole.address()])
        .policy(|policy| policy.timeouts.connect = Timeout::new(LONG));
    let plane = Plane::with(vec![target], |config| {
        config.policy.timeouts.connect = Timeout::new(millis(50))
    });
    silence(&mut open(plane.address(), &hello("a.test")), millis(300));
}
