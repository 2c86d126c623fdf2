//! Connections that come all the time, while routes change and while the API server is away.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::process::{Signal, kill_process};
use serde_json::json;
use testkit::{Greeted, Traffic, get};

use crate::changes::{Changes, OLDER, served};
use crate::controlled::Sluice;
use crate::objects::{Objects, account, route, servers, service, slice};
use crate::outage::messages;
use crate::support::{ApiServer, PATIENCE, quick, slow, within};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        slow!(an_outage_of_half_a_minute_under_load_loses_no_connection),
        slow!(a_thousand_changes_under_load_lose_no_connection),
        quick!(changes_that_come_at_once_make_few_tables),
        slow!(very_many_routes_of_the_same_names_hold_up_no_probe),
    ]
}

const OUTAGE: Duration = Duration::from_secs(30);
/// Each of [`VISITORS`] opens a connection in this time.
const INTERVAL: Duration = Duration::from_millis(10);
const VISITORS: usize = 2;
const CHANGES: usize = 1000;
/// So many changes are made before the last of them has to be live.
const BURST: usize = 50;

fn an_outage_of_half_a_minute_under_load_loses_no_connection() {
    let api = ApiServer::start();
    api.install_crds();
    let namespace = api.namespace("load-outage");
    let [one, two] = servers(["198.18.3.1", "198.18.3.2"]);
    let objects = Objects::of(api.admin(), namespace);
    objects.put(&service("app"));
    objects.put(&slice("app", &[one]));
    objects.put(&route("app", "load-outage", "stay.test", "app"));
    let sluice = Sluice::start(&account(&api, namespace), "load-outage", &[]);
    sluice.await_ready();

    let visits = under_load(&sluice, &["stay.test"; OLDER], || {
        api.kill();
        let killed = Instant::now();
        within(PATIENCE, "the outage is noticed", || sluice.warnings().into_iter().next());
        while killed.elapsed() < OUTAGE {
            assert_eq!(sluice.get("/readyz").0, 200);
            thread::sleep(INTERVAL);
        }
        api.start_again();
        objects.put(&route("app", "load-outage", "*.test", "app"));
        objects.put(&slice("app", &[two]));
        let changed = [("app".to_owned(), ("*.test".to_owned(), [two].into()))].into();
        within(PATIENCE, "changes are live again", || (served(&sluice) == changed).then_some(()));
    });
    assert_eq!(Greeted::visit(sluice.address, "new.test").unwrap(), "two");
    // There could be ten times as many.
    let least = OUTAGE.as_secs() as usize * 20;
    assert!(visits > least, "only {visits} connections");
}

fn a_thousand_changes_under_load_lose_no_connection() {
    let api = ApiServer::shared();
    let namespace = api.namespace("load-changes");
    let servers = servers(["198.18.4.1", "198.18.4.2"]);
    let objects = Objects::of(api.admin(), namespace);
    let mut changes = Changes::begin(objects, "load-changes", servers);
    let arguments = ["--require-class", "--namespaces", namespace];
    let sluice = Sluice::start(&account(api, namespace), "load-changes", &arguments);
    sluice.await_ready();
    let before = sluice.metric("sluice_table_generation");

    let names: Vec<String> = (0..OLDER).map(|number| format!("older-{number}.test")).collect();
    let older: Vec<&str> = names.iter().map(String::as_str).chain(["stay.test"; OLDER]).collect();
    let visits = under_load(&sluice, &older, || {
        for change in 0..CHANGES {
            changes.change(change, CHANGES);
            if change % BURST == BURST - 1 {
                let marker = format!("after-{change}.test");
                changes.mark(&marker);
                within(PATIENCE, &marker, || {
                    sluice.get("/routes").1.contains(&marker).then_some(())
                });
            }
        }
        // Endpoints come by a watch of their own, so they may be later than the last route.
        within(PATIENCE, "the table is what was applied", || {
            (served(&sluice) == changes.expected()).then_some(())
        });
    });
    assert!(visits > CHANGES / BURST, "only {visits} connections");
    let grown = sluice.metric("sluice_table_generation") - before;
    assert!(grown >= (CHANGES / BURST) as f64, "the table changed only {grown} times");
    assert_eq!(messages(&sluice.warnings()), [""; 0]);
}

/// They wait for a sluice that is held up.
fn changes_that_come_at_once_make_few_tables() {
    const AT_ONCE: usize = 200;
    let api = ApiServer::shared();
    let namespace = api.namespace("load-burst");
    let objects = Objects::of(api.admin(), namespace);
    objects.put(&service("app"));
    let (account, arguments) =
        (account(api, namespace), ["--require-class", "--namespaces", namespace]);
    let start = || Sluice::start(&account, "load-burst", &arguments);
    let (sluice, other) = (start(), start());
    [&sluice, &other].into_iter().for_each(|sluice| sluice.await_ready());
    let before = sluice.metric("sluice_table_generation");

    kill_process(sluice.pid(), Signal::STOP).unwrap();
    objects.put_all((0..AT_ONCE).map(|number| {
        let name = format!("route-{number}");
        route(&name, "load-burst", &format!("{name}.test"), "app")
    }));
    // What the other has, the API server has sent.
    let has_all = |sluice: &Sluice| (served(sluice).len() == AT_ONCE).then_some(());
    within(PATIENCE, "the other serves all", || has_all(&other));
    kill_process(sluice.pid(), Signal::CONT).unwrap();
    within(PATIENCE, "all are served", || has_all(&sluice));
    let grown = sluice.metric("sluice_table_generation") - before;
    assert!(grown <= AT_ONCE as f64 / 10.0, "{grown} tables for {AT_ONCE} changes");
}

/// One tenant may write them. `/livez` is asked all the time, also while a sluice starts with them.
fn very_many_routes_of_the_same_names_hold_up_no_probe() {
    const ROUTES: usize = 1200;
    const NAMES: usize = 64;
    let api = ApiServer::shared();
    let namespace = api.namespace("load-names");
    let [server, _] = servers(["198.18.5.1", "198.18.5.2"]);
    let objects = Objects::of(api.admin(), namespace);
    objects.put(&service("app"));
    objects.put(&slice("app", &[server]));
    let of_all_names = |number: usize, alpn: &str| {
        let mut route = route(&format!("route-{number:04}"), "load-names", "", "app");
        let names: Vec<String> = (0..NAMES).map(|name| format!("name-{name}.test")).collect();
        route["spec"]["hostnames"] = json!(names);
        route["spec"]["alpn"] = json!([format!("{alpn}-{number}")]);
        route
    };
    let settings = |namespace| {
        let arguments = ["--require-class", "--namespaces", namespace, "--write-status=false"];
        (account(api, namespace), arguments)
    };
    let (account, arguments) = settings(api.namespace("load-idle"));
    let idle = Sluice::start(&account, "load-idle", &arguments);
    idle.await_ready();
    let (account, arguments) = settings(namespace);
    let mark = |sluice: &Sluice, name: &str| {
        objects.put(&route("marker", "load-names", name, "app"));
        within(PATIENCE, name, || Greeted::visit(sluice.address, name).ok());
    };
    let sluice = Sluice::start(&account, "load-names", &arguments);
    sluice.await_ready();
    let probes = Probes::start(sluice.admin, idle.admin);
    objects.put_all((0..ROUTES).map(|number| of_all_names(number, "first")));
    mark(&sluice, "all.test");
    for number in 0..5 {
        objects.put(&of_all_names(number, "second"));
        mark(&sluice, &format!("edit-{number}.test"));
    }
    probes.finish();

    let started = Sluice::start(&account, "load-names", &arguments);
    let probes = Probes::start(started.admin, idle.admin);
    started.await_ready();
    mark(&started, "again.test");
    probes.finish();
    let served = started.metric("sluice_routes") as usize;
    assert!(served < ROUTES, "{served} routes are served, of {ROUTES} for the same names");
}

/// Requests `/livez` again and again, and at the same time of an idle sluice, as a measure of how busy
/// the machine is.
struct Probes {
    stop: Arc<AtomicBool>,
    threads: [thread::JoinHandle<Vec<Duration>>; 2],
}

impl Probes {
    fn start(admin: SocketAddr, idle: SocketAddr) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let threads = [admin, idle].map(|admin| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || probe(admin, &stop))
        });
        Probes { stop, threads }
    }

    /// All were answered, and of a hundred 99 within 100 ms, or three times what the idle one took.
    #[track_caller]
    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let [probed, idle] = self.threads.map(|thread| {
            let took = thread.join().expect("every probe is answered");
            (took[took.len() * 99 / 100], took.len())
        });
        let limit = (3 * idle.0).max(Duration::from_millis(100));
        eprintln!("/livez: {probed:?}, idle {idle:?} (99th percentile, count)");
        assert!(probed.0 <= limit, "{probed:?} is more than {limit:?}; idle: {idle:?}");
    }
}

/// How long each probe took, sorted.
fn probe(admin: SocketAddr, stop: &AtomicBool) -> Vec<Duration> {
    let mut took = Vec::new();
    loop {
        let begun = Instant::now();
        assert_eq!(get(admin, "/livez").0, 200);
        took.push(begun.elapsed());
        if stop.load(Ordering::Relaxed) {
            took.sort_unstable();
            return took;
        }
        thread::sleep(INTERVAL);
    }
}

/// Makes connections to `stay.test` all the time, has those that were opened before to `older`
/// talk, and does `what` meanwhile. Panics if any connection ends otherwise than its client wants.
/// Returns how many came.
fn under_load(sluice: &Sluice, older: &[&str], what: impl FnOnce()) -> usize {
    let open = |name: &&str| Greeted::ask(sluice.address, name).unwrap();
    let mut older: Vec<Greeted> = older.iter().map(open).collect();
    let (visits, talk) = (Traffic::default(), Traffic::default());
    thread::scope(|scope| {
        let _stop = (visits.stop_at_end(), talk.stop_at_end());
        for _ in 0..VISITORS {
            scope.spawn(|| {
                visits.run(INTERVAL, || Greeted::visit(sluice.address, "stay.test").map(drop));
            });
        }
        let talk_once = || older.iter_mut().try_for_each(|one| one.echo("still there"));
        scope.spawn(|| talk.run(10 * INTERVAL, talk_once));
        within(PATIENCE, "the load runs", || (visits.done() > 10).then_some(()));
        what();
    });
    let opened = visits.done() + older.len();
    for mut connection in older {
        connection.echo("and still").unwrap();
        assert_eq!(connection.by, "one", "they came before any change");
        connection.close().unwrap();
    }
    let ended = within(PATIENCE, "all connections have ended", || {
        (sluice.metric("sluice_connections_active") == 0.0).then(|| ended(sluice))
    });
    assert_eq!(ended, [("completed".to_owned(), opened)].into());
    visits.done()
}

/// How many connections ended, by how they did.
fn ended(sluice: &Sluice) -> BTreeMap<String, usize> {
    let mut ended = BTreeMap::new();
    let (_, metrics) = sluice.get("/metrics");
    let series = metrics.lines().filter_map(|line| line.strip_prefix("sluice_connections_total{"));
    for (labels, count) in series.filter_map(|series| series.rsplit_once(' ')) {
        let (_, outcome) = labels.split_once("outcome=\"").unwrap();
        let outcome = outcome.split('"').next().unwrap().to_owned();
        *ended.entry(outcome).or_default() += count.parse::<usize>().unwrap();
    }
    ended.retain(|_, count| *count > 0);
    ended
}
