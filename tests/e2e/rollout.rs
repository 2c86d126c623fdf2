//! Replacing sluice, and what is behind it, under load.

use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::json;

use crate::support::{
    Backend, Held, Load, Namespace, RELEASE, Sluice, Target, eventually, kubectl, shared, test,
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test!(no_connection_fails_while_sluice_is_replaced),
        test!(no_connection_fails_while_a_backend_is_replaced),
        test!(a_new_pod_gets_no_connection_before_it_knows_the_routes),
    ]
}

/// From SIGTERM to the reset of what is still open then: `drain.delay` and `drain.timeout`.
const DRAIN: Duration = Duration::from_secs(5 + 9);
const DRAIN_VALUES: &str = "drain: { delay: 5s, timeout: 9s }";

fn no_connection_fails_while_sluice_is_replaced() {
    let _cluster = shared();
    let namespace = Namespace::new("rollout");
    let sluice = Sluice::install(&namespace, DRAIN_VALUES);
    Backend::new("one").deploy(&namespace);
    sluice.route("one", "one.example.com", "one");
    let target = sluice.target("one.example.com");
    target.until_says("one");

    let load = Load::start(target);
    let old = sluice.pods();
    assert_eq!(old.len(), 2, "replicas by default: {old:?}");
    // They are spread over both pods, by chance. All these outlast the update of their pod.
    let streams: Vec<_> = (0..8).map(|_| stream(target, 8)).collect();
    let held: Vec<_> = (0..8).map(|_| hold(target)).collect();
    let start = Instant::now();
    sluice.restart();

    for stream in streams {
        stream.join().unwrap().expect("a connection that ends before its pod is not cut off");
    }
    for held in held {
        let lasted = held.join().unwrap() - start;
        assert!(lasted >= DRAIN, "a connection was cut off after {lasted:?}");
        assert!(lasted <= DRAIN * 10, "a connection was never cut off, in {lasted:?}");
    }
    namespace.until_pods("sluice", "the old pods are gone", |pods| {
        old.iter().all(|pod| !pods.contains(pod))
    });
    load.goes_on(200);
    let tally = load.finish();
    assert!(tally.failures.is_empty(), "{tally:?}");
}

fn no_connection_fails_while_a_backend_is_replaced() {
    let _cluster = shared();
    let namespace = Namespace::new("backend-rollout");
    let sluice = Sluice::install(&namespace, "replicas: 1");
    let before = Backend { replicas: 2, says: "before", ..Backend::new("one") };
    before.deploy(&namespace);
    sluice.route("one", "one.example.com", "one");
    let target = sluice.target("one.example.com");
    target.until_says("before");

    let load = Load::start(target);
    let stream = stream(target, 3);
    let old = namespace.pods("one");
    Backend { says: "after", ..before }.deploy(&namespace);
    namespace.until_pods("one", "the old backends are gone", |pods| {
        old.iter().all(|pod| !pods.contains(pod))
    });
    load.goes_on(100);
    let tally = load.finish();
    stream.join().unwrap().expect("a connection is not cut off by a rollout");
    assert!(tally.failures.is_empty(), "{tally:?}");
    assert!(tally.answers.keys().eq(["after", "before"]), "{tally:?}");
    target.until_says("after");
}

fn a_new_pod_gets_no_connection_before_it_knows_the_routes() {
    let _cluster = shared();
    let namespace = Namespace::new("unready");
    let sluice = Sluice::install(&namespace, "replicas: 1");
    Backend::new("one").deploy(&namespace);
    sluice.route("one", "one.example.com", "one");
    let target = sluice.target("one.example.com");
    target.until_says("one");
    let bind = |account: &str| {
        let operation = [json!({ "op": "replace", "path": "/subjects/0/name", "value": account })];
        let patch = ["--type=json", "--patch", &json!(operation).to_string()];
        kubectl(&[&["patch", "clusterrolebinding", "sluice-unready"], &patch[..]].concat());
    };

    let load = Load::start(target);
    bind("nobody");
    namespace.kubectl(&["rollout", "restart", "deployment", RELEASE]);
    let container = |pod: &String| {
        namespace.get(&format!("pod/{pod}"))["status"]["containerStatuses"][0].clone()
    };
    eventually("the new pod runs", || {
        let pods = sluice.pods();
        (pods.len() == 2 && pods.iter().all(|pod| container(pod)["started"] == true)).then_some(())
    });
    load.goes_on(300);
    let ready = sluice.pods().iter().filter(|pod| container(pod)["ready"] == true).count();
    assert_eq!(ready, 1, "it may not list routes");
    bind(RELEASE);
    namespace.rolled_out("deployment/sluice");
    load.goes_on(100);
    let tally = load.finish();
    assert!(tally.failures.is_empty(), "{tally:?}");
}

/// A connection on which an answer is awaited for that time.
fn stream(target: Target, seconds: u32) -> thread::JoinHandle<std::io::Result<()>> {
    let mut held = Held::open(target).expect("a connection");
    held.ask_for_stream(seconds).expect("the first line");
    thread::spawn(move || held.finish())
}

/// A connection that is used until it is cut off; gives when that was.
fn hold(target: Target) -> thread::JoinHandle<Instant> {
    let mut held = Held::open(target).expect("a connection");
    thread::spawn(move || {
        while held.get().is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
        Instant::now()
    })
}
