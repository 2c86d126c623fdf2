use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::service::service;
use super::slice::slice;
use super::*;

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
