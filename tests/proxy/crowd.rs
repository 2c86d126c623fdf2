//! Clients that say nothing delay nobody.

use std::net::TcpStream;
use std::time::Duration;

use sluice::outcome::Outcome;

use crate::support::{
    Innocent, Plane, Process, hello, innocent, manifest, open, reset, target, wait_until,
};

const SILENT: usize = 3000;

#[test]
fn of_silent_clients_does_not_hold_others_up() {
    let backend = innocent::backend();
    let plane = Plane::with(vec![target("a.test", &[backend])], |config| {
        config.timeouts.hello = Duration::from_secs(600);
    });
    let hello = hello("a.test");
    let innocent = Innocent::start(plane.address(), hello.clone(), backend);
    let silent: Vec<TcpStream> = (0..SILENT)
        // Half of them stop in the middle.
        .map(|n| open(plane.address(), if n % 2 == 0 { b"" } else { &hello[..hello.len() / 2] }))
        .collect();
    wait_until("all to be there", || plane.metrics.connections.total() >= SILENT);
    innocent.finish();
    plane.assert_active(SILENT);
    silent.into_iter().for_each(reset);
    plane.assert_active(0);
    for outcome in [Outcome::NoHello, Outcome::DownstreamReset] {
        assert!(plane.has_ended("", outcome), "{outcome}");
    }
}

#[test]
fn of_clients_does_not_hold_probes_up() {
    let backend = innocent::backend();
    let process = Process::start(&manifest("a.test", backend, ""), &[]);
    let hello = hello("a.test");
    let innocent =
        Innocent::start(process.address, hello.clone(), backend).with_probe(process.admin);
    let half: Vec<TcpStream> =
        (0..SILENT / 3).map(|_| open(process.address, &hello[..hello.len() / 2])).collect();
    innocent.finish();
    drop(half);
}
