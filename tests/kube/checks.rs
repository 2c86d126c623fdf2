//! Active health checks: authorities from ConfigMaps, and the condition about certificates.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use libtest_mimic::Trial;
use rustls::crypto::aws_lc_rs;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use testkit::{Authority, Identity, wait_until};

use crate::controlled::{Sluice, ask, manifest};
use crate::objects::account;
use crate::status::{GOOD, await_status, events, get};
use crate::support::{ApiServer, quick, slow, succeeded};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        slow!(authorities_come_from_config_maps_and_decide_nothing_before_they_are_there),
        quick!(what_checks_see_of_certificates_is_told_of_their_routes),
    ]
}

/// A server with a certificate, which greets and closes.
fn server(identity: &Identity) -> SocketAddr {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.chain(), identity.key())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("198.18.1.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let _ = StreamOwned::new(connection, stream).write_all(b"served");
        }
    });
    address
}

fn config_map(namespace: &str, certificates: &str) -> String {
    let data = serde_json::json!({ "ca.crt": certificates });
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: ca, namespace: {namespace} }}\ndata: {data}\n"
    )
}

fn authorities_come_from_config_maps_and_decide_nothing_before_they_are_there() {
    let api = ApiServer::shared();
    let namespace = api.namespace("checks-ca");
    let (ours, other) = (Authority::new(), Authority::new());
    let certificates = |authority: &Authority| std::fs::read_to_string(authority.file()).unwrap();
    succeeded(api.admin().apply(&config_map(namespace, &certificates(&other))));
    let address = server(&ours.issue(&["a.test"]));
    let spec = format!(
        "hostnames: [a.test]\n  backends: [{{ address: '{address}' }}]\n  health: {{ active: {{ \
         type: TLS, interval: 1s, verify: Enforce, ca: {{ configMap: ca }} }} }}"
    );
    succeeded(api.admin().apply(&manifest(namespace, "a", "checks", &spec)));
    let sluice = Sluice::start(&account(api, namespace), "checks", &["--require-class"]);
    let endpoint = || sluice.routes()[0]["backends"][0]["endpoints"][0]["state"].clone();
    let state = |expected: &str| wait_until(expected, || endpoint() == expected);
    let condition = |status: &str| {
        await_status(api, namespace, "a", &format!("{GOOD}BackendCertificate={status}/1 "));
    };
    let message = "jsonpath={.status.conditions[?(@.type=='BackendCertificate')].message}";
    let warned = |line: String| {
        wait_until(&line, || events(api, namespace, "a").contains(&line));
    };
    // Not without a permission that the account does not have by default.
    condition("False/CaNotRead");
    let told = get(api, namespace, "a", message);
    assert!(told.contains("rbac.configMaps"), "{told}");
    assert_eq!(endpoint(), "serving");
    // With a client, the endpoint is checked as often as the route says, instead of once a minute.
    ask(sluice.address, "a.test");
    let_read_config_maps(api, namespace);
    condition("False/CertificateNotTrusted");
    state("unhealthy");
    warned(format!(
        "Warning CertificateNotTrusted the certificate of {address}: no authority of ca has issued it\n"
    ));

    succeeded(api.admin().kubectl(&["delete", "configmap", "ca", "-n", namespace]));
    condition("False/CaNotFound");
    state("serving");
    let told = format!("ConfigMap {namespace}/ca of ca: there is no such ConfigMap");
    assert_eq!(get(api, namespace, "a", message), told);
    warned(format!("Warning CaNotFound {told}\n"));

    succeeded(api.admin().apply(&config_map(namespace, &certificates(&ours))));
    condition("True/Valid");
    state("serving");
    assert_eq!(get(api, namespace, "a", message), "");
}

/// Lets sluice read ConfigMaps of its own namespace, by the role that is shipped.
fn let_read_config_maps(api: &ApiServer, namespace: &str) {
    succeeded(api.admin().apply(include_str!("../../deploy/clusterrole-configmaps.yaml")));
    let binding = ["create", "rolebinding", "sluice-configmaps", "-n", namespace];
    let subject = format!("--serviceaccount={namespace}:sluice");
    let of = ["--clusterrole=sluice-configmaps", &subject];
    succeeded(api.admin().kubectl(&[&binding[..], &of].concat()));
}

fn what_checks_see_of_certificates_is_told_of_their_routes() {
    let api = ApiServer::shared();
    let namespace = api.namespace("checks-seen");
    let authority = Authority::new();
    let shared = authority.issue(&["*.c.test"]);
    let applied = |name: &str, hostnames: &str, address: SocketAddr| {
        let spec = format!(
            "hostnames: [{hostnames}]\n  alpn: [h2]\n  backends: [{{ address: '{address}' }}]\n  \
             health: {{ active: {{ type: TLS }} }}"
        );
        succeeded(api.admin().apply(&manifest(namespace, name, "seen", &spec)));
    };
    let own = server(&authority.issue(&["a.test"]));
    applied("names", "b.test, a.test", own);
    let two = server(&shared);
    applied("one", "one.c.test", server(&shared));
    applied("two", "two.c.test", two);
    let sluice = Sluice::start(&account(api, namespace), "seen", &["--require-class"]);
    let condition = |name: &str, status: &str| {
        await_status(api, namespace, name, &format!("{GOOD}BackendCertificate={status} "));
    };
    condition("names", "False/NameNotInCertificate/1");
    condition("one", "False/SharedWildcardCertificate/1");
    condition("two", "False/SharedWildcardCertificate/1");
    let warned = |name: &str, line: &str| {
        wait_until(line, || events(api, namespace, name).contains(line));
    };
    let name = format!("the certificate of {own}: it does not have b.test\n");
    warned("names", &format!("Warning NameNotInCertificate {name}"));
    warned("two", &format!("Warning SharedWildcardCertificate the certificate of {two}: route"));
    sluice.await_metric("sluice_backend_certificate_problems{problem=\"name\"}", 1.0);
    sluice.await_metric("sluice_backend_certificate_problems{problem=\"shared_wildcard\"}", 2.0);
    let expiry = format!(
        "sluice_backend_certificate_not_after_seconds{{kind=\"SniRoute\",namespace=\"{namespace}\",\
         route=\"names\"}}"
    );
    assert!(sluice.metric(&expiry) > 1e9, "{expiry}");

    // Mended, which the next report of the same result tells.
    applied("names", "a.test, b.test", own);
    let mended = GOOD.replace("/1 ", "/2 ");
    await_status(api, namespace, "names", &format!("{mended}BackendCertificate=True/Valid/2 "));
    succeeded(api.admin().kubectl(&["delete", "sni", "one", "-n", namespace]));
    condition("two", "True/Valid/1");
    // A route that asks for no checks has no such condition.
    let spec = format!("hostnames: [a.test]\n  backends: [{{ address: '{own}' }}]");
    succeeded(api.admin().apply(&manifest(namespace, "names", "seen", &spec)));
    await_status(api, namespace, "names", &GOOD.replace("/1 ", "/3 "));
}
