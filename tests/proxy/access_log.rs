//! The access log of the real binary: a line for each connection, and none that anybody waits for.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Backend, Blackhole, Plane, Process, answering, ask, fresh, hello, hello_with_alpn,
    hello_with_any_name, hello_without_name, malformed_hello, manifest, millis, open, refusing,
    reset, rest, target, wait_until,
};

const NO_ENDPOINTS: &str = "---
apiVersion: v1
kind: Service
metadata: { name: empty, namespace: test }
spec: { ports: [{ port: 443 }], selector: { app: empty } }
---
apiVersion: sluice.dev/v1alpha1
kind: SniRoute
metadata: { name: empty, namespace: test }
spec:
  hostnames: [empty.test]
  backends: [{ service: { name: empty, port: 443 } }]
";

/// The line of a client that says `bytes` and listens to the end.
#[track_caller]
fn line_of(process: &Process, bytes: &[u8]) -> Value {
    let mut client = open(process.address, bytes);
    let source = client.local_addr().unwrap().to_string();
    rest(&mut client);
    drop(client);
    let line = process.access_line();
    assert_eq!(line["source"], source);
    assert_eq!(line["listener"], "https");
    assert_eq!(line["log"], "access");
    assert!(line["durationMs"].is_number() && line["time"].is_string(), "{line}");
    line
}

#[track_caller]
fn has(line: &Value, expected: Value) {
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(line.get(key).unwrap_or(&Value::Null), value, "{key} of {line}");
    }
}

#[test]
fn of_clients_that_found_no_route() {
    let process = Process::start("", &["--max-hello", "2048"]);
    has(
        &line_of(&process, &hello_with_alpn("B.Test", vec![b"h2".to_vec(), vec![b'"', 7, 200]])),
        json!({ "outcome": "no_route", "serverName": "b.test", "tlsVersion": "TLSv1.3",
                "alpn": ["h2", "\\\"\\x07\\xc8"], "attempts": 0, "bytesUp": 0, "bytesDown": 0,
                "kind": null, "namespace": null, "route": null, "endpoint": null, "connectMs": null }),
    );
    let address = hello_with_any_name(b"10.1.2.3");
    for (bytes, outcome, name, cause) in [
        (hello_without_name(), "no_sni", None, None),
        (address, "no_sni", Some("10.1.2.3"), Some("the server name is an IP address")),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "not_tls", None, Some("not TLS")),
        (malformed_hello(), "malformed_hello", Some("a.test"), Some("extension 0 is there twice")),
        (
            b"\x16\x03\x01\x10\x00\x01\x00\x10\x00".to_vec(),
            "hello_too_large",
            None,
            Some("the hello is longer than allowed"),
        ),
    ] {
        let line = line_of(&process, &bytes);
        let expected = json!({ "outcome": outcome, "serverName": name, "cause": cause,
                               "route": null, "event": null });
        has(&line, expected);
    }
    let long = line_of(&process, &hello_with_any_name(&[0xff; 500]));
    let shown = long["serverName"].as_str().unwrap();
    assert!(shown.len() <= 255 && shown.starts_with("\\xff\\xff") && shown.ends_with("..."));
    reset(open(process.address, &hello("a.test")[..40]));
    has(&process.access_line(), json!({ "outcome": "downstream_reset", "route": null }));

    // Those above may be late on a busy machine.
    let impatient = Process::start("", &["--timeouts-hello", "100ms"]);
    let line = line_of(&impatient, b"");
    has(&line, json!({ "outcome": "hello_timeout", "serverName": null, "route": null }));
}

#[test]
fn of_clients_that_offer_more_protocols_than_anybody_reads() {
    let process = Process::start("", &[]);
    let numbered = |count: usize| (0..count).map(|n| format!("p{n}").into_bytes()).collect();
    let long = |count: usize| vec![vec![b'a'; 128]; count];
    for (offered, shown, cut) in [
        (numbered(16), 16, false),
        (numbered(17), 16, true),
        (numbered(2000), 16, true),
        (long(2), 2, false),
        (long(3), 2, true),
        (vec![vec![b'a'; 255], vec![b'b'; 2]], 1, true),
    ] {
        let mut expected: Vec<String> =
            offered[..shown].iter().map(|p| p.escape_ascii().to_string()).collect();
        expected.extend(cut.then(|| "...".to_owned()));
        let line = line_of(&process, &hello_with_alpn("b.test", offered));
        has(&line, json!({ "outcome": "no_route", "alpn": expected }));
    }
}

#[test]
fn of_clients_whose_route_has_no_answer() {
    let (blackhole, (dead, _socket)) = (Blackhole::new(), refusing());
    let manifests = [
        manifest("dead.test", dead, ""),
        manifest("silent.test", blackhole.address(), "  timeouts: { connect: 100ms }\n"),
        NO_ENDPOINTS.to_owned(),
    ];
    let process = Process::start(&manifests.concat(), &[]);
    for (name, outcome, endpoint) in [
        ("dead", "connect_failed", Some(dead)),
        ("silent", "connect_timeout", Some(blackhole.address())),
        ("empty", "no_endpoints", None),
    ] {
        let line = line_of(&process, &hello(&format!("{name}.test")));
        has(
            &line,
            json!({ "outcome": outcome, "kind": "SniRoute", "namespace": "test", "route": name,
                    "endpoint": endpoint, "attempts": u8::from(endpoint.is_some()),
                    "connectMs": null, "bytesUp": 0, "bytesDown": 0 }),
        );
    }
}

#[test]
fn of_clients_that_were_served() {
    let backend = Backend::new();
    let manifests = [
        manifest("a.test", backend.address(), ""),
        manifest("i.test", backend.address(), "  timeouts: { idle: 200ms }\n"),
    ];
    let flags = ["--drain-delay", "0s", "--drain-timeout", "0s"];
    let mut process = Process::start(&manifests.concat(), &flags);
    let (hello, idle) = (hello("a.test"), hello("i.test"));
    let expected = |outcome: &str, down: usize| {
        json!({ "outcome": outcome, "kind": "SniRoute", "namespace": "test", "route": "a", "attempts": 1,
                "endpoint": backend.address(), "serverName": "a.test",
                "bytesUp": hello.len(), "bytesDown": down })
    };

    let client = open(process.address, &hello);
    let mut server = backend.accept_with(&hello);
    server.write_all(b"answer").unwrap();
    drop((server, client));
    let line = process.access_line();
    assert!(["completed", "downstream_reset"].contains(&line["outcome"].as_str().unwrap()));

    let mut client = open(process.address, &hello);
    let mut server = backend.accept_with(&hello);
    server.write_all(b"answer").unwrap();
    drop(server);
    rest(&mut client);
    drop(client);
    let line = process.access_line();
    has(&line, expected("completed", 6));
    assert!(line["helloMs"].is_number() && line["connectMs"].is_number(), "{line}");

    let client = open(process.address, &hello);
    let server = backend.accept_with(&hello);
    reset(client);
    has(&process.access_line(), expected("downstream_reset", 0));
    drop(server);

    let client = open(process.address, &hello);
    reset(backend.accept_with(&hello));
    has(&process.access_line(), expected("upstream_reset", 0));
    drop(client);

    let client = open(process.address, &idle);
    let server = backend.accept_with(&idle);
    let mut line = expected("idle_timeout", 0);
    (line["route"], line["serverName"]) = ("i".into(), "i.test".into());
    has(&process.access_line(), line);
    drop((client, server));

    let _client = open(process.address, &hello);
    let _server = backend.accept_with(&hello);
    process.signal(Signal::TERM);
    process.wait();
    let last = process.last_access_lines();
    assert_eq!(last.len(), 1);
    has(&last[0], expected("drained", 0));
}

#[test]
fn of_the_start_and_the_end_with_an_id_that_ties_them() {
    let backend = Backend::new();
    let manifests = manifest("a.test", backend.address(), "");
    let process = Process::start(&manifests, &["--access-log-start"]);
    let hello = hello("a.test");
    let mut ids = Vec::new();
    for _ in 0..2 {
        let client = open(process.address, &hello);
        let server = backend.accept_with(&hello);
        let start = process.access_line();
        let known = json!({ "log": "access", "event": "start", "serverName": "a.test",
                            "kind": "SniRoute", "namespace": "test", "route": "a",
                            "endpoint": backend.address(),
                            "attempts": 1, "source": client.local_addr().unwrap() });
        has(&start, known.clone());
        has(&start, json!({ "outcome": null, "bytesUp": null, "durationMs": null }));
        assert!(start["helloMs"].is_number() && start["connectMs"].is_number(), "{start}");
        reset(client);
        drop(server);
        let end = process.access_line();
        let mut expected = known;
        expected["event"] = "end".into();
        expected["outcome"] = "downstream_reset".into();
        expected["id"] = start["id"].clone();
        has(&end, expected);
        let id = start["id"].as_str().unwrap().to_owned();
        assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
    // A client that is refused has no start.
    let refused = line_of(&process, b"GET / HTTP/1.1\r\n\r\n");
    has(&refused, json!({ "event": "end", "outcome": "not_tls" }));
}

#[test]
fn of_errors_leaves_out_who_only_connects() {
    let process = Process::start("", &["--access-log", "errors"]);
    for n in 0..20 {
        let client = open(process.address, b"");
        if n % 2 == 0 { reset(client) } else { drop(client) }
    }
    let series =
        "sluice_connections_total{kind=\"\",namespace=\"\",route=\"\",outcome=\"no_hello\"}";
    wait_until("all to be counted", || process.metric(series) == 20.0);
    has(&line_of(&process, &hello("a.test")), json!({ "outcome": "no_route" }));
}

/// Of each second there are a hundred lines about refusals of one source and outcome, and one for
/// the rest.
#[test]
fn of_a_flood_is_short_and_adds_up() {
    const ROUND: usize = 500;
    let plane = Plane::with(vec![target("a.test", &[answering("served")])], |config| {
        config.workers = 1.try_into().unwrap();
    });
    let mut rounds = 0;
    wait_until("a round that is quick enough", || {
        rounds += 1;
        let begun = Instant::now();
        for n in 0..ROUND {
            rest(&mut open(plane.address(), b"GET / HTTP/1.1\r\n\r\n"));
            if n % 4 == 0 {
                assert_eq!(ask(plane.address(), "a.test"), "served");
            }
        }
        // Two seconds may have a part of it each.
        begun.elapsed() < millis(900)
    });
    plane.assert_active(0);
    let lines = plane.access_log();
    let served = lines.iter().filter(|line| line["outcome"] == "completed").count();
    assert_eq!(served, rounds * ROUND / 4, "no line of a client that was served is left out");
    let refused: Vec<&Value> = lines.iter().filter(|line| line["outcome"] == "not_tls").collect();
    let count = |line: &&Value| line["count"].as_u64().unwrap_or(1);
    assert_eq!(refused.iter().map(count).sum::<u64>(), (rounds * ROUND) as u64);
    let mut seconds = BTreeMap::<&str, usize>::new();
    for line in refused.iter().filter(|line| line["count"].is_null()) {
        *seconds.entry(line["time"].as_str().unwrap().split('.').next().unwrap()).or_default() += 1;
    }
    assert!(seconds.values().all(|count| *count <= 100), "{seconds:?}");
    let counted: Vec<_> = refused.iter().filter(|line| line["count"].is_u64()).collect();
    assert!(!counted.is_empty());
    for line in counted {
        assert_eq!(line["source"], "127.0.0.1");
        assert!(line["firstTime"].as_str() <= line["lastTime"].as_str(), "{line}");
        assert!(line["lastTime"].as_str() <= line["time"].as_str(), "{line}");
    }
}

#[test]
fn of_errors_alone_or_of_nothing() {
    for (setting, expected) in [("errors", vec!["no_route"]), ("off", vec![])] {
        let mut process = Process::start(
            &manifest("a.test", answering("served"), ""),
            &["--access-log", setting, "--drain-delay", "0s"],
        );
        assert_eq!(ask(process.address, "a.test"), "served");
        assert_eq!(ask(process.address, "b.test"), "");
        process.signal(Signal::TERM);
        process.wait();
        let lines = process.last_access_lines();
        let outcomes: Vec<_> = lines.iter().map(|line| &line["outcome"]).collect();
        assert_eq!(outcomes, expected);
    }
}

#[test]
fn that_nobody_reads_holds_no_connection_up_and_counts_what_it_drops() {
    const CLIENTS: usize = 2500;
    let served = answering("served");
    let manifests = ["a.test", "b.test"].map(|name| manifest(name, served, "")).concat();
    let mut process = Process::start_unread("", &manifests, &[]);
    let stdout = process.stdout.take().unwrap();
    let long = hello_with_a_long_line();
    for _ in 0..CLIENTS {
        rest(&mut open(process.address, &fresh(&long)));
    }
    assert_eq!(ask(process.address, "a.test"), "served");
    let dropped = || process.metric("sluice_access_log_dropped_total") as usize;
    wait_until("drops", || dropped() > 0);

    let read = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&read);
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            serde_json::from_str::<Value>(&line.unwrap()).unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    wait_until("each line to be read or counted", || {
        read.load(Ordering::Relaxed) + dropped() == CLIENTS + 1
    });
}

#[test]
fn that_nobody_reads_does_not_hold_the_end_up() {
    let mut process = Process::start_unread("", "", &["--drain-delay", "0s"]);
    let long = hello_with_a_long_line();
    for _ in 0..200 {
        rest(&mut open(process.address, &long));
    }
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

/// One whose line has some 1.5 KB: each byte of its protocols is escaped.
fn hello_with_a_long_line() -> Vec<u8> {
    hello_with_alpn("b.test", vec![vec![0; 128]; 2])
}
