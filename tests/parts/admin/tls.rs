//! Routes that serve TLS themselves, in `/routes`, `explain` and `/metrics`.

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use sluice::termination::{
    CertificateText, Identity, NotReady, ServerParts, Termination, TerminationText, TicketKeys,
};

use super::metrics::scrape;
use super::*;

/// A certificate for these names, with its Secret.
fn certificate(secret: &str, names: &[&str], rsa: bool) -> (CertificateText, Arc<Identity>) {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).expect("parameters");
    params.not_before = rcgen::date_time_ymd(2025, 1, 1);
    params.not_after = rcgen::date_time_ymd(2125, 1, 1);
    params.serial_number = Some(vec![if rsa { 0xa5 } else { 0x0c }].into());
    let algorithm = if rsa { &PKCS_RSA_SHA256 } else { &PKCS_ECDSA_P256_SHA256 };
    let key = KeyPair::generate_for(algorithm).expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    let identity = Identity::from_pem(certificate.as_bytes(), key.serialize_pem().as_bytes());
    (CertificateText { secret: secret.into() }, identity.expect("an identity"))
}

fn text(certificates: &[(CertificateText, Arc<Identity>)], more: Value) -> TerminationText {
    let mut text = more;
    let secrets: Vec<Value> =
        certificates.iter().map(|(text, _)| json!({ "secret": text.secret })).collect();
    text["certificates"] = secrets.into();
    serde_json::from_value(text).expect("a text")
}

fn serving(certificates: &[(CertificateText, Arc<Identity>)], more: Value) -> Termination {
    serving_of(certificates, text(certificates, more))
}

/// The termination of a route with this text, which can use these certificates.
fn serving_of(
    certificates: &[(CertificateText, Arc<Identity>)],
    text: TerminationText,
) -> Termination {
    let server = ServerParts {
        certificates: certificates.to_vec(),
        alpn: Vec::new(),
        min_version: Default::default(),
        client_certificates: None,
        tickets: TicketKeys::default(),
        route: "".into(),
    };
    Termination::new(text, server, None).expect("a termination")
}

fn route(name: &str, hostname: &str, termination: Termination) -> RouteSpec {
    RouteSpec { termination: Some(Arc::new(termination)), ..plain(key("web", name), hostname) }
}

fn served() -> Snapshot {
    let shared = certificate("web/shared", &["*.example"], true);
    let own = certificate("web/own", &["one.example"], false);
    let clients =
        json!({ "clientCertificates": { "required": false, "ca": { "configMap": "web/ca" } } });
    let upstream = json!({
        "minVersion": "1.3",
        "upstream": {
            "serverName": "inner", "ca": { "secret": "web/ca" }, "clientCertificate": { "secret": "web/me" },
        },
    });
    let waiting = text(&[certificate("web/none", &["x"], false)], json!({}));
    let routes = vec![
        route("one", "one.example", serving(&[shared.clone(), own], clients)),
        route("two", "two.example", serving(&[shared], upstream).with_stale(true)),
        route("wait", "wait.example", Termination::not_ready(waiting, NotReady::NoCertificate)),
        plain(key("web", "plain"), "plain.example"),
    ];
    Snapshot { routes, ..Snapshot::default() }
}

#[test]
fn routes_name_their_secrets_and_each_certificate_is_told_once() {
    let mut server = Server::start();
    server.writer.apply(served());
    let report = server.routes();
    let expected = |secret: &str, serial: &str, key: &str, name: &str| {
        json!({
            "secret": secret, "serial": serial, "key": key, "names": [name],
            "notBefore": "2025-01-01T00:00:00Z", "notAfter": "2125-01-01T00:00:00Z",
        })
    };
    let own = expected("web/own", "0c", "ECDSA 256", "one.example");
    let shared = expected("web/shared", "00a5", "RSA 2048", "*.example");
    assert_eq!(report["certificates"], json!([own, shared]));
    let of = |name: &str| {
        let routes = report["routes"].as_array().expect("routes");
        let route = routes.iter().find(|route| route["name"] == name).expect("the route");
        (route["tlsState"].clone(), route["tls"]["certificates"].clone())
    };
    let secrets =
        |names: &[&str]| names.iter().map(|name| json!({ "secret": name })).collect::<Value>();
    assert_eq!(of("one"), (json!("served"), secrets(&["web/shared", "web/own"])));
    assert_eq!(of("two"), (json!("stale"), secrets(&["web/shared"])));
    assert_eq!(of("wait"), (json!("refused"), secrets(&["web/none"])));
    assert_eq!(of("plain"), (Value::Null, Value::Null));
    assert!(!report.to_string().contains("PRIVATE"));
}

/// The lines about TLS that a name gets, which are the same from the table and from the report.
#[track_caller]
fn explained(server: &Server, name: &str) -> Vec<String> {
    let (report, unreadable) =
        RoutesReport::read(server.routes().to_string().as_bytes()).expect("a report");
    assert!(unreadable.is_empty());
    let query = Query { name: Some(name.into()), ..Query::default() };
    let here = explain(&server.state.table.table(), &query).to_string();
    let mut there = explain(&table(report.snapshot().0), &query);
    there.take_report(&report);
    assert_eq!(here, there.to_string());
    let about_tls = |line: &&str| line.contains("tls") || line.contains("certificate");
    here.lines().filter(about_tls).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn explain_takes_the_certificates_that_the_route_serves_in_its_order() {
    let equal = ["web/z", "web/a"].map(|secret| certificate(secret, &["equal.example"], false));
    let own = certificate("web/own", &["part.example"], false);
    let other = certificate("other/whole", &["*.example"], false);
    // It names a Secret that it may not use, and that another route serves.
    let named = text(&[other.clone(), own.clone()], json!({}));
    let refused = Termination::not_ready(named.clone(), NotReady::NoCertificate);
    let routes = vec![
        route("equal", "equal.example", serving(&equal, json!({}))),
        route("part", "part.example", serving_of(&[own], named)),
        route("refused", "refused.example", refused),
        route("whole", "whole.example", serving(&[other], json!({}))),
    ];
    let mut server = Server::start();
    server.writer.apply(Snapshot { routes, ..Snapshot::default() });
    let certificate = |name| {
        let lines = explained(&server, name);
        let line = lines.into_iter().find(|line| line.starts_with("certificate: "));
        line.map(|line| line.split(',').next().unwrap_or_default().to_owned())
    };
    let of = |secret| Some(format!("certificate: of Secret {secret}"));
    assert_eq!(certificate("equal.example"), of("web/z"));
    assert_eq!(certificate("part.example"), of("web/own"));
    assert_eq!(certificate("refused.example"), None);
    assert_eq!(certificate("whole.example"), of("other/whole"));
}

#[test]
fn explain_tells_which_certificate_a_name_gets_from_a_table_and_from_a_report() {
    let mut server = Server::start();
    server.writer.apply(served());
    let lines = |name: &str| explained(&server, name);
    let own = "of Secret web/own, serial 0c, ECDSA 256, until 2125-01-01T00:00:00Z";
    let shared = "of Secret web/shared, serial 00a5, RSA 2048, until 2125-01-01T00:00:00Z";
    assert_eq!(
        lines("one.example"),
        [
            "tls: Terminate, at least 1.2",
            &format!("certificate: {own}"),
            &format!("certificate for clients that know only RSA: {shared}"),
            "tls.certificates: Secret web/shared, web/own",
            "tls.clientCertificates: optional, of ConfigMap web/ca",
            "tls.upstream: none, so backends get plain TCP",
        ]
    );
    assert_eq!(
        lines("two.example"),
        [
            "tls: Terminate, at least 1.3, with what its Secrets had last: one of them cannot be used",
            &format!("certificate: {shared}"),
            "tls.certificates: Secret web/shared",
            "tls.upstream: inner, of Secret web/ca, with the certificate of Secret web/me",
        ]
    );
    assert_eq!(
        lines("wait.example")[0],
        "tls: Terminate, at least 1.2, but cannot serve it now: connections are refused (no_certificate)"
    );
    assert_eq!(lines("plain.example"), [""; 0]);
}

#[test]
fn certificates_and_states_are_metrics() {
    let mut server = Server::start();
    server.writer.apply(served());
    let lines = scrape(&server);
    for line in [
        r#"sluice_certificate_not_before_seconds{namespace="web",secret="own"} 1735689600"#,
        r#"sluice_certificate_not_after_seconds{namespace="web",secret="own"} 4891363200"#,
        r#"sluice_certificate_not_after_seconds{namespace="web",secret="shared"} 4891363200"#,
        r#"sluice_tls_routes{state="served"} 1"#,
        r#"sluice_tls_routes{state="stale"} 1"#,
        r#"sluice_tls_routes{state="refused"} 1"#,
    ] {
        assert!(lines.iter().any(|other| other == line), "{line} is not in\n{}", lines.join("\n"));
    }
    assert!(!lines.iter().any(|line| line.contains("none")), "nothing of it is served");
}
