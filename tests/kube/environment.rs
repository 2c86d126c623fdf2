//! The environment itself: what the other tests take for granted.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use libtest_mimic::Trial;

use crate::support::{ApiServer, quick, slow, succeeded};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        quick!(the_definition_is_established_and_explained),
        quick!(a_route_is_accepted_and_listed_by_its_short_name),
        quick!(endpoints_in_the_sandbox_are_accepted_and_reachable),
        quick!(a_service_account_may_do_what_its_role_allows_and_no_more),
        slow!(objects_outlive_a_killed_api_server),
    ]
}

fn the_definition_is_established_and_explained() {
    let admin = ApiServer::shared().admin();
    let established = "jsonpath={.status.conditions[?(@.type=='Established')].status}";
    let definition = ["get", "crd", "sniroutes.sluice.dev", "-o", established];
    assert_eq!(succeeded(admin.kubectl(&definition)), "True");

    let explained = succeeded(admin.kubectl(&["explain", "sniroute.spec"]));
    for field in ["hostnames\t<[]string> -required-", "backends\t<[]Object> -required-"] {
        assert!(explained.contains(field), "{explained}");
    }
}

fn a_route_is_accepted_and_listed_by_its_short_name() {
    let api = ApiServer::shared();
    let namespace = api.namespace("environment-route");
    succeeded(api.admin().apply(&route(namespace, "203.0.113.7:9093")));
    let first = "jsonpath={.items[0].spec.hostnames[0]}";
    let listed = succeeded(api.admin().kubectl(&["get", "sni", "-n", namespace, "-o", first]));
    assert_eq!(listed, "kafka.example.com");

    let refused = api.admin().apply(&route(namespace, "203.0.113.7"));
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && error.contains("spec.backends[0].address"), "{error}");
}

fn endpoints_in_the_sandbox_are_accepted_and_reachable() {
    let api = ApiServer::shared();
    let namespace = api.namespace("environment-endpoints");
    for address in ["198.18.77.1", "fd00:198:18::77:1"] {
        let address: IpAddr = address.parse().expect("an address");
        let listener = TcpListener::bind((address, 0)).expect("a local address");
        let endpoint = listener.local_addr().expect("an address");
        succeeded(api.admin().apply(&endpoint_slice(namespace, endpoint)));

        let mut client = TcpStream::connect(endpoint).expect("a way to it");
        let (mut server, _) = listener.accept().expect("the connection");
        client.write_all(b"hello").expect("an open connection");
        let mut read = [0; 5];
        server.read_exact(&mut read).expect("what was sent");
        assert_eq!(&read, b"hello");
    }

    // Why there is a sandbox at all.
    let loopback = SocketAddr::from(([127, 0, 0, 1], 443));
    let refused = api.admin().apply(&endpoint_slice(namespace, loopback));
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && error.contains("loopback"), "{error}");
}

fn a_service_account_may_do_what_its_role_allows_and_no_more() {
    let api = ApiServer::shared();
    let namespace = api.namespace("environment-account");
    succeeded(api.admin().kubectl(&[
        "create",
        "clusterrole",
        "environment-reader",
        "--verb=get,list",
        "--resource=sniroutes.sluice.dev",
    ]));
    let reader = api.service_account(namespace, "reader", "environment-reader");
    succeeded(reader.kubectl(&["get", "sniroutes", "--all-namespaces"]));
    assert!(reader.path().is_file());

    let refused = reader.apply(&route(namespace, "203.0.113.7:9093"));
    let error = String::from_utf8_lossy(&refused.stderr);
    let user = format!("\"system:serviceaccount:{namespace}:reader\" cannot create");
    assert!(!refused.status.success() && error.contains(&user), "{error}");
}

fn objects_outlive_a_killed_api_server() {
    let api = ApiServer::start();
    api.install_crds();
    let namespace = api.namespace("kept");
    succeeded(api.admin().apply(&route(namespace, "203.0.113.7:9093")));
    let reader = api.service_account(namespace, "reader", "cluster-admin");
    let get = ["get", "sniroute", "kafka", "-n", namespace, "-o", "jsonpath={.metadata.uid}"];
    let uid = succeeded(api.admin().kubectl(&get));
    assert!(!uid.is_empty());

    api.kill();
    let refused = api.admin().kubectl(&get);
    assert!(!refused.status.success(), "{refused:?}");

    api.start_again();
    assert_eq!(succeeded(api.admin().kubectl(&get)), uid);
    assert_eq!(succeeded(reader.kubectl(&get)), uid, "a token of before");
}

fn route(namespace: &str, address: &str) -> String {
    format!(
        r#"
apiVersion: sluice.dev/v1alpha1
kind: SniRoute
metadata: {{ name: kafka, namespace: {namespace} }}
spec:
  hostnames: [kafka.example.com, "*.kafka.example.com"]
  backends:
    - address: {address}
    - service: {{ name: kafka, port: tls }}
      weight: 10
"#
    )
}

fn endpoint_slice(namespace: &str, endpoint: SocketAddr) -> String {
    let family = if endpoint.is_ipv4() { "IPv4" } else { "IPv6" };
    format!(
        r#"
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: kafka-{name}
  namespace: {namespace}
  labels: {{ kubernetes.io/service-name: kafka }}
addressType: {family}
ports: [{{ name: tls, port: {port} }}]
endpoints: [{{ addresses: ["{address}"], conditions: {{ ready: true }} }}]
"#,
        name = family.to_lowercase(),
        address = endpoint.ip(),
        port = endpoint.port(),
    )
}
