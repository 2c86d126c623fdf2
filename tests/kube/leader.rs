//! Who writes the status of routes: one replica, as long as it is there.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::controlled::{Backend, Sluice, ask};
use crate::controller::{route, service, slice};
use crate::objects::account;
use crate::status::{GOOD, await_status, marker, status};
use crate::support::{ApiServer, PATIENCE, quick, slow, succeeded, within};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        slow!(one_replica_writes_and_another_takes_over_when_it_dies),
        quick!(a_replica_that_ends_hands_over_at_once),
        slow!(who_cannot_renew_the_lease_leads_no_longer),
        quick!(who_is_told_not_to_write_leaves_no_trace),
    ]
}

fn one_replica_writes_and_another_takes_over_when_it_dies() {
    let api = ApiServer::shared();
    let namespace = api.namespace("status-killed");
    succeeded(api.admin().apply(&service(namespace)));
    let account = account(api, namespace);
    // So long that no leader loses it to a machine that is busy for a moment.
    let arguments = ["--require-class", "--lease-duration", "10s"];
    let start = || Sluice::start(&account, "killed", &arguments);
    let (mut leader, follower) = in_order([start(), start()]);
    for number in 0..20 {
        let (name, hostname) = (format!("app-{number}"), format!("app-{number}.test"));
        succeeded(api.admin().apply(&route(namespace, &name, "killed", &hostname)));
    }
    for number in 0..20 {
        await_status(api, namespace, &format!("app-{number}"), GOOD);
    }
    follower.await_ready();
    let written = "sluice_status_writes_total{result=\"ok\"}";
    leader.await_metric(written, 20.0);
    assert_eq!(follower.metric(written), 0.0);

    leader.kill();
    succeeded(api.admin().apply(&route(namespace, "late", "killed", "late.test")));
    await_status(api, namespace, "late", GOOD);
    assert_eq!(follower.metric("sluice_leader"), 1.0);
    // It found the others as they have to be.
    follower.await_metric(written, 1.0);
    assert_eq!(transitions(api, namespace), "1");
}

fn a_replica_that_ends_hands_over_at_once() {
    let api = ApiServer::shared();
    let namespace = api.namespace("status-ended");
    succeeded(api.admin().apply(&service(namespace)));
    let account = account(api, namespace);
    // Of ten minutes: whoever had to wait for its end would be too late.
    let start = |arguments: &[&str]| {
        Sluice::start(&account, "ended", &[&["--require-class"], arguments].concat())
    };
    let long = start(&["--lease-duration", "10m", "--drain-delay", "10m"]);
    await_leader(&long);
    let short = start(&["--lease-duration", "10s"]);
    short.await_ready();
    long.terminate();
    await_leader(&short);
    // It goes on serving until its load balancers know, and writes no more.
    assert_eq!(long.metric("sluice_leader"), 0.0);
    marker(api, namespace, "ended");
    assert_eq!(long.metric("sluice_status_writes_total{result=\"ok\"}"), 0.0);
}

fn who_cannot_renew_the_lease_leads_no_longer() {
    let api = ApiServer::start();
    api.install_crds();
    let namespace = api.namespace("status-outage");
    succeeded(api.admin().apply(&service(namespace)));
    const LEASE: Duration = Duration::from_secs(15);
    let arguments = ["--lease-duration", "15s"];
    let sluice = Sluice::start(&account(&api, namespace), "outage", &arguments);
    await_leader(&sluice);
    api.kill();
    let killed = Instant::now();
    sluice.await_metric("sluice_leader", 0.0);
    let took = killed.elapsed();
    assert!(took < LEASE, "others may lead by now: {took:?}");

    api.start_again();
    succeeded(api.admin().apply(&route(namespace, "app", "outage", "app.test")));
    await_status(&api, namespace, "app", GOOD);
    assert_eq!(sluice.metric("sluice_leader"), 1.0);
}

fn who_is_told_not_to_write_leaves_no_trace() {
    let api = ApiServer::shared();
    let namespace = api.namespace("status-off");
    let backend = Backend::start("here");
    succeeded(api.admin().apply(&service(namespace)));
    succeeded(api.admin().apply(&slice(namespace, backend.address)));
    succeeded(api.admin().apply(&route(namespace, "app", "silent", "app.test")));
    let account = account(api, namespace);
    let quiet = Sluice::start(&account, "silent", &["--require-class", "--write-status=false"]);
    quiet.await_ready();
    assert_eq!(ask(quiet.address, "app.test"), "here");
    // Whoever writes has done so by the time that another sluice, which does, has.
    let _loud = Sluice::start(&account, "loud", &["--require-class"]);
    marker(api, namespace, "loud");
    assert_eq!(transitions(api, namespace), "0", "nobody had the Lease before");
    assert_eq!(status(api, namespace, "app"), "");
    assert_eq!(quiet.metric("sluice_leader"), 0.0);
}

/// The one that leads, and the other.
fn in_order([one, two]: [Sluice; 2]) -> (Sluice, Sluice) {
    let leads = |sluice: &Sluice| sluice.metric("sluice_leader") == 1.0;
    within(PATIENCE, "one of them leads", || (leads(&one) || leads(&two)).then_some(()));
    if leads(&one) { (one, two) } else { (two, one) }
}

fn await_leader(sluice: &Sluice) {
    sluice.await_metric("sluice_leader", 1.0);
}

/// How often the Lease has changed hands.
fn transitions(api: &ApiServer, namespace: &str) -> String {
    let path = "jsonpath={.items[*].spec.leaseTransitions}";
    succeeded(api.admin().kubectl(&["get", "leases", "-n", namespace, "-o", path]))
}
