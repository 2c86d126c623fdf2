//! Handshakes that take long, and many of them, beside others.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use sluice::outcome::Outcome;
use sluice::routing::RouteKey;

use super::peer::{TlsPeer, first_flight};
use super::pki::Authority;
use crate::support::{Innocent, Plane, connect, hello, innocent, millis, open, target, wait_until};

#[test]
fn a_handshake_that_stands_still_is_ended() {
    let authority = Authority::new();
    let parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    let targets = vec![target("a.test", &[innocent::backend()]).terminated(parts, None)];
    let plane = Plane::with(targets, |config| config.timeouts.handshake = millis(200));
    let (bytes, _tls) = first_flight("a.test", &authority.client());
    let mut client = open(plane.address(), &bytes);
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    plane.assert_ended(&[("a.test", Outcome::HandshakeFailed, 1)]);
    let lines = plane.access_log();
    assert_eq!(lines[0]["cause"], "the handshake was not complete in time");
}

/// The places for incomplete handshakes are few, and those of the client with most are taken first.
#[test]
fn handshakes_that_stand_still_give_way_to_others() {
    const PLACES: usize = 8;
    let authority = Authority::new();
    let parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    let backend = crate::support::Backend::new();
    let targets = vec![target("a.test", &[backend.address()]).terminated(parts, None)];
    let plane = Plane::with(targets, |config| {
        config.max_hellos = Some(PLACES);
        config.workers = 1.try_into().unwrap();
    });
    let config = authority.client();
    let stuck: Vec<TcpStream> = (0..3 * PLACES)
        .map(|_| open(plane.address(), &first_flight("a.test", &config).0))
        .collect();
    wait_until("some to give way", || {
        plane.count("a.test", Outcome::LimitExceeded) as usize >= 2 * PLACES
    });
    let mut client = TlsPeer::open(plane.address(), "a.test", &config);
    super::peer::exchange(&mut client, &mut backend.accept());
    drop(stuck);
    let lines = plane.access_log();
    assert!(lines.iter().any(|line| line["limit"] == "handshakes"), "{lines:?}");
}

/// Each namespace has its turn, however many handshakes another one has to make.
#[test]
fn handshakes_of_another_namespace_do_not_wait_for_a_flood() {
    const FLOOD: usize = 200;
    let authority = Authority::new();
    let site = |name: &str, of| {
        let target = target(name, &[innocent::backend()]);
        let key = RouteKey::sni_route(name, name);
        target.with(|spec| spec.key = key).terminated(authority.parts(name, of), None)
    };
    let targets =
        vec![site("busy.test", &PKCS_RSA_SHA256), site("calm.test", &PKCS_ECDSA_P256_SHA256)];
    let plane = Plane::with(targets, |config| {
        config.workers = 1.try_into().unwrap();
        config.max_hellos = Some(10 * FLOOD);
    });
    let config = authority.client();
    let (bytes, _tls) = first_flight("busy.test", &config);
    // How many of the flood are served before one of the other namespace.
    let served_before = || {
        let flood: Vec<TcpStream> = (0..FLOOD).map(|_| connect(plane.address())).collect();
        let calm = connect(plane.address());
        for mut client in &flood {
            client.write_all(&innocent::fresh(&bytes)).unwrap();
        }
        let _client = TlsPeer::over(calm, "calm.test", &config).unwrap();
        flood.iter().filter(|client| is_answered(client)).count()
    };
    // On a busy machine, this test may be held up between the flood and the one.
    wait_until("it is served before most of a flood", || served_before() < FLOOD / 2);
}

fn is_answered(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    client.peek(&mut [0]).is_ok_and(|read| read > 0)
}

/// Bytes that are passed through do not wait for handshakes, which are as expensive as they come.
#[test]
#[ignore = "slow: watches for a second, on a machine with nothing else to do"]
fn a_flood_of_handshakes_delays_no_innocent() {
    let authority = Authority::new();
    let parts = authority.parts("busy.test", &PKCS_RSA_SHA256);
    let backend = innocent::backend();
    let plane = Plane::start(vec![
        target("busy.test", &[backend]).terminated(parts, None),
        target("calm.test", &[backend]),
    ]);
    let innocent = Innocent::start(plane.address(), hello("calm.test"), backend);
    let (over, config) = (AtomicBool::new(false), authority.client());
    let (bytes, _tls) = first_flight("busy.test", &config);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // Each has the server sign, which costs it far more than its client.
                let burst: Vec<_> =
                    (0..8).map(|_| open(plane.address(), &innocent::fresh(&bytes))).collect();
                for mut client in burst {
                    let _ = client.read(&mut [0; 1]);
                }
            }
        });
        let judged = catch_unwind(AssertUnwindSafe(|| innocent.finish()));
        over.store(true, Ordering::Relaxed);
        judged.unwrap();
    });
}
