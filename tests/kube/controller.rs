//! sluice as a controller: what is applied to the API server is what is served.

use std::net::SocketAddr;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::controlled::{Backend, Sluice, ask, manifest};
use crate::objects::{account, install_role};
use crate::status::{GOOD, await_status};
use crate::support::{ApiServer, PATIENCE, quick, slow, succeeded, within};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        quick!(a_route_leads_to_the_endpoints_of_its_service),
        quick!(routes_of_another_class_are_left_alone),
        slow!(a_route_that_cannot_be_read_hurts_itself_alone),
        quick!(only_the_given_namespaces_are_watched),
        quick!(a_forbidden_watch_says_what_is_missing),
    ]
}

fn a_route_leads_to_the_endpoints_of_its_service() {
    let api = ApiServer::shared();
    let namespace = api.namespace("controller-service");
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    succeeded(api.admin().apply(&service(namespace)));
    succeeded(api.admin().apply(&slice(namespace, one.address)));
    succeeded(api.admin().apply(&route(namespace, "app", "service", "app.test")));
    let sluice = Sluice::start(&account(api, namespace), "service", &["--require-class"]);
    sluice.await_ready();
    assert_eq!(ask(sluice.address, "app.test"), "one");

    succeeded(api.admin().apply(&slice(namespace, two.address)));
    within(PATIENCE, "the other endpoint is live", || {
        (ask(sluice.address, "app.test") == "two").then_some(())
    });
    succeeded(api.admin().apply(&route(namespace, "app", "service", "new.test")));
    within(PATIENCE, "the other name is live", || {
        (ask(sluice.address, "new.test") == "two").then_some(())
    });
    assert_eq!(ask(sluice.address, "app.test"), "", "the name that the route had before");
    succeeded(api.admin().kubectl(&["delete", "sni", "app", "-n", namespace]));
    within(PATIENCE, "the route is gone", || {
        ask(sluice.address, "new.test").is_empty().then_some(())
    });
    assert_eq!(sluice.warnings(), Vec::<Value>::new());
}

fn routes_of_another_class_are_left_alone() {
    let api = ApiServer::shared();
    let namespace = api.namespace("controller-class");
    let backend = Backend::start("mine");
    succeeded(api.admin().apply(&service(namespace)));
    succeeded(api.admin().apply(&slice(namespace, backend.address)));
    succeeded(api.admin().apply(&route(namespace, "mine", "class-a", "mine.test")));
    succeeded(api.admin().apply(&route(namespace, "other", "class-b", "other.test")));
    let sluice = Sluice::start(&account(api, namespace), "class-a", &[]);
    sluice.await_ready();
    assert_eq!(ask(sluice.address, "mine.test"), "mine");
    assert_eq!(ask(sluice.address, "other.test"), "");
    // It may become ours.
    succeeded(api.admin().apply(&route(namespace, "other", "class-a", "other.test")));
    within(PATIENCE, "the other route is served", || {
        (ask(sluice.address, "other.test") == "mine").then_some(())
    });
}

fn a_route_that_cannot_be_read_hurts_itself_alone() {
    // As if it came from before there was the rule that it breaks.
    let api = ApiServer::start();
    api.install_crds_without_rules();
    let namespace = api.namespace("controller-invalid");
    let backend = Backend::start("good");
    succeeded(api.admin().apply(&service(namespace)));
    succeeded(api.admin().apply(&slice(namespace, backend.address)));
    succeeded(api.admin().apply(&route(namespace, "good", "invalid", "good.test")));
    let bad = route(namespace, "bad", "invalid", "bad.test");
    succeeded(api.admin().apply(&format!("{bad}  timeouts: {{ idle: 9999h }}\n")));
    let sluice = Sluice::start(&account(&api, namespace), "invalid", &["--require-class"]);
    sluice.await_ready();
    assert_eq!(ask(sluice.address, "good.test"), "good");
    assert_eq!(ask(sluice.address, "bad.test"), "");
    let (_, routes) = sluice.get("/routes");
    let routes: Value = serde_json::from_str(&routes).unwrap();
    let bad = routes["routes"].as_array().unwrap().iter().find(|one| one["name"] == "bad").unwrap();
    assert_eq!(bad["served"], false);
    assert_eq!(bad["conditions"][0]["reason"], "Invalid");
    let message = bad["conditions"][0]["message"].as_str().unwrap();
    let expected = "spec.timeouts.idle: \"9999h\" is over the maximum of 720h (30 days)";
    assert_eq!(message, expected);

    let invalid = "Accepted=False/Invalid/1 ResolvedRefs=False/NotAccepted/1 \
                   Programmed=False/NotAccepted/1 ";
    await_status(&api, namespace, "bad", invalid);

    succeeded(api.admin().apply(&route(namespace, "bad", "invalid", "bad.test")));
    within(PATIENCE, "the mended route is served", || {
        (ask(sluice.address, "bad.test") == "good").then_some(())
    });
    await_status(&api, namespace, "bad", &GOOD.replace("/1 ", "/2 "));
}

fn only_the_given_namespaces_are_watched() {
    let api = ApiServer::shared();
    let (inside, outside) = (api.namespace("controller-in"), api.namespace("controller-out"));
    let backend = Backend::start("in");
    for (namespace, hostname) in [(inside, "in.test"), (outside, "out.test")] {
        succeeded(api.admin().apply(&service(namespace)));
        succeeded(api.admin().apply(&slice(namespace, backend.address)));
        succeeded(api.admin().apply(&route(namespace, "app", "namespaces", hostname)));
    }
    let sluice = Sluice::start(&account(api, inside), "namespaces", &["--namespaces", inside]);
    sluice.await_ready();
    assert_eq!(ask(sluice.address, "in.test"), "in");
    assert_eq!(ask(sluice.address, "out.test"), "");
}

fn a_forbidden_watch_says_what_is_missing() {
    let api = ApiServer::shared();
    let namespace = api.namespace("controller-forbidden");
    let resources = "--resource=sniroutes.sluice.dev,services";
    let verbs = "--verb=list,watch";
    succeeded(api.admin().kubectl(&["create", "clusterrole", "no-slices", verbs, resources]));
    let account = api.service_account(namespace, "sluice", "no-slices");
    let sluice = Sluice::start(&account, "forbidden", &[]);
    let warning = within(PATIENCE, "it is logged", || sluice.warnings().into_iter().next());
    assert_eq!(warning["kind"], "endpointslices.discovery.k8s.io", "{warning}");
    assert!(warning["hint"].as_str().unwrap().contains("list and watch"), "{warning}");
    let (status, body) = sluice.get("/readyz");
    assert_eq!(status, 503, "{body}");

    install_role(api);
    let binding = ["create", "clusterrolebinding", "no-slices-mended", "--clusterrole=sluice"];
    let subject = format!("--serviceaccount={namespace}:sluice");
    succeeded(api.admin().kubectl(&[&binding[..], &[&subject]].concat()));
    sluice.await_ready();
}

pub(crate) fn service(namespace: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: app, namespace: {namespace} }}
spec: {{ ports: [{{ name: tls, port: 443 }}] }}
"
    )
}

pub(crate) fn slice(namespace: &str, endpoint: SocketAddr) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: app-1
  namespace: {namespace}
  labels: {{ kubernetes.io/service-name: app }}
addressType: IPv4
ports: [{{ name: tls, port: {} }}]
endpoints: [{{ addresses: [\"{}\"], conditions: {{ ready: true }} }}]
",
        endpoint.port(),
        endpoint.ip()
    )
}

pub(crate) fn route(namespace: &str, name: &str, class: &str, hostname: &str) -> String {
    let backends = "backends: [{ service: { name: app, port: tls } }]";
    manifest(namespace, name, class, &format!("hostnames: [{hostname}]\n  {backends}"))
}
