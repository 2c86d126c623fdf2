//! Machines that disappear without a word while they owe an acknowledgement.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use sluice::outcome::Outcome;

use crate::support::{
    Backend, FarMachine, Plane, Process, expect, hello, in_own_network, manifest, open, run, target,
};

/// Where sluice is, and where the far machine is: for good, and until it vanishes.
const HERE: &str = "10.8.0.1";
const STAYS: &str = "10.8.0.3";
const VANISHES: &str = "10.8.0.2";
/// "About two minutes": on a busy machine, too.
const SOON: Duration = Duration::from_secs(90);
const LATE: Duration = Duration::from_secs(180);

#[test]
#[ignore = "slow: a machine that vanishes is given up after two minutes"]
fn a_machine_that_vanishes_while_it_owes_is_noticed_and_one_with_a_closed_window_lives() {
    in_own_network(
        "vanish::a_machine_that_vanishes_while_it_owes_is_noticed_and_one_with_a_closed_window_lives",
        story,
    );
}

fn story() {
    let mut far = FarMachine::start(HERE, STAYS);
    far.run(&format!("ip addr add {VANISHES}/32 dev far"));
    run(&format!("ip route add {VANISHES}/32 dev near"));
    far.ask(&format!("serve {VANISHES} 7000"));
    far.ask(&format!("hold {STAYS} 7001"));

    let backend = Backend::new();
    let manifests = [
        manifest("vanishes.test", format!("{VANISHES}:7000").parse().unwrap(), ""),
        manifest("holds.test", format!("{STAYS}:7001").parse().unwrap(), ""),
        manifest("near.test", backend.address(), ""),
    ];
    let process = Process::start(&manifests.concat(), &["--listen", &format!("far={HERE}:4430")]);
    let mut asks = open(process.address, &hello("vanishes.test"));
    expect(&mut asks, b"ok");
    let mut uploads = open(process.address, &hello("holds.test"));
    fill(&mut uploads);
    let hello = hello("near.test");
    let in_hex: String = hello.iter().map(|byte| format!("{byte:02x}")).collect();
    // It is answered once, so that what follows is the first that it owes.
    let answering = std::thread::spawn(move || {
        let mut server = backend.accept_with(&hello);
        server.write_all(b"ok").unwrap();
        server
    });
    far.ask(&format!("ask {VANISHES} {HERE} 4430 {in_hex}"));
    let mut server = answering.join().unwrap();

    far.run(&format!("ip addr del {VANISHES}/32 dev far"));
    let begun = Instant::now();
    asks.write_all(b"SELECT 1").unwrap();
    server.write_all(b"more").unwrap();
    let noticed = [asks, server].map(|stream| std::thread::spawn(move || noticed(stream, begun)));
    for noticed in noticed {
        let took = noticed.join().unwrap();
        assert!((SOON..LATE).contains(&took), "{took:?}");
    }
    // It has been there all the time, and as full.
    let error = uploads.write(&[7]).expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let lines = [process.access_line(), process.access_line()];
    let mut outcomes = lines.map(|line| line["outcome"].as_str().unwrap().to_owned());
    outcomes.sort();
    assert_eq!(outcomes, ["downstream_reset", "upstream_reset"]);
}

/// Writes until nothing fits any more for a while.
fn fill(stream: &mut TcpStream) {
    stream.set_nonblocking(true).unwrap();
    let mut last = Instant::now();
    while last.elapsed() < Duration::from_secs(1) {
        let written = stream.write(&[7; 64 * 1024]).unwrap_or_default();
        if written > 0 {
            last = Instant::now();
        } else {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// How long after `begun` the other end is reset.
fn noticed(mut stream: TcpStream, begun: Instant) -> Duration {
    stream.set_read_timeout(Some(LATE * 2)).unwrap();
    let error = stream.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    begun.elapsed()
}

/// Until when a dead server is noticed whose endpoint is gone, but for the work of a busy machine.
const GIVEN_UP: std::ops::Range<Duration> = Duration::from_secs(13)..Duration::from_secs(30);

#[test]
#[ignore = "slow: a machine that vanishes with its endpoint is given up after 16 s"]
fn a_server_that_vanishes_with_its_endpoint_is_noticed_soon_and_one_that_lives_is_not_disturbed() {
    in_own_network(
        "vanish::a_server_that_vanishes_with_its_endpoint_is_noticed_soon_and_one_that_lives_is_not_disturbed",
        removed,
    );
}

fn removed() {
    let mut far = FarMachine::start(HERE, STAYS);
    far.run(&format!("ip addr add {VANISHES}/32 dev far"));
    run(&format!("ip route add {VANISHES}/32 dev near"));
    far.ask(&format!("serve {VANISHES} 7000"));
    far.ask(&format!("hold {STAYS} 7001"));
    far.ask(&format!("serve {STAYS} 7002"));
    let at = |ip: &str, port: u16| [format!("{ip}:{port}").parse().unwrap()];
    let routes = [
        ("vanishes.test", at(VANISHES, 7000)),
        ("holds.test", at(STAYS, 7001)),
        ("lives.test", at(STAYS, 7002)),
    ];
    let targets = routes.iter().map(|(name, endpoints)| target(name, endpoints)).collect();
    let mut plane = Plane::start(targets);
    let open = |name: &str| open(plane.address(), &hello(name));
    let (idle, owing) = (open("vanishes.test"), open("vanishes.test"));
    let (mut holds, mut lives) = (open("holds.test"), open("lives.test"));
    let mut dead = [idle, owing];
    dead.iter_mut().chain([&mut lives]).for_each(|client| expect(client, b"ok"));
    fill(&mut holds);

    far.run(&format!("ip addr del {VANISHES}/32 dev far"));
    let begun = Instant::now();
    dead[1].write_all(b"SELECT 1").unwrap();
    plane.apply(routes.iter().map(|(name, _)| target(name, &[])).collect());
    let noticed = dead.map(|stream| std::thread::spawn(move || noticed(stream, begun)));
    for noticed in noticed {
        let took = noticed.join().unwrap();
        assert!(GIVEN_UP.contains(&took), "{took:?}");
    }
    assert_eq!(plane.count("vanishes.test", Outcome::UpstreamReset), 2);
    // Longer than the probes last.
    std::thread::sleep(Duration::from_secs(45).saturating_sub(begun.elapsed()));
    let error = holds.write(&[7]).expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    lives.write_all(b"SELECT 1").unwrap();
    expect(&mut lives, b"ok");
}
