//! The endpoints of a Service.

use std::net::SocketAddr;

use super::*;
use crate::control::api::Address;
use crate::routing::OtherAddresses;

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

/// The addresses that the one backend of a route has besides its endpoints: those of Service `s` at port 1, with
/// these slices.
fn others(service_spec: &str, slices: &[EndpointSlice]) -> Option<OtherAddresses> {
    let plan = plan(&Resources {
        routes: vec![route("r", "hostnames: [a.com]", "{service: {name: s, port: 1}}")],
        services: vec![service("s", service_spec)],
        slices: slices.to_vec(),
        ..Resources::default()
    });
    plan.snapshot.others.into_values().next()
}

fn known(addresses: &[&str]) -> Option<OtherAddresses> {
    Some(OtherAddresses::Known(addresses.iter().map(|text| text.parse().unwrap()).collect()))
}

#[test]
fn endpoints_that_are_not_ready_or_terminate_still_exist() {
    let spec = "{ports: [{port: 1}]}";
    let endpoint = |last: u8, conditions: &str| {
        format!("{{addresses: [10.0.0.{last}], conditions: {{{conditions}}}}}")
    };
    let of =
        |items: &[String]| slice("s", "IPv4", "[{port: 1}]", &format!("[{}]", items.join(", ")));
    let going = of(&[
        endpoint(3, "ready: false"),
        endpoint(2, "ready: false, serving: false, terminating: true"),
        endpoint(1, "ready: false, serving: true, terminating: true"),
    ]);
    let gone = ["10.0.0.2:1", "10.0.0.3:1"];
    assert_eq!(others(spec, std::slice::from_ref(&going)), known(&gone));
    // Of an endpoint in two slices, one may be ready.
    let ready = of(&[endpoint(9, ""), endpoint(3, "ready: true")]);
    assert_eq!(others(spec, &[going, ready]), known(&["10.0.0.1:1", "10.0.0.2:1"]));
    assert_eq!(others(spec, &[of(&[endpoint(1, "")])]), None);
}

/// It may have just got another name, so its endpoints are not known to be gone.
#[test]
fn endpoints_of_a_port_that_no_slice_has_are_unknown() {
    let at = |name: &str| {
        slice("s", "IPv4", &format!("[{{name: {name}, port: 1}}]"), "[{addresses: [10.0.0.1]}]")
    };
    let spec = "{ports: [{port: 1, name: tls}]}";
    assert_eq!(others(spec, &[at("old")]), Some(OtherAddresses::Unknown));
    assert_eq!(others(spec, &[at("old"), at("tls")]), None);
    assert_eq!(others(spec, &[]), None, "it has no endpoints");
    assert_eq!(others("{ports: [{port: 2}]}", &[at("tls")]), Some(OtherAddresses::Unknown));
}

#[test]
fn a_service_that_is_deleted_has_no_addresses_left() {
    let mut builder = Builder::new(installation());
    builder.put_route(&route("r", "hostnames: [a.com]", "{service: {name: s, port: 1}}"));
    builder.put_service(&service("s", "{ports: [{port: 1}]}"));
    builder.put_slice(&slice("s", "IPv4", "[{port: 1}]", "[{addresses: [10.0.0.1]}]"));
    builder.settle();
    builder.remove_service(&ObjectKey::new("data", "s"));
    let changes = builder.settle().changes;
    assert!(changes.endpoints.values().all(Vec::is_empty) && changes.endpoints.len() == 1);
    assert!(changes.others.is_empty(), "{:?}", changes.others);
}

/// The next answer may have others, of many.
#[test]
fn the_addresses_of_a_name_are_never_all_known() {
    let mut builder = Builder::new(installation());
    builder.put_route(&route("r", "hostnames: [a.com]", "{address: 'a.example:1'}"));
    let name = "a.example:1".parse().unwrap();
    let Address::Name(name, _) = name else { panic!("no name") };
    let addresses = vec!["10.0.0.1".parse().unwrap()];
    builder.put_answer(&name, DnsAnswer { addresses, fault: None });
    let changes = builder.settle().changes;
    assert_eq!(changes.others.into_values().next(), Some(OtherAddresses::Unknown));
}

/// A change of nothing but them is one, because connections may depend on it.
#[test]
fn a_change_of_endpoints_that_are_not_ready_is_published() {
    let mut builder = Builder::new(installation());
    builder.put_route(&route("r", "hostnames: [a.com]", "{service: {name: s, port: 1}}"));
    builder.put_service(&service("s", "{ports: [{port: 1}]}"));
    let mut slice = slice(
        "s",
        "IPv4",
        "[{port: 1}]",
        "[{addresses: [10.0.0.1]}, {addresses: [10.0.0.2], conditions: {ready: false}}]",
    );
    builder.put_slice(&slice);
    assert_eq!(builder.settle().changes.others.into_values().next(), known(&["10.0.0.2:1"]));
    slice.endpoints.as_mut().unwrap().pop();
    builder.put_slice(&slice);
    let changes = builder.settle().changes;
    assert_eq!((changes.endpoints.len(), changes.others.len()), (1, 0));
}
