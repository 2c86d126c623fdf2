//! Whatever an API server sends, and what becomes of it.

mod first_table;
mod watches;

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{StreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use hyper::{Request, Response};
use kube::Client;
use kube::client::Body;
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::service_fn;

use super::health::{SourceHealth, WatchHealth};
use super::list_watch::{WatchEvent, WatchEvents, WatchFailure, events};
use super::objects::Objects;
use super::request::observed;
use super::watch_state::WatchState;
use super::{CheckedReferences, Follower, KubernetesSource, KubernetesUpdate, SourceEvent, watch};
use crate::control::api::{Definition, READ_KINDS};
use crate::control::checks::Authorities;
use crate::control::dns::DnsFollower;
use crate::control::log_capture::LogCapture;
use crate::control::objects::{Extent, ObjectText, any_json};
use crate::control::translate::{Delta, Installation};
use crate::reach::Reach;
use crate::routing::{Kind, ObjectKey};

/// What is answered to a watch, line by line. A line may be `wait SECONDS` or `break`; `refuse CODE`
/// stands alone.
type Lines = Vec<String>;

fn body(lines: Lines) -> impl hyper::body::Body<Data = Bytes, Error = io::Error> + Send + 'static {
    let frames = stream::iter(lines).then(|line| async move {
        if let Some(seconds) = line.strip_prefix("wait ") {
            tokio::time::sleep(Duration::from_secs(seconds.parse().unwrap())).await;
            return Ok(Frame::data(Bytes::new()));
        }
        match line.as_str() {
            "break" => Err(io::Error::other("broken off")),
            _ => Ok(Frame::data(Bytes::from(line + "\n"))),
        }
    });
    StreamBody::new(frames)
}

fn health() -> WatchHealth {
    SourceHealth::new(|_| {}).watch("as", None)
}

/// A server that has these objects, and answers each watch with the next of these.
fn server(items: Vec<Value>, watches: Vec<Lines>, health: WatchHealth) -> WatchEvents {
    let items = Arc::new(items);
    let watches = Arc::new(Mutex::new(watches.into_iter()));
    let answer = move |request: Request<Body>| {
        let (items, watches) = (Arc::clone(&items), Arc::clone(&watches));
        async move {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let parameter = |name: &str| {
                let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next_back()
            };
            if parameter("watch").is_none() {
                let number = |name| parameter(name).and_then(|text: String| text.parse().ok());
                let start: usize = number("continue").unwrap_or(0);
                let end = items.len().min(start + number("limit").unwrap());
                let more = if end < items.len() { end.to_string() } else { String::new() };
                let list = json!({
                    "kind": "List", "metadata": { "resourceVersion": "5", "continue": more },
                    "items": items[start..end],
                });
                return Ok(Response::new(body(vec![list.to_string()])));
            }
            let Some(lines) = watches.lock().unwrap().next() else {
                std::future::pending::<()>().await;
                unreachable!()
            };
            let refused = lines.first().and_then(|line| line.strip_prefix("refuse "));
            let code: u16 = refused.map_or(200, |code| code.parse().unwrap());
            let answer = Response::builder().status(code);
            kube::Result::<_>::Ok(answer.body(body(lines)).unwrap())
        }
    };
    let client = observed(&Client::new(service_fn(answer), "default"), health.clone());
    events(client, "/as".to_owned(), Extent::Whole, health)
}

fn event(kind: &str, object: &Value) -> String {
    json!({ "type": kind, "object": object }).to_string()
}

/// The next so many events and failures.
fn take(
    events: impl FnOnce() -> WatchEvents,
    count: usize,
) -> Vec<Result<WatchEvent, WatchFailure>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let taken = events().take(count).collect::<Vec<_>>();
        tokio::time::timeout(std::time::Duration::from_secs(3600), taken).await.expect("so many")
    })
}

/// In a word each: what came, with the names of objects.
fn shown(taken: &[Result<WatchEvent, WatchFailure>]) -> Vec<String> {
    let name = |object: &ObjectText| object.head().name;
    taken
        .iter()
        .map(|event| match event {
            Ok(WatchEvent::Init) => "init".to_owned(),
            Ok(WatchEvent::InitApply(object)) => format!("listed {}", name(object)),
            Ok(WatchEvent::InitDone) => "done".to_owned(),
            Ok(WatchEvent::Apply(object)) => format!("put {}", name(object)),
            Ok(WatchEvent::Delete(object)) => format!("gone {}", name(object)),
            Err(failure) => format!("failed: {failure}"),
        })
        .collect()
}

/// An object that is all good, whatever kind it is taken for.
fn good(number: usize) -> Value {
    json!({
        "metadata": {
            "name": format!("good-{number}"), "namespace": "ns", "resourceVersion": "6",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": { "kubernetes.io/service-name": "good" },
        },
        "spec": {
            "hostnames": [format!("good-{number}.test")], "backends": [{ "address": "192.0.2.1:1" }],
        },
    })
}

/// An object of any kind that routes refer to.
fn good_target(number: usize) -> Value {
    let mut object = good(number);
    object["spec"] = json!({ "ports": [{ "name": "tls", "port": 443 }], "from": [], "to": [] });
    object["addressType"] = json!("IPv4");
    object["endpoints"] = json!([{ "addresses": ["192.0.2.1"] }]);
    object["ports"] = json!([]);
    object
}

/// An object that is good but for one place.
fn damaged() -> impl Strategy<Value = Value> {
    let places = prop::sample::select(vec![
        "",
        "/metadata",
        "/metadata/name",
        "/metadata/namespace",
        "/metadata/resourceVersion",
        "/metadata/creationTimestamp",
        "/metadata/labels",
        "/spec",
        "/spec/hostnames",
        "/spec/hostnames/0",
        "/spec/backends/0",
        "/spec/backends/0/address",
        "/spec/ports",
        "/spec/ports/0/port",
        "/spec/from",
        "/addressType",
        "/endpoints",
        "/endpoints/0/addresses",
        "/ports",
    ]);
    (places, any_json()).prop_map(|(place, damage)| {
        let route = good(usize::MAX);
        let mut object = match route.pointer(place) {
            Some(_) => route,
            None => good_target(usize::MAX),
        };
        if let Some(name) = object.pointer_mut("/metadata/name") {
            *name = json!("odd");
        }
        if let Some(value) = object.pointer_mut(place) {
            *value = damage;
        }
        object
    })
}

/// Good objects by their numbers, and odd ones.
fn objects() -> impl Strategy<Value = Vec<Option<Value>>> {
    let odd = prop_oneof![any_json(), damaged()];
    prop::collection::vec(prop::option::of(odd), 0..40)
}

fn installation() -> Installation {
    Installation {
        reach: Reach { local_addresses: true, ..Reach::default() },
        ..Installation::default()
    }
}

fn served(delta: &Delta) -> BTreeSet<&str> {
    let routes = delta.changes.routes.iter().filter(|(_, spec)| spec.is_some());
    routes.map(|(key, _)| key.name()).filter(|name| name.starts_with("good-")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_objects_there_are_every_good_one_gets_through(
        listed in objects(),
        watched in objects(),
    ) {
        let count = listed.len() + watched.len();
        let mut all: Vec<Value> = listed.iter().chain(&watched).cloned().enumerate()
            .map(|(number, odd)| odd.unwrap_or_else(|| good(number)))
            .collect();
        let names: BTreeSet<String> = (0..count)
            .filter(|number| all[*number] == good(*number))
            .map(|number| format!("good-{number}"))
            .collect();
        let later = all.split_off(listed.len());
        let mut lines: Lines = later.iter().map(|object| event("MODIFIED", object)).collect();
        lines.push(event("BOOKMARK", &json!({ "metadata": { "resourceVersion": "9" } })));
        let taken = take(|| server(all.clone(), vec![lines], health()), count + 2);
        prop_assert!(taken.iter().all(Result::is_ok), "{:?}", shown(&taken));
        for kind in READ_KINDS {
            let mut objects = Objects::new(installation());
            let mut came = Vec::new();
            for event in taken.iter().flatten() {
                if let WatchEvent::InitApply(text) | WatchEvent::Apply(text) = event {
                    objects.put(kind, text);
                    came.push(text);
                }
            }
            prop_assert_eq!(came.len(), count);
            let delta = objects.settle();
            if kind == Kind::SniRoute {
                prop_assert_eq!(served(&delta), names.iter().map(String::as_str).collect());
            }
            // What is at fault is gone with the objects.
            came.iter().for_each(|text| objects.remove(kind, &text.head().key()));
            prop_assert!(objects.faults().iter().all(|(_, faults)| *faults == 0));
            objects.settle();
        }
    }
}

#[test]
fn what_cannot_be_read_is_as_it_was_last_and_counted_until_it_can() {
    let text = |object: &Value| ObjectText::new(object.to_string().as_bytes());
    let mut objects = Objects::new(installation());
    let mut route = good(1);
    let backend = json!({ "name": "good", "namespace": "granting", "port": "tls" });
    route["spec"]["backends"] = json!([{ "service": backend }]);
    let [mut service, mut slice, mut grant] = [1, 1, 1].map(good_target);
    for object in [&mut service, &mut slice, &mut grant] {
        object["metadata"]["namespace"] = json!("granting");
    }
    service["metadata"]["name"] = json!("good");
    slice["ports"] = json!([{ "name": "tls", "port": 8443 }]);
    let from = json!({ "group": "sluice.dev", "kind": "SniRoute", "namespace": "ns" });
    grant["spec"] = json!({ "from": [from], "to": [{ "group": "", "kind": "Service" }] });
    let parts = [
        (Kind::SniRoute, route),
        (Kind::Service, service),
        (Kind::EndpointSlice, slice),
        (Kind::ReferenceGrant, grant),
    ];
    for (kind, object) in &parts {
        objects.put(*kind, &text(object));
    }
    let endpoints = |objects: &mut Objects| {
        objects.builder.tell_all();
        objects.settle().statuses.iter().map(|status| status.endpoints).sum::<usize>()
    };
    assert_eq!(endpoints(&mut objects), 1);
    for (kind, place) in [
        (Kind::SniRoute, "/spec/backends"),
        (Kind::Service, "/spec/ports/0/port"),
        (Kind::EndpointSlice, "/endpoints"),
        (Kind::ReferenceGrant, "/spec/from"),
    ] {
        let (_, object) = parts.iter().find(|(other, _)| *other == kind).unwrap();
        let mut bad = object.clone();
        *bad.pointer_mut(place).unwrap() = json!("odd");
        let count = |objects: &Objects| {
            objects.faults().into_iter().find(|(other, _)| *other == kind).unwrap().1
        };
        for _ in 0..2 {
            objects.put(kind, &text(&bad));
            assert_eq!((count(&objects), endpoints(&mut objects)), (1, 1), "{kind}");
        }
        objects.put(kind, &text(object));
        assert_eq!((count(&objects), endpoints(&mut objects)), (0, 1), "{kind}");
        objects.put(kind, &text(&bad));
        objects.remove(kind, &text(&bad).head().key());
        assert_eq!((count(&objects), endpoints(&mut objects)), (0, 0), "{kind}");
        objects.put(kind, &text(object));
    }
}

/// A server that has these objects, each at the path of its kind, and no news of them.
fn cluster(objects: Vec<(Kind, Value)>) -> Client {
    let objects = Arc::new(objects);
    let answer = move |request: Request<Body>| {
        let objects = Arc::clone(&objects);
        async move {
            let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
            if query.contains("watch=") {
                std::future::pending::<()>().await;
            }
            let here =
                objects.iter().filter(|(kind, _)| path.ends_with(Definition::of(*kind).plural()));
            let items: Vec<&Value> = here.map(|(_, object)| object).collect();
            let list =
                json!({ "metadata": { "resourceVersion": "5" }, "items": items, "resources": [] });
            kube::Result::<_>::Ok(Response::new(Body::from(list.to_string().into_bytes())))
        }
    };
    Client::new(service_fn(answer), "default")
}

/// The first table waits for names, and must not lose what came of the objects before.
#[tokio::test(start_paused = true)]
async fn the_first_update_has_the_installations_own_addresses_though_it_waits_for_names() {
    let mut route = good(1);
    // Nothing answers there.
    route["spec"]["backends"] = json!([{ "address": "db.example.com:1" }]);
    let (mut service, mut slice) = (good_target(1), good_target(1));
    service["metadata"]["name"] = json!("good");
    slice["ports"] = json!([{ "name": "tls", "port": 8443 }]);
    let objects =
        vec![(Kind::SniRoute, route), (Kind::Service, service), (Kind::EndpointSlice, slice)];
    let source =
        KubernetesSource { client: cluster(objects), namespaces: Vec::new(), secrets: false };
    let own = |name: &str| ObjectKey::new("ns", name);
    let installation =
        Installation { own_services: vec![own("good"), own("nowhere")], ..installation() };
    let log = LogCapture::default();
    let _guard = log.listen();
    let names = DnsFollower::new(&["127.0.0.1:9".parse().unwrap()]);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let publish = move |update: KubernetesUpdate| _ = tell.send(update.delta);
    let (_writer, table) = crate::routing::channel();
    let checked = CheckedReferences { table, authorities: Authorities::default() };
    let watching = watch(source, installation, names, checked, publish, |_| {});
    let first = tokio::select! {
        never = watching => match never {},
        first = told.recv() => first.unwrap(),
    };
    assert_eq!(first.statuses.len(), 1);
    let own = first.own_endpoints.expect("its own addresses");
    assert!(own.contains(&"192.0.2.1:8443".parse().unwrap()), "{own:?}");
    // Of the other one nothing is known, and that is said.
    let lines = log.take();
    let missing = lines.iter().filter_map(|line| line["fields"]["service"].as_str());
    assert_eq!(missing.collect::<Vec<_>>(), ["ns/nowhere"]);
}

/// What is gone when everything is listed anew is removed, and what comes under its name is not what
/// was before.
#[tokio::test]
async fn what_is_missing_from_a_list_is_gone_and_what_comes_after_is_new() {
    let text = |object: &Value| ObjectText::new(object.to_string().as_bytes());
    let health = SourceHealth::new(|_| {}).watch("sniroutes", None);
    let watches = vec![WatchState::new(Definition::of(Kind::SniRoute), health)];
    let mut state = Follower::new(installation(), watches);
    let take = |state: &mut Follower, events: Vec<WatchEvent>| {
        events.into_iter().for_each(|event| state.take(SourceEvent::WatchEvent(0, event)));
    };
    let all = (0..100).map(|number| WatchEvent::InitApply(text(&good(number))));
    take(
        &mut state,
        [WatchEvent::Init].into_iter().chain(all).chain([WatchEvent::InitDone]).collect(),
    );
    assert_eq!(served(&state.objects.settle()).len(), 100);
    let mut unreadable = good(1);
    unreadable["spec"]["backends"] = json!(5);
    let kept = || WatchEvent::InitApply(text(&good(0)));
    let again =
        vec![WatchEvent::Init, kept(), WatchEvent::InitDone, WatchEvent::Apply(text(&unreadable))];
    take(&mut state, again);
    state.remove_gone().await;
    let delta = state.objects.settle();
    let routes = delta.changes.routes.iter();
    assert_eq!(routes.filter(|(_, spec)| spec.is_none()).count(), 99);
    let told = delta.statuses.iter().find(|status| status.object.name() == "good-1").unwrap();
    let accepted = &told.conditions[0];
    // Had it been what was before, it would be served as it was.
    assert!(accepted.message.starts_with("spec.backends"), "{accepted:?}");
    assert!(!accepted.message.contains("is served"), "{accepted:?}");
}
