//! What `kubectl` shows of routes: their status and the Events on them.

use libtest_mimic::Trial;

use crate::controlled::{Backend, Sluice, ask, manifest};
use crate::controller::{route, service, slice};
use crate::elsewhere::external_name;
use crate::objects::{account, bind_role};
use crate::support::{ApiServer, DnsServer, PATIENCE, quick, slow, succeeded, within};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        quick!(every_reason_is_told_with_its_generation),
        quick!(a_conflict_is_told_warned_of_and_undone),
        quick!(endpoints_that_fail_are_warned_of),
        quick!(routes_of_another_class_keep_their_status),
        quick!(nothing_is_written_when_nothing_changes),
        quick!(a_recreated_route_gets_its_status),
        quick!(who_may_not_write_serves_and_says_which_permission_is_missing),
        slow!(two_installations_do_not_answer_each_other),
    ]
}

pub(crate) const GOOD: &str = "Accepted=True/Accepted/1 ResolvedRefs=True/ResolvedRefs/1 \
                    Programmed=True/Programmed/1 ";

fn every_reason_is_told_with_its_generation() {
    let api = ApiServer::shared();
    let namespace = api.namespace("status-reasons");
    succeeded(api.admin().apply(&service(namespace)));
    let made = |name: &str, hostnames: &str, change: &dyn Fn(String) -> String| {
        let route = route(namespace, name, "reasons", hostnames);
        succeeded(api.admin().apply(&change(route)));
    };
    made("a-good", "good.test", &|route| route);
    made("b-lost", "good.test", &|route| route);
    made("c-partly", "good.test, own.test", &|route| route);
    made("d-nowhere", "d.test", &|route| format!("{route}  listeners: [nowhere]\n"));
    made("f-backend", "f.test", &|route| route.replace("name: app, port", "name: none, port"));
    made("g-port", "g.test", &|route| route.replace("port: tls", "port: none"));
    let backend = |backend: &'static str| {
        move |route: String| route.replace("service: { name: app, port: tls }", backend)
    };
    let elsewhere = "service: { name: app, namespace: default, port: tls }";
    made("h-grant", "h.test", &backend(elsewhere));
    made("i-local", "i.test", &backend("address: 127.0.0.1:1"));
    made("j-name", "j.test", &backend("address: gone.test:1"));
    made("k-service", "k.test", &backend("service: { name: outside, port: 1 }"));
    succeeded(api.admin().apply(&external_name(namespace, "192.0.2.1")));
    let dns = DnsServer::start("");
    let servers = ["--require-class", "--dns-servers", &dns.address.to_string()];
    let sluice = Sluice::start(&account(api, namespace), "reasons", &servers);
    let lost = |reason: &str| {
        format!(
            "Accepted=False/{reason}/1 ResolvedRefs=True/ResolvedRefs/1 \
             Programmed=False/NotAccepted/1 "
        )
    };
    let unresolved = |reason: &str| {
        format!(
            "Accepted=True/Accepted/1 ResolvedRefs=False/{reason}/1 Programmed=True/Programmed/1 "
        )
    };
    for (name, expected) in [
        ("a-good", GOOD.to_owned()),
        ("b-lost", lost("HostnameConflict")),
        ("c-partly", GOOD.replace("True/Accepted", "True/PartiallyConflicted")),
        ("d-nowhere", lost("UnknownListener")),
        ("f-backend", unresolved("BackendNotFound")),
        ("g-port", unresolved("PortNotFound")),
        ("h-grant", unresolved("RefNotPermitted")),
        ("i-local", unresolved("AddressNotPermitted")),
        ("j-name", unresolved("NameNotResolved")),
        ("k-service", unresolved("UnsupportedService")),
    ] {
        await_status(api, namespace, name, &expected);
    }
    // Without more words, a list of routes shows which of them are not in order, and their names.
    made("l-many", "l.test, m.test, n.test, o.test, p.test", &|route| route);
    await_status(api, namespace, "l-many", GOOD);
    let listed = succeeded(api.admin().kubectl(&["get", "sni", "-n", namespace]));
    let line = |name: &str| listed.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    for (name, shown) in [
        ("b-lost", ["good.test ", "False "]),
        ("c-partly", ["good.test,own.test ", "True "]),
        ("f-backend", ["f.test ", "False "]),
        ("l-many", ["l.test,m.test,n.test + 2 more ", "True "]),
    ] {
        assert!(shown.iter().all(|text| line(name).contains(text)), "{name}\n{listed}");
    }
    assert!(!line("a-good").contains("False"), "{listed}");
    assert_eq!(sluice.metric("sluice_leader"), 1.0);
    sluice.await_metric("sluice_status_writes_total{result=\"ok\"}", 11.0);
    assert_eq!(sluice.metric("sluice_status_writes_total{result=\"error\"}"), 0.0);

    // Mended, and told of the next generation.
    made("d-nowhere", "d.test", &|route| format!("{route}  listeners: [https]\n"));
    await_status(api, namespace, "d-nowhere", &GOOD.replace("/1 ", "/2 "));
}

fn a_conflict_is_told_warned_of_and_undone() {
    let api = ApiServer::shared();
    let namespace = api.namespace("status-conflict");
    succeeded(api.admin().apply(&service(namespace)));
    succeeded(api.admin().apply(&route(namespace, "a-winner", "conflict", "x.test")));
    succeeded(api.admin().apply(&route(namespace, "b-loser", "conflict", "x.test")));
    let _sluice = Sluice::start(&account(api, namespace), "conflict", &["--require-class"]);
    let message = "jsonpath={.status.conditions[?(@.type=='Accepted')].message}";
    let told = within(PATIENCE, "the conflict is told", || {
        Some(get(api, namespace, "b-loser", message)).filter(|message| !message.is_empty())
    });
    assert_eq!(told, format!("x.test belongs to {namespace}/a-winner"));
    let expected = format!("Warning HostnameConflict {told}\n");
    within(PATIENCE, "there is an Event", || {
        (events(api, namespace, "b-loser") == expected).then_some(())
    });
    assert_eq!(events(api, namespace, "a-winner"), "");

    succeeded(api.admin().kubectl(&["delete", "sni", "a-winner", "-n", namespace]));
    await_status(api, namespace, "b-loser", GOOD);
    // And again, by another winner: the same reason with another message is another warning.
    succeeded(api.admin().apply(&route(namespace, "a-second", "conflict", "x.test")));
    succeeded(api.admin().kubectl(&["delete", "sni", "b-loser", "-n", namespace]));
    succeeded(api.admin().apply(&route(namespace, "b-loser", "conflict", "x.test")));
    let again = format!("Warning HostnameConflict x.test belongs to {namespace}/a-second\n");
    within(PATIENCE, "there is an Event for the other winner", || {
        events(api, namespace, "b-loser").contains(&again).then_some(())
    });
}

fn endpoints_that_fail_are_warned_of() {
    let api = ApiServer::shared();
    let namespace = api.namespace("status-ejected");
    // Nothing listens there.
    let spec = "hostnames: [dead.test]\n  backends: [{ address: '198.18.1.1:9' }]\n  \
                health: { passive: { failures: 1 } }";
    succeeded(api.admin().apply(&manifest(namespace, "dead", "ejected", spec)));
    let sluice = Sluice::start(&account(api, namespace), "ejected", &["--require-class"]);
    await_status(api, namespace, "dead", GOOD);
    assert_eq!(ask(sluice.address, "dead.test"), "");
    let line = sluice.await_logged("an endpoint has failed too often in a row and is tried last");
    assert_eq!(
        ["route", "endpoint", "reason"].map(|field| line[field].as_str()),
        [&*format!("{namespace}/dead"), "198.18.1.1:9", "connect"].map(Some)
    );
    assert_eq!(sluice.routes()[0]["backends"][0]["endpoints"][0]["state"], "ejected");
    let expected = "Warning EndpointEjected 198.18.1.1:9: ejected, because connections have failed \
                    too often in a row; tried last until one succeeds\n";
    within(PATIENCE, "there is an Event", || {
        (events(api, namespace, "dead") == expected).then_some(())
    });
}

fn routes_of_another_class_keep_their_status() {
    let api = ApiServer::shared();
    let namespace = api.namespace("status-class");
    succeeded(api.admin().apply(&service(namespace)));
    for name in ["other", "leaving"] {
        succeeded(api.admin().apply(&route(namespace, name, "another", "other.test")));
    }
    let status = r#"{"status":{"conditions":[{"type":"Accepted","status":"False","reason":"Theirs",
        "message":"","lastTransitionTime":"2020-01-01T00:00:00Z"}]}}"#;
    let patch = ["patch", "sni", "other", "-n", namespace, "--subresource=status", "--type=merge"];
    succeeded(api.admin().kubectl(&[&patch[..], &["-p", status]].concat()));
    let before = version(api, namespace, "other");
    let _sluice = Sluice::start(&account(api, namespace), "mine", &["--require-class"]);
    // What comes to this class is written, also over what others wrote.
    succeeded(api.admin().apply(&route(namespace, "leaving", "mine", "leaving.test")));
    await_status(api, namespace, "leaving", &GOOD.replace("/1 ", "/2 "));
    // What leaves it is left as it is.
    succeeded(api.admin().apply(&route(namespace, "leaving", "another", "leaving.test")));
    let left = version(api, namespace, "leaving");
    marker(api, namespace, "mine");
    assert_eq!(version(api, namespace, "leaving"), left);
    assert_eq!(version(api, namespace, "other"), before);
    succeeded(api.admin().apply(&route(namespace, "other", "mine", "other.test")));
    await_status(api, namespace, "other", &GOOD.replace("/1 ", "/2 "));
}

fn nothing_is_written_when_nothing_changes() {
    let api = ApiServer::shared();
    let namespace = api.namespace("status-same");
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    succeeded(api.admin().apply(&service(namespace)));
    succeeded(api.admin().apply(&slice(namespace, one.address)));
    succeeded(api.admin().apply(&route(namespace, "app", "same", "app.test")));
    succeeded(api.admin().apply(&route(namespace, "lost", "same", "app.test")));
    let account = account(api, namespace);
    let mut sluice = Sluice::start(&account, "same", &["--require-class", "--drain-delay=0s"]);
    await_status(api, namespace, "app", GOOD);
    let lost = "Accepted=False/HostnameConflict/1 ResolvedRefs=True/ResolvedRefs/1 \
                Programmed=False/NotAccepted/1 ";
    await_status(api, namespace, "lost", lost);
    within(PATIENCE, "the loser is told", || {
        events(api, namespace, "lost").contains("HostnameConflict").then_some(())
    });
    let versions = || ["app", "lost"].map(|name| version(api, namespace, name));
    let before = versions();

    succeeded(api.admin().apply(&slice(namespace, two.address)));
    within(PATIENCE, "the other endpoint is live", || {
        (ask(sluice.address, "app.test") == "two").then_some(())
    });
    marker(api, namespace, "same");
    assert_eq!(versions(), before, "an endpoint changed");

    sluice.terminate();
    assert!(sluice.ended().success());
    succeeded(api.admin().kubectl(&["delete", "sni", "marker", "-n", namespace]));
    let sluice = Sluice::start(&account, "same", &["--require-class"]);
    marker(api, namespace, "same");
    assert_eq!(versions(), before, "sluice was started again");
    sluice.await_metric("sluice_status_writes_total{result=\"ok\"}", 1.0);
    assert_eq!(events(api, namespace, "lost").lines().count(), 1, "no second warning");
}

fn a_recreated_route_gets_its_status() {
    let api = ApiServer::shared();
    let namespace = api.namespace("status-recreated");
    succeeded(api.admin().apply(&service(namespace)));
    let _sluice = Sluice::start(&account(api, namespace), "recreated", &["--require-class"]);
    for _ in 0..3 {
        succeeded(api.admin().apply(&route(namespace, "app", "recreated", "app.test")));
        await_status(api, namespace, "app", GOOD);
        succeeded(api.admin().kubectl(&["delete", "sni", "app", "-n", namespace]));
    }
}

fn who_may_not_write_serves_and_says_which_permission_is_missing() {
    let api = ApiServer::shared();
    let namespace = api.namespace("status-forbidden");
    let backend = Backend::start("here");
    succeeded(api.admin().apply(&service(namespace)));
    succeeded(api.admin().apply(&slice(namespace, backend.address)));
    succeeded(api.admin().apply(&route(namespace, "app", "unwritten", "app.test")));
    succeeded(api.admin().apply(&route(namespace, "lost", "unwritten", "app.test")));
    let role = |name: &str, verbs: &str, resources: &str| {
        let (verbs, resources) = (format!("--verb={verbs}"), format!("--resource={resources}"));
        succeeded(api.admin().kubectl(&["create", "clusterrole", name, &verbs, &resources]));
    };
    let bind = |role: &str| {
        let (role_flag, subject) =
            (format!("--clusterrole={role}"), format!("--serviceaccount={namespace}:sluice"));
        let binding = ["create", "clusterrolebinding", role, &role_flag, &subject];
        succeeded(api.admin().kubectl(&binding));
    };
    let read = "sniroutes.sluice.dev,services,endpointslices.discovery.k8s.io";
    role("status-reader", "list,watch", read);
    role("status-writer", "patch", "sniroutes.sluice.dev/status");
    role("status-warner", "create,patch", "events.events.k8s.io");
    let account = api.service_account(namespace, "sluice", "status-reader");
    let sluice = Sluice::start(&account, "unwritten", &["--require-class", "--lease-duration=5s"]);
    sluice.await_ready();
    let hinted = |hint: &str| {
        within(PATIENCE, hint, || {
            let warnings = sluice.warnings();
            let hints = warnings.iter().filter_map(|line| line["hint"].as_str());
            hints.filter(|said| said.contains(hint)).count().checked_sub(1)
        });
        assert_eq!(ask(sluice.address, "app.test"), "here");
    };
    hinted("the verbs get, create and update on leases in the API group coordination.k8s.io");
    assert_eq!(sluice.metric("sluice_leader"), 0.0);
    bind_role(api, namespace);
    hinted("the verb patch on sniroutes/status in the API group sluice.dev");
    sluice.await_metric("sluice_leader", 1.0);
    within(PATIENCE, "the failure is counted", || {
        (sluice.metric("sluice_status_writes_total{result=\"error\"}") > 0.0).then_some(())
    });
    bind("status-writer");
    await_status(api, namespace, "app", GOOD);
    hinted("the verbs create and patch on events in the API group events.k8s.io");
    bind("status-warner");
    succeeded(api.admin().apply(&route(namespace, "more", "unwritten", "app.test")));
    within(PATIENCE, "Events are written now", || {
        events(api, namespace, "more").contains("HostnameConflict").then_some(())
    });
    let hints = sluice.warnings().into_iter().filter(|line| line["hint"].is_string());
    assert_eq!(hints.count(), 3, "each is said once");
}

fn two_installations_do_not_answer_each_other() {
    let api = ApiServer::start();
    api.install_crds();
    let spaces = [api.namespace("status-one"), api.namespace("status-two")];
    succeeded(api.admin().apply(&service(spaces[0])));
    let [one, two] = spaces.map(|namespace| {
        let class = &namespace["status-".len()..];
        Sluice::start(&account(&api, namespace), class, &[])
    });
    // Both serve it, and they do not agree: the conflict is there for one of them only.
    let shared = route(spaces[0], "shared", "none", "x.test").replace("  className: none\n", "");
    succeeded(api.admin().apply(&route(spaces[0], "first", "one", "x.test")));
    await_status(&api, spaces[0], "first", GOOD);
    succeeded(api.admin().apply(&shared));
    let written = "sluice_status_writes_total{result=\"ok\"}";
    within(PATIENCE, "both have written", || {
        (one.metric(written) == 2.0 && two.metric(written) == 1.0).then_some(())
    });
    let before = version(&api, spaces[0], "shared");
    marker(&api, spaces[0], "one");
    marker(&api, spaces[1], "two");
    assert_eq!(version(&api, spaces[0], "shared"), before);
    one.await_metric(written, 3.0);
    two.await_metric(written, 2.0);
    // To come second is no error.
    let failed = "sluice_status_writes_total{result=\"error\"}";
    assert_eq!((one.metric(failed), two.metric(failed)), (0.0, 0.0));
}

/// Makes a route and waits for its status: what was to be written before is written then.
pub(crate) fn marker(api: &ApiServer, namespace: &str, class: &str) {
    let hostname = format!("marker.{namespace}.test");
    succeeded(api.admin().apply(&route(namespace, "marker", class, &hostname)));
    within(PATIENCE, "the marker has its status", || {
        status(api, namespace, "marker").starts_with("Accepted=True").then_some(())
    });
}

pub(crate) fn await_status(api: &ApiServer, namespace: &str, name: &str, expected: &str) {
    within(PATIENCE, &format!("the status of {name} is {expected:?}"), || {
        (status(api, namespace, name) == expected).then_some(())
    });
}

/// The conditions of a route: `TYPE=STATUS/REASON/GENERATION`, each with a space.
pub(crate) fn status(api: &ApiServer, namespace: &str, name: &str) -> String {
    let path = "jsonpath={range .status.conditions[*]}{.type}={.status}/{.reason}/\
                {.observedGeneration} {end}";
    get(api, namespace, name, path)
}

fn version(api: &ApiServer, namespace: &str, name: &str) -> String {
    get(api, namespace, name, "jsonpath={.metadata.resourceVersion}")
}

pub(crate) fn get(api: &ApiServer, namespace: &str, name: &str, output: &str) -> String {
    succeeded(api.admin().kubectl(&["get", "sni", name, "-n", namespace, "-o", output]))
}

/// The Events on a route: `TYPE REASON MESSAGE`, one a line.
pub(crate) fn events(api: &ApiServer, namespace: &str, name: &str) -> String {
    let of = format!("--field-selector=involvedObject.kind=SniRoute,involvedObject.name={name}");
    let path = "jsonpath={range .items[*]}{.type} {.reason} {.message}{\"\\n\"}{end}";
    succeeded(api.admin().kubectl(&["get", "events", "-n", namespace, &of, "-o", path]))
}
