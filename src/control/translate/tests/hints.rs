//! The places of endpoints, and the hints for nodes and zones.

use super::*;
use crate::routing::Ring;

/// The endpoints of the Service `s` by the last number of their addresses, with their rings, for a process on the
/// node `n1` in the zone `z1`. Each text is the fields of an endpoint besides its address.
fn rings(endpoints: &[&str]) -> Vec<(String, Ring)> {
    placed(&OwnPlace { node: Some("n1".into()), zone: Some("z1".into()) }, &[endpoints])
}

fn placed(own: &OwnPlace, slices: &[&[&str]]) -> Vec<(String, Ring)> {
    let mut number = 0;
    let mut one = |endpoints: &[&str]| {
        let fields: Vec<_> = endpoints
            .iter()
            .map(|fields| {
                number += 1;
                format!("{{addresses: [10.0.0.{number}], {fields}}}")
            })
            .collect();
        slice("s", "IPv4", "[{port: 1}]", &format!("[{}]", fields.join(", ")))
    };
    let resources = Resources {
        routes: vec![route("r", "hostnames: [a.com]", "{service: {name: s, port: 1}}")],
        services: vec![service("s", "{ports: [{port: 1}]}")],
        slices: slices.iter().map(|endpoints| one(endpoints)).collect(),
        ..Resources::default()
    };
    let Plan { snapshot, .. } =
        build(&resources, &Installation { place: own.clone(), ..installation() });
    let key = &snapshot.routes[0].backends[0].0;
    let addresses = &snapshot.endpoints[key];
    let Some(places) = snapshot.places.get(key) else {
        return addresses.iter().map(|address| (address.to_string(), Ring::Any)).collect();
    };
    assert_eq!(places.len(), addresses.len());
    let pairs = addresses.iter().zip(places);
    pairs.map(|(address, place)| (address.to_string(), place.ring)).collect()
}

fn only_rings(endpoints: &[&str]) -> Vec<Ring> {
    rings(endpoints).into_iter().map(|(_, ring)| ring).collect()
}

fn zones(names: &str) -> String {
    let names: Vec<_> = names.split(' ').map(|name| format!("{{name: {name}}}")).collect();
    format!("hints: {{forZones: [{}]}}", names.join(", "))
}

#[test]
fn endpoints_that_are_meant_for_the_zone_are_near() {
    let (here, there, both) = (zones("z1"), zones("z2"), zones("z2 z1"));
    assert_eq!(only_rings(&[&here, &there, &both]), [Ring::Zone, Ring::Any, Ring::Zone]);
}

#[test]
fn endpoints_that_are_meant_for_the_node_are_nearest() {
    let on = |node: &str, zone: &str| {
        format!("hints: {{forNodes: [{{name: {node}}}], forZones: [{{name: {zone}}}]}}")
    };
    assert_eq!(
        only_rings(&[&on("n1", "z1"), &on("n2", "z1"), &on("n3", "z2")]),
        [Ring::Node, Ring::Zone, Ring::Any]
    );
}

/// As kube-proxy does, for each kind by itself.
#[test]
fn hints_of_a_kind_are_ignored_if_a_ready_endpoint_lacks_them() {
    let (here, both) = (zones("z1"), "hints: {forNodes: [{name: n1}], forZones: [{name: z1}]}");
    assert_eq!(only_rings(&[&here, ""]), [Ring::Any, Ring::Any]);
    assert_eq!(only_rings(&[&here, "hints: {}"]), [Ring::Any, Ring::Any]);
    // The one without hints for nodes has those for zones.
    assert_eq!(only_rings(&[both, &here]), [Ring::Zone, Ring::Zone]);
    assert_eq!(only_rings(&[both, "hints: {forNodes: [{name: n2}]}"]), [Ring::Node, Ring::Any]);
    // In another slice, too.
    let own = OwnPlace { node: None, zone: Some("z1".into()) };
    let of_two = placed(&own, &[&[&here], &[""]]);
    assert!(of_two.iter().all(|(_, ring)| *ring == Ring::Any), "{of_two:?}");
    // An endpoint that is not ready need not have any.
    assert_eq!(only_rings(&[&here, "conditions: {ready: false}"]), [Ring::Zone]);
}

#[test]
fn terminating_endpoints_have_no_hints() {
    let leaving =
        format!("conditions: {{ready: false, serving: true, terminating: true}}, {}", zones("z1"));
    assert_eq!(only_rings(&[&leaving]), [Ring::Any]);
}

#[test]
fn hints_of_a_kind_are_ignored_if_the_own_place_is_unknown() {
    let both = "hints: {forNodes: [{name: n1}], forZones: [{name: z1}]}";
    for (node, zone, expected) in [
        (Some("n1"), None, Ring::Node),
        (None, Some("z1"), Ring::Zone),
        (None, None, Ring::Any),
        (Some("n2"), Some("z2"), Ring::Any),
    ] {
        let own = OwnPlace { node: node.map(Into::into), zone: zone.map(Into::into) };
        assert_eq!(placed(&own, &[&[both]])[0].1, expected, "{own:?}");
    }
}

#[test]
fn the_places_follow_the_addresses() {
    let slices = [slice(
        "s",
        "IPv4",
        "[{port: 1}]",
        "[{addresses: [10.0.0.2], nodeName: n2, zone: z2}, {addresses: [0.0.0.0], nodeName: n0}, \
          {addresses: [10.0.0.1], nodeName: n1, zone: z1}]",
    )];
    let resources = Resources {
        routes: vec![route("r", "hostnames: [a.com]", "{service: {name: s, port: 1}}")],
        services: vec![service("s", "{ports: [{port: 1}]}")],
        slices: slices.to_vec(),
        ..Resources::default()
    };
    let Plan { snapshot, .. } = build(&resources, &installation());
    let key = &snapshot.routes[0].backends[0].0;
    let found: Vec<_> = snapshot.endpoints[key]
        .iter()
        .zip(&snapshot.places[key])
        .map(|(address, place)| (address.to_string(), place.node.as_deref(), place.zone.as_deref()))
        .filter(|(_, node, _)| node.is_some())
        .collect();
    assert_eq!(
        found,
        [
            ("10.0.0.1:1".to_owned(), Some("n1"), Some("z1")),
            ("10.0.0.2:1".to_owned(), Some("n2"), Some("z2")),
        ]
    );
}
