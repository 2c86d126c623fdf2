use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use hyper::{Method, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;
use crate::control::log_capture::LogCapture;

/// A server with one Secret.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<ServerState>>);

#[derive(Default)]
struct ServerState {
    version: u64,
    /// The entries, in base64. Without any, there is no Secret.
    data: Option<BTreeMap<String, String>>,
    /// What each request is refused with.
    refusal: Option<u16>,
    write_refusal: Option<u16>,
    writes: usize,
}

impl Server {
    fn with(data: Value) -> Self {
        let server = Server::default();
        server.set(|state| state.data = serde_json::from_value(data).unwrap());
        server
    }

    fn set<T>(&self, change: impl FnOnce(&mut ServerState) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let answer = move |request: hyper::Request<Body>| {
            let server = server.clone();
            async move {
                assert_eq!(request.uri().path(), "/api/v1/namespaces/ns/secrets/keys");
                let method = request.method().clone();
                let body = request.into_body().collect_bytes().await.unwrap();
                let (code, answer) = server.set(|state| state.answer(&method, &body));
                let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
                *response.status_mut() = StatusCode::from_u16(code).unwrap();
                Ok::<_, std::convert::Infallible>(response)
            }
        };
        Client::new(service_fn(answer), "default")
    }

    /// The stored keys.
    fn keys(&self) -> TicketKeySet {
        let entry = self.set(|state| json!(state.data.as_ref().unwrap()["keys"]).to_string());
        keys_of(entry.as_bytes()).unwrap()
    }

    fn put(&self, keys: &TicketKeySet) {
        self.set(|state| {
            let text = ByteString(keys.to_text().as_bytes().to_vec());
            let text = json!(text).as_str().unwrap().to_owned();
            state.data = Some([("keys".to_owned(), text)].into());
            state.version += 1;
        });
    }
}

impl ServerState {
    fn answer(&mut self, method: &Method, body: &[u8]) -> (u16, Value) {
        let refused = |code: u16| (code, json!({ "code": code, "message": "no" }));
        let Some(data) = &mut self.data else { return refused(404) };
        if let Some(code) = self.refusal {
            return refused(code);
        }
        if method == Method::PATCH {
            let patch: Value = serde_json::from_slice(body).unwrap();
            if let Some(code) = self.write_refusal {
                return refused(code);
            }
            let version = self.version.to_string();
            if patch["metadata"]["resourceVersion"].as_str() != Some(&version) {
                return refused(409);
            }
            self.version += 1;
            self.writes += 1;
            let text = patch["stringData"]["keys"].as_str().unwrap();
            let text = json!(ByteString(text.as_bytes().to_vec())).as_str().unwrap().to_owned();
            data.insert("keys".to_owned(), text);
        }
        let metadata = json!({ "name": "keys", "resourceVersion": self.version.to_string() });
        (200, json!({ "metadata": metadata, "data": data }))
    }
}

struct Replica {
    client: Client,
    keys: TicketKeys,
    /// What it remembers from one look to the next.
    state: Option<(Option<Instant>, Option<TicketTrouble>, bool, Duration)>,
}

impl Replica {
    fn new(server: &Server) -> Self {
        let keys = TicketKeys::local(now()).unwrap();
        Replica { client: server.client(), keys, state: None }
    }

    /// One look at the Secret.
    async fn follow(&mut self, is_leader: bool) -> Duration {
        let secret = TicketSecret { namespace: "ns".to_owned(), name: "keys".to_owned() };
        let mut shared = SharedKeys::new(&self.keys);
        if let Some(state) = self.state {
            (shared.read, shared.unread, shared.unwritten, shared.soon) = state;
        }
        let pause = shared.follow(&self.client, &secret, is_leader).await;
        self.state = Some((shared.read, shared.unread, shared.unwritten, shared.soon));
        pause
    }

    fn has(&self, keys: &TicketKeySet) -> bool {
        self.keys.get().as_deref() == Some(keys)
    }
}

#[tokio::test]
async fn the_leader_fills_an_empty_secret_and_others_read_it() {
    let server = Server::with(json!({}));
    let (mut leader, mut other) = (Replica::new(&server), Replica::new(&server));
    let own = other.keys.get().unwrap();
    assert_eq!(other.follow(false).await, SOON);
    assert!(other.has(&own), "its own keys meanwhile");
    assert_eq!(leader.follow(true).await, EVERY);
    let keys = server.keys();
    assert!(leader.has(&keys));
    assert_eq!(other.follow(false).await, EVERY);
    assert!(other.has(&keys));
    for replica in [&mut leader, &mut other] {
        replica.follow(true).await;
    }
    assert_eq!(server.set(|state| state.writes), 1, "they are not due");
}

#[tokio::test]
async fn the_leader_moves_keys_on_every_hour_whatever_the_clocks_of_others_say() {
    let server = Server::with(json!({}));
    let (mut leader, mut other) = (Replica::new(&server), Replica::new(&server));
    for minutes in [61, -61] {
        let old = TicketKeySet::new(now() - minutes * 60).unwrap();
        server.put(&old);
        other.follow(false).await;
        assert!(other.has(&old) && server.keys() == old, "{minutes}");
        leader.follow(true).await;
        let next = server.keys();
        assert!(next != old && !next.is_due(now()), "{minutes}");
        other.follow(false).await;
        assert!(other.has(&next), "{minutes}");
    }
    // Clocks that differ by minutes change nothing.
    for minutes in [59, -59] {
        let keys = TicketKeySet::new(now() - minutes * 60).unwrap();
        server.put(&keys);
        leader.follow(true).await;
        assert_eq!(server.keys(), keys);
    }
}

#[tokio::test]
async fn broken_content_is_replaced_by_the_leader_and_used_by_nobody() {
    let log = LogCapture::default();
    let _guard = log.listen();
    for entry in ["", "e30=", "%%%", "AAAA"] {
        let server = Server::with(json!({}));
        let (mut leader, mut other) = (Replica::new(&server), Replica::new(&server));
        leader.follow(true).await;
        other.follow(false).await;
        let before = server.keys();
        server.set(|state| state.data = Some([("keys".to_owned(), entry.to_owned())].into()));
        for _ in 0..3 {
            other.follow(false).await;
        }
        // Keys that cannot be read may be a mistake; none are meant.
        assert_eq!(other.has(&before), !entry.is_empty(), "{entry}");
        leader.follow(true).await;
        other.follow(false).await;
        assert!(other.has(&server.keys()) && !other.has(&before), "{entry}");
    }
    let lines = log.take();
    let warned = lines.iter().filter(|line| line["level"] == "WARN").count();
    assert_eq!(warned, 4 * 2, "each replica once for each fault: {lines:?}");
}

#[tokio::test]
async fn of_several_writes_one_succeeds() {
    let server = Server::with(json!({}));
    let mut one = Replica::new(&server);
    // Another replica writes between the read and the write of this one.
    let version = server.set(|state| state.version).to_string();
    one.follow(true).await;
    let first = server.keys();
    let secret = TicketSecret { namespace: "ns".to_owned(), name: "keys".to_owned() };
    let late = write(&one.client, &secret, &version, &TicketKeySet::new(now()).unwrap()).await;
    assert!(matches!(late, Err(Error::Api(status)) if status.code == 409));
    assert_eq!(server.keys(), first);
}

#[tokio::test]
async fn without_the_secret_or_a_permission_a_replica_keeps_its_keys_and_says_so_once() {
    let log = LogCapture::default();
    let _guard = log.listen();
    let warned = || {
        let lines = log.take();
        let warned = lines.iter().filter(|line| line["level"] == "WARN");
        warned.map(|line| line["fields"]["hint"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let server = Server::default();
    let mut replica = Replica::new(&server);
    let own = replica.keys.get().unwrap();
    for _ in 0..3 {
        assert_eq!(replica.follow(true).await, EVERY);
    }
    assert_eq!(warned(), ["create an empty Secret of this name, as the chart does"]);
    assert!(replica.has(&own));

    server.set(|state| (state.data, state.refusal) = (Some(BTreeMap::new()), Some(403)));
    for _ in 0..3 {
        replica.follow(true).await;
    }
    assert!(warned().concat().contains("get and patch"));
    assert!(replica.has(&own));

    server.set(|state| (state.refusal, state.write_refusal) = (None, Some(403)));
    for _ in 0..3 {
        replica.follow(true).await;
    }
    assert!(warned().concat().contains("verb patch"));
    server.set(|state| state.write_refusal = None);
    replica.follow(true).await;
    let shared = server.keys();
    assert!(replica.has(&shared));

    // The API server is away, which the watches report.
    server.set(|state| state.refusal = Some(503));
    for _ in 0..3 {
        replica.follow(true).await;
    }
    assert_eq!(warned(), [""; 0]);
    assert!(replica.has(&shared));
}

#[tokio::test]
async fn a_leader_that_may_not_write_says_so_once_and_others_do_not_ask_all_the_time() {
    let log = LogCapture::default();
    let _guard = log.listen();
    let logged = || {
        let lines = log.take();
        ["WARN", "INFO"].map(|level| lines.iter().filter(|line| line["level"] == level).count())
    };
    let server = Server::with(json!({}));
    let (mut leader, mut other) = (Replica::new(&server), Replica::new(&server));
    server.set(|state| state.write_refusal = Some(403));
    for seconds in [2, 4, 8, 16, 20, 20] {
        leader.follow(true).await;
        assert_eq!(other.follow(false).await, Duration::from_secs(seconds));
    }
    assert_eq!(logged(), [1, 0]);
    // Keys that are due, and broken ones, can be read or not, which says nothing of writes.
    server.put(&TicketKeySet::new(now() - 2 * 3600).unwrap());
    leader.follow(true).await;
    log.take();
    for code in [403, 503, 403] {
        server.set(|state| state.write_refusal = Some(code));
        assert_eq!(leader.follow(true).await, EVERY);
    }
    assert_eq!(logged(), [0, 0]);
    server.set(|state| state.data = Some([("keys".to_owned(), "e30=".to_owned())].into()));
    for code in [403, 503, 403] {
        server.set(|state| state.write_refusal = Some(code));
        leader.follow(true).await;
    }
    assert_eq!(logged(), [1, 0], "the keys are broken");
    server.set(|state| state.write_refusal = None);
    leader.follow(true).await;
    assert_eq!(logged(), [0, 2], "it is read and written again");
    server.set(|state| state.data = Some(BTreeMap::new()));
    assert_eq!(other.follow(false).await, EVERY);
    other.follow(true).await;
    server.set(|state| state.data = Some(BTreeMap::new()));
    assert_eq!(other.follow(false).await, SOON, "from the beginning");
}

#[tokio::test]
async fn keys_are_used_no_more_once_the_secret_is_emptied() {
    let server = Server::with(json!({}));
    let mut replica = Replica::new(&server);
    replica.follow(true).await;
    let shared = server.keys();
    assert!(replica.has(&shared));
    server.set(|state| state.data = serde_json::from_value(json!({})).unwrap());
    replica.follow(false).await;
    let own = replica.keys.get().unwrap();
    assert!(!replica.has(&shared));
    replica.follow(false).await;
    assert!(replica.has(&own), "they change once");
}

#[tokio::test(start_paused = true)]
async fn shared_keys_that_nobody_moves_on_are_not_used_for_ever() {
    let server = Server::with(json!({}));
    let mut replica = Replica::new(&server);
    replica.follow(true).await;
    let shared = server.keys();
    server.set(|state| state.refusal = Some(503));
    sleep(LONGEST - EVERY).await;
    replica.follow(false).await;
    assert!(replica.has(&shared));
    sleep(EVERY).await;
    replica.follow(false).await;
    assert!(!replica.has(&shared));
    server.set(|state| state.refusal = None);
    replica.follow(false).await;
    assert!(replica.has(&shared));
}

#[tokio::test]
async fn keys_of_this_process_move_on_and_stay_off() {
    let keys = TicketKeys::default();
    move_on(&keys, now());
    assert_eq!(keys.get(), None);
    let old = TicketKeySet::new(now() - 3601).unwrap();
    keys.set(old.clone());
    move_on(&keys, now());
    let next = keys.get().unwrap();
    assert_ne!(*next, old);
    move_on(&keys, now());
    assert_eq!(keys.get(), Some(next));
}

#[test]
fn no_fault_has_anything_of_the_keys() {
    for entry in [json!("UFJJVkFURQ=="), json!("PRIVATE"), json!(["PRIVATE"]), json!({})] {
        let fault = keys_of(entry.to_string().as_bytes()).unwrap_err();
        assert!(!format!("{fault} {fault:?}").contains("PRIV"), "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_writes_at_once() {
    let server = Server::with(json!({}));
    let keys = TicketKeys::local(now()).unwrap();
    let secret = TicketSecret { namespace: "ns".to_owned(), name: "keys".to_owned() };
    let (lead, mut leads) = watch::channel(false);
    let client = server.client();
    let writes = || server.set(|state| state.writes);
    let follow = async {
        sleep(EVERY * 2).await;
        assert_eq!(writes(), 0);
        lead.send(true).unwrap();
        sleep(Duration::from_millis(1)).await;
        assert_eq!(writes(), 1);
    };
    tokio::select! {
        never = keep_shared(&client, &secret, &keys, &mut leads) => match never {},
        () = follow => {}
    }
}
