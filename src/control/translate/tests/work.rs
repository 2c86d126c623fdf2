//! The cost of a change, counted: large objects of one tenant do not delay other tenants.

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort};

use super::*;

/// A slice of Service `s` with ports `p0`, `p1`… and this number of addresses.
fn large_slice(name: &str, ports: u16, addresses: u32) -> EndpointSlice {
    let mut slice = slice("s", "IPv4", "[]", "[]");
    slice.metadata.name = Some(name.to_owned());
    let port = |number: u16| EndpointPort {
        name: Some(format!("p{number}")),
        port: Some(i32::from(number) + 1),
        ..EndpointPort::default()
    };
    slice.ports = Some((0..ports).map(port).collect());
    // Different slices have different addresses.
    let first = 0x0a00_0000 + name.bytes().map(u32::from).sum::<u32>() % 16 * 0x10_0000;
    let address = |number: u32| std::net::Ipv4Addr::from_bits(first + number).to_string();
    let endpoint =
        Endpoint { addresses: (0..addresses).map(address).collect(), ..Endpoint::default() };
    slice.endpoints = Some(vec![endpoint]);
    slice
}

/// The Service `s` with ports `p0`, `p1`….
fn wide_service(ports: u16) -> Service {
    let ports: Vec<String> =
        (0..ports).map(|number| format!("{{name: p{number}, port: {}}}", number + 1)).collect();
    service("s", &format!("{{ports: [{}]}}", ports.join(", ")))
}

/// A route that names the first ports of Service `s`.
fn wide_route(name: &str, ports: u16) -> SniRoute {
    let backends: Vec<String> =
        (0..ports).map(|number| format!("{{service: {{name: s, port: p{number}}}}}")).collect();
    route(name, &format!("hostnames: [{name}.com]"), &backends.join(", "))
}

/// Settles the builder. Returns the delta and the number of checked endpoints.
fn judged(builder: &mut Builder) -> (Delta, usize) {
    let before = builder.targets.judged.get();
    let delta = builder.settle();
    (delta, builder.targets.judged.get() - before)
}

#[test]
fn only_named_ports_of_a_service_are_checked_and_each_once() {
    let mut builder = Builder::new(installation());
    builder.put_service(&wide_service(300));
    builder.put_slice(&large_slice("x", 300, 1000));
    assert_eq!(judged(&mut builder).1, 0, "nobody names it");
    for name in ["a", "b", "c"] {
        builder.put_route(&wide_route(name, 2));
    }
    let (delta, count) = judged(&mut builder);
    assert_eq!(count, 2 * 1000);
    assert_eq!(delta.statuses.iter().map(|status| status.endpoints).sum::<usize>(), 3 * 2 * 1000);
    builder.put_slice(&large_slice("x", 300, 1001));
    let (delta, count) = judged(&mut builder);
    assert_eq!(count, 2 * 1001);
    assert!(delta.statuses.iter().all(|status| status.endpoints == 2 * 1001));
    assert_eq!((delta.statuses.len(), delta.changes.endpoints.len()), (3, 2));
    assert!(delta.changes.routes.is_empty());
    // A change of another part of a route causes no further checks.
    let mut changed = wide_route("a", 2);
    changed.spec.hostnames = vec!["other.com".parse().unwrap()];
    builder.put_route(&changed);
    let (delta, count) = judged(&mut builder);
    assert_eq!((count, delta.statuses.len()), (0, 1));
    assert_eq!(delta.changes.endpoints.len(), 2);
}

#[test]
fn a_changed_endpoint_is_checked_once_for_all_routes() {
    let mut builder = Builder::new(installation());
    builder.put_service(&wide_service(16));
    builder.put_slice(&large_slice("x", 16, 100));
    for number in 0..120 {
        builder.put_route(&wide_route(&format!("r{number}"), 16));
    }
    assert_eq!(judged(&mut builder).1, 16 * 100);
    builder.put_slice(&large_slice("x", 16, 99));
    let (delta, count) = judged(&mut builder);
    assert_eq!(count, 16 * 99);
    assert_eq!((delta.statuses.len(), delta.changes.endpoints.len()), (120, 16));
}

#[test]
fn a_name_is_resolved_once_for_all_routes() {
    let mut builder = Builder::new(installation());
    for number in 0..50 {
        let hostname = format!("hostnames: [r{number}.com]");
        builder.put_route(&route(&format!("r{number}"), &hostname, "{address: 'x.example:7'}"));
    }
    builder.settle();
    let addresses = (1..=100).map(|last| IpAddr::from([10, 0, 0, last])).collect();
    builder.put_answer(&"x.example".into(), DnsAnswer { addresses, fault: None });
    let (delta, count) = judged(&mut builder);
    assert_eq!((delta.statuses.len(), count), (50, 100));
}

/// The condition `ResolvedRefs`, and the number of endpoints of each backend in the table.
fn told(builder: &mut Builder) -> (Vec<String>, Vec<usize>) {
    let delta = builder.settle();
    let said = delta.statuses.iter().map(|status| &status.conditions[1]);
    let said = said.map(|condition| format!("{} {}", condition.reason, condition.message));
    let mut endpoints: Vec<_> = delta.changes.endpoints.into_iter().collect();
    endpoints.sort();
    (said.collect(), endpoints.into_iter().map(|(_, addresses)| addresses.len()).collect())
}

#[test]
fn the_addresses_of_a_service_are_limited() {
    let mut builder = Builder::new(installation());
    builder.put_service(&wide_service(2));
    builder.put_slice(&large_slice("x", 2, 60_000));
    builder.put_route(&wide_route("r", 1));
    let all_good = vec!["ResolvedRefs ".to_owned()];
    assert_eq!(told(&mut builder), (all_good.clone(), vec![60_000]));
    builder.put_slice(&large_slice("y", 2, 60_000));
    let too_many = |all: usize, used: usize| {
        format!(
            "TooManyAddresses Service data/s has more than 100000 addresses at the ports that \
             routes name; of the {all} at this one, {used} are used"
        )
    };
    assert_eq!(told(&mut builder), (vec![too_many(120_000, 100_000)], vec![100_000]));
    // Two ports get equal shares.
    builder.put_route(&wide_route("r", 2));
    let (said, endpoints) = told(&mut builder);
    assert!(said.len() == 1 && said[0].starts_with(&too_many(120_000, 50_000)), "{said:?}");
    assert_eq!(endpoints, [50_000, 50_000]);
    builder.put_route(&wide_route("r", 1));
    assert_eq!(told(&mut builder).1, [100_000]);
    builder.remove_slice(&ObjectKey::new("data", "y"));
    assert_eq!(told(&mut builder), (all_good, vec![60_000]));
}

#[test]
fn a_message_lists_some_of_many_ports() {
    let routes = vec![route("r", "hostnames: [a.com]", "{service: {name: s, port: nope}}")];
    let resources =
        Resources { routes, services: vec![wide_service(1000)], ..Resources::default() };
    let told = conditions(&plan(&resources), "r")[1].clone();
    assert!(told.contains("has no port nope; it has 1 (p0), 2 (p1), "), "{told}");
    assert!(told.ends_with(", 16 (p15) and 984 more"), "{told}");
}

/// How many grants are checked while the builder settles.
fn grants_looked_at(builder: &mut Builder) -> usize {
    let before = builder.targets.grants.looked_at.get();
    builder.settle();
    builder.targets.grants.looked_at.get() - before
}

/// A route of a namespace with these hostnames.
fn claiming(namespace: &str, name: &str, second: usize, hostnames: &str) -> SniRoute {
    let mut route = route(name, &format!("hostnames: [{hostnames}]"), ADDRESS);
    route.metadata.namespace = Some(namespace.to_owned());
    let (minute, second) = (second / 60, second % 60);
    let created = format!("'2026-01-01T00:{minute:02}:{second:02}Z'");
    route.metadata.creation_timestamp = Some(yaml(&created));
    route
}

/// A grant of `owner` to the routes of another namespace, for this number of its routes by name.
fn sharing(owner: &str, from: &str, names: usize) -> ReferenceGrant {
    let routes: Vec<String> = (0..names)
        .map(|name| format!("{{group: sluice.dev, kind: SniRoute, name: none-{name}}}"))
        .collect();
    yaml(&format!(
        "{{metadata: {{name: {from}, namespace: {owner}}}, spec: {{\
         from: [{{group: sluice.dev, kind: SniRoute, namespace: {from}}}], \
         to: [{}]}}}}",
        routes.join(", ")
    ))
}

/// The owner has a grant for each of the other namespaces; each grant names many routes that do not exist.
#[test]
fn each_grant_is_checked_once_for_a_hostname() {
    let mut builder = Builder::new(installation());
    let (others, names) = (30, 20);
    for number in 0..50 {
        builder.put_route(&claiming("owner", &format!("own-{number}"), number, "a.test"));
    }
    for other in 0..others {
        let namespace = format!("other-{other}");
        for number in 0..3 {
            let name = format!("r{number}");
            builder.put_route(&claiming(&namespace, &name, 100 + other, "a.test"));
        }
        builder.put_grant(&sharing("owner", &namespace, names));
    }
    assert_eq!(grants_looked_at(&mut builder), others * (1 + names));
    builder.remove_route(&RouteKey::sni_route("owner", "own-0"));
    assert_eq!(grants_looked_at(&mut builder), others * (1 + names));
}

#[test]
fn each_grant_is_checked_once_for_a_name_below_a_wildcard() {
    let guarded = Installation { hostnames_below: HostnamesBelow::Owner, ..installation() };
    let mut builder = Builder::new(guarded);
    builder.put_route(&claiming("owner", "wild", 0, "'*.test'"));
    for level in 1..10 {
        let wildcard = format!("'*.{}test'", "a.".repeat(level));
        builder.put_route(&claiming("owner", &format!("deep-{level}"), level, &wildcard));
    }
    builder.put_grant(&sharing("owner", "other", 20));
    builder.settle();
    for number in 0..50 {
        let name = format!("x.{}test", "a.".repeat(9));
        builder.put_route(&claiming("other", &format!("r{number}"), 100 + number, &name));
    }
    // The nearest older wildcard decides, and is checked once for the namespace.
    assert_eq!(grants_looked_at(&mut builder), 21);
}

#[test]
fn grants_for_a_service_are_checked_once() {
    let mut builder = Builder::new(installation());
    let mut grant = sharing("other", "data", 1);
    for number in 0..40 {
        grant.metadata.name = Some(format!("g{number}"));
        builder.put_grant(&grant);
    }
    let backend = "{service: {name: s, namespace: other, port: 1}}";
    for number in 0..30 {
        let hostname = format!("hostnames: [r{number}.com]");
        builder.put_route(&route(&format!("r{number}"), &hostname, backend));
    }
    assert_eq!(grants_looked_at(&mut builder), 40);
}
