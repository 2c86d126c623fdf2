//! A builder that processes changes one by one gives the same result as one that gets all objects at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;
use crate::control::api::{DnsName, ReferenceGrant};
use crate::control::status::RouteStatus;
use crate::control::translate::{Builder, Delta, DnsAnswer, UnreadableRoute};
use crate::routing::{ObjectRef, RouteKey, TableReader, TableWriter, channel};

/// The name of the only Service in another namespace.
const FOREIGN: char = 'f';

/// A route's hostnames, listeners, backend, class, protocols and age, as numbers.
type Spec = (u8, u8, u8, bool, u8, u8);

/// One change of one object.
#[derive(Clone, Debug)]
enum Step {
    Route { name: char, spec: Option<Spec> },
    Service { name: char, kind: Option<u8> },
    Slice { name: char, of: Option<(char, u8)> },
    Grant { kind: Option<u8> },
    Answer { kind: u8 },
    Settle,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || prop::sample::select(vec!['a', 'b', 'c', 'd']);
    let service = || prop::sample::select(vec!['s', 't', FOREIGN]);
    let spec = (0..32u8, 0..3u8, 0..8u8, any::<bool>(), 0..3u8, 0..3u8);
    let step = prop_oneof![
        4 => (name(), prop::option::weighted(0.8, spec))
            .prop_map(|(name, spec)| Step::Route { name, spec }),
        2 => (service(), prop::option::weighted(0.8, 0..4u8))
            .prop_map(|(name, kind)| Step::Service { name, kind }),
        3 => (name(), prop::option::weighted(0.8, (service(), 0..8u8)))
            .prop_map(|(name, of)| Step::Slice { name, of }),
        1 => prop::option::weighted(0.7, 0..5u8).prop_map(|kind| Step::Grant { kind }),
        1 => (0..4u8).prop_map(|kind| Step::Answer { kind }),
        2 => Just(Step::Settle),
    ];
    prop::collection::vec(step, 1..60)
}

fn made_route(name: char, (hostnames, binding, backend, mine, alpn, age): Spec) -> SniRoute {
    let hostnames: Vec<&str> = ["a.com", "'*.b.com'", "'*'", "x.y.b.com", "'*.y.b.com'"]
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| (hostnames.max(1) >> bit) & 1 == 1)
        .map(|(_, hostname)| hostname)
        .collect();
    let class = if mine { "sluice" } else { "other" };
    let listeners = ["[]", "[https]", "[nowhere]"][usize::from(binding)];
    let alpn = ["[]", "[h2]", "[h2, h3]"][usize::from(alpn)];
    let backend = [
        "{address: '192.0.2.1:1'}",
        "{service: {name: s, port: 1}}",
        "{service: {name: s, port: web}}",
        "{service: {name: t, port: 1}}",
        "{service: {name: s, port: 1}}, {service: {name: t, port: 9}}",
        "{service: {name: f, port: 1, namespace: other}}, {service: {name: s, port: 1}}",
        "{address: 'x.example:7'}",
        "{address: '10.96.0.1:1'}, {address: '10.0.1.1:2'}",
    ][usize::from(backend)];
    let mut route = route(
        &name.to_string(),
        &format!(
            "className: {class}, listeners: {listeners}, alpn: {alpn}, hostnames: [{}]",
            hostnames.join(", ")
        ),
        backend,
    );
    route.metadata.namespace = Some(namespace_of(name).to_owned());
    route.metadata.creation_timestamp =
        (age > 0).then(|| yaml(&format!("'2026-01-01T00:00:0{age}Z'")));
    route
}

/// The namespace of a route; several namespaces claim the same hostnames.
fn namespace_of(route: char) -> &'static str {
    match route {
        'a' | 'b' => "data",
        'c' => "other",
        _ => "third",
    }
}

fn route_object(name: char) -> RouteKey {
    RouteKey::sni_route(namespace_of(name), &name.to_string())
}

fn made_service(name: char, kind: u8) -> Service {
    let spec = [
        "{clusterIP: 10.96.0.1, ports: [{port: 1}]}",
        "{ports: [{port: 1, name: web}, {port: 9, name: x}]}",
        "{ports: []}",
        "{type: ExternalName, externalName: x.example}",
    ][usize::from(kind)];
    let mut service = service(&name.to_string(), spec);
    service.metadata.namespace = Some(namespace(name).to_owned());
    service
}

fn made_slice(name: char, (service, kind): (char, u8)) -> EndpointSlice {
    let ports =
        ["[{port: 1}]", "[{name: web, port: 2}, {name: x, port: 3}]"][usize::from(kind % 2)];
    let endpoints = [
        format!("[{{addresses: [10.0.0.{}]}}]", name as u8),
        "[{addresses: [10.0.1.1], conditions: {ready: false, serving: true, terminating: true}}]"
            .to_owned(),
        "[]".to_owned(),
        "[{addresses: [0.0.0.9, 10.0.1.1]}]".to_owned(),
    ][usize::from(kind / 2)]
    .clone();
    let mut slice = slice(&service.to_string(), "IPv4", ports, &endpoints);
    slice.metadata.name = Some(name.to_string());
    slice.metadata.namespace = Some(namespace(service).to_owned());
    slice
}

fn made_grant(kind: u8) -> ReferenceGrant {
    let service = |rest: &str| format!("{{group: '', kind: Service{rest}}}");
    let routes = |rest: &str| format!("{{group: sluice.dev, kind: SniRoute{rest}}}");
    let (from, to) = [
        ("data", service("")),
        ("data", service(", name: g")),
        ("elsewhere", service("")),
        ("data", routes("")),
        ("third", routes(", name: c")),
    ][usize::from(kind)]
    .clone();
    yaml(&format!(
        "{{metadata: {{name: grant, namespace: other}}, spec: {{\
         from: [{{group: sluice.dev, kind: SniRoute, namespace: {from}}}], to: [{to}]}}}}"
    ))
}

fn made_answer(kind: u8) -> DnsAnswer {
    let ip = |text: &str| text.parse().expect("an address");
    match kind {
        0 => DnsAnswer::default(),
        1 => DnsAnswer { addresses: vec![ip("10.9.0.2"), ip("10.9.0.1")], fault: None },
        2 => DnsAnswer { addresses: vec![ip("10.9.0.3")], fault: Some("it is away".into()) },
        _ => DnsAnswer { addresses: vec![ip("127.0.0.1")], fault: None },
    }
}

fn namespace(service: char) -> &'static str {
    if service == FOREIGN { "other" } else { "data" }
}

fn object(name: char) -> ObjectKey {
    ObjectKey::new(namespace(name), &name.to_string())
}

/// The name of a slice does not depend on the namespace.
fn slice_object(name: char, of: char) -> ObjectKey {
    ObjectKey::new(namespace(of), &name.to_string())
}

/// The content of a table: each route, and the endpoints of its backends.
fn served(reader: &TableReader) -> BTreeMap<RouteKey, (RouteSpec, Vec<Vec<String>>)> {
    let table = reader.table();
    let endpoints = |route: &crate::routing::Route| {
        let sets = route.backends.iter().map(|backend| backend.backend.endpoints());
        sets.map(|set| set.iter().map(|endpoint| endpoint.address.to_string()).collect()).collect()
    };
    table
        .routes()
        .map(|route| (route.spec.key.clone(), (route.spec.clone(), endpoints(route))))
        .collect()
}

/// The state of a consumer that applies each delta.
struct Follower {
    builder: Builder,
    writer: TableWriter,
    statuses: BTreeMap<ObjectRef, RouteStatus>,
    names: BTreeSet<DnsName>,
}

impl Follower {
    fn settle(&mut self) {
        let mut computation = self.builder.begin_delta();
        // In the smallest possible slices.
        let delta = std::iter::repeat_with(|| computation.go_on(1)).flatten().next();
        let Delta { changes, statuses, names, .. } = delta.unwrap();
        for name in names.unwanted {
            assert!(self.names.remove(&name), "{name} was not wanted");
        }
        for name in names.wanted.into_iter().map(|wanted| wanted.name) {
            // A name may be wanted again, by other namespaces.
            self.names.insert(name);
        }
        for (key, _) in &changes.routes {
            self.statuses.remove(key.object());
        }
        let told = statuses.into_iter().map(|status| (status.object.clone(), status));
        self.statuses.extend(told);
        self.writer.update(changes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn incremental_changes_give_the_same_result_as_a_whole_build(
        steps in steps(),
        own in any::<bool>(),
        owner in any::<bool>(),
    ) {
        let (mut routes, mut services, mut slices) =
            (HashMap::new(), HashMap::new(), HashMap::new());
        let (writer, reader) = channel();
        let own_services = if own { vec![object('t')] } else { vec![] };
        let hostnames_below = if owner { HostnamesBelow::Owner } else { HostnamesBelow::Anyone };
        let installation = Installation { own_services, hostnames_below, ..installation() };
        let builder = Builder::new(installation.clone());
        let mut follower =
            Follower { builder, writer, statuses: BTreeMap::new(), names: BTreeSet::new() };
        let (mut grant, mut answers) = (None, HashMap::new());
        let mut origins: HashMap<char, char> = HashMap::new();
        for step in steps {
            let builder = &mut follower.builder;
            match step {
                Step::Route { name, spec: Some(spec) } => {
                    let route = made_route(name, spec);
                    builder.put_route(&route);
                    routes.insert(name, route);
                }
                Step::Route { name, spec: None } => {
                    builder.remove_route(&route_object(name));
                    routes.remove(&name);
                }
                Step::Service { name, kind: Some(kind) } => {
                    let service = made_service(name, kind);
                    builder.put_service(&service);
                    services.insert(name, service);
                }
                Step::Service { name, kind: None } => {
                    builder.remove_service(&object(name));
                    services.remove(&name);
                }
                Step::Slice { name, of: Some(of) } => {
                    // A slice that moves to another namespace is another object.
                    if let Some(before) = origins.insert(name, of.0)
                        && namespace(before) != namespace(of.0) {
                            builder.remove_slice(&slice_object(name, before));
                        }
                    let slice = made_slice(name, of);
                    builder.put_slice(&slice);
                    slices.insert(name, slice);
                }
                Step::Slice { name, of: None } => {
                    if let Some(before) = origins.remove(&name) {
                        builder.remove_slice(&slice_object(name, before));
                    }
                    slices.remove(&name);
                }
                Step::Grant { kind: Some(kind) } => {
                    builder.put_grant(&made_grant(kind));
                    grant = Some(made_grant(kind));
                }
                Step::Grant { kind: None } => {
                    builder.remove_grant(&grant_key());
                    grant = None;
                }
                Step::Answer { kind } => {
                    // Like a resolver, answers only for wanted names.
                    if follower.names.contains("x.example") {
                        builder.put_answer(&"x.example".into(), made_answer(kind));
                        answers.insert(DnsName::from("x.example"), made_answer(kind));
                    }
                }
                Step::Settle => follower.settle(),
            }
        }
        follower.settle();
        // The answers of names that became unused are dropped, even if the names are used again later.
        answers.retain(|name, _| follower.builder.targets.names.answer(name).is_some());

        let resources = Resources {
            routes: routes.into_values().collect(),
            services: services.into_values().collect(),
            slices: slices.into_values().collect(),
            grants: grant.into_iter().collect(),
            config_maps: Vec::new(),
            secrets: Vec::new(),
            answers,
        };
        let whole = build(&resources, &installation);
        let (mut writer, whole_reader) = channel();
        writer.apply(whole.snapshot);
        prop_assert_eq!(served(&reader), served(&whole_reader));
        let names: Vec<DnsName> = follower.names.iter().cloned().collect();
        prop_assert_eq!(names, whole.names);
        prop_assert_eq!(follower.statuses.into_values().collect::<Vec<_>>(), whole.statuses);

        for name in ['a', 'b', 'c', 'd', 's', 't', FOREIGN] {
            follower.builder.remove_route(&route_object(name));
            follower.builder.remove_service(&object(name));
            for of in ['s', FOREIGN] {
                follower.builder.remove_slice(&slice_object(name, of));
            }
        }
        follower.builder.remove_grant(&grant_key());
        follower.builder.settle();
        prop_assert!(follower.builder.is_empty(), "{:?}", follower.builder);
    }
}

fn grant_key() -> ObjectKey {
    ObjectKey::new("other", "grant")
}

#[test]
fn a_change_of_endpoints_changes_no_route() {
    let mut builder = Builder::new(installation());
    builder.put_service(&made_service('s', 0));
    for name in ['a', 'b'] {
        builder.put_route(&made_route(name, (1, 0, 1, true, 0, 0)));
    }
    builder.settle();
    builder.put_slice(&made_slice('x', ('s', 0)));
    let delta = builder.settle();
    assert!(delta.changes.routes.is_empty());
    assert_eq!(delta.changes.endpoints.len(), 1);
    let counted: Vec<usize> = delta.statuses.iter().map(|status| status.endpoints).collect();
    assert_eq!(counted, [1, 1], "their number is told");
    // Storing the same object again is no change.
    builder.put_slice(&made_slice('x', ('s', 0)));
    builder.put_service(&made_service('s', 0));
    let delta = builder.settle();
    assert!(delta.changes.routes.is_empty() && delta.changes.endpoints.is_empty());
}

#[test]
fn a_change_of_a_route_updates_routes_with_the_same_hostnames() {
    let mut builder = Builder::new(installation());
    for (name, hostnames) in [('a', 1), ('b', 1), ('c', 2)] {
        builder.put_route(&made_route(name, (hostnames, 0, 0, true, 0, 0)));
    }
    builder.settle();
    builder.remove_route(&route_object('a'));
    let delta = builder.settle();
    let keys: Vec<String> = delta.statuses.iter().map(|status| status.object.to_string()).collect();
    assert_eq!(keys, ["data/b"], "it owns the name now");
    assert!(delta.changes.routes.iter().any(|(key, _)| *key == route_object('a')));
}

/// A status contains the version of its object, so each new version changes the status.
#[test]
fn a_status_contains_the_newest_version_of_its_object() {
    let mut builder = Builder::new(installation());
    let mut route = made_route('a', (1, 0, 0, true, 0, 0));
    let mut named = |version: &str| {
        route.metadata.uid = Some("one".to_owned());
        route.metadata.resource_version = Some(version.to_owned());
        builder.put_route(&route);
        let mut valid = builder.settle().statuses;
        builder.put_unreadable_route(&UnreadableRoute {
            metadata: route.metadata.clone(),
            class: Some(None),
            ..UnreadableRoute::default()
        });
        valid.append(&mut builder.settle().statuses);
        let versions = valid.iter().map(|status| {
            assert_eq!(status.uid.as_deref(), Some("one"));
            status.resource_version.as_deref().unwrap().to_owned()
        });
        versions.collect::<Vec<_>>()
    };
    assert_eq!(named("1"), ["1", "1"]);
    assert_eq!(named("2"), ["2", "2"]);
}
