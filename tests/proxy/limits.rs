//! Limits on connections: of routes, of listeners, and for each source.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice::outcome::Outcome;
use sluice::policy::Limits;
use sluice::proxy_protocol::{Extensions, Version};

use crate::proxy_header::{SERVED, header_of, is_refused, line_with, requiring, stranger};
use crate::support::{
    Backend, Innocent, Plane, Target, answering, ask, exchange, hello, innocent, open, open_from,
    rest, target, wait_until,
};

fn limits(value: Value) -> Limits {
    serde_json::from_value(value).unwrap()
}

fn limited(backend: &Backend, value: Value) -> Target {
    target("a.test", &[backend.address()]).policy(|policy| policy.limits = limits(value))
}

fn from(last: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], 0))
}

/// A client that comes from 127.0.0.`last` and is refused.
#[track_caller]
fn refused(last: u8, plane: &Plane) {
    is_refused(open_from(from(last), plane.address(), &hello("a.test")));
}

/// A client that comes from 127.0.0.`last` and is served.
#[track_caller]
fn served(last: u8, plane: &Plane, backend: &Backend) -> (TcpStream, TcpStream) {
    let hello = hello("a.test");
    let mut client = open_from(from(last), plane.address(), &hello);
    let mut server = backend.accept_with(&hello);
    exchange(&mut client, &mut server);
    (client, server)
}

fn counted(plane: &Plane, series: &str) -> Option<String> {
    let text = plane.metrics.encode().unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(str::to_owned)
}

#[test]
fn a_route_has_so_many_connections_at_a_time() {
    let backend = Backend::new();
    let plane = Plane::start(vec![limited(&backend, json!({ "connections": 2 }))]);
    let first = served(1, &plane, &backend);
    let second = served(2, &plane, &backend);
    refused(3, &plane);
    plane.assert_active(2);
    assert_eq!(plane.count("a.test", Outcome::LimitExceeded), 1);
    drop(first);
    plane.assert_active(1);
    let third = served(3, &plane, &backend);
    drop((second, third));
    plane.assert_ended(&[("a.test", Outcome::Completed, 3), ("a.test", Outcome::LimitExceeded, 1)]);
    let series = r#"sluice_limit_exceeded_total{limit="route",mode="enforce"}"#;
    assert_eq!(counted(&plane, series).as_deref(), Some("1"));
    let line = line_with(plane, "outcome", "limit_exceeded");
    assert_eq!((&line["limit"], &line["route"]), (&json!("route"), &json!("a.test")), "{line}");
    assert_eq!(line["attempts"], 0, "no endpoint is bothered");
}

#[test]
fn each_source_has_its_own_share() {
    let backend = Backend::new();
    let of_source = json!({ "perSource": { "connections": 1, "prefix": { "ipv4": 31 } } });
    let plane = Plane::start(vec![limited(&backend, of_source)]);
    let held = served(2, &plane, &backend);
    // The other address of the same network.
    refused(3, &plane);
    let other = served(4, &plane, &backend);
    assert_eq!(counted(&plane, "sluice_limit_sources").as_deref(), Some("2"));
    drop((held, other));
    plane.assert_ended(&[("a.test", Outcome::Completed, 2), ("a.test", Outcome::LimitExceeded, 1)]);
    assert_eq!(counted(&plane, "sluice_limit_sources").as_deref(), Some("0"));
}

#[test]
fn new_connections_come_at_a_rate() {
    let backend = Backend::new();
    let rate = json!({ "newConnections": { "rate": 1, "per": "1h", "burst": 2 } });
    let plane = Plane::start(vec![limited(&backend, rate)]);
    for _ in 0..2 {
        drop(served(1, &plane, &backend));
    }
    refused(1, &plane);
    plane.assert_ended(&[("a.test", Outcome::Completed, 2), ("a.test", Outcome::LimitExceeded, 1)]);
    let line = line_with(plane, "outcome", "limit_exceeded");
    assert_eq!(line["limit"], "rate", "{line}");
}

#[test]
fn a_limit_that_is_only_reported_refuses_nobody() {
    let backend = Backend::new();
    let plane =
        Plane::start(vec![limited(&backend, json!({ "connections": 1, "mode": "Report" }))]);
    let held = served(1, &plane, &backend);
    drop(served(2, &plane, &backend));
    plane.assert_active(1);
    drop(served(3, &plane, &backend));
    drop(held);
    plane.assert_ended(&[("a.test", Outcome::Completed, 3)]);
    let series = r#"sluice_limit_exceeded_total{limit="route",mode="report"}"#;
    assert_eq!(counted(&plane, series).as_deref(), Some("2"));
    let series = r#"sluice_limit_reported_total{kind="SniRoute",namespace="test",route="a.test"}"#;
    assert_eq!(counted(&plane, series).as_deref(), Some("2"));
    let lines = plane.access_log();
    let reported: Vec<_> = lines.iter().filter(|line| line["limit"] == "route").collect();
    assert_eq!(reported.len(), 2, "{lines:?}");
    assert!(reported.iter().all(|line| line["outcome"] == "completed"), "{lines:?}");
}

#[test]
fn the_ceiling_holds_for_a_route_that_only_reports() {
    let backend = Backend::new();
    let route = limited(&backend, json!({ "connections": 1, "mode": "Report" }));
    let plane = Plane::with(vec![route], |config| {
        config.policy_ceiling.limits = limits(json!({ "connections": 2 }));
    });
    let held = [1, 2].map(|last| served(last, &plane, &backend));
    refused(3, &plane);
    drop(held);
    plane.assert_ended(&[("a.test", Outcome::Completed, 2), ("a.test", Outcome::LimitExceeded, 1)]);
}

#[test]
fn a_change_of_limits_keeps_the_count() {
    let backend = Backend::new();
    let mut plane = Plane::start(vec![limited(&backend, json!({ "connections": 2 }))]);
    let held = served(1, &plane, &backend);
    plane.apply(vec![limited(&backend, json!({ "connections": 1 }))]);
    refused(1, &plane);
    drop(held);
    plane.assert_active(0);
    drop(served(1, &plane, &backend));
}

#[test]
fn a_listener_counts_before_a_byte_is_read() {
    let plane = Plane::with(vec![target("a.test", &[answering("served")])], |config| {
        config.listeners[0].limits = limits(json!({
            "connections": 2, "perSource": { "connections": 1 }
        }));
    });
    let silent = open(plane.address(), b"");
    plane.assert_active(1);
    is_refused(open(plane.address(), b""));
    let other = stranger(plane.address(), b"");
    plane.assert_active(2);
    is_refused(open_from(from(3), plane.address(), b""));
    drop((silent, other));
    plane.assert_active(0);
    assert_eq!(ask(plane.address(), "a.test"), "served");
    let lines = plane.access_log();
    let limit = |line: &Value| Some(line["limit"].as_str()?.to_owned());
    let mut limits: Vec<_> = lines.iter().filter_map(limit).collect();
    limits.sort_unstable();
    assert_eq!(limits, ["listener", "source"], "{lines:?}");
}

/// Its count is that of the listener, whatever becomes of its settings and binds.
#[test]
fn a_listener_that_changes_keeps_its_count() {
    let limits = |connections| limits(json!({ "connections": connections }));
    let plane = Plane::with(vec![target("a.test", &[answering("served")])], |config| {
        config.listeners[0].limits = limits(2);
    });
    let held = open(plane.address(), b"");
    plane.assert_active(1);
    let mut wanted = plane.running().binds_in_force();
    let mut config = crate::support::listener("https", sluice::config::Protocol::Tls, false);
    config.limits = limits(1);
    wanted[0].listener = sluice::proxy::Listener::of(&config);
    assert!(plane.running().apply(&wanted).is_empty());
    wait_until("the new limit", || {
        is_refused(open(plane.address(), b""));
        plane.has_ended("", Outcome::LimitExceeded)
    });
    drop(held);
}

#[test]
fn a_proxys_clients_have_their_own_shares() {
    let plane = Plane::with(vec![target("a.test", &[answering("served")])], |config| {
        requiring(config);
        config.listeners[0].limits = limits(json!({ "perSource": { "connections": 1 } }));
    });
    let through = |client: &str| {
        let header = header_of(Version::V2, client, SERVED, Extensions::default());
        open(plane.address(), &header)
    };
    let held = through("192.0.2.1:1");
    plane.assert_active(1);
    let other = through("192.0.2.2:1");
    plane.assert_active(2);
    is_refused(through("192.0.2.1:2"));
    plane.assert_active(2);
    drop((held, other));
}

#[test]
fn a_client_of_a_loop_or_of_a_suspended_route_takes_no_share() {
    let backend = Backend::new();
    let route = |suspend| {
        let limits = json!({ "newConnections": { "rate": 1, "per": "1h" } });
        limited(&backend, limits).policy(|policy| policy.suspend = Some(suspend))
    };
    let mut plane = Plane::start(vec![route(true)]);
    refused(1, &plane);
    plane.assert_ended(&[("a.test", Outcome::Suspended, 1)]);
    plane.apply(vec![route(false)]);
    drop(served(1, &plane, &backend));
}

#[test]
fn each_endpoint_has_so_many_connections_and_others_take_over() {
    let backends = [Backend::new(), Backend::new()];
    let addresses = backends.each_ref().map(Backend::address);
    let route = |mode| {
        let value = json!({ "perEndpoint": { "connections": 1 }, "mode": mode });
        target("a.test", &addresses).policy(|policy| policy.limits = limits(value))
    };
    let mut plane = Plane::start(vec![route("Enforce")]);
    let connect = || {
        let hello = hello("a.test");
        (open_from(from(1), plane.address(), &hello), hello)
    };
    let held = [(); 2].map(|()| connect());
    let active =
        |plane: &Plane| -> Vec<_> { plane.endpoints().iter().map(|one| one.active()).collect() };
    wait_until("one for each endpoint", || active(&plane) == [1, 1]);
    is_refused(connect().0);
    wait_until("its refusal", || plane.has_ended("a.test", Outcome::LimitExceeded));
    drop(held);
    for backend in &backends {
        drop(backend.accept());
    }
    plane.assert_active(0);
    plane.apply(vec![route("Report")]);
    let held: Vec<_> =
        (0..4).map(|_| open_from(from(1), plane.address(), &hello("a.test"))).collect();
    plane.assert_active(4);
    let series = r#"sluice_limit_exceeded_total{limit="endpoint",mode="report"}"#;
    wait_until("two to be reported", || counted(&plane, series).as_deref() == Some("2"));
    assert_eq!(active(&plane).iter().sum::<usize>(), 4);
    drop(held);
    let series = r#"sluice_limit_exceeded_total{limit="endpoint",mode="enforce"}"#;
    assert_eq!(counted(&plane, series).as_deref(), Some("1"));
}

/// The time of the accept says nothing about when a client arrived that a proxy names later.
#[test]
fn a_client_whose_header_comes_late_arrives_then() {
    let plane = Plane::with(vec![target("a.test", &[answering("served")])], |config| {
        requiring(config);
        let rate = json!({ "newConnections": { "rate": 1, "per": "200ms", "burst": 1 } });
        config.listeners[0].limits = limits(rate);
    });
    let header = || header_of(Version::V2, "192.0.2.1:1", SERVED, Extensions::default());
    let mut late = open(plane.address(), b"");
    plane.assert_active(1);
    let begun = Instant::now();
    let after = |millis| {
        wait_until("its time", || begun.elapsed() > Duration::from_millis(millis));
    };
    after(300);
    let mut other = open(plane.address(), &[header(), hello("a.test")].concat());
    assert_eq!(rest(&mut other).0, b"served");
    after(700);
    late.write_all(&[header(), hello("a.test")].concat()).unwrap();
    assert_eq!(rest(&mut late).0, b"served");
}

#[test]
fn the_ceilings_count_does_not_depend_on_what_a_route_says() {
    let backend = Backend::new();
    let mut plane = Plane::with(vec![limited(&backend, json!({}))], |config| {
        config.policy_ceiling.limits = limits(json!({ "connections": 1 }));
    });
    let held = served(1, &plane, &backend);
    for own in [
        json!({ "connections": 7 }),
        json!({ "mode": "Report" }),
        json!({ "connections": 3, "mode": "Report" }),
        json!({ "perSource": { "connections": 3 } }),
        json!({}),
    ] {
        plane.apply(vec![limited(&backend, own)]);
        refused(2, &plane);
    }
    // A client may see the end before that is counted.
    wait_until("each to be counted", || plane.count("a.test", Outcome::LimitExceeded) == 5);
    drop(held);
}

/// A source over its limit costs the others nothing.
#[test]
fn an_innocent_client_beside_one_that_exceeds_its_limits() {
    let backend = innocent::backend();
    let route = target("a.test", &[backend])
        .policy(|policy| policy.limits = limits(json!({ "perSource": { "connections": 8 } })));
    let plane = Plane::start(vec![route]);
    let innocent = Innocent::start(plane.address(), hello("a.test"), backend);
    let greedy = || open_from(from(2), plane.address(), &hello("a.test"));
    let held: Vec<_> = (0..8).map(|_| greedy()).collect();
    wait_until("a full share", || {
        let active = plane.endpoints().iter().map(|one| one.active()).sum::<usize>();
        active >= held.len()
    });
    let refused: Vec<_> = (0..500).map(|_| greedy()).collect();
    wait_until("all others to be refused", || {
        plane.count("a.test", Outcome::LimitExceeded) >= refused.len() as u64
    });
    innocent.finish();
    assert_eq!(plane.count("a.test", Outcome::LimitExceeded), refused.len() as u64);
    drop(held);
}

#[test]
fn without_limits_no_source_is_counted() {
    let plane = Plane::start(vec![target("a.test", &[answering("served")])]);
    let held = open(plane.address(), &hello("a.test"));
    plane.assert_active(1);
    assert_eq!(counted(&plane, "sluice_limit_sources").as_deref(), Some("0"));
    drop(held);
}
