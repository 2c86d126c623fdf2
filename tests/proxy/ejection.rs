//! Endpoints that fail several times in a row are tried last, and clients are served all the same.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sluice::config::Protocol;
use sluice::outcome::Outcome;
use sluice::policy::{Number, Policy, Timeout};
use sluice::proxy_protocol::{Extensions, Version};
use sluice::routing::{Availability, Endpoint, Moment};

use crate::failover::dead;
use crate::proxy_header::{SERVED, header_of, requiring};
use crate::support::{
    Backend, Blackhole, Plane, answering, ask, expect, fresh, hello, listener, open, open_from,
    reset, rest, target, wait_until,
};

/// Ejects after so many failures, for much longer than a test takes.
fn after(failures: u32) -> impl Fn(&mut Policy) {
    move |policy| {
        let passive = &mut policy.health.passive;
        passive.failures = Some(Number::new(failures));
        passive.eject_for = Timeout::new(Duration::from_hours(1));
        passive.max_eject_for = Timeout::new(Duration::from_hours(1));
    }
}

/// How the first route judges its first endpoint.
fn first(plane: &Plane) -> Availability {
    let table = plane.reader.table();
    let rule = table.routes().next().unwrap().spec.policy.ejection();
    plane.endpoints()[0].availability(Moment::now(), rule)
}

#[track_caller]
fn assert_ejections(plane: &Plane, connect: u64, early_close: u64) {
    let text = plane.metrics.encode().unwrap();
    for (reason, count) in [("connect", connect), ("early_close", early_close)] {
        let line = format!("sluice_endpoint_ejections_total{{reason=\"{reason}\"}} {count}\n");
        assert!(text.contains(&line), "{line}\n{text}");
    }
}

/// A backend that does this with each connection after its hello.
fn serving(answer: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = backend.local_addr().unwrap();
    let (answer, hello) = (Arc::new(answer), hello("a.test").len());
    thread::spawn(move || {
        for mut stream in backend.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            thread::spawn(move || {
                let mut bytes = vec![0; hello];
                if std::io::Read::read_exact(&mut stream, &mut bytes).is_ok() {
                    answer(stream);
                }
            });
        }
    });
    address
}

/// A client at one of this machine's addresses, until its end.
fn ask_from(plane: &Plane, host: u8, hello: &[u8]) {
    let source = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
    rest(&mut open_from(source, plane.address(), &fresh(hello)));
}

#[test]
fn an_endpoint_that_refuses_is_ejected_and_costs_no_further_attempt() {
    let (mut addresses, _sockets) = dead(1);
    addresses.push(answering("served"));
    let plane = Plane::start(vec![target("a.test", &addresses).policy(after(1))]);
    plane.prefer(0);
    for _ in 0..10 {
        assert_eq!(ask(plane.address(), "a.test"), "served");
    }
    assert_eq!(first(&plane), Availability::Ejected);
    assert_ejections(&plane, 1, 0);
    let text = plane.metrics.encode().unwrap();
    assert!(text.contains("sluice_endpoints{state=\"ejected\"} 1\n"), "{text}");
    let lines = plane.access_log();
    let attempts: Vec<_> = lines.iter().map(|line| line["attempts"].as_u64().unwrap()).collect();
    assert_eq!(attempts.iter().sum::<u64>(), 11, "{attempts:?}");
}

#[test]
fn with_no_failures_to_count_none_is_ejected() {
    let (addresses, _sockets) = dead(1);
    let plane = Plane::start(vec![target("a.test", &addresses).policy(after(0))]);
    for _ in 0..40 {
        rest(&mut open(plane.address(), &hello("a.test")));
    }
    assert_eq!(first(&plane), Availability::Resting);
    assert_ejections(&plane, 0, 0);
}

#[test]
fn if_all_endpoints_are_ejected_clients_are_served() {
    let addresses = [answering("served"), answering("served")];
    let plane = Plane::start(vec![target("a.test", &addresses).policy(after(3))]);
    let table = Arc::clone(&plane.reader.table());
    let rule = table.routes().next().unwrap().spec.policy.ejection();
    for endpoint in plane.endpoints() {
        let ejections = (0..3).filter_map(|_| endpoint.count_failure(Moment::now(), rule));
        assert_eq!(ejections.count(), 1);
    }
    let ejected = || {
        let is_out =
            |one: &&Arc<Endpoint>| one.availability(Moment::now(), rule) == Availability::Ejected;
        plane.endpoints().iter().filter(is_out).count()
    };
    assert_eq!(ejected(), 2);
    for _ in 0..10 {
        assert_eq!(ask(plane.address(), "a.test"), "served");
    }
    assert!(ejected() < 2, "a success ends it");
}

#[test]
fn early_closes_of_one_client_eject_nothing_and_those_of_three_do() {
    let backend = serving(drop);
    let plane = Plane::start(vec![target("a.test", &[backend]).policy(after(3))]);
    let hello = hello("a.test");
    (0..20).for_each(|_| ask_from(&plane, 1, &hello));
    ask_from(&plane, 2, &hello);
    assert_eq!(first(&plane), Availability::Well);
    ask_from(&plane, 3, &hello);
    wait_until("the ejection", || first(&plane) == Availability::Ejected);
    assert_ejections(&plane, 0, 1);
}

/// The proxy before them is always the same.
#[test]
fn the_clients_of_a_proxy_count_by_their_own_addresses() {
    let backend = serving(drop);
    let route = target("a.test", &[backend]).policy(after(3));
    let plane = Plane::with(vec![route], requiring);
    let ask = |client: &str| {
        let header = header_of(Version::V2, client, SERVED, Extensions::default());
        rest(&mut open(plane.address(), &[header, fresh(&hello("a.test"))].concat()));
    };
    for client in ["[2001:db8::1]:1", "[2001:db8::2:1]:1", "[2001:db8::3:1:1:1]:1"] {
        ask(client);
    }
    ask("[2001:db8:1::1]:1");
    assert_eq!(first(&plane), Availability::Well, "two networks");
    ask("[2001:db8:2::1]:1");
    wait_until("the ejection", || first(&plane) == Availability::Ejected);
}

#[test]
fn a_reset_instead_of_an_answer_is_a_failure() {
    let plane = Plane::start(vec![target("a.test", &[serving(reset)]).policy(after(1))]);
    rest(&mut open(plane.address(), &hello("a.test")));
    wait_until("the ejection", || first(&plane) == Availability::Ejected);
    plane.assert_ended(&[("a.test", Outcome::UpstreamReset, 1)]);
}

#[test]
fn an_answer_and_a_client_that_leaves_first_are_no_failures() {
    const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];
    let hello = hello("a.test");
    let alerts = serving(|mut stream| stream.write_all(&ALERT).unwrap());
    let plane = Plane::start(vec![target("a.test", &[alerts]).policy(after(1))]);
    let mut client = open(plane.address(), &hello);
    expect(&mut client, &ALERT);
    rest(&mut client);
    drop(client);
    plane.assert_ended(&[("a.test", Outcome::Completed, 1)]);
    assert_eq!(first(&plane), Availability::Well, "an alert is an answer");

    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[backend.address()]).policy(after(1))]);
    let mut client = open(plane.address(), &fresh(&hello));
    let mut server = backend.accept();
    client.shutdown(Shutdown::Write).unwrap();
    rest(&mut server);
    drop(server);
    rest(&mut client);
    drop(client);
    let client = open(plane.address(), &fresh(&hello));
    let mut server = backend.accept();
    reset(client);
    rest(&mut server);
    drop(server);
    plane.assert_ended(&[
        ("a.test", Outcome::Completed, 1),
        ("a.test", Outcome::DownstreamReset, 1),
    ]);
    assert_eq!(first(&plane), Availability::Well);
}

/// A server of any other protocol than TLS may have nothing to say.
#[test]
fn on_a_listener_of_protocol_tcp_an_early_close_shows_nothing() {
    let backend = Backend::new();
    let route = target("*", &[backend.address()]).policy(after(1));
    let plane = Plane::with(vec![route], |config| {
        config.listeners = vec![listener("tcp", Protocol::Tcp, false)];
    });
    let mut client = open(plane.address(), b"x");
    drop(backend.accept_with(b"x"));
    rest(&mut client);
    drop(client);
    plane.assert_ended(&[("*", Outcome::Completed, 1)]);
    assert_eq!(first(&plane), Availability::Well);
}

#[test]
fn after_the_time_one_connection_at_a_time_tries_it_until_it_answers() {
    let backend = Backend::new();
    let addresses = [backend.address(), answering("served")];
    let route = target("a.test", &addresses).policy(|policy| {
        after(1)(policy);
        policy.health.passive.eject_for = Timeout::new(Duration::from_millis(1));
    });
    let plane = Plane::start(vec![route]);
    let hello = hello("a.test");
    plane.prefer(0);
    let mut client = open(plane.address(), &fresh(&hello));
    drop(backend.accept());
    rest(&mut client);
    wait_until("the ejection", || first(&plane) == Availability::Ejected);
    plane.endpoints()[1].succeeded();
    wait_until("its end", || first(&plane) == Availability::Due);
    let mut clients = Vec::new();
    wait_until("a trial", || {
        clients.push(open(plane.address(), &fresh(&hello)));
        backend.is_tried()
    });
    let mut trial = backend.accept();
    assert_eq!(first(&plane), Availability::Ejected);
    for _ in 0..20 {
        assert_eq!(ask(plane.address(), "a.test"), "served");
    }
    assert!(!backend.is_wanted(), "a second trial");
    trial.write_all(b"x").unwrap();
    wait_until("its success", || first(&plane) == Availability::Well);
}

#[test]
fn a_dead_endpoint_among_three_costs_its_clients_one_race() {
    const THREADS: usize = 16;
    let blackhole = Blackhole::new();
    let addresses = [blackhole.address(), answering("served"), answering("served")];
    let plane = Plane::start(vec![target("a.test", &addresses)]);
    let longest = thread::scope(|scope| {
        let ask = || {
            let asks = (0..15).map(|_| {
                let start = Instant::now();
                assert_eq!(ask(plane.address(), "a.test"), "served");
                start.elapsed()
            });
            asks.max().unwrap()
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
    });
    // An attempt that nothing races against takes 5 s.
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    plane.assert_ended(&[("a.test", Outcome::Completed, 15 * THREADS as u64)]);
    assert_eq!(first(&plane), Availability::Ejected);
}

#[test]
fn races_have_a_budget_and_can_be_switched_off() {
    const CLIENTS: usize = 20;
    let most_attempts = |budget: u32| {
        let holes = [Blackhole::new(), Blackhole::new()];
        let route = target("a.test", &holes.each_ref().map(Blackhole::address)).policy(|policy| {
            policy.timeouts.connect = Timeout::new(Duration::from_millis(1200));
            policy.load_balancing.race.after = Timeout::new(Duration::from_millis(100));
            policy.load_balancing.race.budget = Some(Number::new(budget));
        });
        let plane = Plane::start(vec![route]);
        let hello = hello("a.test");
        let _clients: Vec<_> =
            (0..CLIENTS).map(|_| open(plane.address(), &fresh(&hello))).collect();
        let mut most = 0;
        wait_until("the deadline", || {
            let active = plane.endpoints().iter().map(|endpoint| endpoint.active()).sum();
            most = most.max(active);
            most > active
        });
        most - CLIENTS
    };
    thread::scope(|scope| {
        let races = [0, 1, 50, 100].map(|budget| scope.spawn(move || most_attempts(budget)));
        assert_eq!(races.map(|most| most.join().unwrap()), [0, 3, 10, 20]);
    });
}

/// And the loser is still found out, although the winner was earlier.
#[test]
fn a_race_begins_when_the_route_says_so() {
    let fastest = (0..5).map(|_| {
        let blackhole = Blackhole::new();
        let route = target("a.test", &[blackhole.address(), answering("served")]);
        let plane = Plane::start(vec![route.policy(|policy| {
            after(1)(policy);
            policy.load_balancing.race.after = Timeout::new(Duration::from_millis(20));
        })]);
        plane.prefer(0);
        let start = Instant::now();
        assert_eq!(ask(plane.address(), "a.test"), "served");
        let took = start.elapsed();
        wait_until("the ejection", || first(&plane) == Availability::Ejected);
        wait_until("the end of its attempt", || plane.endpoints()[0].active() == 0);
        took
    });
    let fastest = fastest.min().unwrap();
    assert!(fastest < Duration::from_millis(250), "{fastest:?}");
}
