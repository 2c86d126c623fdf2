//! Forbidden destinations: local addresses, excluded networks, and the installation itself.

use super::*;
use crate::reach::Listening;

/// The condition `ResolvedRefs` of the route `r`, and its endpoints in the table.
fn told(plan: &Plan) -> (String, Vec<String>) {
    let endpoints = plan.snapshot.endpoints.values().flatten().map(ToString::to_string);
    (conditions(plan, "r")[1].clone(), endpoints.collect())
}

fn to_service(resources: Resources) -> Resources {
    let routes = vec![route("r", "hostnames: [a.com]", "{service: {name: s, port: 1}}")];
    Resources { routes, services: vec![service("s", "{ports: [{port: 1}]}")], ..resources }
}

/// A route to a Service with these endpoints.
fn sliced(family: &str, addresses: &str, port: u16) -> Resources {
    let endpoints = format!("[{{addresses: [{addresses}]}}]");
    let slices = vec![slice("s", family, &format!("[{{port: {port}}}]"), &endpoints)];
    to_service(Resources { slices, ..Resources::default() })
}

#[test]
fn forbidden_addresses_are_also_forbidden_in_endpoint_slices() {
    for (family, address) in [
        ("IPv4", "100.100.100.200"),
        ("IPv4", "0.1.2.3"),
        ("IPv6", "'fd00:ec2::23'"),
        ("IPv6", "'64:ff9b::a9fe:a9fe'"),
        ("IPv6", "'::169.254.169.254'"),
    ] {
        let (said, endpoints) = told(&plan(&sliced(family, address, 80)));
        assert!(said.starts_with("false AddressNotPermitted"), "{address}: {said}");
        assert_eq!(endpoints, [""; 0], "{address}");
    }
    let (said, endpoints) = told(&plan(&sliced("IPv4", "168.63.129.16, 10.0.0.1", 80)));
    let expected = "false AddressNotPermitted 168.63.129.16 is the metadata service of a cloud, \
                    and gets no connection";
    assert_eq!(said, expected);
    assert_eq!(endpoints, ["10.0.0.1:80"]);
}

#[test]
fn a_slice_that_becomes_forbidden_is_reported_until_it_is_corrected() {
    let resources = sliced("IPv4", "10.0.0.1", 80);
    let mut builder = Builder::new(installation());
    builder.put_service(&resources.services[0]);
    builder.put_slice(&resources.slices[0]);
    builder.put_route(&resources.routes[0]);
    let said = |builder: &mut Builder| {
        let delta = builder.settle();
        delta.statuses.into_iter().map(|status| status.conditions[1].reason).collect::<Vec<_>>()
    };
    assert_eq!(said(&mut builder), ["ResolvedRefs"]);
    let mut worse = resources.slices[0].clone();
    worse.endpoints.iter_mut().flatten().for_each(|one| one.addresses = vec!["0.0.0.1".into()]);
    builder.put_slice(&worse);
    assert_eq!(said(&mut builder), ["AddressNotPermitted"]);
    builder.put_slice(&resources.slices[0]);
    assert_eq!(said(&mut builder), ["ResolvedRefs"]);
}

/// A route that is added later is also informed about the fault, and about its end.
#[test]
fn a_route_that_is_added_to_a_bad_slice_is_updated_when_the_slice_is_corrected() {
    let resources = sliced("IPv4", "0.0.0.1, 10.0.0.1", 80);
    let mut builder = Builder::new(installation());
    builder.put_service(&resources.services[0]);
    builder.put_slice(&resources.slices[0]);
    builder.settle();
    builder.put_route(&resources.routes[0]);
    let said = |builder: &mut Builder| {
        let statuses = builder.settle().statuses;
        statuses.into_iter().map(|status| status.conditions[1].reason).collect::<Vec<_>>()
    };
    assert_eq!(said(&mut builder), ["AddressNotPermitted"]);
    let mut mended = resources.slices[0].clone();
    mended.endpoints.iter_mut().flatten().for_each(|one| one.addresses = vec!["10.0.0.1".into()]);
    builder.put_slice(&mended);
    assert_eq!(said(&mut builder), ["ResolvedRefs"], "though it has as many endpoints as before");
}

#[test]
fn networks_are_excluded_for_addresses_names_and_slices() {
    let cidrs = |text: &str| vec![text.parse().unwrap()];
    let reach =
        Reach { allow: cidrs("10.0.0.0/8"), deny: cidrs("10.9.0.0/16"), ..Reach::default() };
    let strict = Installation { reach, ..installation() };
    for (ip, why) in [
        ("10.8.0.1", None),
        ("10.9.0.1", Some("10.9.0.1 is in 10.9.0.0/16, which addresses.deny")),
        ("192.0.2.1", Some("192.0.2.1 is in no network of addresses.allow")),
    ] {
        let to = |backend: &str| vec![route("r", "hostnames: [a.com]", backend)];
        let answers =
            [("db.test".into(), DnsAnswer { addresses: vec![ip.parse().unwrap()], fault: None })];
        for resources in [
            Resources { routes: to(&format!("{{address: '{ip}:80'}}")), ..Resources::default() },
            Resources {
                routes: to("{address: 'db.test:80'}"),
                answers: answers.into_iter().collect(),
                ..Resources::default()
            },
            sliced("IPv4", ip, 80),
        ] {
            let (said, endpoints) = told(&build(&resources, &strict));
            match why {
                None => assert_eq!((&*said, endpoints.len()), (ALL_GOOD[1], 1)),
                Some(why) => {
                    assert!(said.starts_with("false AddressNotPermitted"), "{said}");
                    assert!(said.contains(why), "{said}");
                    assert!(endpoints.is_empty());
                }
            }
        }
    }
    // A dual-stack Service with one excluded family is accepted.
    let (said, endpoints) = told(&build(&sliced("IPv4", "10.8.0.1, 192.0.2.1", 80), &strict));
    assert_eq!((&*said, &*endpoints), (ALL_GOOD[1], &["10.8.0.1:80".to_owned()][..]));
}

#[test]
fn a_port_of_this_process_is_reported_and_left_to_the_data_plane() {
    let reach = Reach {
        local_addresses: true,
        listening: [Listening { address: "0.0.0.0:9901".parse().unwrap(), dual_stack: false }]
            .into_iter()
            .collect(),
        ..Reach::default()
    };
    let machine = vec!["10.0.0.1".parse().unwrap()];
    let here = Installation { reach, machine, ..installation() };
    let (said, endpoints) = told(&build(&sliced("IPv4", "10.0.0.1", 9901), &here));
    let expected = "false LeadsToItself 10.0.0.1:9901 is sluice itself, which listens there; name \
                    what is behind sluice";
    assert_eq!(said, expected);
    // The address may move to another machine.
    assert_eq!(endpoints, ["10.0.0.1:9901"]);
    let (said, _) = told(&build(&sliced("IPv4", "10.0.0.2", 9901), &here));
    assert_eq!(said, ALL_GOOD[1]);
}

fn own() -> (Installation, Service, EndpointSlice) {
    let reach = Reach {
        listening: [Listening { address: "0.0.0.0:9901".parse().unwrap(), dual_stack: false }]
            .into_iter()
            .collect(),
        ..Reach::default()
    };
    let own_services = vec![ObjectKey::new("data", "sluice")];
    let service: Service = yaml(
        "{metadata: {name: sluice, namespace: data}, \
         spec: {clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7, 'fd00::7'], \
           externalIPs: [192.0.2.7], ports: [{port: 443}]}, \
         status: {loadBalancer: {ingress: [{ip: 203.0.113.7}, {hostname: LB.example.com}]}}}",
    );
    let slice = slice("sluice", "IPv4", "[{port: 8443}]", "[{addresses: [10.0.0.7]}]");
    (Installation { reach, own_services, ..installation() }, service, slice)
}

#[test]
fn no_route_leads_to_the_installation_itself() {
    let (ours, service, slice) = own();
    let resources = |backend: &str| Resources {
        routes: vec![route("r", "hostnames: [a.com]", backend)],
        services: vec![service.clone()],
        slices: vec![slice.clone()],
        ..Resources::default()
    };
    for backend in [
        "{service: {name: sluice, port: 443}}",
        "{address: '10.96.0.7:443'}",
        "{address: '[fd00::7]:443'}",
        "{address: '192.0.2.7:443'}",
        "{address: '203.0.113.7:443'}",
        "{address: 'lb.example.com:443'}",
        "{address: '10.0.0.7:8443'}",
        "{address: '[64:ff9b::10.0.0.7]:8443'}",
        // Every pod has this port.
        "{address: '10.0.0.7:9901'}",
    ] {
        let (said, endpoints) = told(&build(&resources(backend), &ours));
        assert!(said.starts_with("false LeadsToItself"), "{backend}: {said}");
        assert_eq!(endpoints, [""; 0], "{backend}");
    }
    for backend in [
        "{address: '10.96.0.7:444'}",
        "{address: '10.0.0.7:443'}",
        "{address: 'lb.example.com:444'}",
    ] {
        assert_eq!(told(&build(&resources(backend), &ours)).0, ALL_GOOD[1], "{backend}");
    }
    // By a DNS name, and by another Service with the same addresses.
    let mut named = resources("{address: 'db.test:8443'}");
    let addresses = vec!["10.0.0.7".parse().unwrap()];
    named.answers.insert("db.test".into(), DnsAnswer { addresses, fault: None });
    assert!(told(&build(&named, &ours)).0.starts_with("false LeadsToItself"));
    let mut by_slice = sliced("IPv4", "10.0.0.7", 8443);
    by_slice.services.push(service.clone());
    by_slice.slices.push(slice.clone());
    assert!(told(&build(&by_slice, &ours)).0.starts_with("false LeadsToItself"));
}

#[test]
fn a_route_is_updated_when_an_address_becomes_the_installations_own() {
    let (ours, service, slice) = own();
    let mut builder = Builder::new(ours);
    for (name, address) in [
        ("a", "10.0.0.7:8443"),
        ("b", "203.0.113.7:443"),
        ("c", "192.0.2.1:1"),
        ("d", "[64:ff9b::10.0.0.7]:8443"),
    ] {
        let backend = format!("{{address: '{address}'}}");
        builder.put_route(&route(name, &format!("hostnames: [{name}.com]"), &backend));
    }
    let mut said = |change: &mut dyn FnMut(&mut Builder)| {
        change(&mut builder);
        let delta = builder.settle();
        let mut statuses: Vec<String> = delta
            .statuses
            .iter()
            .map(|status| format!("{} {}", status.object.name(), status.conditions[1].reason))
            .collect();
        statuses.sort();
        (statuses, delta.own_endpoints.map(|own| own.len()))
    };
    let all = |reason: &str, names: &[&str]| -> Vec<String> {
        names.iter().map(|name| format!("{name} {reason}")).collect()
    };
    assert_eq!(said(&mut |_| {}), (all("ResolvedRefs", &["a", "b", "c", "d"]), Some(0)));
    assert_eq!(said(&mut |_| {}), (vec![], None));
    let pods = said(&mut |builder| builder.put_slice(&slice));
    assert_eq!(pods, (all("LeadsToItself", &["a", "d"]), Some(2)));
    let front = said(&mut |builder| builder.put_service(&service));
    assert_eq!(front, (all("LeadsToItself", &["b"]), Some(6)));
    let gone = said(&mut |builder| builder.remove_slice(&key(&slice.metadata).unwrap()));
    assert_eq!(gone, (all("ResolvedRefs", &["a", "d"]), Some(4)));
    let gone = said(&mut |builder| builder.remove_service(&ObjectKey::new("data", "sluice")));
    assert_eq!(gone, (all("ResolvedRefs", &["b"]), Some(0)));
}

/// Pods that are not ready count as well.
#[test]
fn pods_of_the_installation_are_its_own_even_if_they_are_not_ready() {
    let (ours, service, mut slice) = own();
    for conditions in ["{ready: false}", "{ready: false, serving: false, terminating: true}"] {
        slice.endpoints.iter_mut().flatten().for_each(|one| one.conditions = yaml(conditions));
        let resources = Resources {
            routes: vec![route("r", "hostnames: [a.com]", "{address: '10.0.0.7:8443'}")],
            services: vec![service.clone()],
            slices: vec![slice.clone()],
            ..Resources::default()
        };
        assert!(told(&build(&resources, &ours)).0.starts_with("false LeadsToItself"));
    }
}

#[test]
fn all_own_addresses_are_returned_each_time_they_are_requested() {
    let (ours, service, slice) = own();
    let mut builder = Builder::new(ours);
    assert_eq!(builder.missing_own_services().count(), 1);
    builder.put_service(&service);
    builder.put_slice(&slice);
    assert_eq!(builder.missing_own_services().count(), 0);
    let all = builder.settle().own_endpoints.unwrap();
    assert_eq!(all.len(), 6);
    assert_eq!(builder.settle().own_endpoints, None);
    builder.tell_all();
    assert_eq!(builder.settle().own_endpoints, Some(all));
}

/// The Service itself does not change.
#[test]
fn a_route_to_a_service_is_updated_when_its_endpoints_become_the_installations_own() {
    let (ours, _, slice) = own();
    let resources = sliced("IPv4", "10.0.0.7, 10.0.0.8", 8443);
    let mut builder = Builder::new(ours);
    builder.put_service(&resources.services[0]);
    builder.put_slice(&resources.slices[0]);
    builder.put_route(&resources.routes[0]);
    let said = |builder: &mut Builder| {
        let statuses = builder.settle().statuses;
        statuses.into_iter().map(|status| status.conditions[1].reason).collect::<Vec<_>>()
    };
    assert_eq!(said(&mut builder), ["ResolvedRefs"]);
    builder.put_slice(&slice);
    assert_eq!(said(&mut builder), ["LeadsToItself"]);
    builder.remove_slice(&key(&slice.metadata).unwrap());
    assert_eq!(said(&mut builder), ["ResolvedRefs"]);
}
