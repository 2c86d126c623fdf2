//! The API server away, slow, silent or in trouble: traffic goes on, sluice says so, and is up to
//! date soon after.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::controlled::{Backend, Held, Sluice, ask};
use crate::controller::{route, service, slice};
use crate::objects::{self, Objects, account};
use crate::support::{ApiServer, Mode, PATIENCE, Proxy, quick, slow, succeeded, within};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        slow!(an_api_server_that_is_killed_and_comes_back),
        quick!(watches_that_break_off_are_no_outage),
        slow!(what_was_missed_in_an_outage_is_listed_anew),
        slow!(an_api_server_in_trouble),
        quick!(a_slow_api_server_is_none_that_is_away),
        slow!(an_api_server_that_falls_silent),
    ]
}

/// How soon after an API server is back everything is as it was: the longest pause is 5 s, and the
/// rest is for a machine with other work to do. kube's own pauses grow to 30 s.
const SOON: Duration = Duration::from_secs(20);

/// Routes of other tests name no class, and some of them are not in order.
const ALONE: &[&str] = &["--require-class"];

const DOWN: &str = "cannot list or watch";
const UP: &str = "the API server is followed again";

fn an_api_server_that_is_killed_and_comes_back() {
    let api = ApiServer::start();
    api.install_crds();
    let namespace = api.namespace("outage");
    let backend = Backend::start("here");
    apply(&api, namespace, "outage", &backend);
    Held::apply(&api, namespace, "outage");
    let sluice = Sluice::start(&account(&api, namespace), "outage", &[]);
    sluice.await_ready();
    let mut held = Held::connect(&sluice);
    within(PATIENCE, "everything is watched", || is_up(&sluice));
    sluice.await_plain_ready();

    let load = Load::start(sluice.address);
    api.kill();
    within(PATIENCE, "the outage is noticed", || is_down(&sluice));
    assert_notice(&sluice, "still serving the last known routes");
    // It is tried again and again, and said once.
    let errors = || sluice.metric("sluice_source_errors_total");
    let begun = errors();
    within(PATIENCE, "it is tried again", || (errors() >= begun + 12.0).then_some(()));
    await_messages(&sluice, &[DOWN]);
    held.assert_open();

    api.start_again();
    // No object has changed, so no event comes.
    within(SOON, "sluice knows that it is back", || is_up(&sluice));
    sluice.await_plain_ready();
    let back = sluice.await_logged(UP);
    assert!(back["away_seconds"].as_f64().is_some_and(|away| away > 1.0), "{back}");
    assert!(load.stop() > 100, "that is no load");
    assert_change_is_live(&api, namespace, "outage", &sluice);
    await_messages(&sluice, &[DOWN]);
    held.assert_open();
}

fn what_was_missed_in_an_outage_is_listed_anew() {
    let api = ApiServer::start();
    api.install_crds();
    let namespace = api.namespace("outage-missed");
    let backend = Backend::start("here");
    apply(&api, namespace, "missed", &backend);
    succeeded(api.admin().apply(&route(namespace, "gone", "missed", "gone.test")));
    let proxy = Proxy::start(&api);
    let account = proxy.kubeconfig(&account(&api, namespace));
    let sluice = Sluice::start(&account, "missed", &["--log-level", "debug"]);
    sluice.await_ready();
    within(PATIENCE, "everything is watched", || is_up(&sluice));

    proxy.set(Mode::Refuse);
    proxy.cut();
    within(PATIENCE, "the outage is noticed", || is_down(&sluice));
    succeeded(api.admin().kubectl(&["delete", "sni", "gone", "-n", namespace]));
    succeeded(api.admin().apply(&route(namespace, "more", "missed", "more.test")));
    // One that has started knows nothing of what was before.
    api.kill();
    api.start_again();
    assert_eq!(ask(sluice.address, "gone.test"), "here");

    proxy.set(Mode::Pass);
    within(SOON, "what is new is served", || {
        (ask(sluice.address, "more.test") == "here").then_some(())
    });
    assert_eq!(ask(sluice.address, "gone.test"), "");
    // The connections that were cut have broken watches off as well.
    within(SOON, "a watch that was too old has broken off", || {
        sluice.warnings().into_iter().find(|line| {
            let error = line["error"].as_str().unwrap_or_default();
            line["message"] == "a watch has broken off" && error.contains("too old")
        })
    });
    within(SOON, "everything is watched", || is_up(&sluice));
}

fn watches_that_break_off_are_no_outage() {
    let api = ApiServer::shared();
    let namespace = api.namespace("outage-cut");
    let [one, two] = [Backend::start("one"), Backend::start("two")];
    let objects = Objects::of(api.admin(), namespace);
    let service = objects::service("app");
    let mut other_port = service.clone();
    other_port["spec"]["ports"][0]["name"] = "other".into();
    objects.put(&service);
    objects.put(&objects::slice("app", &[two.address]));
    objects.put(&objects::route("app", "cut", "zero.test", "app"));
    let proxy = Proxy::start(api);
    let sluice = Sluice::start(&proxy.kubeconfig(&account(api, namespace)), "cut", ALONE);
    sluice.await_ready();
    within(PATIENCE, "everything is watched", || is_up(&sluice));
    for (hostname, backend, name) in [("one.test", one, "one"), ("two.test", two, "two")] {
        proxy.cut();
        let leads_to = |name: &str| {
            within(SOON, name, || (ask(sluice.address, hostname) == name).then_some(()));
        };
        // A change of each kind is live: all are watched again, and may break off again.
        objects.put(&objects::route("app", "cut", hostname, "app"));
        objects.put(&objects::slice("app", &[backend.address]));
        leads_to(name);
        objects.put(&other_port);
        leads_to("");
        objects.put(&service);
        leads_to(name);
        assert_eq!(sluice.metric("sluice_source_up"), 1.0);
    }
    sluice.await_plain_ready();
    // For want of its port, twice.
    await_messages(&sluice, &["a route is not in order"; 2]);
}

fn an_api_server_in_trouble() {
    let api = ApiServer::shared();
    let namespace = api.namespace("outage-trouble");
    let backend = Backend::start("here");
    apply(api, namespace, "trouble", &backend);
    let proxy = Proxy::start(api);
    // What writes statuses would come by connections of its own.
    let arguments = [ALONE, &["--write-status=false"]].concat();
    let sluice = Sluice::start(&proxy.kubeconfig(&account(api, namespace)), "trouble", &arguments);
    sluice.await_ready();
    within(PATIENCE, "everything is watched", || is_up(&sluice));

    for code in [429, 500, 503] {
        proxy.set(Mode::Status(code));
        proxy.cut();
        let start = (Instant::now(), proxy.taken());
        within(PATIENCE, "the trouble is noticed", || is_down(&sluice));
        within(PATIENCE, "it is tried again", || (proxy.taken() > start.1 + 9).then_some(()));
        // It has asked for a second each time, on each of three watches. Left alone, they would
        // come as often in less than one.
        assert!(start.0.elapsed() > Duration::from_millis(1500), "{:?}", start.0.elapsed());
        assert_notice(&sluice, &format!("{code} Trouble); still serving the last known routes"));
        assert_eq!(ask(sluice.address, "app.test"), "here");

        proxy.set(Mode::Pass);
        within(SOON, "sluice knows that it is over", || is_up(&sluice));
        sluice.await_plain_ready();
    }
    assert_change_is_live(api, namespace, "trouble", &sluice);
    await_messages(&sluice, &[DOWN; 3]);
}

fn a_slow_api_server_is_none_that_is_away() {
    let api = ApiServer::shared();
    let namespace = api.namespace("outage-slow");
    let backend = Backend::start("here");
    apply(api, namespace, "slow", &backend);
    let proxy = Proxy::start(api);
    proxy.set(Mode::Slow(Duration::from_millis(200)));
    let sluice = Sluice::start(&proxy.kubeconfig(&account(api, namespace)), "slow", ALONE);
    sluice.await_ready();
    within(PATIENCE, "everything is watched", || is_up(&sluice));
    assert_change_is_live(api, namespace, "slow", &sluice);
    assert_eq!(messages(&sluice.warnings()), [""; 0]);
}

fn an_api_server_that_falls_silent() {
    let api = ApiServer::shared();
    let namespace = api.namespace("outage-silent");
    let backend = Backend::start("here");
    apply(api, namespace, "silent", &backend);
    let proxy = Proxy::start(api);
    let sluice = Sluice::start(&proxy.kubeconfig(&account(api, namespace)), "silent", ALONE);
    sluice.await_ready();
    within(PATIENCE, "everything is watched", || is_up(&sluice));

    proxy.set(Mode::Silent);
    // It takes about a minute.
    within(PATIENCE * 2, "the silence is noticed", || is_down(&sluice));
    assert_notice(&sluice, "still serving the last known routes");
    assert_eq!(ask(sluice.address, "app.test"), "here");

    proxy.set(Mode::Pass);
    // A connection that is being made is waited for a while.
    within(SOON * 2, "sluice knows that it is over", || is_up(&sluice));
    assert_change_is_live(api, namespace, "silent", &sluice);
    await_messages(&sluice, &[DOWN]);
}

/// A client that comes again and again, and finds `here` each time.
struct Load {
    stop: Arc<AtomicBool>,
    client: JoinHandle<usize>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let client = thread::spawn(move || {
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                assert_eq!(ask(address, "app.test"), "here", "connection {count}");
                count += 1;
            }
            count
        });
        Load { stop, client }
    }

    /// How often it came.
    fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.client.join().expect("every connection was served")
    }
}

/// The objects of `app.test`.
pub(crate) fn apply(api: &ApiServer, namespace: &str, class: &str, backend: &Backend) {
    succeeded(api.admin().apply(&service(namespace)));
    succeeded(api.admin().apply(&slice(namespace, backend.address)));
    succeeded(api.admin().apply(&route(namespace, "app", class, "app.test")));
}

fn assert_change_is_live(api: &ApiServer, namespace: &str, class: &str, sluice: &Sluice) {
    succeeded(api.admin().apply(&route(namespace, "app", class, "new.test")));
    within(SOON, "a change is live", || (ask(sluice.address, "new.test") == "here").then_some(()));
}

fn assert_notice(sluice: &Sluice, part: &str) {
    within(PATIENCE, part, || {
        let (status, body) = sluice.get("/readyz");
        assert_eq!(status, 200, "{body}");
        (body.starts_with("ok\nnotice: ") && body.contains(part)).then(|| {
            assert_eq!(body.lines().count(), 2, "{body}");
        })
    });
    assert_eq!(sluice.get("/livez"), (200, "ok\n".to_owned()));
}

fn is_up(sluice: &Sluice) -> Option<()> {
    (sluice.metric("sluice_source_up") == 1.0).then_some(())
}

fn is_down(sluice: &Sluice) -> Option<()> {
    (sluice.metric("sluice_source_up") == 0.0).then_some(())
}

/// Waits until these are the messages above INFO, of which none may be more.
fn await_messages(sluice: &Sluice, expected: &[&str]) {
    within(PATIENCE, "what is logged", || {
        let warnings = sluice.warnings();
        let messages = messages(&warnings);
        assert!(messages.len() <= expected.len(), "{warnings:#?}");
        (messages == expected).then_some(())
    });
}

/// Without those about statuses, which may have been on their way when the outage began.
pub(crate) fn messages(lines: &[Value]) -> Vec<&str> {
    let messages = lines.iter().map(|line| line["message"].as_str().unwrap_or("no JSON"));
    messages.filter(|message| !message.contains("status")).collect()
}
