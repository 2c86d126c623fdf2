//! `/metrics` after all kinds of connections: what Prometheus' own checker says, and what adds up.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use testkit::{Greeted, Metrics, PATIENCE, Program, eventually, greeter, raw_hello, tool};

use super::server::refusing;
use super::sluice::{Sluice, route, route_with};

/// How often each way to end is gone.
const TIMES: usize = 2;

/// All that DESIGN.md names and that does not wait for a later feature.
const NAMES: [&str; 24] = [
    "sluice_connections_total",
    "sluice_connections_active",
    "sluice_worker_connections",
    "sluice_bytes_total",
    "sluice_hello_duration_seconds_bucket",
    "sluice_connect_duration_seconds_bucket",
    "sluice_connection_duration_seconds_bucket",
    "sluice_endpoints",
    "sluice_routes",
    "sluice_hostnames",
    "sluice_table_generation",
    "sluice_table_swap_duration_seconds_bucket",
    "sluice_source_errors_total",
    "sluice_source_up",
    "sluice_table_from_saved",
    "sluice_table_saved_timestamp_seconds",
    "sluice_table_save_errors_total",
    "sluice_manifest_faults",
    "sluice_splice_pipes",
    "sluice_accept_errors_total",
    "sluice_access_log_dropped_total",
    "sluice_build_info",
    "process_resident_memory_bytes",
    "process_open_fds",
];

#[test]
fn promtool_has_nothing_to_say_and_the_counts_add_up() {
    let (closed, _socket) = refusing();
    // So long that no other client meets it, however busy the machine is.
    let sluice = Sluice::start_with(&manifests(closed), &["--timeouts-hello", "3s"]);
    assert_clean(&sluice.metrics());

    thread::scope(|scope| {
        for _ in 0..TIMES {
            scope.spawn(|| OUTCOMES.iter().for_each(|(_, end)| end(sluice.address)));
        }
    });
    let metrics = eventually("all connections have ended", || {
        let metrics = sluice.metrics();
        (metrics.sum("sluice_connections_active", &[]) == 0.0).then_some(metrics)
    });
    for (outcome, _) in OUTCOMES {
        assert_eq!(metrics.connections(outcome), TIMES as f64, "{outcome}\n{}", metrics.0);
    }
    let all = (TIMES * OUTCOMES.len()) as f64;
    assert_eq!(metrics.sum("sluice_connections_total", &[]), all, "{}", metrics.0);
    assert_eq!(metrics.sum("sluice_connection_duration_seconds_count", &[]), all);

    let routed = |route: &str| {
        metrics
            .sum("sluice_connections_total", &["namespace=\"test\"", &format!("route=\"{route}\"")])
    };
    for name in ["echo", "idle", "absent", "refused", "rude"] {
        assert_eq!(routed(name), TIMES as f64, "{name}\n{}", metrics.0);
    }
    let unrouted = metrics.sum("sluice_connections_total", &["namespace=\"\",", "route=\"\""]);
    assert_eq!(unrouted, all - 5.0 * TIMES as f64, "{}", metrics.0);
    let bytes = |direction| metrics.sum("sluice_bytes_total", &["\"echo\"", direction]);
    let up = raw_hello(b"echo.test", &[]).len() + "over and out\n".len();
    let down = "echo\n".len() + "over and out\n".len();
    assert_eq!(bytes("upstream"), (TIMES * up) as f64);
    assert_eq!(bytes("downstream"), (TIMES * down) as f64);
    assert!(!metrics.0.contains("echo.test"), "a server name is in a label\n{}", metrics.0);

    let logged = eventually("all are in the access log", || {
        Some(sluice.access_log()).filter(|log| log.len() == TIMES * OUTCOMES.len())
    });
    for (outcome, _) in OUTCOMES {
        assert_eq!(logged.iter().filter(|e| e["outcome"] == outcome).count(), TIMES, "{outcome}");
    }
    assert_clean(&metrics);
}

fn assert_clean(metrics: &Metrics) {
    for name in NAMES {
        let there = metrics.0.lines().any(|line| line.starts_with(name));
        assert!(there, "{name} is not in\n{}", metrics.0);
    }
    let mut promtool = Program::start(tool("promtool").args(["check", "metrics"]));
    promtool.say(&metrics.0);
    promtool.close_stdin();
    let finished = promtool.finish();
    assert!(finished.status.success(), "{finished:?}");
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("", ""));
}

fn manifests(closed: SocketAddr) -> Vec<(&'static str, String)> {
    let echo = greeter("echo");
    let idle = "  timeouts: { idle: 100ms }\n";
    let absent = route("absent", &["absent.test"], echo)
        .replace(&format!("address: '{echo}'"), "service: { name: absent, port: 443 }");
    vec![
        ("echo.yaml", route("echo", &["echo.test"], echo)),
        ("idle.yaml", route_with("idle", &["idle.test"], echo, idle)),
        ("absent.yaml", absent),
        ("refused.yaml", route("refused", &["refused.test"], closed)),
        ("rude.yaml", route("rude", &["rude.test"], rude())),
    ]
}

/// A server that resets: it closes without reading what it was sent.
fn rude() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let _ = client.unwrap().peek(&mut [0]);
        }
    });
    address
}

/// What a client does to get an outcome.
type End = fn(SocketAddr);

const OUTCOMES: [(&str, End); 13] = [
    ("completed", |sluice| {
        let mut greeted = Greeted::ask(sluice, "echo.test").unwrap();
        greeted.echo("over and out").unwrap();
        greeted.close().unwrap();
    }),
    ("no_sni", |sluice| {
        // Without the extension: the type of the first one is made an unknown one.
        let mut nameless = raw_hello(b"echo.test", &[]);
        let name = nameless.windows(9).position(|window| window == b"echo.test").unwrap();
        nameless[name - 9..name - 7].copy_from_slice(&[0xfa, 0xfa]);
        send(sluice, &nameless);
    }),
    ("not_tls", |sluice| send(sluice, b"GET / HTTP/1.1\r\n\r\n")),
    ("malformed_hello", |sluice| {
        // The type of the name is made an unknown one.
        let mut odd = raw_hello(b"echo.test", &[]);
        let name = odd.windows(9).position(|window| window == b"echo.test").unwrap();
        odd[name - 3] = 1;
        send(sluice, &odd);
    }),
    ("hello_too_large", |sluice| send(sluice, &[22, 3, 1, 0, 4, 1, 0xff, 0, 0])),
    ("hello_timeout", |sluice| send(sluice, &[22, 3])),
    ("no_route", |sluice| send(sluice, &raw_hello(b"nobody.test", &[]))),
    ("no_endpoints", |sluice| send(sluice, &raw_hello(b"absent.test", &[]))),
    ("connect_failed", |sluice| send(sluice, &raw_hello(b"refused.test", &[]))),
    ("upstream_reset", |sluice| send(sluice, &raw_hello(b"rude.test", &[]))),
    ("no_hello", |sluice| drop(TcpStream::connect(sluice).unwrap())),
    ("downstream_reset", |sluice| {
        TcpStream::connect(sluice).unwrap().write_all(&raw_hello(b"echo.test", &[])[..50]).unwrap();
    }),
    ("idle_timeout", |sluice| send(sluice, &raw_hello(b"idle.test", &[]))),
];

/// Sends bytes and waits until the other side ends the connection, whichever way.
fn send(sluice: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(sluice).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    if let Err(error) = stream.read_to_end(&mut Vec::new()) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    // It fails after a reset.
    let _ = stream.shutdown(Shutdown::Both);
}
