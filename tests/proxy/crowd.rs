//! Clients that say nothing delay nobody.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use sluice::outcome::Outcome;

use crate::support::{
    Innocent, Plane, Process, answering, ask, fresh, hello, innocent, is_over, manifest, open,
    open_from, reset, rest, target, wait_until,
};

const SILENT: usize = 3000;

#[test]
fn of_silent_clients_does_not_hold_others_up() {
    let backend = innocent::backend();
    let plane = Plane::with(vec![target("a.test", &[backend])], |config| {
        config.timeouts.hello = Duration::from_secs(600);
        config.max_hellos = Some(2 * SILENT);
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

/// A client from 127.0.0.`last` that sends these bytes.
fn from(last: u8, to: SocketAddr, bytes: &[u8]) -> TcpStream {
    open_from(SocketAddr::from(([127, 0, 0, last], 0)), to, bytes)
}

#[test]
fn of_too_many_incomplete_hellos_the_oldest_of_the_greediest_client_gives_way() {
    let plane = Plane::with(vec![target("a.test", &[answering("served")])], |config| {
        config.timeouts.hello = Duration::from_secs(600);
        config.workers = 1.try_into().unwrap();
        config.max_hellos = Some(4);
    });
    let mut enter = {
        let mut count = 0;
        let plane = &plane;
        move |last| {
            let client = from(last, plane.address(), b"\x16");
            count += 1;
            plane.assert_active(count);
            client
        }
    };
    let other = enter(3);
    let greedy = [(); 3].map(|()| enter(2));
    assert_eq!(plane.count("", Outcome::LimitExceeded), 0);
    let newcomer = from(4, plane.address(), b"\x16");
    wait_until("the oldest to give way", || is_over(&greedy[0]));
    plane.assert_active(4);
    assert!(!is_over(&other) && !is_over(&newcomer) && !is_over(&greedy[1]));
    // Who has sent its hello is bothered no more, and takes no place.
    assert_eq!(ask(plane.address(), "a.test"), "served");
    assert!(!is_over(&greedy[2]));
    drop((other, greedy, newcomer));
    plane.assert_active(0);
    let lines = plane.access_log();
    let limited: Vec<_> = lines.iter().filter(|line| line["outcome"] == "limit_exceeded").collect();
    assert!(limited.iter().all(|line| line["limit"] == "hellos"), "{lines:?}");
    assert!((1..=2).contains(&limited.len()), "{lines:?}");
}

#[test]
fn of_incomplete_hellos_of_one_client_does_not_take_the_place_of_others() {
    const MOST: usize = 100;
    let backend = innocent::backend();
    let plane = Plane::with(vec![target("a.test", &[backend])], |config| {
        config.timeouts.hello = Duration::from_secs(600);
        config.max_hellos = Some(MOST);
    });
    let hello = hello("a.test");
    let innocent = Innocent::start(plane.address(), hello.clone(), backend);
    let slow: Vec<_> = (0..1500).map(|_| from(2, plane.address(), &hello[..100])).collect();
    wait_until("most to give way", || {
        plane.count("", Outcome::LimitExceeded) as usize >= slow.len() - MOST
    });
    innocent.finish();
    assert!(plane.metrics.connections.total() <= MOST + 1);
    drop(slow);
}

/// So few descriptors that about 37 connections fit.
fn small(when_full: &str, backend: SocketAddr) -> Process {
    // Each worker judges by its own connections.
    let arguments = ["--access-log", "off", "--when-full", when_full, "--workers", "1"];
    Process::start_unread("ulimit -n 300", &manifest("a.test", backend, ""), &arguments)
}

/// One client takes all connections that there are, with good hellos.
fn fill(process: &Process) -> Vec<TcpStream> {
    const REFUSED: &str = "sluice_limit_exceeded_total{limit=\"process\",mode=\"enforce\"}";
    let hello = hello("a.test");
    let mut held = Vec::new();
    while process.metric(REFUSED) == 0.0 {
        assert!(held.len() < 200, "it is never full");
        let mut client = from(2, process.address, &fresh(&hello));
        let _ = std::io::Read::read(&mut client, &mut [0; 6]);
        held.push(client);
    }
    held.pop();
    held
}

#[test]
fn a_newcomer_takes_the_place_of_the_idlest_connection_of_who_holds_all() {
    let backend = innocent::backend();
    let process = small("Fair", backend);
    let mut held = fill(&process);
    let begun = Instant::now();
    wait_until("a second", || begun.elapsed() > Duration::from_millis(1100));
    // The oldest one moves on.
    std::io::Write::write_all(&mut held[0], b"x").unwrap();
    let innocent = Innocent::start(process.address, hello("a.test"), backend);
    innocent.finish();
    wait_until("one to give way", || held[1..].iter().any(is_gone));
    // On a busy machine an innocent may come before the end of the last one is seen.
    let gone = held[1..].iter().take_while(|client| is_gone(client)).count();
    assert!((1..=held.len() / 2).contains(&gone), "{gone} of {}", held.len());
    let (moved, later) = (&held[0], &held[1 + gone..]);
    assert!(!is_gone(moved) && !later.iter().any(is_gone), "the idlest ones give way");
    // The greedy one gets no more than what is left.
    let again: Vec<_> =
        (0..held.len()).map(|_| from(2, process.address, &fresh(&hello("a.test")))).collect();
    let refused = again.into_iter().map(is_refused).filter(|refused| *refused).count();
    assert!(refused >= held.len() - gone, "{refused} refused, {gone} gone");
    assert!(!is_gone(moved) && !later.iter().any(is_gone));
}

#[test]
fn a_full_process_refuses_newcomers_if_it_is_told_to() {
    let backend = innocent::backend();
    let process = small("Refuse", backend);
    let held = fill(&process);
    assert!(is_refused(from(3, process.address, &hello("a.test"))));
    assert!(held.iter().all(|client| !is_gone(client)));
}

/// Whether the connection was reset.
fn is_gone(client: &TcpStream) -> bool {
    client.peer_addr().is_err()
}

/// Whether it ends without a byte.
fn is_refused(mut client: TcpStream) -> bool {
    rest(&mut client).0.is_empty()
}
