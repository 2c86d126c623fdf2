//! Active health checks of real servers.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::Value;
use testkit::{Authority, eventually, hello, wait_until};

use super::server::{Kind, Server, python, refusing, s_server};
use super::sluice::{Sluice, rename_over, route_with};

const NAME: &str = "www.example.test";

/// A manifest of routes with these checks, each with one endpoint.
fn routes(endpoints: &[(&str, SocketAddr)], active: &str) -> String {
    let one = |(name, address): &(&str, SocketAddr)| {
        let hostname = format!("{name}.example.test");
        let more = format!("  health: {{ active: {active} }}\n");
        route_with(name, &[NAME, &hostname], *address, &more)
    };
    endpoints.iter().map(one).collect::<Vec<_>>().join("---\n")
}

/// The endpoint of each route.
fn endpoints(sluice: &Sluice) -> BTreeMap<String, Value> {
    let report = sluice.report();
    let endpoint = |route: &Value| {
        let name = route["name"].as_str().unwrap().to_owned();
        (name, route["backends"][0]["endpoints"][0].clone())
    };
    report["routes"].as_array().unwrap().iter().map(endpoint).collect()
}

fn results(sluice: &Sluice, result: &str) -> f64 {
    sluice.metrics().sum("sluice_health_checks_total", &[&format!("result=\"{result}\"")])
}

#[test]
fn servers_pass_by_a_whole_handshake_even_if_they_want_a_client_certificate() {
    let authority = Authority::new();
    let identity = authority.issue(&[NAME]);
    let ca = authority.file();
    let ca = ca.to_str().unwrap();
    let wants = ["-rev", "-Verify", "1", "-verify_return_error", "-CAfile", ca];
    let [old, new] = ["-tls1_2", "-tls1_3"]
        .map(|version| s_server(&identity, &[&wants[..], &[version]].concat()));
    let kinds = [Kind::OpenSsl, Kind::Go, Kind::Rustls];
    let [openssl, go, rustls] = kinds.map(|kind| Server::start(kind, &authority, &[NAME], &[]));
    let [(quiet, quiet_log), (strict, _strict_log)] =
        [&[][..], &[ca]].map(|more| python(&identity, more));
    let (dead, _socket) = refusing();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let all = [
        ("openssl", openssl.address),
        ("go", go.address),
        ("rustls", rustls.address),
        ("python", quiet),
        ("python-strict", strict),
        ("openssl-strict-old", old.0),
        ("openssl-strict-new", new.0),
        ("dead", dead),
        ("silent", silent.local_addr().unwrap()),
    ];
    let tls = "{ type: TLS, timeout: 2s, alpn: [h2] }";
    let sluice = Sluice::start(&[("routes.yaml", routes(&all, tls))]);
    wait_until("seven checks pass", || results(&sluice, "passed") >= 7.0);
    wait_until("two fail", || {
        results(&sluice, "refused") >= 1.0 && results(&sluice, "timeout") >= 1.0
    });
    for (name, endpoint) in endpoints(&sluice) {
        let expected = if ["dead", "silent"].contains(&&*name) { "unhealthy" } else { "serving" };
        assert_eq!(endpoint["state"], expected, "{name}");
    }
    // The server has seen the first exact hostname, the protocol, and an end as TLS wants it.
    let seen = eventually("the end of a check", || quiet_log.stdout.lines().get(1).cloned());
    assert_eq!(seen, format!("ended ['{NAME}'] h2 b''"));
    let metrics = sluice.metrics();
    assert_eq!(metrics.get("sluice_endpoints{state=\"unhealthy\"}"), Some(2.0));
    assert_eq!(metrics.get("sluice_health_checked_endpoints"), Some(9.0));
    let lines = sluice.warnings();
    let failed = lines.iter().filter(|line| line["message"].to_string().contains("health checks"));
    assert_eq!(failed.count(), 2, "{lines:?}");
    let _ = (old.1, new.1);
}

#[test]
fn an_endpoint_that_fails_is_unhealthy_until_it_is_back() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let tcp = "{ type: TCP, unhealthy: 1, healthy: 2, interval: 1s }";
    let sluice = Sluice::start(&[("routes.yaml", routes(&[("one", address)], tcp))]);
    let state =
        |expected: &str| wait_until(expected, || endpoints(&sluice)["one"]["state"] == expected);
    wait_until("a first check", || results(&sluice, "passed") > 0.0);
    state("serving");
    // With a client, it is checked as often as the route says, instead of once a minute.
    let mut client = TcpStream::connect(sluice.address).unwrap();
    client.write_all(&hello(NAME)).unwrap();
    wait_until("the client has the endpoint", || {
        endpoints(&sluice)["one"]["activeConnections"] == 1
    });
    drop(server);
    state("unhealthy");
    let _server = TcpListener::bind(address).unwrap();
    state("serving");
    assert_eq!(sluice.metrics().get("sluice_health_check_failures_total"), Some(1.0));
}

/// The status and the reason of the condition about certificates, of the first route.
fn condition(sluice: &Sluice) -> String {
    let report = sluice.report();
    let conditions = report["routes"][0]["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|one| one["type"] == "BackendCertificate");
    found.map_or_else(String::new, |one| {
        format!("{}/{}", one["status"].as_str().unwrap(), one["reason"].as_str().unwrap())
    })
}

fn config_map(authority: &Authority) -> String {
    let data = serde_json::json!({ "ca.crt": fs::read_to_string(authority.file()).unwrap() });
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: ca, namespace: test }}\ndata: {data}\n"
    )
}

#[test]
fn authorities_in_files_are_live_and_decide_nothing_before_they_are_there() {
    let (ours, other) = (Authority::new(), Authority::new());
    let names = [NAME, "one.example.test"];
    let address = Server::start(Kind::Rustls, &ours, &names, &[]).address;
    let enforce =
        "{ type: TLS, interval: 1s, unhealthy: 1, verify: Enforce, ca: { configMap: ca } }";
    let sluice = Sluice::start(&[("routes.yaml", routes(&[("one", address)], enforce))]);
    let (file, is) = (sluice.routes().join("ca.yaml"), |expected: &str, state: &str| {
        wait_until(&format!("{expected}, {state}"), || {
            condition(&sluice) == expected && endpoints(&sluice)["one"]["state"] == state
        });
    });
    is("False/CaNotFound", "serving");
    let mut client = TcpStream::connect(sluice.address).unwrap();
    client.write_all(&hello(NAME)).unwrap();
    rename_over(&file, &config_map(&ours));
    is("True/Valid", "serving");
    rename_over(&file, &config_map(&other));
    is("False/CertificateNotTrusted", "unhealthy");
    fs::remove_file(&file).unwrap();
    is("False/CaNotFound", "serving");
    let problems = sluice.warnings();
    let told = problems.iter().filter(|line| line["condition"] == "BackendCertificate");
    assert_eq!(told.count(), 3, "{problems:?}");
}
