//! Connections that come back to sluice by ways that no address shows: they end after some rounds.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::{io, thread};

use sluice::outcome::Outcome;

use crate::support::{
    Innocent, Plane, Process, hello, innocent, is_over, manifest, open, rest, target, wait_until,
};

/// Each process has the connection twice, and the first takes it no third
/// time.
#[test]
fn two_that_lead_to_each_other_end_what_goes_round() {
    let beside = innocent::backend();
    let innocents = manifest("i.test", beside, "");
    let (one, other) = (Process::start(&innocents, &[]), Process::start(&innocents, &[]));
    let innocent = Innocent::start(one.address, hello("i.test"), beside).with_probe(one.admin);
    one.serve(&(innocents.clone() + &manifest("a.test", other.address, "")));
    other.serve(&(innocents + &manifest("a.test", one.address, "")));

    let ended = |process: &Process, outcome: &str| {
        process.metrics().sum("sluice_connections_total", &["route=\"a\"", outcome])
    };
    let (mut most, mut sent) = (0, 0);
    // At first the routes are not there.
    wait_until("five loops", || {
        let mut client = open(one.address, &hello("a.test"));
        sent += 1;
        while !is_over(&client) {
            most = most.max(one.descriptors()).max(other.descriptors());
        }
        assert!(rest(&mut client).0.is_empty());
        ended(&one, "outcome=\"loop\"") >= 5.0
    });
    assert!(most < 100, "{most} descriptors");
    innocent.finish();
    let (of_one, of_other) = (ended(&one, ""), ended(&other, ""));
    let sent = f64::from(sent);
    assert!(of_one <= 3.0 * sent && of_other <= 2.0 * sent, "{of_one} and {of_other} of {sent}");
}

#[test]
fn one_that_leads_to_itself_by_an_address_that_is_none_of_its_own_ends_what_goes_round() {
    let beside = innocent::backend();
    let mut plane = Plane::start(vec![]);
    let alias = forwarder(plane.address(), usize::MAX);
    plane.apply(vec![target("a.test", &[alias]), target("i.test", &[beside])]);
    let innocent = Innocent::start(plane.address(), hello("i.test"), beside);
    for looped in 1..=20 {
        let mut client = open(plane.address(), &hello("a.test"));
        assert!(rest(&mut client).0.is_empty());
        wait_until("its end", || plane.count("a.test", Outcome::Loop) == looped);
    }
    innocent.finish();
    plane.assert_active(0);
    let ends: u64 = Outcome::ALL.iter().map(|outcome| plane.count("a.test", *outcome)).sum();
    assert_eq!(ends, 60, "three for each client");
}

/// Another address of `to`, as a network's address translation makes one, for `most` connections.
pub(crate) fn forwarder(to: SocketAddr, most: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let copy = |mut from: TcpStream, mut into: TcpStream| {
        let _ = io::copy(&mut from, &mut into);
        let _ = into.shutdown(Shutdown::Write);
    };
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok).take(most) {
            let Ok(server) = TcpStream::connect(to) else { continue };
            let (back, forth) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || copy(client, server));
            thread::spawn(move || copy(back, forth));
        }
    });
    address
}
