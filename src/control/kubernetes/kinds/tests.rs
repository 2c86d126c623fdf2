use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::service::service;
use super::slice::slice;
use super::*;
use crate::control::translate::Installation;

fn text(object: &Value) -> (Head, ObjectText) {
    let text = ObjectText::new(object.to_string().as_bytes());
    (text.head(), text)
}

/// What is used, and nothing else: it is read as it is by whoever reads all.
#[test]
fn what_is_used_is_read() {
    let metadata = json!({
        "name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "7", "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": { "kubernetes.io/service-name": "s" },
    });
    let object = json!({
        "metadata": metadata,
        "spec": {
            "type": "ExternalName", "externalName": "example.com",
            "ports": [{ "name": "tls", "port": 443, "protocol": "TCP" }],
            "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"],
            "externalIPs": ["192.0.2.1"],
        },
        "status": { "loadBalancer": { "ingress": [
            { "ip": "192.0.2.2" }, { "hostname": "lb.example.com" },
        ] } },
    });
    let (head, service_text) = text(&object);
    let typed: Service = serde_json::from_value(object).unwrap();
    assert_eq!(service(&IncomingObject { head: &head, text: &service_text }), Ok(typed));
    let object = json!({
        "metadata": metadata, "addressType": "IPv4",
        "ports": [{ "name": "tls", "port": 443, "protocol": "TCP" }, { "port": null }],
        "endpoints": [
            {
                "addresses": ["192.0.2.1"], "nodeName": "n", "zone": "z",
                "hints": { "forNodes": [{ "name": "n" }], "forZones": [{ "name": "z" }] },
            },
            { "addresses": ["192.0.2.2"], "hints": {} },
            { "addresses": [], "conditions": { "ready": false, "serving": true, "terminating": true } },
        ],
    });
    let (head, slice_text) = text(&object);
    let typed: EndpointSlice = serde_json::from_value(object).unwrap();
    assert_eq!(slice(&IncomingObject { head: &head, text: &slice_text }), Ok(typed));
}

#[test]
fn what_is_read_is_followed() {
    assert_eq!(WATCHED_KINDS.map(WatchedKind::kind), READ_KINDS);
}

/// Puts a route with this spec.
fn put_route(spec: &Value) -> Result<(), String> {
    let object =
        json!({ "metadata": { "name": "a", "namespace": "ns" }, "other": 1, "spec": spec });
    let (head, text) = text(&object);
    let mut builder = Builder::new(Installation::default());
    let put = sni_route::SniRoutes.put(&IncomingObject { head: &head, text: &text }, &mut builder);
    put.map_err(|fault| fault.to_string())
}

/// The next version may treat connections in another way because of such a field.
#[test]
fn a_route_with_an_unknown_field_in_its_spec_cannot_be_read() {
    let backends = json!([{ "address": "192.0.2.1:1", "later": 1 }]);
    let plain =
        json!({ "hostnames": ["a.test"], "backends": backends, "timeouts": { "later": [1] } });
    assert_eq!(put_route(&plain), Ok(()));
    let mut newer = plain;
    newer["later"] = json!({ "mode": "Terminate" });
    let fault = put_route(&newer).unwrap_err();
    assert!(fault.starts_with("spec.later: unknown field"), "{fault}");
    assert!(fault.ends_with("; this version of sluice does not know it"), "{fault}");
}

/// A rule that this version does not know must not be passed over: it may keep somebody out.
#[test]
fn a_route_with_an_unknown_field_anywhere_in_tls_or_access_cannot_be_read() {
    let plain = json!({
        "hostnames": ["a.test"],
        "backends": [{ "address": "192.0.2.1:1" }],
        "access": { "allow": ["10.0.0.0/8"] },
        "tls": {
            "mode": "Terminate",
            "certificates": [{ "secret": "a" }],
            "clientCertificates": { "ca": { "configMap": "ca" } },
            "upstream": {
                "serverName": "a.test",
                "ca": { "secret": "ca" },
                "clientCertificate": { "secret": "b" },
            },
        },
    });
    assert_eq!(put_route(&plain), Ok(()));
    for place in [
        "/access",
        "/tls",
        "/tls/certificates/0",
        "/tls/clientCertificates",
        "/tls/clientCertificates/ca",
        "/tls/upstream",
        "/tls/upstream/ca",
        "/tls/upstream/clientCertificate",
    ] {
        let mut newer = plain.clone();
        newer.pointer_mut(place).unwrap()["later"] = json!([1]);
        let fault = put_route(&newer).unwrap_err();
        assert!(fault.contains("later: unknown field"), "{place}: {fault}");
    }
}
