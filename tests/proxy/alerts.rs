//! The alert that says why, on a listener that is set to send one: it arrives whatever the client
//! still has in flight.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use sluice::config::{Config, Protocol};
use sluice::outcome::Outcome;
use sluice::policy::Timeout;

use crate::support::{
    Backend, Blackhole, End, Plane, Target, connect, hello, hello_without_name, listener,
    malformed_hello, millis, open, refusing, rest, target, wait_until,
};

const UNEXPECTED_MESSAGE: u8 = 10;
const RECORD_OVERFLOW: u8 = 22;
const HANDSHAKE_FAILURE: u8 = 40;
const DECODE_ERROR: u8 = 50;
const INTERNAL_ERROR: u8 = 80;
const MISSING_EXTENSION: u8 = 109;
const UNRECOGNIZED_NAME: u8 = 112;

fn plane(targets: Vec<Target>) -> Plane {
    Plane::with(targets, |config: &mut Config| {
        config.listeners = vec![listener("https", Protocol::Tls, true)];
        config.policy.timeouts.connect = Timeout::new(millis(100));
    })
}

fn fatal(description: u8) -> Vec<u8> {
    vec![21, 3, 3, 0, 2, 2, description]
}

/// A client that says `bytes`, and one that sends 100 KB more behind them, hear `description`.
#[track_caller]
fn told(plane: &Plane, bytes: &[u8], description: u8, route: &str, outcome: Outcome) {
    let mut client = open(plane.address(), bytes);
    assert_eq!(rest(&mut client), (fatal(description), End::Eof));
    drop(client);
    let mut eager = open(plane.address(), &[bytes, &[0x17; 100_000]].concat());
    assert_eq!(rest(&mut eager), (fatal(description), End::Eof));
    drop(eager);
    plane.assert_ended(&[(route, outcome, 2)]);
    assert_eq!(plane.bytes(route), (0, 0), "an alert is none of the relayed bytes");
}

#[test]
fn of_a_missing_name() {
    told(&plane(vec![]), &hello_without_name(), MISSING_EXTENSION, "", Outcome::NoSni);
}

#[test]
fn of_an_unknown_name() {
    told(&plane(vec![]), &hello("a.test"), UNRECOGNIZED_NAME, "", Outcome::NoRoute);
}

#[test]
fn of_another_protocol() {
    told(&plane(vec![]), b"GET / HTTP/1.1\r\n\r\n", UNEXPECTED_MESSAGE, "", Outcome::NotTls);
}

#[test]
fn of_a_malformed_hello() {
    told(&plane(vec![]), &malformed_hello(), DECODE_ERROR, "", Outcome::MalformedHello);
}

#[test]
fn of_a_hello_that_is_too_large() {
    let header = b"\x16\x03\x01\x40\x00\x01\xff\xff\xff";
    told(&plane(vec![]), header, RECORD_OVERFLOW, "", Outcome::HelloTooLarge);
}

#[test]
fn of_a_backend_without_endpoints() {
    let plane = plane(vec![target("a.test", &[])]);
    told(&plane, &hello("a.test"), INTERNAL_ERROR, "a.test", Outcome::NoEndpoints);
}

#[test]
fn of_an_endpoint_that_refuses() {
    let (address, _socket) = refusing();
    let plane = plane(vec![target("a.test", &[address])]);
    told(&plane, &hello("a.test"), INTERNAL_ERROR, "a.test", Outcome::ConnectFailed);
}

#[test]
fn of_an_endpoint_that_does_not_answer() {
    let blackhole = Blackhole::new();
    let plane = plane(vec![target("a.test", &[blackhole.address()])]);
    told(&plane, &hello("a.test"), INTERNAL_ERROR, "a.test", Outcome::ConnectTimeout);
}

#[test]
fn of_a_hello_that_does_not_end() {
    let plane = Plane::with(vec![], |config| {
        config.listeners = vec![listener("https", Protocol::Tls, true)];
        config.timeouts.hello = millis(200);
    });
    for bytes in [&b""[..], &hello("a.test")[..50]] {
        let mut client = open(plane.address(), bytes);
        assert_eq!(rest(&mut client), (fatal(HANDSHAKE_FAILURE), End::Eof));
    }
    plane.assert_ended(&[("", Outcome::HelloTimeout, 2)]);
}

#[test]
fn of_the_end_of_the_drain() {
    let plane = Plane::with(vec![], |config| {
        config.listeners = vec![listener("https", Protocol::Tls, true)];
    });
    let mut client = open(plane.address(), b"");
    wait_until("the client to be there", || plane.metrics.connections.total() == 1);
    plane.running().abort();
    assert_eq!(rest(&mut client), (fatal(INTERNAL_ERROR), End::Eof));
    plane.assert_ended(&[("", Outcome::Drained, 1)]);
}

#[test]
fn of_nothing_that_happens_after_the_connect() {
    let backend = Backend::new();
    let plane = Plane::with(vec![target("a.test", &[backend.address()])], |config| {
        config.listeners = vec![listener("https", Protocol::Tls, true)];
        config.policy.timeouts.idle = Timeout::new(millis(100));
    });
    let mut client = open(plane.address(), &hello("a.test"));
    let _server = backend.accept();
    assert_eq!(rest(&mut client), (vec![], End::Eof));
    plane.assert_ended(&[("a.test", Outcome::IdleTimeout, 1)]);
}

/// A reset would take the alert from a client that has not come to read yet.
#[test]
fn a_refused_client_may_finish_what_it_is_sending() {
    let plane = plane(vec![]);
    let mut refused = 0;
    wait_until("a client that nothing holds up", || {
        refused += 1;
        let begun = Instant::now();
        let ended = finish_sending(&plane);
        // Sluice waits for a second. A client that has used it up may meet any end.
        let in_time = begun.elapsed() < millis(900);
        assert!(!in_time || ended.as_ref().is_ok_and(|end| *end == End::Eof), "{ended:?}");
        in_time
    });
    plane.assert_ended(&[("", Outcome::NoRoute, refused)]);
}

/// Says much, hears why it is refused, and says as much again. How it ends.
fn finish_sending(plane: &Plane) -> std::io::Result<End> {
    let mut client = connect(plane.address());
    client.write_all(&[hello("a.test"), vec![0x17; 50_000]].concat())?;
    let mut heard = [0; 7];
    client.read_exact(&mut heard)?;
    assert_eq!(heard[..], fatal(UNRECOGNIZED_NAME));
    for _ in 0..20 {
        client.write_all(&[0x17; 2500])?;
    }
    client.shutdown(Shutdown::Write)?;
    let (more, end) = rest(&mut client);
    assert!(more.is_empty(), "{more:?}");
    Ok(end)
}

/// After some bytes, long before the second is over that sluice waits for a silent one.
#[test]
fn a_refused_client_that_never_stops_is_cut_off() {
    let plane = plane(vec![]);
    let mut refused = 0;
    wait_until("a client that nothing holds up", || {
        refused += 1;
        let mut client = open(plane.address(), &hello("a.test"));
        let begun = Instant::now();
        let error = write_until_it_fails(&mut client);
        let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(kinds.contains(&error.kind()), "{error}");
        begun.elapsed() < millis(700)
    });
    plane.assert_ended(&[("", Outcome::NoRoute, refused)]);
}

#[test]
fn a_refused_client_that_never_closes_is_let_go() {
    let plane = plane(vec![]);
    let _client = open(plane.address(), &hello("a.test"));
    plane.assert_ended(&[("", Outcome::NoRoute, 1)]);
}

/// In small pieces, so that sluice reads each by itself.
fn write_until_it_fails(stream: &mut TcpStream) -> std::io::Error {
    loop {
        if let Err(error) = stream.write_all(&[0x17; 4096]) {
            return error;
        }
        thread::sleep(Duration::from_micros(500));
    }
}
