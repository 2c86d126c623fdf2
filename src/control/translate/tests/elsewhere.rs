//! Backends outside the route's namespace and outside the cluster.

use super::*;
use crate::control::api::DnsName;

/// A grant in namespace `other`.
fn grant(from: &str, to: &str) -> ReferenceGrant {
    yaml(&format!(
        "{{metadata: {{name: g, namespace: other}}, spec: {{from: [{from}], to: [{to}]}}}}"
    ))
}

const FROM: &str = "{group: sluice.dev, kind: SniRoute, namespace: data}";
const TO: &str = "{group: '', kind: Service}";

/// A route that names a Service of namespace `other` beside an address.
fn across(grants: Vec<ReferenceGrant>) -> Plan {
    let mut service = service("s", "{ports: [{port: 1}]}");
    let mut slice = slice("s", "IPv4", "[{port: 8443}]", "[{addresses: [10.0.0.1]}]");
    service.metadata.namespace = Some("other".to_owned());
    slice.metadata.namespace = Some("other".to_owned());
    let backends = format!("{{service: {{name: s, namespace: other, port: 1}}}}, {ADDRESS}");
    plan(&Resources {
        routes: vec![route("r", "hostnames: [a.com]", &backends)],
        services: vec![service],
        slices: vec![slice],
        grants,
        ..Resources::default()
    })
}

#[test]
fn a_service_of_another_namespace_needs_a_grant() {
    for (from, to) in [
        (FROM, TO),
        (FROM, "{group: '', kind: Secret}, {group: '', kind: Service, name: s}"),
        (
            "{group: '', kind: Pod, namespace: data}, \
             {group: sluice.dev, kind: SniRoute, namespace: data}",
            TO,
        ),
    ] {
        let plan = across(vec![grant(from, to)]);
        assert_eq!(conditions(&plan, "r"), ALL_GOOD, "{from} {to}");
        assert_eq!(plan.snapshot.routes[0].backends.len(), 2);
        assert_eq!(plan.statuses[0].endpoints, 2);
    }
    for (from, to) in [
        ("{group: sluice.dev, kind: SniRoute, namespace: else}", TO),
        ("{group: '', kind: SniRoute, namespace: data}", TO),
        ("{group: sluice.dev, kind: Gateway, namespace: data}", TO),
        (FROM, "{group: '', kind: Service, name: t}"),
        (FROM, "{group: '', kind: Secret}"),
        (FROM, "{group: core, kind: Service}"),
        ("", TO),
        (FROM, ""),
    ] {
        let plan = across(vec![grant(from, to)]);
        assert_eq!(
            conditions(&plan, "r")[1],
            "false RefNotPermitted no ReferenceGrant in namespace other lets the SniRoutes of data \
             refer to Service s",
            "{from} {to}"
        );
        let backends = &plan.snapshot.routes[0].backends;
        assert_eq!(backends.len(), 1, "what is not granted is not served: {backends:?}");
        assert_eq!(plan.statuses[0].endpoints, 1);
    }
}

#[test]
fn a_grant_in_a_third_namespace_opens_nothing() {
    let mut grant = grant(FROM, TO);
    grant.metadata.namespace = Some("third".to_owned());
    assert!(conditions(&across(vec![grant]), "r")[1].starts_with("false RefNotPermitted"));
}

/// The plan for a route to a DNS name with this `answer`.
fn named(backend: &str, services: Vec<Service>, answer: Option<DnsAnswer>) -> Plan {
    plan(&Resources {
        routes: vec![route("r", "hostnames: [a.com]", backend)],
        services,
        answers: answer.map(|answer| ("db.example.com".into(), answer)).into_iter().collect(),
        ..Resources::default()
    })
}

fn answer(addresses: &[&str], fault: Option<&str>) -> Option<DnsAnswer> {
    let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    Some(DnsAnswer { addresses, fault: fault.map(Into::into) })
}

fn endpoints(plan: &Plan) -> Vec<String> {
    plan.snapshot.endpoints.values().flatten().map(|address| address.to_string()).collect()
}

const NAME: &str = "{address: 'DB.example.com.:5432'}";

#[test]
fn a_name_has_its_resolved_addresses() {
    let plan = named(NAME, vec![], None);
    assert_eq!(plan.names, [DnsName::from("db.example.com")]);
    assert_eq!(conditions(&plan, "r"), ALL_GOOD, "nothing is known to be wrong yet");
    assert!(endpoints(&plan).is_empty());

    let plan = named(NAME, vec![], answer(&["2001:db8::1", "192.0.2.2", "192.0.2.1"], None));
    assert_eq!(endpoints(&plan), ["192.0.2.1:5432", "192.0.2.2:5432", "[2001:db8::1]:5432"]);
    assert_eq!(conditions(&plan, "r"), ALL_GOOD);
    assert_eq!(plan.statuses[0].endpoints, 3);
}

#[test]
fn an_unresolved_name_is_reported_and_keeps_its_addresses() {
    let plan = named(NAME, vec![], answer(&[], Some("no such name")));
    assert_eq!(
        conditions(&plan, "r")[1],
        "false NameNotResolved db.example.com cannot be resolved: no such name"
    );
    let plan = named(NAME, vec![], answer(&["192.0.2.1"], Some("no answer")));
    assert_eq!(
        conditions(&plan, "r")[1],
        "false NameNotResolved db.example.com cannot be resolved: no answer; its last known \
         addresses are still used"
    );
    assert_eq!(endpoints(&plan), ["192.0.2.1:5432"]);
}

#[test]
fn an_external_name_is_resolved_for_the_port_that_the_route_names() {
    let address = || answer(&["192.0.2.1"], None);
    for (ports, port, endpoint) in [
        ("", "7", "192.0.2.1:7"),
        (", ports: [{port: 7, name: x}]", "7", "192.0.2.1:7"),
        (", ports: [{port: 7, name: x}]", "x", "192.0.2.1:7"),
    ] {
        let service =
            service("s", &format!("{{type: ExternalName, externalName: db.example.com{ports}}}"));
        let plan =
            named(&format!("{{service: {{name: s, port: {port}}}}}"), vec![service], address());
        assert_eq!(endpoints(&plan), [endpoint]);
        assert_eq!(conditions(&plan, "r"), ALL_GOOD);
    }
    let service =
        service("s", "{type: ExternalName, externalName: db.example.com, ports: [{port: 7}]}");
    let plan = named("{service: {name: s, port: 8}}", vec![service], address());
    assert_eq!(
        conditions(&plan, "r")[1],
        "false PortNotFound Service data/s has no port 8; it has 7"
    );
    assert!(endpoints(&plan).is_empty() && plan.names.is_empty());
}

#[test]
fn local_addresses_are_forbidden_unless_allowed() {
    let reach = Reach { local_addresses: true, ..Reach::default() };
    let here = Installation { reach, ..installation() };
    for address in [
        "127.0.0.1",
        "169.254.169.254",
        "[::1]",
        "[fe80::1]",
        "[::ffff:127.0.0.1]",
        "[fd00:ec2::254]",
        "[::ffff:100.100.100.200]",
    ] {
        let backend = format!("{{address: '{address}:443'}}");
        let routes = vec![route("r", "hostnames: [a.com]", &backend)];
        let resources = Resources { routes, ..Resources::default() };
        let refused = plan(&resources);
        assert!(conditions(&refused, "r")[1].starts_with("false AddressNotPermitted"), "{address}");
        assert!(endpoints(&refused).is_empty() && refused.snapshot.routes[0].backends.is_empty());
        assert_eq!(endpoints(&build(&resources, &here)).len(), 1);

        let ip = address.trim_matches(['[', ']']);
        let refused = named(NAME, vec![], answer(&[ip], None));
        assert!(conditions(&refused, "r")[1].starts_with("false AddressNotPermitted"), "{address}");
        assert!(endpoints(&refused).is_empty());
        let partly = named(NAME, vec![], answer(&[ip, "192.0.2.1"], None));
        let told = &conditions(&partly, "r")[1];
        assert!(told.ends_with(", and gets no connection"), "{told}");
        assert_eq!(endpoints(&partly), ["192.0.2.1:5432"]);
    }
}
