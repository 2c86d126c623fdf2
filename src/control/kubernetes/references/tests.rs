//! The task, with an API server that is played.

use std::collections::HashMap;
use std::sync::Mutex;

use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::{Request, Response};
use kube::client::Body;
use serde_json::json;
use tokio::time::{timeout, timeout_at};
use tower::service_fn;

use super::super::health::{Notice, SourceHealth};
use super::super::list_watch::events;
use super::*;
use crate::control::log_capture::LogCapture;
use crate::control::objects::Extent;
use crate::routing::{self, ObjectKey};

type AnswerBody = UnsyncBoxBody<Bytes, std::io::Error>;

const SOON: Duration = Duration::from_secs(60);

/// The state of the server.
#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<ClusterState>>);

#[derive(Default)]
struct ClusterState {
    /// The Secrets, with their versions.
    secrets: HashMap<String, u64>,
    /// Those that are not given.
    forbidden: bool,
    /// The code with which lists of Secrets are refused.
    unlisted: Option<u16>,
    /// The same for watches.
    unwatched: Option<u16>,
    /// What was asked for: the path, and the kind of answer that is accepted.
    asked: Vec<String>,
    version: u64,
    watchers: Vec<mpsc::UnboundedSender<String>>,
}

impl Cluster {
    fn client(&self) -> Client {
        let state = self.clone();
        let answer = move |request: Request<Body>| {
            let answer = state.answer(&request);
            async move { Ok::<_, std::convert::Infallible>(answer) }
        };
        Client::new(service_fn(answer), "default")
    }

    fn answer(&self, request: &Request<Body>) -> Response<AnswerBody> {
        let mut state = self.0.lock().unwrap();
        let accept = request.headers().get("accept");
        let accept = accept.map_or("", |accept| accept.to_str().unwrap());
        let is_metadata = accept.contains("as=PartialObjectMetadata");
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default();
        let is_watch = query.contains("watch=true");
        let what = if is_watch {
            "watch "
        } else if is_metadata {
            "list "
        } else {
            "get "
        };
        state.asked.push(format!("{what}{path}"));
        assert_eq!(is_metadata, path == "/api/v1/secrets", "{path} {accept}");
        let json = |text: String| {
            let body = Full::new(Bytes::from(text)).map_err(|never| match never {});
            Response::new(body.boxed_unsync())
        };
        let refusal = |code: u16| {
            let mut answer = json(json!({ "code": code, "message": "user sluice" }).to_string());
            *answer.status_mut() = hyper::StatusCode::from_u16(code).unwrap();
            answer
        };
        let refused = match (is_watch, is_metadata) {
            (true, _) => state.unwatched,
            (false, true) => state.unlisted,
            (false, false) => state.forbidden.then_some(403),
        };
        if let Some(code) = refused {
            return refusal(code);
        }
        if is_watch {
            let (tell, told) = mpsc::unbounded_channel();
            state.watchers.push(tell);
            let frames = stream::unfold(told, |mut told| async {
                let line: String = told.recv().await?;
                Some((Ok(Frame::data(Bytes::from(line))), told))
            });
            return Response::new(StreamBody::new(frames).boxed_unsync());
        }
        if is_metadata {
            let items: Vec<_> =
                state.secrets.iter().map(|(name, version)| metadata(name, *version)).collect();
            let version = state.version.to_string();
            let list = json!({ "metadata": { "resourceVersion": version }, "items": items });
            return json(list.to_string());
        }
        let name = path.rsplit('/').next().unwrap();
        match state.secrets.get(name) {
            Some(version) => {
                let mut object = metadata(name, *version);
                // The version in base64, as it happens.
                object["data"] = json!({ "tls.crt": format!("{version:04}") });
                json(object.to_string())
            }
            None => refusal(404),
        }
    }

    fn put(&self, name: &str) -> u64 {
        let mut state = self.0.lock().unwrap();
        state.version += 1;
        let version = state.version;
        state.secrets.insert(name.to_owned(), version);
        state.tell("MODIFIED", name);
        version
    }

    fn delete(&self, name: &str) {
        let mut state = self.0.lock().unwrap();
        state.tell("DELETED", name);
        state.secrets.remove(name);
    }

    fn set(&self, change: impl FnOnce(&mut ClusterState)) {
        change(&mut self.0.lock().unwrap());
    }

    /// How often something was asked for.
    fn asked(&self, what: &str) -> usize {
        let state = self.0.lock().unwrap();
        state.asked.iter().filter(|asked| asked.starts_with(what)).count()
    }
}

impl ClusterState {
    fn tell(&mut self, kind: &str, name: &str) {
        let object = metadata(name, self.secrets.get(name).copied().unwrap_or_default());
        let line = json!({ "type": kind, "object": object }).to_string() + "\n";
        self.watchers.retain(|watcher| watcher.send(line.clone()).is_ok());
    }
}

fn metadata(name: &str, version: u64) -> serde_json::Value {
    let annotations = json!({ "kubectl.kubernetes.io/last-applied-configuration": "{PRIVATE}" });
    json!({ "metadata": {
        "name": name, "namespace": "ns", "resourceVersion": version.to_string(),
        "annotations": annotations,
    } })
}

struct Running {
    cluster: Cluster,
    follower: ReferenceFollower,
    news: TaskStream<ReferenceNews>,
    notices: Arc<Mutex<Vec<Notice>>>,
    _table: routing::TableWriter,
}

impl Running {
    fn start(cluster: &Cluster) -> Self {
        let notices = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&notices);
        let health = SourceHealth::new(move |notice| kept.lock().unwrap().push(notice));
        let health = health.watch("secrets", None);
        let client = cluster.client();
        let path = "/api/v1/secrets".to_owned();
        let events = events(client.clone(), path, Extent::Metadata, health.clone());
        let (writer, table) = routing::channel();
        let checked = CheckedReferences { table, authorities: Authorities::default() };
        let watch = SecretWatch { namespace: None, events, health };
        let (follower, news) = ReferenceFollower::start(client, vec![watch], checked);
        let cluster = cluster.clone();
        Running { cluster, follower, news, notices, _table: writer }
    }

    fn want(&mut self, name: &str) {
        let wanted = vec![secret(name)];
        self.follower.change(ReferenceChanges { wanted, unwanted: Vec::new() });
    }

    /// The next news, in short.
    async fn next(&mut self) -> String {
        let news = timeout(SOON, self.news.next()).await.expect("news").expect("a running task");
        let what = match &news.content {
            ReferenceContent::Secret(data) => format!("{:?}", data.get("tls.crt").unwrap()),
            ReferenceContent::ConfigMap(_) => "a ConfigMap".to_owned(),
            ReferenceContent::Missing => "missing".to_owned(),
            ReferenceContent::Unread { cause, .. } => (*cause).to_owned(),
        };
        format!("{} {what}", news.object.key.name())
    }

    async fn has_listed(&self) {
        while self.cluster.asked("watch") == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn secret(name: &str) -> ObjectRef {
    ObjectRef::new(Kind::Secret, ObjectKey::new("ns", name))
}

/// What a Secret of this version holds.
fn content(version: u64) -> String {
    let data: crate::control::api::SecretData =
        serde_json::from_value(json!({ "tls.crt": format!("{version:04}") })).unwrap();
    format!("{:?}", data.get("tls.crt").unwrap())
}

#[tokio::test(start_paused = true)]
async fn secrets_are_read_by_name_and_when_their_metadata_changes() {
    let cluster = Cluster::default();
    (0..50).for_each(|number| _ = cluster.put(&format!("other{number}")));
    let mut running = Running::start(&cluster);
    running.want("a");
    assert_eq!(running.next().await, "a missing");
    running.has_listed().await;
    let version = cluster.put("a");
    assert_eq!(running.next().await, format!("a {}", content(version)));
    cluster.put("other1");
    let version = cluster.put("a");
    assert_eq!(running.next().await, format!("a {}", content(version)));
    cluster.delete("a");
    assert_eq!(running.next().await, "a missing");
    // None that no route names was read.
    assert_eq!(cluster.asked("get"), cluster.asked("get /api/v1/namespaces/ns/secrets/a"));
    assert_eq!(cluster.asked("get"), 4);
    running.follower.change(ReferenceChanges { wanted: Vec::new(), unwanted: vec![secret("a")] });
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.put("a");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.asked("get"), 4);
}

#[tokio::test(start_paused = true)]
async fn what_a_watch_has_missed_shows_in_the_next_list() {
    let cluster = Cluster::default();
    let version = cluster.put("a");
    cluster.put("b");
    let mut running = Running::start(&cluster);
    running.want("a");
    assert_eq!(running.next().await, format!("a {}", content(version)));
    running.has_listed().await;
    cluster.set(|state| {
        state.watchers.clear();
        state.secrets.remove("a");
    });
    // The next watch says that it is too old.
    let expired = json!({ "type": "ERROR", "object": { "code": 410 } }).to_string() + "\n";
    while cluster.asked("watch") < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster
        .set(|state| state.watchers.iter().for_each(|watcher| _ = watcher.send(expired.clone())));
    assert_eq!(running.next().await, "a missing");
}

#[tokio::test(start_paused = true)]
async fn missing_permissions_are_logged_once_and_need_no_restart() {
    let log = LogCapture::default();
    let _guard = log.listen();
    let cluster = Cluster::default();
    cluster.set(|state| (state.forbidden, state.unlisted) = (true, Some(403)));
    let version = cluster.put("a");
    let mut running = Running::start(&cluster);
    running.want("a");
    for _ in 0..3 {
        assert!(running.next().await.starts_with("a sluice may not get Secrets there"));
    }
    let warnings: Vec<_> = log.take().into_iter().filter(|line| line["level"] == "WARN").collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    // The source counts as up without the watch.
    assert_eq!(*running.notices.lock().unwrap(), [Notice::Up]);
    cluster.set(|state| state.forbidden = false);
    assert_eq!(running.next().await, format!("a {}", content(version)));
    // Without a watch, it is read again from time to time.
    assert_eq!(running.next().await, format!("a {}", content(version)));
    cluster.set(|state| state.unlisted = None);
    running.has_listed().await;
    let asked = cluster.asked("get");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(cluster.asked("get") <= asked + 1);
    let asked = cluster.asked("get");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(cluster.asked("get"), asked);
}

#[tokio::test(start_paused = true)]
async fn secrets_are_read_again_while_their_watch_fails_for_long() {
    let cluster = Cluster::default();
    cluster.put("a");
    let mut running = Running::start(&cluster);
    running.want("a");
    running.next().await;
    running.has_listed().await;
    let mut minutes = async |count: u64| {
        let asked = cluster.asked("get");
        let end = tokio::time::Instant::now() + Duration::from_secs(60 * count);
        while timeout_at(end, running.news.next()).await.is_ok() {}
        cluster.asked("get") - asked
    };
    assert_eq!(minutes(2).await, 0, "it is watched");
    let fail = |code: Option<u16>| {
        cluster.set(|state| {
            (state.unlisted, state.unwatched) = (code, code);
            if code.is_some() {
                state.watchers.clear();
            }
        });
    };
    for code in [400, 500, 503] {
        fail(Some(code));
        assert!(minutes(1).await <= 1, "{code}: for a moment, it is left alone");
        assert!((9..40).contains(&minutes(4).await), "{code}");
        fail(None);
        tokio::time::sleep(Duration::from_secs(30)).await;
        // If the server has not forgotten the place, an event shows that the watch goes on; otherwise a list does.
        cluster.put("other");
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(minutes(2).await <= 1, "{code}: it is watched again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_was_read_is_told_to_be_unread_after_several_failures() {
    let cluster = Cluster::default();
    cluster.set(|state| state.unlisted = Some(403));
    let version = cluster.put("a");
    let mut running = Running::start(&cluster);
    running.want("a");
    assert_eq!(running.next().await, format!("a {}", content(version)));
    cluster.set(|state| state.forbidden = true);
    let asked = cluster.asked("get");
    assert!(running.next().await.starts_with("a sluice may not get"));
    assert_eq!(cluster.asked("get"), asked + 3);
}

#[tokio::test(start_paused = true)]
async fn news_that_nobody_takes_are_bounded() {
    let cluster = Cluster::default();
    let mut running = Running::start(&cluster);
    for number in 0..200 {
        cluster.put(&format!("s{number}"));
        running.want(&format!("s{number}"));
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(cluster.asked("get"), MOST_UNTAKEN);
    let mut taken = HashSet::new();
    while taken.len() < 200 {
        taken.insert(running.next().await);
    }
}
