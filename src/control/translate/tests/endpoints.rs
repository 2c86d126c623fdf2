//! The endpoints of a Service.

use std::net::SocketAddr;

use super::*;

/// The endpoints of the one backend of the route `r` that names port `port` of Service `s`.
fn endpoints(port: &str, service_spec: &str, slices: &[EndpointSlice]) -> Vec<String> {
    let backend = format!("{{service: {{name: s, port: {port}}}}}");
    let plan = plan(&Resources {
        routes: vec![route("r", "hostnames: [a.com]", &backend)],
        services: vec![service("s", service_spec)],
        slices: slices.to_vec(),
        ..Resources::default()
    });
    assert_eq!(conditions(&plan, "r"), ALL_GOOD);
    let key = &plan.snapshot.routes[0].backends[0].0;
    plan.snapshot.endpoints[key].iter().map(SocketAddr::to_string).collect()
}

#[test]
fn the_endpoints_of_a_port_are_found_by_the_name_of_the_port() {
    let spec = "{ports: [{port: 80, name: web}, {port: 443, name: tls}]}";
    let slices = [slice(
        "s",
        "IPv4",
        "[{name: web, port: 8080}, {name: tls, port: 8443}]",
        "[{addresses: [10.0.0.2]}, {addresses: [10.0.0.1]}]",
    )];
    assert_eq!(endpoints("443", spec, &slices), ["10.0.0.1:8443", "10.0.0.2:8443"]);
    assert_eq!(endpoints("tls", spec, &slices), ["10.0.0.1:8443", "10.0.0.2:8443"]);
    assert_eq!(endpoints("web", spec, &slices), ["10.0.0.1:8080", "10.0.0.2:8080"]);
    // An unnamed port has an empty name in the slices.
    let unnamed = [
        slice("s", "IPv4", "[{name: '', port: 1}]", "[{addresses: [10.0.0.1]}]"),
        slice("s", "IPv4", "[{port: 2}]", "[{addresses: [10.0.0.2]}]"),
        slice("s", "IPv4", "[{name: tls, port: 3}]", "[{addresses: [10.0.0.3]}]"),
        slice("s", "IPv4", "[{port: 4, protocol: UDP}]", "[{addresses: [10.0.0.4]}]"),
    ];
    assert_eq!(endpoints("443", "{ports: [{port: 443}]}", &unnamed), ["10.0.0.1:1", "10.0.0.2:2"]);
}

#[test]
fn the_same_number_for_udp_does_not_hide_the_port_for_tcp() {
    let spec =
        "{ports: [{port: 443, protocol: UDP, name: quic}, {port: 443, name: tls, protocol: TCP}]}";
    let slices = [slice("s", "IPv4", "[{name: tls, port: 1}]", "[{addresses: [10.0.0.1]}]")];
    assert_eq!(endpoints("443", spec, &slices), ["10.0.0.1:1"]);
}

#[test]
fn slices_of_both_families_are_used_and_fqdn_slices_are_not() {
    let ports = "[{port: 1}]";
    let slices = [
        slice("s", "IPv6", ports, "[{addresses: ['2001:db8::1']}]"),
        slice("s", "IPv4", ports, "[{addresses: [10.0.0.1]}]"),
        slice("s", "FQDN", ports, "[{addresses: [10.0.0.2]}]"),
        slice("s", "IPv4", ports, "[{addresses: ['2001:db8::2', rubbish, '']}]"),
        slice("other", "IPv4", ports, "[{addresses: [10.0.0.3]}]"),
        yaml(
            "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
              metadata: {name: x, namespace: elsewhere, labels: {kubernetes.io/service-name: s}}, \
              ports: [{port: 1}], endpoints: [{addresses: [10.0.0.4]}]}",
        ),
    ];
    assert_eq!(endpoints("1", "{ports: [{port: 1}]}", &slices), ["10.0.0.1:1", "[2001:db8::1]:1"]);
}

#[test]
fn an_endpoint_in_two_slices_counts_once_and_is_ready_if_one_is() {
    let one = |ready: bool| {
        slice(
            "s",
            "IPv4",
            "[{port: 1}]",
            &format!("[{{addresses: [10.0.0.1], conditions: {{ready: {ready}}}}}]"),
        )
    };
    let spec = "{ports: [{port: 1}]}";
    assert_eq!(endpoints("1", spec, &[one(true), one(true)]), ["10.0.0.1:1"]);
    assert_eq!(endpoints("1", spec, &[one(false), one(true)]), ["10.0.0.1:1"]);
    assert_eq!(endpoints("1", spec, &[one(false), one(false)]), [""; 0]);
}

#[test]
fn terminating_endpoints_are_used_only_without_ready_ones() {
    let endpoint = |last: u8, conditions: &str| {
        format!("{{addresses: [10.0.0.{last}], conditions: {{{conditions}}}}}")
    };
    let of =
        |items: &[String]| slice("s", "IPv4", "[{port: 1}]", &format!("[{}]", items.join(", ")));
    let spec = "{ports: [{port: 1}]}";
    let going = of(&[
        endpoint(1, "ready: false, serving: true, terminating: true"),
        endpoint(2, "ready: false, serving: false, terminating: true"),
        endpoint(3, "ready: false, serving: true, terminating: false"),
        endpoint(4, "ready: false"),
    ]);
    assert_eq!(endpoints("1", spec, std::slice::from_ref(&going)), ["10.0.0.1:1"]);
    // A ready endpoint in any slice replaces the terminating ones; a missing condition means ready.
    for conditions in ["ready: true", "", "serving: true"] {
        let ready = of(&[endpoint(9, conditions)]);
        assert_eq!(endpoints("1", spec, &[going.clone(), ready]), ["10.0.0.9:1"]);
    }
}

#[test]
fn a_service_without_endpoints_is_resolved() {
    assert_eq!(endpoints("1", "{ports: [{port: 1}]}", &[]), [""; 0]);
    assert_eq!(endpoints("1", "{clusterIP: None, ports: [{port: 1}]}", &[]), [""; 0]);
}
