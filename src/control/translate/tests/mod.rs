mod elsewhere;
mod endpoints;
mod hints;
mod incremental;
mod kinds;
mod ownership;
mod reach;
mod shared_domains;
mod tls;
mod tls_limits;
mod tls_work;
mod tls_world;
mod unreadable;
mod work;

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use serde::de::DeserializeOwned;

use super::*;
use crate::policy::{Balancing, Policy, Timeout, Timeouts};
use crate::routing::{Hostname, RouteSpec};

fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A route in namespace `data` with these fields in its spec, in addition to its backends.
fn route(name: &str, fields: &str, backends: &str) -> SniRoute {
    yaml(&format!(
        "metadata: {{name: {name}, namespace: data}}\nspec: {{{fields}, backends: [{backends}]}}"
    ))
}

const ADDRESS: &str = "{address: '192.0.2.1:1'}";

fn service(name: &str, spec: &str) -> Service {
    yaml(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: data}}, \
           spec: {spec}}}"
    ))
}

/// A slice with a name of its own.
fn slice(service: &str, family: &str, ports: &str, endpoints: &str) -> EndpointSlice {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    yaml(&format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: {family}, \
         metadata: {{name: {service}-{number}, namespace: data, \
         labels: {{kubernetes.io/service-name: {service}}}}}, \
         ports: {ports}, endpoints: {endpoints}}}"
    ))
}

fn installation() -> Installation {
    Installation {
        listeners: vec!["https".to_owned(), "kafka".to_owned()],
        ..Installation::default()
    }
}

fn plan(resources: &Resources) -> Plan {
    build(resources, &installation())
}

fn of_routes(routes: &[SniRoute]) -> Plan {
    plan(&Resources { routes: routes.to_vec(), ..Resources::default() })
}

/// The names of the served routes.
fn served(plan: &Plan) -> Vec<&str> {
    plan.snapshot.routes.iter().map(|route| route.key.name()).collect()
}

/// The three conditions of a route as `status reason message`.
fn conditions(plan: &Plan, name: &str) -> [String; 3] {
    let status = plan.statuses.iter().find(|status| status.object.name() == name);
    let status = status.unwrap_or_else(|| panic!("{name} has no status"));
    assert_eq!(
        status.conditions.each_ref().map(|condition| condition.kind),
        ["Accepted", "ResolvedRefs", "Programmed"]
    );
    status.conditions.each_ref().map(|condition| {
        format!("{} {} {}", condition.status, condition.reason, condition.message)
            .trim_end()
            .to_owned()
    })
}

const ALL_GOOD: [&str; 3] = ["true Accepted", "true ResolvedRefs", "true Programmed"];

#[test]
fn a_route_is_served_only_by_the_installation_of_its_class() {
    let routes = [
        route("mine", "hostnames: [a.com], className: sluice", ADDRESS),
        route("other", "hostnames: [b.com], className: other", ADDRESS),
        route("none", "hostnames: [c.com]", ADDRESS),
    ];
    let plan = of_routes(&routes);
    assert_eq!(served(&plan), ["mine", "none"]);
    assert_eq!(plan.statuses.len(), 2, "other installations report their own");

    let strict = Installation { require_class: true, ..installation() };
    let resources = Resources { routes: routes.to_vec(), ..Resources::default() };
    assert_eq!(served(&build(&resources, &strict)), ["mine"]);
}

#[test]
fn every_field_of_a_route_reaches_the_table() {
    let whole: SniRoute = yaml(
        "metadata: {name: r, creationTimestamp: '1970-01-01T00:01:00Z', generation: 7}
spec:
  hostnames: [a.com, '*.a.com', A.com]
  listeners: [kafka]
  alpn: [h2]
  backends: [{address: '192.0.2.1:1', weight: 3}, {address: '[2001:db8::1]:2', weight: 0}]
  loadBalancing: {policy: Random}
  timeouts: {connect: 1s}",
    );
    let plan = of_routes(&[whole]);
    assert_eq!(conditions(&plan, "r"), ALL_GOOD);
    assert_eq!(plan.statuses[0].observed_generation, Some(7));
    let spec = &plan.snapshot.routes[0];
    assert_eq!(spec.key.to_string(), "default/r");
    assert_eq!(spec.created, Some(60));
    let hostnames: Vec<String> = spec.hostnames().map(|name| name.to_string()).collect();
    assert_eq!(hostnames, ["a.com", "*.a.com"], "each once");
    assert_eq!(spec.attachments[0].listeners, ["kafka".into()]);
    assert_eq!(spec.alpn, ["h2".into()]);
    assert_eq!(spec.policy.balancing(), Balancing::Random);
    assert_eq!(spec.policy.connect_timeout(), std::time::Duration::from_secs(1));
    assert_eq!(spec.policy.idle_timeout(), std::time::Duration::from_hours(1), "by default");
    let backends: Vec<String> =
        spec.backends.iter().map(|(key, weight)| format!("{key} {weight}")).collect();
    assert_eq!(backends, ["192.0.2.1:1 3", "[2001:db8::1]:2 0"]);
    for (key, _) in &spec.backends {
        assert_eq!(plan.snapshot.endpoints[key][0].to_string(), key.to_string());
    }
}

#[test]
fn a_route_for_listeners_that_do_not_exist_is_not_accepted() {
    let plan = of_routes(&[
        route("none", "hostnames: [a.com], listeners: [nope, nor]", ADDRESS),
        route("some", "hostnames: [b.com], listeners: [nope, kafka]", ADDRESS),
        route("other", "hostnames: [a.com]", ADDRESS),
    ]);
    assert_eq!(served(&plan), ["other", "some"], "and takes no name from another");
    assert_eq!(plan.snapshot.routes[1].attachments[0].listeners, ["kafka".into()]);
    let message = "there is no listener \"nope\"";
    assert_eq!(
        conditions(&plan, "none"),
        [
            &format!("false UnknownListener {message}; there is no listener \"nor\""),
            "true ResolvedRefs",
            "false NotAccepted the route is not accepted, so it gets no connection"
        ]
    );
    assert_eq!(conditions(&plan, "some")[0], format!("true Accepted {message}"));
    assert_eq!(conditions(&plan, "other"), ALL_GOOD);
    assert_eq!(conditions(&plan, "some")[2], "true Programmed");
}

#[test]
fn without_known_listeners_every_listener_name_is_accepted() {
    let routes = vec![route("r", "hostnames: [a.com], listeners: [nope]", ADDRESS)];
    let resources = Resources { routes, ..Resources::default() };
    let offline = Installation { listeners: vec![], ..installation() };
    assert_eq!(conditions(&build(&resources, &offline), "r"), ALL_GOOD);
}

#[test]
fn an_unresolved_backend_is_reported_and_does_not_affect_the_others() {
    let plan = plan(&Resources {
        routes: vec![route(
            "r",
            "hostnames: [a.com]",
            "{service: {name: gone, port: 1}}, {service: {name: s, port: 2}}, \
             {service: {name: s, port: www}}, {service: {name: ext, port: 1}}, \
             {service: {name: s, port: 53}}, {service: {name: s, port: 1}}",
        )],
        services: vec![
            service("s", "{ports: [{port: 1, name: tls}, {port: 53, protocol: UDP}]}"),
            service("ext", "{type: ExternalName, externalName: 192.0.2.1, ports: [{port: 1}]}"),
            yaml("{apiVersion: v1, kind: Service, metadata: {name: gone, namespace: elsewhere}}"),
        ],
        slices: vec![slice("s", "IPv4", "[{name: tls, port: 8443}]", "[{addresses: [10.0.0.1]}]")],
        ..Resources::default()
    });
    assert_eq!(
        conditions(&plan, "r"),
        [
            "true Accepted",
            "false BackendNotFound there is no Service data/gone; \
             Service data/s has no port 2; it has 1 (tls), 53; \
             Service data/s has no port www; it has 1 (tls), 53; \
             Service data/ext has the externalName \"192.0.2.1\", which is no DNS name; \
             Service data/s has port 53 for UDP only; sluice routes TCP",
            "true Programmed"
        ]
    );
    let backends = &plan.snapshot.routes[0].backends;
    assert_eq!(backends.len(), 6, "they keep their share, without endpoints");
    assert_eq!(plan.snapshot.endpoints.values().filter(|all| !all.is_empty()).count(), 1);
    assert_eq!(plan.snapshot.endpoints[&backends[5].0], ["10.0.0.1:8443".parse().unwrap()]);
}

#[test]
fn each_resolution_problem_has_its_reason_and_field() {
    let services = vec![
        service("s", "{ports: [{port: 1}]}"),
        service("ext", "{type: ExternalName, ports: [{port: 1}]}"),
    ];
    for (backend, reason, field) in [
        ("gone, port: 1", "BackendNotFound", "spec.backends[1].service.name"),
        ("s, port: 2", "PortNotFound", "spec.backends[1].service.port"),
        ("ext, port: 1", "UnsupportedService", "spec.backends[1].service.name"),
    ] {
        let backends = format!("{ADDRESS}, {{service: {{name: {backend}}}}}");
        let routes = vec![route("r", "hostnames: [a.com]", &backends)];
        let resources = Resources { routes, services: services.clone(), ..Resources::default() };
        let (plan, problems) = examine(&resources, &installation());
        assert_eq!(plan.statuses[0].conditions[1].reason, reason);
        let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, [field]);
    }
}

#[test]
fn routes_that_name_the_same_port_share_a_backend() {
    let backend = "{service: {name: s, port: 1}}";
    let plan = plan(&Resources {
        routes: vec![
            route("a", "hostnames: [a.com]", backend),
            route("b", "hostnames: [b.com]", backend),
        ],
        services: vec![service("s", "{ports: [{port: 1}]}")],
        slices: vec![],
        ..Resources::default()
    });
    assert_eq!(plan.snapshot.endpoints.len(), 1);
    assert_eq!(plan.snapshot.routes[0].backends, plan.snapshot.routes[1].backends);
}

/// What one tenant's clients do to an endpoint says nothing about it for another's.
#[test]
fn only_routes_of_one_namespace_share_an_address() {
    let named = |name: &str| route(name, &format!("hostnames: [{name}.com]"), ADDRESS);
    let mut elsewhere = named("c");
    elsewhere.metadata.namespace = Some("other".to_owned());
    let plan = of_routes(&[named("a"), named("b"), elsewhere]);
    let [a, b, c] = [0, 1, 2].map(|route| &plan.snapshot.routes[route].backends[0].0);
    assert_eq!(a, b);
    assert_ne!(a, c);
    assert_eq!(plan.snapshot.endpoints[a], plan.snapshot.endpoints[c]);
}

#[test]
fn a_route_that_loses_a_hostname_has_a_condition() {
    let plan = of_routes(&[
        route("a", "hostnames: [one.com, two.com]", ADDRESS),
        route("b", "hostnames: [one.com, two.com]", ADDRESS),
        route("c", "hostnames: [two.com, three.com]", ADDRESS),
        route("d", "hostnames: [three.com], listeners: [kafka]", ADDRESS),
        route("e", "hostnames: [five.com], listeners: [kafka]", ADDRESS),
        route("f", "hostnames: [five.com]", ADDRESS),
        route("g", "hostnames: [five.com], alpn: [h2]", ADDRESS),
        route("h", "hostnames: [six.com], alpn: [h2]", ADDRESS),
        route("i", "hostnames: [six.com]", ADDRESS),
    ]);
    assert_eq!(served(&plan), ["a", "c", "e", "f", "g", "h", "i"]);
    assert_eq!(conditions(&plan, "a"), ALL_GOOD);
    assert_eq!(
        conditions(&plan, "b"),
        [
            "false HostnameConflict one.com belongs to data/a; two.com belongs to data/a",
            "true ResolvedRefs",
            "false NotAccepted the route is not accepted, so it gets no connection"
        ]
    );
    let c = conditions(&plan, "c");
    assert_eq!(c[0], "true PartiallyConflicted two.com belongs to data/a");
    assert_eq!(c[2], "true Programmed");
    assert_eq!(conditions(&plan, "d")[0], "false HostnameConflict three.com belongs to data/c");
    assert_eq!(conditions(&plan, "e"), ALL_GOOD);
    assert_eq!(
        conditions(&plan, "f")[0],
        "true PartiallyConflicted five.com belongs to data/e where both take the same listener and \
         ALPN"
    );
    assert_eq!(conditions(&plan, "g"), ALL_GOOD);
    assert_eq!(conditions(&plan, "i"), ALL_GOOD, "to share a name by ALPN is no conflict");
}

#[test]
fn the_first_of_two_objects_with_one_name_counts() {
    let plan = of_routes(&[
        route("r", "hostnames: [a.com]", ADDRESS),
        route("r", "hostnames: [b.com]", ADDRESS),
    ]);
    assert_eq!(served(&plan), ["r"]);
    assert!(plan.snapshot.routes[0].hostnames().eq([Hostname::Exact("a.com")]));
    assert_eq!(plan.statuses.len(), 1);
}

#[test]
fn objects_without_names_are_left_out() {
    let unnamed: SniRoute =
        yaml(&format!("metadata: {{}}\nspec: {{hostnames: [a.com], backends: [{ADDRESS}]}}"));
    let plan = plan(&Resources {
        routes: vec![unnamed],
        services: vec![Service::default()],
        slices: vec![EndpointSlice::default()],
        ..Resources::default()
    });
    assert!(plan.statuses.is_empty() && plan.snapshot.routes.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The order of a source's objects does not change the plan.
    #[test]
    fn the_order_of_the_objects_makes_no_difference(
        order in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle(),
        slices in Just((1..4u8).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let names = ["a", "b", "c", "d", "e", "f"];
        let route = |n: &usize| {
            let hostnames = format!("hostnames: [x{}.com]", n / 2);
            route(names[*n], &hostnames, "{service: {name: s, port: 1}}")
        };
        let slice = |n: &u8| {
            slice("s", "IPv4", "[{port: 1}]", &format!("[{{addresses: [10.0.0.{n}]}}]"))
        };
        let made = |order: &[usize], slices: &[u8]| Resources {
            routes: order.iter().map(route).collect(),
            services: vec![service("s", "{ports: [{port: 1}]}")],
            slices: slices.iter().map(slice).collect(),
            ..Resources::default()
        };
        let one = plan(&made(&[0, 1, 2, 3, 4, 5], &[1, 2, 3]));
        let other = plan(&made(&order, &slices));
        prop_assert_eq!(&one.statuses, &other.statuses);
        prop_assert_eq!(&one.snapshot.routes, &other.snapshot.routes);
        prop_assert_eq!(&one.snapshot.endpoints, &other.snapshot.endpoints);
        let mut keys: Vec<_> = one.statuses.iter().map(|status| status.object.clone()).collect();
        keys.sort();
        prop_assert!(keys.iter().eq(one.statuses.iter().map(|status| &status.object)));
    }
}

#[test]
fn no_timeout_is_longer_than_the_installation_allows() {
    let hours = |hours| std::time::Duration::from_hours(hours);
    let two = Timeout::new(hours(2));
    let timeouts = Timeouts { connect: two, idle: two, ..Timeouts::default() };
    let ceiling = Policy { timeouts, ..Policy::default() };
    let capped =
        Installation { layers: Layers::new(&Policy::default(), ceiling), ..installation() };
    for (asked, installation, connect, idle, said) in [
        ("{ connect: 3h, idle: 1h }", &capped, 2, 1, "timeouts.connect is 2h, the most"),
        ("{ connect: 1h, idle: 24h }", &capped, 1, 2, "allows, and not 24h"),
        ("{ connect: 2h, idle: 2h }", &capped, 2, 2, ""),
        ("{ connect: 3h, idle: 24h }", &installation(), 3, 24, ""),
    ] {
        let Plan { snapshot, statuses, .. } = {
            let asking = route("r", &format!("hostnames: [a.com], timeouts: {asked}"), ADDRESS);
            build(&Resources { routes: vec![asking], ..Resources::default() }, installation)
        };
        let policy = &snapshot.routes[0].policy;
        assert_eq!(policy.connect_timeout(), hours(connect), "{asked}");
        assert_eq!(policy.idle_timeout(), hours(idle), "{asked}");
        let programmed = &statuses[0].conditions[2];
        assert!(programmed.status && programmed.message.contains(said), "{programmed:?}");
        assert_eq!(programmed.message.is_empty(), said.is_empty(), "{programmed:?}");
    }
}
