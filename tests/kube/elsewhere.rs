//! Backends in other namespaces and outside the cluster.

use std::net::TcpListener;

use libtest_mimic::Trial;
use serde_json::Value;
use testkit::echo_at;

use crate::controlled::{Backend, Held, Sluice, ask, manifest};
use crate::controller::slice;
use crate::objects::account;
use crate::support::{ApiServer, DnsServer, PATIENCE, quick, slow, succeeded, within};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        quick!(an_external_name_and_a_dns_address_are_resolved),
        quick!(an_address_of_the_machine_itself_is_refused),
        slow!(names_follow_their_records_and_outlive_the_resolver),
        slow!(grants_open_and_close_other_namespaces),
    ]
}

/// What the condition `ResolvedRefs` of a route says, as `reason: message`.
pub(crate) fn resolved(sluice: &Sluice, name: &str) -> String {
    let (_, routes) = sluice.get("/routes");
    let routes: Value = serde_json::from_str(&routes).unwrap();
    let route = routes["routes"].as_array().unwrap().iter().find(|route| route["name"] == name);
    let condition = &route.unwrap()["conditions"][1];
    format!("{}: {}", condition["reason"].as_str().unwrap(), condition["message"].as_str().unwrap())
}

pub(crate) fn route(namespace: &str, name: &str, class: &str, backend: &str) -> String {
    let spec = format!("hostnames: [{name}.test]\n  backends: [{{ {backend} }}]");
    manifest(namespace, name, class, &spec)
}

pub(crate) fn external_name(namespace: &str, name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: outside, namespace: {namespace} }}
spec: {{ type: ExternalName, externalName: {name} }}
"
    )
}

fn an_external_name_and_a_dns_address_are_resolved() {
    let api = ApiServer::shared();
    let namespace = api.namespace("elsewhere-names");
    let backend = Backend::start("named");
    let port = backend.address.port();
    let dns = DnsServer::start(&format!("{} db.test\n", backend.address.ip()));
    let admin = api.admin();
    succeeded(admin.apply(&external_name(namespace, "db.test")));
    let outside = format!("service: {{ name: outside, port: {port} }}");
    succeeded(admin.apply(&route(namespace, "external", "names", &outside)));
    let address = format!("address: DB.test:{port}");
    succeeded(admin.apply(&route(namespace, "address", "names", &address)));
    succeeded(admin.apply(&route(namespace, "gone", "names", "address: gone.test:1")));

    let server = dns.address.to_string();
    let sluice = Sluice::start(&account(api, namespace), "names", &["--dns-servers", &server]);
    sluice.await_ready();
    // From the first table on.
    assert_eq!(ask(sluice.address, "external.test"), "named");
    assert_eq!(ask(sluice.address, "address.test"), "named");
    assert_eq!(ask(sluice.address, "gone.test"), "");
    assert_eq!(resolved(&sluice, "external"), "ResolvedRefs: ");
    let why = "NameNotResolved: gone.test cannot be resolved: there is no such name";
    assert_eq!(resolved(&sluice, "gone"), why);
}

fn an_address_of_the_machine_itself_is_refused() {
    let api = ApiServer::shared();
    let namespace = api.namespace("elsewhere-local");
    let secret = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = secret.local_addr().unwrap().port();
    let dns = DnsServer::start("127.0.0.1 here.test\n");
    for (name, host) in [("number", "127.0.0.1"), ("name", "here.test")] {
        let backend = format!("address: {host}:{port}");
        succeeded(api.admin().apply(&route(namespace, name, "local", &backend)));
    }
    let server = dns.address.to_string();
    let sluice = Sluice::start(&account(api, namespace), "local", &["--dns-servers", &server]);
    sluice.await_ready();
    for name in ["number", "name"] {
        assert_eq!(ask(sluice.address, &format!("{name}.test")), "");
        assert!(resolved(&sluice, name).starts_with("AddressNotPermitted"), "{name}");
    }
    secret.set_nonblocking(true).unwrap();
    assert!(secret.accept().is_err(), "nobody was led there");
}

fn names_follow_their_records_and_outlive_the_resolver() {
    let api = ApiServer::shared();
    let namespace = api.namespace("elsewhere-records");
    let (one, two) = (Backend::start("one"), Backend::start_at("two", "198.18.1.2"));
    let dns = DnsServer::start(&format!("{} db.test\n", one.address.ip()));
    let backends = format!(
        "address: 'db.test:{}' }}, {{ address: 'db.test:{}'",
        one.address.port(),
        two.address.port()
    );
    succeeded(api.admin().apply(&route(namespace, "app", "records", &backends)));
    let server = dns.address.to_string();
    let sluice = Sluice::start(&account(api, namespace), "records", &["--dns-servers", &server]);
    sluice.await_ready();
    let leads_to = |name: &'static str| {
        within(PATIENCE, name, || (ask(sluice.address, "app.test") == name).then_some(()));
    };
    leads_to("one");
    dns.set(&format!("{} db.test\n", two.address.ip()));
    leads_to("two");

    dns.kill();
    within(PATIENCE, "the fault is told", || {
        let said = resolved(&sluice, "app");
        (said.starts_with("NameNotResolved") && said.contains("last known addresses")).then_some(())
    });
    assert_eq!(ask(sluice.address, "app.test"), "two", "what was known last");
    dns.set(&format!("{} db.test\n", one.address.ip()));
    leads_to("one");
    // No such name is an answer, too.
    dns.set("");
    leads_to("");
    assert_eq!(
        resolved(&sluice, "app").split(';').next().unwrap(),
        "NameNotResolved: db.test cannot be resolved: there is no such name"
    );
}

fn grants_open_and_close_other_namespaces() {
    let api = ApiServer::start();
    api.install_crds();
    let admin = api.admin();
    let (home, away) = (api.namespace("home"), api.namespace("away"));
    let (backend, echo) = (Backend::start("granted"), echo_at("198.18.1.1:0"));
    succeeded(admin.apply(&format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: app, namespace: {away} }}
spec: {{ ports: [{{ name: tls, port: 443 }}] }}
"
    )));
    succeeded(admin.apply(&slice(away, backend.address)));
    let service = format!("service: {{ name: app, namespace: {away}, port: 443 }}");
    succeeded(admin.apply(&route(home, "app", "grants", &service)));
    let sluice = Sluice::start(&account(&api, home), "grants", &[]);
    sluice.await_ready();
    let says = |answer: &'static str| {
        within(PATIENCE, answer, || (ask(sluice.address, "app.test") == answer).then_some(()));
    };
    assert_eq!(ask(sluice.address, "app.test"), "");
    let refused = "RefNotPermitted: no ReferenceGrant in namespace away lets the SniRoutes of home \
                   refer to Service app";
    assert_eq!(resolved(&sluice, "app"), refused);

    // The definition appears while sluice runs.
    api.install_grants();
    let grant = format!(
        "apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {{ name: grant, namespace: {away} }}
spec:
  from: [{{ group: sluice.dev, kind: SniRoute, namespace: {home} }}]
  to: [{{ group: '', kind: Service, name: app }}]
"
    );
    succeeded(admin.apply(&grant));
    says("granted");
    assert_eq!(resolved(&sluice, "app"), "ResolvedRefs: ");

    // Who is connected stays so when the grant goes.
    succeeded(admin.apply(&slice(away, echo)));
    let mut connected =
        within(PATIENCE, "the echo answers", || Held::by_name(sluice.address, "app.test"));
    succeeded(admin.apply(&slice(away, backend.address)));
    says("granted");
    succeeded(admin.kubectl(&["delete", "referencegrant", "grant", "-n", away]));
    says("");
    assert_eq!(resolved(&sluice, "app"), refused);
    connected.assert_open();

    // And with the definition, all grants.
    succeeded(admin.apply(&grant));
    says("granted");
    api.uninstall_grants();
    says("");
    assert_eq!(resolved(&sluice, "app"), refused);
}
