//! The admin port, over real sockets.
#![allow(clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use sluice::admin::report::RoutesReport;
use sluice::admin::{Admin, AdminState, Limits};
use sluice::control::status::{Condition, RouteStatus};
use sluice::explain::{Query, explain, fetch, table};
use sluice::health::Health;
use sluice::metrics::Metrics;
use sluice::outcome::Outcome;
use sluice::routing::{
    BackendKey, Policy, RouteKey, RouteSpec, ServicePort, Snapshot, Timeouts, Writer, channel,
};
use tokio::sync::oneshot;

/// How long anything may take that is to happen soon; longer fails the test.
const SOON: Duration = Duration::from_secs(10);

/// A server on a thread and a runtime of its own, as the program has it.
struct Server {
    address: SocketAddr,
    state: Arc<AdminState>,
    writer: Writer,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        Server::with_limits(Limits::default())
    }

    fn with_limits(limits: Limits) -> Self {
        let (writer, table) = channel();
        let state = Arc::new(AdminState {
            metrics: Metrics::new(table.clone()).expect("metrics"),
            health: Arc::new(Health::new()),
            table,
            statuses: Arc::new(ArcSwap::default()),
            limits,
        });
        let admin = Admin::bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
        let address = admin.local_addr();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let serve = admin.serve(served, async {
                let _ = stopped.await;
            });
            runtime.expect("a runtime").block_on(serve).expect("served");
        });
        Server { address, state, writer, stop: Some(stop), thread: Some(thread) }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn connect(&self) -> Client {
        self.connect_from(IpAddr::from([127, 0, 0, 1]))
    }

    fn connect_from(&self, source: IpAddr) -> Client {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        socket.bind(&SocketAddr::new(source, 0).into()).expect("bound");
        socket.connect(&self.address.into()).expect("connected");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        Client(stream)
    }

    /// The status and the body of GET, with a connection of its own.
    fn get(&self, path: &str) -> (u16, String) {
        let answer =
            self.connect().ask(&format!("GET {path} HTTP/1.1\r\nconnection: close\r\n\r\n"));
        (answer.status, answer.body)
    }

    fn routes(&self) -> Value {
        let (status, body) = self.get("/routes");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

struct Client(TcpStream);

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Client {
    fn send(&mut self, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).expect("sent");
    }

    fn ask(&mut self, request: &str) -> Answer {
        self.send(request);
        self.answer()
    }

    /// Reads one answer by its content-length.
    fn answer(&mut self) -> Answer {
        let head = self.head();
        let length = field(&head, "content-length").map_or(0, |l| l.parse().expect("a length"));
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("a body");
        let body = String::from_utf8(body).expect("UTF-8");
        Answer { status: head[9..12].parse().expect("a status"), head, body }
    }

    /// Reads as far as the empty line, and no byte more.
    fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        String::from_utf8(head).expect("UTF-8")
    }

    /// Whether the server closed it, by a FIN or a reset, within `wait`.
    fn closed_within(&mut self, wait: Duration) -> bool {
        self.0.set_read_timeout(Some(wait)).expect("a timeout");
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn key(namespace: &str, name: &str) -> RouteKey {
    RouteKey { namespace: namespace.into(), name: name.into() }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn plain(key: RouteKey, hostname: &str) -> RouteSpec {
    RouteSpec {
        key,
        created: None,
        hostnames: vec![hostname.parse().expect("a hostname")],
        listeners: vec![],
        alpn: vec![],
        backends: vec![(BackendKey::Address("10.9.9.9:443".into()), 1)],
        policy: Policy::default(),
        timeouts: Timeouts::default(),
    }
}

fn service(port: ServicePort) -> BackendKey {
    BackendKey::Service { namespace: "data".into(), name: "kafka".into(), port }
}

/// Two routes, one of them with everything, that share a backend.
fn snapshot() -> Snapshot {
    let kafka = RouteSpec {
        created: Some(1_700_000_000),
        hostnames: ["kafka.example.com", "*.kafka.example.com"]
            .map(|name| name.parse().expect("a hostname"))
            .into(),
        listeners: vec!["https".into()],
        alpn: vec!["h2".into(), "http/1.1".into()],
        backends: vec![
            (service(ServicePort::Number(9093)), 90),
            (service(ServicePort::Name("tls".into())), 0),
            (BackendKey::Address("far.example:9093".into()), 10),
        ],
        policy: Policy::LeastConnections,
        timeouts: Timeouts {
            connect: Some(Duration::from_secs(5)),
            idle: Some(Duration::from_millis(1500)),
        },
        ..plain(key("data", "kafka"), "unused.example")
    };
    let any = RouteSpec {
        backends: vec![(service(ServicePort::Number(9093)), 1)],
        ..plain(key("web", "any"), "*")
    };
    let endpoints = [
        (
            service(ServicePort::Number(9093)),
            vec![address("10.0.0.1:9093"), address("[fd00::1]:9093")],
        ),
        (service(ServicePort::Name("tls".into())), vec![address("10.0.0.3:9094")]),
    ];
    Snapshot { routes: vec![any, kafka], endpoints: endpoints.into() }
}

fn status_of(key: RouteKey, accepted: bool, message: &str) -> RouteStatus {
    let condition = |kind, status, reason| Condition { kind, status, reason, message: "".into() };
    let mut conditions = [
        condition("Accepted", accepted, if accepted { "Accepted" } else { "InvalidHostname" }),
        condition("ResolvedRefs", true, "ResolvedRefs"),
        condition("Programmed", accepted, "Programmed"),
    ];
    conditions[0].message = message.to_owned();
    RouteStatus { key, observed_generation: Some(1), conditions }
}

#[test]
fn probes_say_what_is_missing() {
    let server = Server::start();
    assert_eq!(server.get("/livez"), (200, "ok\n".into()));
    assert_eq!(
        server.get("/readyz"),
        (
            503,
            "the listeners are not bound yet\nthe first complete table is not built yet\n".into()
        )
    );
    server.state.health.set_listeners_bound();
    server.state.health.set_table_complete();
    assert_eq!(server.get("/readyz"), (200, "ok\n".into()));
    server.state.health.set_draining();
    assert_eq!(server.get("/readyz"), (503, "draining\n".into()));
    assert_eq!(server.get("/livez"), (200, "ok\n".into()));
    server.state.health.set_worker_lost();
    assert_eq!(server.get("/livez").0, 503);
}

#[test]
fn other_paths_and_methods_are_refused() {
    let server = Server::start();
    let (status, body) = server.get("/");
    assert_eq!(status, 404);
    for page in ["/metrics", "/livez", "/readyz", "/routes"] {
        assert!(body.contains(page), "{body}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
            let answer = server.connect().ask(&format!("{method} {page} HTTP/1.1\r\n\r\n"));
            assert_eq!(answer.status, 405, "{method} {page}");
            assert_eq!(field(&answer.head, "allow"), Some("GET, HEAD"));
        }
    }
    for path in ["/livez/", "/routes/x", "//livez", "/%6civez", "/favicon.ico"] {
        assert_eq!(server.get(path).0, 404, "{path}");
    }
    assert_eq!(server.get("/livez?verbose=1").0, 200);
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::start();
    for (path, status) in
        [("/livez", 200), ("/readyz", 503), ("/routes", 200), ("/metrics", 200), ("/x", 404)]
    {
        let mut client = server.connect();
        let head = {
            client.send(&format!("HEAD {path} HTTP/1.1\r\n\r\n"));
            client.head()
        };
        assert_eq!(head[9..12], status.to_string(), "{path}");
        let length: usize = field(&head, "content-length").expect("length").parse().expect("n");
        assert!(length > 0, "{path}");
        // What follows is the next answer at once.
        assert_eq!(client.ask("GET /livez HTTP/1.1\r\n\r\n").body, "ok\n");
    }
}

#[test]
fn curl_reads_every_page() {
    let server = Server::start();
    for (path, media_type) in [
        ("/livez", "text/plain; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4"),
        ("/routes", "application/json"),
    ] {
        let output = Command::new("curl")
            .args(["-sS", "--noproxy", "*", "--max-time", "10", "-o", "/dev/null"])
            .args(["-w", "%{http_code} %{content_type}", &server.url(path)])
            .output()
            .expect("curl (package curl)");
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("200 {media_type}"));
    }
}

#[test]
fn requests_may_be_pipelined_and_connections_kept() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(&"GET /livez HTTP/1.1\r\n\r\nGET /routes HTTP/1.1\r\n\r\n".repeat(20));
    for _ in 0..20 {
        assert_eq!(client.answer().body, "ok\n");
        assert!(client.answer().body.starts_with("{\"generation\":0"));
    }
    let answer = client.ask("GET /livez HTTP/1.0\r\n\r\n");
    assert_eq!(answer.status, 200);
    assert!(client.closed_within(SOON), "HTTP/1.0 keeps no connection");
}

#[test]
fn a_body_is_refused_unread() {
    let server = Server::start();
    for header in ["content-length: 1", "transfer-encoding: chunked", "content-length: 1073741824"]
    {
        let mut client = server.connect();
        let answer = client.ask(&format!("GET /livez HTTP/1.1\r\n{header}\r\n\r\n"));
        assert_eq!(answer.status, 413, "{header}");
        assert_eq!(field(&answer.head, "connection"), Some("close"));
        assert!(client.closed_within(SOON), "{header}");
    }
    let mut client = server.connect();
    let answer = client.ask("POST /livez HTTP/1.1\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(answer.status, 405);
    assert!(client.closed_within(SOON));
    let answer = server
        .connect()
        .ask("GET /livez HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 9999\r\n\r\n");
    assert_eq!(answer.status, 413, "not 100");
    let answer = server.connect().ask("GET /livez HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(answer.status, 200);
}

#[test]
fn a_header_is_bounded_in_size_and_in_fields() {
    let server = Server::start();
    let long = format!("GET /livez HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(9000));
    assert_eq!(server.connect().ask(&long).status, 431);
    let path = format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(9000));
    assert_eq!(server.connect().ask(&path).status, 431);
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(65));
    assert_eq!(server.connect().ask(&many).status, 431);
    let some = format!("GET /livez HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(64));
    assert_eq!(server.connect().ask(&some).status, 200);
    // One without an end is not read for ever.
    let mut client = server.connect();
    let endless = vec![b'x'; 64 * 1024];
    let refused = (0..1000).find(|_| client.0.write_all(&endless).is_err());
    assert!(refused.is_some() || client.closed_within(SOON));
}

#[test]
fn what_is_not_http_is_refused() {
    let server = Server::start();
    for bytes in ["\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", "hello\r\n\r\n", "GET\r\n\r\n"] {
        let mut client = server.connect();
        assert_eq!(client.ask(bytes).status, 400, "{bytes:?}");
        assert!(client.closed_within(SOON));
    }
    assert_eq!(server.get("/livez").0, 200);
}

#[test]
fn a_client_has_only_so_long_for_its_header() {
    let header = Duration::from_millis(300);
    let server = Server::with_limits(Limits { header, ..Limits::default() });
    let started = Instant::now();
    let (mut silent, mut half, mut kept, mut dripping) =
        (server.connect(), server.connect(), server.connect(), server.connect());
    half.send("GET /livez HTTP/1.1\r\nx: ");
    assert_eq!(kept.ask("GET /livez HTTP/1.1\r\n\r\n").status, 200);
    // Each byte in time, the whole never.
    dripping.send("GET /livez HTTP/1.1\r\n");
    while !dripping.closed_within(Duration::from_millis(20)) {
        let _ = dripping.0.write_all(b"x");
        assert!(started.elapsed() < SOON, "a drip kept it open");
    }
    for client in [&mut silent, &mut half, &mut kept] {
        assert!(client.closed_within(SOON));
    }
    assert!(started.elapsed() >= header, "closed early");
}

#[test]
fn a_connection_takes_requests_only_for_its_lifetime() {
    let lifetime = Duration::from_millis(500);
    let server = Server::with_limits(Limits { lifetime, ..Limits::default() });
    let started = Instant::now();
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(client.ask("GET /livez HTTP/1.1\r\n\r\n").body, "ok\n");
    }
    assert!(client.closed_within(SOON), "long before its next header is due");
    assert!(started.elapsed() >= lifetime);
    assert!(started.elapsed() < Limits::default().header);
}

#[test]
fn a_reader_that_stalls_is_let_go() {
    let limits = Limits { header: Duration::from_millis(200), ..Limits::default() };
    let mut server = Server::with_limits(limits);
    // Larger than all that the sockets between can hold.
    let routes = (0..40_000).map(|n| plain(key("ns", &format!("r{n}")), &format!("n{n}.example")));
    server.writer.apply(Snapshot { routes: routes.collect(), ..Snapshot::default() });
    let mut client = server.connect();
    client.send("GET /routes HTTP/1.1\r\n\r\n");
    let head = client.head();
    let length: usize = field(&head, "content-length").expect("length").parse().expect("n");
    let started = Instant::now();
    server.stop();
    assert!(started.elapsed() < SOON, "a stalled reader held the server");
    let mut body = Vec::new();
    let _ = client.0.read_to_end(&mut body);
    assert!(body.len() < length, "the test's answer is too small to stall");
}

#[test]
fn idle_connections_keep_no_probe_out() {
    let limits = Limits { connections: 64, ..Limits::default() };
    let server = Server::with_limits(limits);
    let mut idle: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    assert_eq!(server.get("/livez").0, 200);
    // 101 came, so the oldest 37 had to go, and those alone.
    for client in &mut idle[..37] {
        assert!(client.closed_within(SOON));
    }
    for client in &mut idle[37..] {
        assert_eq!(client.ask("GET /livez HTTP/1.1\r\n\r\n").status, 200);
    }
}

#[test]
fn a_flood_from_one_address_closes_nobody_elses_connection() {
    let server = Server::with_limits(Limits { connections: 8, ..Limits::default() });
    let mut scraper = server.connect();
    assert_eq!(scraper.ask("GET /livez HTTP/1.1\r\n\r\n").status, 200);
    let mut flood: Vec<Client> =
        (0..50).map(|_| server.connect_from([127, 0, 0, 2].into())).collect();
    for client in &mut flood[..43] {
        assert!(client.closed_within(SOON));
    }
    assert_eq!(scraper.ask("GET /livez HTTP/1.1\r\n\r\n").status, 200);
}

#[test]
fn shutdown_ends_idle_connections_and_frees_the_port() {
    let mut server = Server::start();
    let mut idle = server.connect();
    assert_eq!(idle.ask("GET /livez HTTP/1.1\r\n\r\n").status, 200);
    let started = Instant::now();
    server.stop();
    assert!(idle.closed_within(SOON));
    assert!(started.elapsed() < Duration::from_secs(5), "an idle connection is not waited for");
    drop(Admin::bind(server.address).expect("free again"));
}

#[test]
fn a_port_in_use_is_named() {
    let first = Admin::bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
    let error = Admin::bind(first.local_addr()).expect_err("in use");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let expected = format!("cannot bind the admin port {}: ", first.local_addr());
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[test]
fn descriptors_that_run_out_are_waited_for() {
    const CHILD: &str = "SLUICE_TEST_WITHOUT_DESCRIPTORS";
    if std::env::var_os(CHILD).is_none() {
        // The limit holds for the whole process, so the test runs in one of its own.
        let status = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "descriptors_that_run_out_are_waited_for"])
            .env(CHILD, "1")
            .stdout(Stdio::null())
            .status();
        assert!(status.expect("this test again").success());
        return;
    }
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let server = Server::start();
    let mut served = server.connect();
    assert_eq!(served.ask("GET /livez HTTP/1.1\r\n\r\n").status, 200, "it runs");
    let limit = Rlimit { current: Some(64), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).expect("a limit");
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let mut held = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        held.push(file);
    }
    let started = Instant::now();
    socket.connect(&server.address.into()).expect("the backlog takes it");
    let failed = &server.state.metrics.accept_errors.emfile;
    eventually("three failed accepts", || failed.get() >= 3);
    let tries = u128::from(failed.get());
    let pauses = started.elapsed().as_millis() / 100;
    assert!(tries <= pauses + 1, "{tries} accepts in {pauses} pauses");
    drop(held);
    let mut client = Client(socket.into());
    client.0.set_read_timeout(Some(SOON)).expect("a timeout");
    assert_eq!(client.ask("GET /livez HTTP/1.1\r\n\r\n").status, 200);
}

#[test]
fn routes_show_everything_in_force_and_everything_refused() {
    let mut server = Server::start();
    assert_eq!(server.routes(), json!({ "generation": 0, "routes": [] }));
    server.writer.apply(snapshot());
    server.state.statuses.store(Arc::new(vec![
        status_of(key("data", "kafka"), true, "accepted"),
        status_of(key("web", "bad"), false, "hostname \"a..b\" has an empty label"),
    ]));
    let table = Arc::clone(&server.state.table.table());
    let found = table.lookup(Some("kafka.example.com"), "https", |p| p == b"h2").expect("kafka");
    let _active = found.route.backends[0].backend.endpoints()[0].begin();

    let condition = |kind: &str, status: &str, reason: &str, message: &str| json!({ "type": kind, "status": status, "reason": reason, "message": message });
    let endpoint = |address: &str, active: u32| json!({ "address": address, "state": "ready", "activeConnections": active });
    let shared = [endpoint("10.0.0.1:9093", 1), endpoint("[fd00::1]:9093", 0)];
    assert_eq!(
        server.routes(),
        json!({ "generation": 1, "routes": [
            {
                "namespace": "data", "name": "kafka", "served": true, "created": 1_700_000_000,
                "hostnames": ["kafka.example.com", "*.kafka.example.com"],
                "listeners": ["https"], "alpn": ["h2", "http/1.1"],
                "policy": "LeastConnections", "timeouts": { "connect": "5s", "idle": "1500ms" },
                "backends": [
                    { "backend": "data/kafka:9093", "kind": "service", "weight": 90,
                      "endpoints": shared },
                    { "backend": "data/kafka:tls", "kind": "service", "weight": 0,
                      "endpoints": [endpoint("10.0.0.3:9094", 0)] },
                    { "backend": "far.example:9093", "kind": "address", "weight": 10,
                      "endpoints": [] },
                ],
                "conditions": [
                    condition("Accepted", "True", "Accepted", "accepted"),
                    condition("ResolvedRefs", "True", "ResolvedRefs", ""),
                    condition("Programmed", "True", "Programmed", ""),
                ],
            },
            {
                "namespace": "web", "name": "any", "served": true, "hostnames": ["*"],
                "listeners": [], "alpn": [], "policy": "RoundRobin", "timeouts": {},
                "backends": [{ "backend": "data/kafka:9093", "kind": "service", "weight": 1,
                               "endpoints": shared }],
                "conditions": [],
            },
            {
                "namespace": "web", "name": "bad", "served": false, "hostnames": [],
                "listeners": [], "alpn": [], "policy": "", "timeouts": {}, "backends": [],
                "conditions": [
                    condition("Accepted", "False", "InvalidHostname",
                              "hostname \"a..b\" has an empty label"),
                    condition("ResolvedRefs", "True", "ResolvedRefs", ""),
                    condition("Programmed", "False", "Programmed", ""),
                ],
            },
        ] })
    );
}

#[test]
fn a_report_gives_back_the_table_that_it_came_from() {
    let mut server = Server::start();
    server.writer.apply(snapshot());
    let refused = status_of(key("web", "bad"), false, "refused");
    server.state.statuses.store(Arc::new(vec![refused]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let report = runtime.expect("a runtime").block_on(fetch(&server.url(""))).expect("a report");

    let again = report.snapshot().expect("a snapshot");
    let by_key = |mut routes: Vec<RouteSpec>| {
        routes.sort_by(|a, b| a.key.cmp(&b.key));
        routes
    };
    assert_eq!(by_key(again.routes.clone()), by_key(snapshot().routes));
    for (backend, endpoints) in snapshot().endpoints {
        assert_eq!(again.endpoints.get(&backend), Some(&endpoints));
    }
    let remote = table(again);
    for (name, alpn) in
        [(Some("kafka.example.com"), "h2"), (Some("kafka.example.com"), "x"), (None, "h2")]
    {
        let query =
            Query { name: name.map(Into::into), alpn: vec![alpn.to_owned()], ..Query::default() };
        let local = explain(&server.state.table.table(), &query).to_string();
        assert_eq!(explain(&remote, &query).to_string(), local);
    }
}

#[test]
fn a_report_with_a_fault_names_the_route() {
    let good = json!({ "generation": 1, "later": true, "routes": [
        { "namespace": "ns", "name": "r", "served": true, "hostnames": ["a.com"],
          "policy": "Random", "unknown": {}, "backends": [
            { "backend": "ns/s:1", "kind": "service", "weight": 1, "endpoints": [] }] }] });
    let read = |value: &Value| {
        serde_json::from_value::<RoutesReport>(value.clone()).expect("a report").snapshot()
    };
    assert_eq!(read(&good).expect("a snapshot").routes.len(), 1);
    for (pointer, bad) in [
        ("/routes/0/hostnames/0", json!("a..b")),
        ("/routes/0/policy", json!("Best")),
        ("/routes/0/backends/0/backend", json!("s")),
    ] {
        let mut value = good.clone();
        *value.pointer_mut(pointer).expect(pointer) = bad.clone();
        let error = read(&value).expect_err(pointer).to_string();
        let bad = bad.as_str().expect("text");
        assert!(error.starts_with("route ns/r: ") && error.contains(bad), "{error}");
        value["routes"][0]["served"] = json!(false);
        assert!(read(&value).expect("refused routes are skipped").routes.is_empty());
    }
}

#[test]
fn counts_of_routes_are_read_when_they_are_asked_for() {
    let mut server = Server::start();
    server.writer.apply(snapshot());
    let table = Arc::clone(&server.state.table.table());
    let any = table.lookup(None, "https", |_| false).expect("any");
    any.route.tally.ended[Outcome::Completed as usize].store(3, Ordering::Relaxed);
    any.route.tally.ended[Outcome::IdleTimeout as usize].store(2, Ordering::Relaxed);
    any.route.tally.bytes_up.store(100, Ordering::Relaxed);
    any.route.tally.bytes_down.store(5, Ordering::Relaxed);
    let unrouted = &server.state.metrics.unrouted;
    unrouted.ended[Outcome::NotTls as usize].store(7, Ordering::Relaxed);

    let connections = |lines: &[String]| {
        lines.iter().filter(|line| line.starts_with("sluice_connections_total{")).count()
    };
    let lines = scrape(&server);
    for line in [
        r#"sluice_connections_total{namespace="web",route="any",outcome="completed"} 3"#,
        r#"sluice_connections_total{namespace="web",route="any",outcome="idle_timeout"} 2"#,
        r#"sluice_connections_total{namespace="data",route="kafka",outcome="completed"} 0"#,
        r#"sluice_connections_total{namespace="",route="",outcome="not_tls"} 7"#,
        r#"sluice_connections_total{namespace="",route="",outcome="no_route"} 0"#,
        r#"sluice_bytes_total{namespace="web",route="any",direction="upstream"} 100"#,
        r#"sluice_bytes_total{namespace="web",route="any",direction="downstream"} 5"#,
        r#"sluice_bytes_total{namespace="data",route="kafka",direction="upstream"} 0"#,
        r#"sluice_endpoints{state="ready"} 3"#,
        "sluice_routes 2",
        "sluice_hostnames 3",
        "sluice_table_generation 1",
    ] {
        assert!(lines.iter().any(|l| l == line), "{line} is not in\n{}", lines.join("\n"));
    }
    assert_eq!(connections(&lines), 5);

    // A route that is gone keeps what it counted, and shows no zeros.
    server.writer.apply(Snapshot::default());
    let lines = scrape(&server);
    let kept = r#"sluice_connections_total{namespace="web",route="any",outcome="completed"} 3"#;
    assert!(lines.iter().any(|line| line == kept));
    assert!(!lines.iter().any(|line| line.contains("kafka")), "{}", lines.join("\n"));
    assert_eq!(connections(&lines), 4);
}

#[test]
fn every_metric_is_there_and_promtool_finds_no_fault() {
    let mut server = Server::start();
    let mut snapshot = snapshot();
    snapshot.routes.push(plain(key("odd\"\\\n", "a{b=\"c\"}"), "odd.example"));
    // Nothing makes two routes of one name, but if it happened, the rest must still be scraped.
    snapshot.routes.push(plain(key("web", "any"), "twice.example"));
    server.writer.apply(snapshot);
    let metrics = &server.state.metrics;
    for histogram in [
        &metrics.hello_duration,
        &metrics.connect_duration,
        &metrics.connection_duration,
        &metrics.table_swap_duration,
    ] {
        histogram.observe(0.004);
    }
    metrics.pipes_idle.set(4);
    metrics.pipes_busy.set(2);
    let lines = scrape(&server);
    for start in [
        "sluice_connections_active 0",
        "sluice_splice_pipes{state=\"idle\"} 4",
        "sluice_splice_pipes{state=\"busy\"} 2",
        "sluice_accept_errors_total{error=\"emfile\"} 0",
        "sluice_access_log_dropped_total 0",
        "sluice_panics_total 0",
        "sluice_hello_duration_seconds_bucket{le=\"0.0025\"} 0",
        "sluice_hello_duration_seconds_bucket{le=\"0.005\"} 1",
        "sluice_connect_duration_seconds_count 1",
        "sluice_connection_duration_seconds_sum 0.004",
        "sluice_table_swap_duration_seconds_count 1",
        "sluice_source_errors_total 0",
        "sluice_manifest_faults 0",
        concat!("sluice_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "process_open_fds ",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "process_start_time_seconds ",
    ] {
        let found = lines.iter().any(|line| line.starts_with(start));
        assert!(found, "{start} is not in\n{}", lines.join("\n"));
    }
    let mut samples: Vec<&str> = lines
        .iter()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.rsplit_once(' ')?.0))
        .collect();
    let all = samples.len();
    samples.sort_unstable();
    samples.dedup();
    assert_eq!(samples.len(), all, "a series is there twice");
}

/// The lines of `/metrics`, which promtool has found good.
fn scrape(server: &Server) -> Vec<String> {
    let (status, text) = server.get("/metrics");
    assert_eq!(status, 200);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (package prometheus)");
    promtool.stdin.take().expect("stdin").write_all(text.as_bytes()).expect("written");
    let output = promtool.wait_with_output().expect("promtool");
    let findings = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && findings.is_empty(),
        "{}\n{text}",
        String::from_utf8_lossy(&findings)
    );
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_client_that_leaves_early_harms_nothing() {
    let server = Server::start();
    for _ in 0..20 {
        let mut client = server.connect();
        client.send("GET /metrics HTTP/1.1\r\n\r\n");
        client.0.shutdown(Shutdown::Both).expect("gone");
    }
    assert_eq!(server.get("/metrics").0, 200);
}
