//! The admin port, over real sockets. This file has the server and the client of all tests.

mod bounds;
mod limits;
mod metrics;
mod pages;
mod routes;
mod tls;

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice::admin::report::RoutesReport;
use sluice::admin::{Admin, AdminLimits, AdminState};
use sluice::control::status::{CertificateStatus, Condition, RouteStatus, Statuses};
use sluice::explain::{Query, explain, fetch, table};
use sluice::metrics::Metrics;
use sluice::outcome::Outcome;
use sluice::policy::{AccessLists, Layers, Policy};
use sluice::readiness::Readiness;
use sluice::routing::{
    AnyOn, BackendKey, EjectionRule, EndpointPlace, EndpointPlaces, Hostname, Hostnames, Kind,
    Moment, ObjectKey, Ring, RouteKey, RouteSpec, ServicePort, Snapshot, TableWriter,
    TrafficPolicy, channel,
};
use testkit::{PATIENCE, wait_until};
use tokio::sync::oneshot;

/// AdminLimits that nobody meets: what is to happen soon has another reason.
fn patient() -> AdminLimits {
    let never = Duration::from_secs(3600);
    AdminLimits { header: never, lifetime: never, stall: never, ..AdminLimits::default() }
}

/// A server on a thread and a runtime of its own, as the program has it.
struct Server {
    address: SocketAddr,
    state: Arc<AdminState>,
    writer: TableWriter,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        Server::with_limits(patient())
    }

    fn with_limits(limits: AdminLimits) -> Self {
        let (writer, table) = channel();
        let state = Arc::new(AdminState {
            metrics: Metrics::new(table.clone()).expect("metrics"),
            readiness: Arc::new(Readiness::new()),
            table,
            statuses: Statuses::default(),
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
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
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
            wait_until("the server ends", || thread.is_finished());
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

    /// Whether something was sent that is not read yet.
    fn has_bytes(&self) -> bool {
        self.0.set_nonblocking(true).expect("set");
        let peeked = self.0.peek(&mut [0]);
        self.0.set_nonblocking(false).expect("set");
        matches!(peeked, Ok(1))
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

fn key(namespace: &str, name: &str) -> RouteKey {
    RouteKey::sni_route(namespace, name)
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn plain(key: RouteKey, hostname: &str) -> RouteSpec {
    RouteSpec {
        backends: vec![(BackendKey::address("", "10.9.9.9:443"), 1)],
        ..RouteSpec::new(key, hostname.parse::<Hostname>().expect("a hostname").into())
    }
}

fn service(port: ServicePort) -> BackendKey {
    BackendKey::Service { service: ObjectKey::new("data", "kafka"), port }
}

/// Two routes, one of them with everything, that share a backend.
fn snapshot() -> Snapshot {
    let mut kafka = RouteSpec {
        created: Some(1_700_000_000),
        alpn: vec!["h2".into(), "http/1.1".into()],
        backends: vec![
            (service(ServicePort::Number(9093)), 90),
            (service(ServicePort::Name("tls".into())), 0),
            (BackendKey::address("", "far.example:9093"), 10),
        ],
        ..RouteSpec::new(
            key("data", "kafka"),
            ["kafka.example.com", "*.kafka.example.com"]
                .map(|name| name.parse::<Hostname>().expect("a hostname"))
                .into_iter()
                .collect(),
        )
        .on(&["https"])
    };
    let policy = json!({
        "loadBalancing": { "policy": "LeastConnections" },
        "timeouts": { "connect": "5s", "idle": "1s500ms" },
    });
    kafka.policy = TrafficPolicy::of(&serde_json::from_value(policy).expect("a policy"));
    let any = RouteSpec {
        backends: vec![(service(ServicePort::Number(9093)), 1)],
        ..RouteSpec::new(
            key("web", "any"),
            Hostnames::from(Hostname::<&str>::Any)
                .with_any_on(AnyOn::Except(["redis".into()].into())),
        )
    };
    let endpoints = [
        (
            service(ServicePort::Number(9093)),
            vec![address("10.0.0.1:9093"), address("[fd00::1]:9093")],
        ),
        (service(ServicePort::Name("tls".into())), vec![address("10.0.0.3:9094")]),
    ];
    Snapshot { routes: vec![any, kafka], endpoints: endpoints.into(), ..Snapshot::default() }
}

fn status_of(key: RouteKey, accepted: bool, message: &str) -> RouteStatus {
    let condition = |kind, status, reason| Condition { kind, status, reason, message: "".into() };
    let mut conditions = [
        condition("Accepted", accepted, if accepted { "Accepted" } else { "InvalidHostname" }),
        condition("ResolvedRefs", true, "ResolvedRefs"),
        condition("Programmed", accepted, "Programmed"),
    ];
    conditions[0].message = message.to_owned();
    RouteStatus {
        object: key.object().clone(),
        uid: None,
        resource_version: None,
        observed_generation: Some(1),
        conditions,
        certificate: CertificateStatus::NotAsked,
        hostnames: String::new(),
        endpoints: 0,
    }
}
