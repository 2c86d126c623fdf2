//! Where routes may not lead, whatever they name.

use std::net::SocketAddr;

use libtest_mimic::Trial;

use crate::controlled::{Backend, Sluice, ask};
use crate::elsewhere::{external_name, resolved, route};
use crate::objects::account;
use crate::support::{ApiServer, DnsServer, PATIENCE, quick, succeeded, within};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        quick!(metadata_services_are_refused_whatever_leads_there),
        quick!(a_network_that_is_excluded_is_refused_in_slices_too),
        quick!(no_route_leads_to_the_admin_port),
        quick!(no_route_leads_to_the_installations_own_services),
    ]
}

/// A Service `name` with port 443, and a slice that leads to `endpoint`.
fn service(namespace: &str, name: &str, endpoint: SocketAddr) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: {namespace} }}
spec: {{ ports: [{{ name: tls, port: 443 }}] }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: {namespace}
  labels: {{ kubernetes.io/service-name: {name} }}
addressType: {}
ports: [{{ name: tls, port: {} }}]
endpoints: [{{ addresses: [\"{}\"], conditions: {{ ready: true }} }}]
---
",
        if endpoint.is_ipv4() { "IPv4" } else { "IPv6" },
        endpoint.port(),
        endpoint.ip()
    )
}

fn to_service(name: &str) -> String {
    format!("service: {{ name: {name}, port: 443 }}")
}

/// The route gets no connection, and is told why.
#[track_caller]
fn assert_refused(sluice: &Sluice, name: &str, reason: &str) {
    within(PATIENCE, &format!("{name} is told"), || {
        resolved(sluice, name).starts_with(reason).then_some(())
    });
    assert_eq!(ask(sluice.address, &format!("{name}.test")), "", "{name}");
}

fn metadata_services_are_refused_whatever_leads_there() {
    let api = ApiServer::shared();
    let namespace = api.namespace("reach-metadata");
    let admin = api.admin();
    let dns = DnsServer::start("fd20:ce::254 meta.test\n100.100.100.200 other.test\n");
    let mut manifests = external_name(namespace, "other.test");
    manifests.push_str("---\n");
    let mut names = Vec::new();
    let mut add = |name: &str, more: &str, backend: &str| {
        manifests.push_str(more);
        manifests.push_str(&route(namespace, name, "metadata", backend));
        manifests.push_str("---\n");
        names.push(name.to_owned());
    };
    for (name, address) in [
        ("mapped", "[::ffff:169.254.169.254]:80"),
        ("nat64", "[64:ff9b::a9fe:a9fe]:80"),
        ("compatible", "[::169.254.169.254]:80"),
        ("pods", "[fd00:ec2::23]:80"),
        ("this-network", "0.1.2.3:80"),
        ("broadcast", "255.255.255.255:80"),
        ("looked-up", "meta.test:80"),
    ] {
        add(name, "", &format!("address: '{address}'"));
    }
    add("external", "", "service: { name: outside, port: 80 }");
    // What the API server takes in a slice.
    for (name, endpoint) in [("slice", "100.100.100.200:80"), ("slice6", "[64:ff9b::a9fe:a9fe]:80")]
    {
        add(name, &service(namespace, name, endpoint.parse().unwrap()), &to_service(name));
    }
    succeeded(admin.apply(&manifests));
    let server = dns.address.to_string();
    let sluice = Sluice::start(&account(api, namespace), "metadata", &["--dns-servers", &server]);
    sluice.await_ready();
    for name in names {
        assert_refused(&sluice, &name, "AddressNotPermitted");
    }
}

fn a_network_that_is_excluded_is_refused_in_slices_too() {
    let api = ApiServer::shared();
    let namespace = api.namespace("reach-excluded");
    let (good, bad) = (Backend::start("good"), Backend::start_at("bad", "198.18.9.1"));
    let mut manifests = String::new();
    for (name, backend) in [("good", &good), ("bad", &bad)] {
        manifests.push_str(&service(namespace, name, backend.address));
        manifests.push_str(&route(namespace, name, "excluded", &to_service(name)));
        manifests.push_str("---\n");
        let written = format!("{name}-written");
        let address = format!("address: '{}'", backend.address);
        manifests.push_str(&route(namespace, &written, "excluded", &address));
        manifests.push_str("---\n");
    }
    succeeded(api.admin().apply(&manifests));
    let arguments = ["--addresses-allow", "198.18.0.0/16", "--addresses-deny", "198.18.9.0/24"];
    let sluice = Sluice::start(&account(api, namespace), "excluded", &arguments);
    sluice.await_ready();
    assert_eq!(ask(sluice.address, "good.test"), "good");
    assert_eq!(ask(sluice.address, "good-written.test"), "good");
    for name in ["bad", "bad-written"] {
        assert_refused(&sluice, name, "AddressNotPermitted: 198.18.9.1 is in 198.18.9.0/24");
    }
}

fn no_route_leads_to_the_admin_port() {
    let api = ApiServer::shared();
    let namespace = api.namespace("reach-admin");
    let at = [("SLUICE_ADMIN", "198.18.0.7:0")];
    let sluice = Sluice::start_in(&at, &account(api, namespace), "reach-admin", &[]);
    sluice.await_ready();
    let port = sluice.admin;
    succeeded(api.admin().apply(&format!(
        "{}{}---\n{}",
        service(namespace, "admin", port),
        route(namespace, "by-slice", "reach-admin", &to_service("admin")),
        route(namespace, "by-address", "reach-admin", &format!("address: '{port}'")),
    )));
    for name in ["by-slice", "by-address"] {
        within(PATIENCE, "the route is there", || {
            sluice.routes().iter().any(|route| route["name"] == name).then_some(())
        });
        assert_refused(&sluice, name, "LeadsToItself");
    }
}

fn no_route_leads_to_the_installations_own_services() {
    let api = ApiServer::shared();
    let namespace = api.namespace("reach-own");
    let admin = api.admin();
    // Another replica, which would answer.
    let replica = Backend::start("replica");
    let dns = DnsServer::start(&format!("{} replica.test\n", replica.address.ip()));
    succeeded(admin.apply(&service(namespace, "own", replica.address)));
    let cluster_ip = succeeded(admin.kubectl(&[
        "get",
        "service",
        "own",
        "-n",
        namespace,
        "-o",
        "jsonpath={.spec.clusterIP}",
    ]));
    let port = replica.address.port();
    let mut manifests = service(namespace, "theirs", replica.address);
    let names = ["by-service", "by-ip", "by-address", "by-name", "by-slice"];
    for (name, backend) in names.into_iter().zip([
        to_service("own"),
        format!("address: '{}:443'", cluster_ip.trim()),
        format!("address: '{}'", replica.address),
        format!("address: 'replica.test:{port}'"),
        to_service("theirs"),
    ]) {
        manifests.push_str(&route(namespace, name, "reach-own", &backend));
        manifests.push_str("---\n");
    }
    succeeded(admin.apply(&manifests));
    let own = format!("{namespace}/own");
    let server = dns.address.to_string();
    let arguments = ["--own-services", &own, "--dns-servers", &server];
    let sluice = Sluice::start(&account(api, namespace), "reach-own", &arguments);
    sluice.await_ready();
    for name in names {
        assert_refused(&sluice, name, "LeadsToItself");
    }
    // Nothing of that is its own any more.
    succeeded(admin.kubectl(&["delete", "endpointslice", "own-1", "-n", namespace]));
    within(PATIENCE, "the address is somebody else's", || {
        (ask(sluice.address, "by-address.test") == "replica").then_some(())
    });
}
