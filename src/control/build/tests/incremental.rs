//! A builder that is told of one change after another says in the end what it says about the whole.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;
use crate::control::build::{Builder, ObjectKey, Settled};
use crate::control::status::RouteStatus;
use crate::routing::{Reader, RouteKey, Writer, channel};

/// One change of one object.
#[derive(Clone, Debug)]
enum Step {
    Route { name: char, spec: Option<(u8, u8, u8, bool)> },
    Service { name: char, kind: Option<u8> },
    Slice { name: char, of: Option<(char, u8)> },
    Settle,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || prop::sample::select(vec!['a', 'b', 'c', 'd']);
    let service = || prop::sample::select(vec!['s', 't']);
    let step = prop_oneof![
        4 => (name(), prop::option::weighted(0.8, (0..8u8, 0..3u8, 0..5u8, any::<bool>())))
            .prop_map(|(name, spec)| Step::Route { name, spec }),
        2 => (service(), prop::option::weighted(0.8, 0..4u8))
            .prop_map(|(name, kind)| Step::Service { name, kind }),
        3 => (name(), prop::option::weighted(0.8, (service(), 0..6u8)))
            .prop_map(|(name, of)| Step::Slice { name, of }),
        2 => Just(Step::Settle),
    ];
    prop::collection::vec(step, 1..60)
}

fn made_route(name: char, (hostnames, binding, backend, mine): (u8, u8, u8, bool)) -> SniRoute {
    let hostnames: Vec<&str> = ["a.com", "'*.b.com'", "'*'"]
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| (hostnames.max(1) >> bit) & 1 == 1)
        .map(|(_, hostname)| hostname)
        .collect();
    let class = if mine { "sluice" } else { "other" };
    let listeners = ["[]", "[https]", "[nowhere]"][usize::from(binding)];
    let backend = [
        "{address: '192.0.2.1:1'}",
        "{service: {name: s, port: 1}}",
        "{service: {name: s, port: web}}",
        "{service: {name: t, port: 1}}",
        "{service: {name: s, port: 1}}, {service: {name: t, port: 9}}",
    ][usize::from(backend)];
    route(
        &name.to_string(),
        &format!(
            "className: {class}, listeners: {listeners}, hostnames: [{}]",
            hostnames.join(", ")
        ),
        backend,
    )
}

fn made_service(name: char, kind: u8) -> Service {
    let spec = [
        "{ports: [{port: 1}]}",
        "{ports: [{port: 1, name: web}, {port: 9, name: x}]}",
        "{ports: []}",
        "{type: ExternalName, externalName: x.example}",
    ][usize::from(kind)];
    service(&name.to_string(), spec)
}

fn made_slice(name: char, (service, kind): (char, u8)) -> EndpointSlice {
    let ports =
        ["[{port: 1}]", "[{name: web, port: 2}, {name: x, port: 3}]"][usize::from(kind % 2)];
    let endpoints = [
        format!("[{{addresses: [10.0.0.{}]}}]", name as u8),
        "[{addresses: [10.0.1.1], conditions: {ready: false, serving: true, terminating: true}}]"
            .to_owned(),
        "[]".to_owned(),
    ][usize::from(kind / 2)]
    .clone();
    let mut slice = slice(&service.to_string(), "IPv4", ports, &endpoints);
    slice.metadata.name = Some(name.to_string());
    slice
}

fn object(name: char) -> ObjectKey {
    ObjectKey { namespace: "data".into(), name: name.to_string().into() }
}

/// What a table serves: each route, and the endpoints behind it.
fn served(reader: &Reader) -> BTreeMap<RouteKey, (RouteSpec, Vec<Vec<String>>)> {
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

/// What a source that follows the builder has come to.
struct Follower {
    builder: Builder,
    writer: Writer,
    statuses: BTreeMap<RouteKey, RouteStatus>,
}

impl Follower {
    fn settle(&mut self) {
        let Settled { changes, statuses } = self.builder.settle();
        for key in changes.routes.keys() {
            self.statuses.remove(key);
        }
        let told = statuses.into_iter().map(|status| (status.key.clone(), status));
        self.statuses.extend(told);
        self.writer.update(changes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn one_after_another_comes_to_the_same_as_all_at_once(steps in steps()) {
        let (mut routes, mut services, mut slices) =
            (HashMap::new(), HashMap::new(), HashMap::new());
        let (writer, reader) = channel();
        let builder = Builder::new(installation());
        let mut follower = Follower { builder, writer, statuses: BTreeMap::new() };
        for step in steps {
            let builder = &mut follower.builder;
            match step {
                Step::Route { name, spec: Some(spec) } => {
                    let route = made_route(name, spec);
                    builder.put_route(&route);
                    routes.insert(name, route);
                }
                Step::Route { name, spec: None } => {
                    builder.remove_route(&object(name));
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
                    let slice = made_slice(name, of);
                    builder.put_slice(&slice);
                    slices.insert(name, slice);
                }
                Step::Slice { name, of: None } => {
                    builder.remove_slice(&object(name));
                    slices.remove(&name);
                }
                Step::Settle => follower.settle(),
            }
        }
        follower.settle();

        let whole = plan(&Resources {
            routes: routes.into_values().collect(),
            services: services.into_values().collect(),
            slices: slices.into_values().collect(),
        });
        let (mut writer, whole_reader) = channel();
        writer.apply(whole.snapshot);
        prop_assert_eq!(served(&reader), served(&whole_reader));
        prop_assert_eq!(follower.statuses.into_values().collect::<Vec<_>>(), whole.statuses);

        for name in ['a', 'b', 'c', 'd', 's', 't'] {
            follower.builder.remove_route(&object(name));
            follower.builder.remove_service(&object(name));
            follower.builder.remove_slice(&object(name));
        }
        prop_assert!(follower.builder.is_empty(), "{:?}", follower.builder);
    }
}

#[test]
fn a_change_of_endpoints_concerns_no_route() {
    let mut builder = Builder::new(installation());
    builder.put_service(&made_service('s', 0));
    for name in ['a', 'b'] {
        builder.put_route(&made_route(name, (1, 0, 1, true)));
    }
    builder.settle();
    builder.put_slice(&made_slice('x', ('s', 0)));
    let settled = builder.settle();
    assert!(settled.changes.routes.is_empty() && settled.statuses.is_empty());
    assert_eq!(settled.changes.endpoints.len(), 1);
    // The same again is no change at all.
    builder.put_slice(&made_slice('x', ('s', 0)));
    builder.put_service(&made_service('s', 0));
    let settled = builder.settle();
    assert!(settled.changes.routes.is_empty() && settled.changes.endpoints.is_empty());
}

#[test]
fn a_change_of_a_route_concerns_those_that_claim_the_same() {
    let mut builder = Builder::new(installation());
    for (name, hostnames) in [('a', 1), ('b', 1), ('c', 2)] {
        builder.put_route(&made_route(name, (hostnames, 0, 0, true)));
    }
    builder.settle();
    builder.remove_route(&object('a'));
    let settled = builder.settle();
    let keys: Vec<String> = settled.statuses.iter().map(|status| status.key.to_string()).collect();
    assert_eq!(keys, ["data/b"], "it owns the name now");
    assert!(settled.changes.routes.contains_key(&object('a')));
}
