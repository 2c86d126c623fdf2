//! The rules over the TLS that a route serves.

use serde_json::{Value, json};

use super::rule::{Rule, rule};

pub(super) fn rules() -> Vec<Rule> {
    [fields(), references()].concat()
}

fn fields() -> Vec<Rule> {
    let secrets = |count: usize| json!(vec![json!({ "secret": "a" }); count]);
    let tls = |certificates: Value| json!({ "mode": "Terminate", "certificates": certificates });
    let with = |field: &str, value: Value| {
        let mut tls = tls(secrets(1));
        tls[field] = value;
        tls
    };
    let ca = json!({ "configMap": "a" });
    let upstream = |name: &str| with("upstream", json!({ "serverName": name, "ca": ca }));
    let of = |bad: Value, says: &str, good: Value| {
        rule("/tls", bad, says.replace('~', "spec.tls"), good)
    };
    vec![
        of(
            json!({ "mode": "Passthrough", "certificates": secrets(1) }),
            "~.mode: Unsupported value: \"Passthrough\": supported values: \"Terminate\"",
            tls(secrets(1)),
        ),
        of(json!({ "certificates": secrets(1) }), "~.mode: Required value", tls(secrets(1))),
        of(json!({ "mode": "Terminate" }), "~.certificates: Required value", tls(secrets(1))),
        of(
            tls(secrets(0)),
            "~.certificates: Invalid value: 0: ~.certificates in body should have at least 1 items",
            tls(secrets(1)),
        ),
        of(
            tls(secrets(9)),
            "~.certificates: Too many: 9: must have at most 8 items",
            tls(secrets(8)),
        ),
        of(
            with("minVersion", json!("1.1")),
            "~.minVersion: Unsupported value: \"1.1\": supported values: \"1.2\", \"1.3\"",
            with("minVersion", json!("1.3")),
        ),
        of(
            with("clientCertificates", json!({ "required": false })),
            "~.clientCertificates.ca: Required value",
            with("clientCertificates", json!({ "required": false, "ca": ca })),
        ),
        of(
            with("upstream", json!({ "serverName": "a.test" })),
            "~.upstream.ca: Required value",
            upstream("a.test"),
        ),
        of(
            with("upstream", json!({ "ca": ca })),
            "~.upstream.serverName: Required value",
            upstream("a.test"),
        ),
        of(
            upstream("*.a.test"),
            "~.upstream.serverName: Invalid value: \"*.a.test\": is not a server name",
            upstream("_x.a.test."),
        ),
    ]
}

/// Names of Secrets and ConfigMaps.
fn references() -> Vec<Rule> {
    let tls = |secret: Value| json!({ "mode": "Terminate", "certificates": [secret] });
    let clients = |ca: Value| {
        let mut tls = tls(json!({ "secret": "a" }));
        tls["clientCertificates"] = json!({ "ca": ca });
        tls
    };
    let of = |bad: Value, says: &str, good: Value| {
        rule("/tls", bad, says.replace('~', "spec.tls"), good)
    };
    let long = |length: usize| "x".repeat(length);
    vec![
        of(
            tls(json!({ "secret": "a..b" })),
            "~.certificates[0].secret: Invalid value: \"a..b\": is not the name of a Secret",
            tls(json!({ "secret": "a.b-0" })),
        ),
        of(
            tls(json!({ "secret": long(254) })),
            "~.certificates[0].secret: Too long: may not be more than 253 bytes",
            tls(json!({ "secret": long(253) })),
        ),
        of(
            tls(json!({ "secret": "a", "namespace": "b.c" })),
            "~.certificates[0].namespace: Invalid value: \"b.c\": is not the name of a namespace",
            tls(json!({ "secret": "a", "namespace": "b-c" })),
        ),
        of(
            clients(json!({})),
            "~.clientCertificates.ca: Invalid value: has neither configMap nor secret; give exactly one",
            clients(json!({ "secret": "a" })),
        ),
        of(
            clients(json!({ "secret": "a", "configMap": "a" })),
            "~.clientCertificates.ca: Invalid value: has both configMap and secret; give exactly one",
            clients(json!({ "configMap": "a" })),
        ),
    ]
}
