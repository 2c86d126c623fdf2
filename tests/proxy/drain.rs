//! The end of the process: unready, still accepting, no longer accepting, resetting what is left.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sluice::outcome::Outcome;

use crate::support::{
    Backend, End, Plane, Process, answering, ask, exchange, hello, in_records, is_listened_on,
    manifest, millis, open, rest, target, wait_until,
};

/// A process, a backend that the test serves, and a route `quick.test` to one that answers.
fn started(delay: &str, timeout: &str) -> (Process, Backend) {
    let backend = Backend::new();
    let manifests = manifest("a.test", backend.address(), "")
        + &manifest("quick.test", answering("served"), "");
    let drain = ["--drain-delay", delay, "--drain-timeout", timeout];
    // Half a hello is waited for until the delay is over.
    let flags = [&drain[..], &["--timeouts-hello", "600s"]].concat();
    (Process::start(&manifests, &flags), backend)
}

fn connected(process: &Process, backend: &Backend) -> (TcpStream, TcpStream) {
    let hello = hello("a.test");
    let client = open(process.address, &hello);
    (client, backend.accept_with(&hello))
}

/// A client would be one that has come late.
fn refuses(process: &Process) -> bool {
    !is_listened_on(process.address)
}

#[test]
fn unready_then_closed_then_over_with_the_last_connection() {
    // In which all that is to happen before its end has its time.
    const DELAY: Duration = Duration::from_secs(4);
    let (mut process, backend) = started("4s", "600s");
    wait_until("ready", || process.get("/readyz").0 == 200);
    let (mut client, mut server) = connected(&process, &backend);
    let hello = hello("a.test");
    let mut half = open(process.address, &hello[..100]);

    let told = Instant::now();
    process.signal(Signal::TERM);
    wait_until("unready", || process.get("/readyz").0 == 503);
    assert_eq!(process.get("/livez").0, 200);
    assert_eq!(ask(process.address, "quick.test"), "served", "still accepting");

    wait_until("the end of accepting", || refuses(&process));
    assert!(told.elapsed() >= DELAY, "{:?}", told.elapsed());
    exchange(&mut client, &mut server);
    half.write_all(&hello[100..]).unwrap();
    let mut late = backend.accept_with(&hello);
    exchange(&mut half, &mut late);
    assert_eq!(process.get("/readyz").0, 503);
    drop((half, late));
    drop(client);
    assert_eq!(rest(&mut server), (vec![], End::Eof));
    drop(server);
    assert_eq!(process.wait().code(), Some(0));
    let lines = process.last_access_lines();
    let outcomes: Vec<_> = lines.iter().map(|line| &line["outcome"]).collect();
    assert_eq!(outcomes, ["completed", "completed", "completed"]);
}

#[test]
fn what_outlives_the_timeout_is_reset() {
    let (mut process, backend) = started("0s", "300ms");
    let (mut client, mut server) = connected(&process, &backend);
    let mut silent = open(process.address, b"");
    process.signal(Signal::TERM);
    assert_eq!(rest(&mut client), (vec![], End::Reset));
    assert_eq!(rest(&mut server), (vec![], End::Reset));
    rest(&mut silent);
    assert_eq!(process.wait().code(), Some(0));
    let lines = process.last_access_lines();
    assert!(lines.iter().all(|line| line["outcome"] == "drained"), "{lines:?}");
    assert_eq!(lines.len(), 2);
}

#[test]
fn without_connections_it_ends_at_once() {
    let (mut process, _backend) = started("0s", "600s");
    process.signal(Signal::INT);
    assert_eq!(process.wait().code(), Some(0));
}

/// As where load balancers are late to learn that it is unready.
#[test]
fn clients_that_come_after_the_delay_are_served_until_none_comes() {
    let (mut process, _backend) = started("100ms", "600s");
    process.signal(Signal::TERM);
    wait_until("unready", || process.get("/readyz").0 == 503);
    let begun = Instant::now();
    while begun.elapsed() < millis(1200) {
        assert_eq!(ask(process.address, "quick.test"), "served", "{:?}", begun.elapsed());
    }
    assert_eq!(process.wait().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(300), "half of the timeout");
}

#[test]
fn clients_that_never_stop_coming_are_refused_after_half_of_the_timeout() {
    let (mut process, backend) = started("0s", "3s");
    let (mut client, mut server) = connected(&process, &backend);
    let told = Instant::now();
    process.signal(Signal::TERM);
    let mut served = 0;
    while let Ok(client) = TcpStream::connect(process.address) {
        served += 1;
        drop(client);
    }
    assert!(told.elapsed() >= millis(1500), "{:?}", told.elapsed());
    assert!(served > 0);
    exchange(&mut client, &mut server);
    assert_eq!(rest(&mut client), (vec![], End::Reset));
    assert!(told.elapsed() >= millis(3000), "{:?}", told.elapsed());
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_delay() {
    let (mut process, backend) = started("600s", "600s");
    let (mut client, mut server) = connected(&process, &backend);
    process.signal(Signal::TERM);
    wait_until("unready", || process.get("/readyz").0 == 503);
    exchange(&mut client, &mut server);
    process.signal(Signal::TERM);
    assert_eq!(rest(&mut client), (vec![], End::Reset));
    assert_eq!(rest(&mut server), (vec![], End::Reset));
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_timeout() {
    let (mut process, backend) = started("0s", "600s");
    let (mut client, mut server) = connected(&process, &backend);
    process.signal(Signal::TERM);
    wait_until("the end of accepting", || refuses(&process));
    exchange(&mut client, &mut server);
    process.signal(Signal::INT);
    assert_eq!(rest(&mut client), (vec![], End::Reset));
    assert_eq!(process.wait().code(), Some(0));
}

/// They were told that they are connected; that the process had not taken them yet is not theirs
/// to know.
#[test]
fn clients_in_the_accept_queue_are_served() {
    const WAITING: usize = 300;
    let mut waiting = Vec::new();
    let cut = || in_records(&hello("a.test"), 7);
    let plane = Plane::with_waiting(
        vec![target("a.test", &[answering("served")])],
        |_| {},
        |address| waiting.extend((0..WAITING).map(|_| open(address, &cut()))),
    );
    plane.running().close();
    for mut client in waiting {
        assert_eq!(rest(&mut client), (b"served".to_vec(), End::Eof));
    }
    wait_until("the workers", || plane.running().is_over());
    plane.assert_ended(&[("a.test", Outcome::Completed, WAITING as u64)]);
}
