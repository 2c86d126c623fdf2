//! A backend of very many endpoints: what it costs to replace them, and to choose one of them.
//!
//! Without `--bench`, as in a test, a small backend shows that this works.

#![allow(missing_docs, clippy::unwrap_used)]

use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use sluice::policy::Balancing;
use sluice::routing::{
    BackendKey, EndpointRequest, Hostname, Moment, Route, RouteKey, RouteSpec, Snapshot,
    TableChanges, TableWriter, TrafficPolicy, channel, choose,
};

const ENDPOINTS: u32 = 60_000;
const ENDPOINTS_IN_A_TEST: u32 = 600;

criterion_group!(benches, endpoints);
criterion_main!(benches);

fn endpoints(criterion: &mut Criterion) {
    let measured = env::args().any(|argument| argument == "--bench");
    let count = if measured { ENDPOINTS } else { ENDPOINTS_IN_A_TEST };
    let mut group = criterion.benchmark_group(format!("{count} endpoints"));
    for policy in Balancing::ALL {
        let (mut writer, route) = served(policy, count);
        let mut bench = |what: &str| {
            let mut number = 0;
            group.bench_function(format!("{}, {what}", policy.as_str()), |bencher| {
                bencher.iter(|| {
                    number += 1;
                    let source = Ipv4Addr::from(0xc612_0000 + number % 60_000).into();
                    let request = EndpointRequest::new(
                        source,
                        &[],
                        u64::from(number).wrapping_mul(0x9e37_79b9),
                    );
                    assert!(choose(&route, &request).is_ok());
                });
            });
        };
        bench("all well");
        let all = route.backends[0].backend.endpoints().to_vec();
        // Until long after the measurement.
        let later = Moment::now() + std::time::Duration::from_secs(3600);
        all.iter().step_by(2).for_each(|endpoint| endpoint.failed(later));
        bench("half of them resting");
        drop(all);
        if policy == Balancing::RoundRobin {
            let changes = [addresses(11, count), addresses(10, count)];
            let mut turns = changes.iter().cycle();
            group.bench_function("replacing all", |bencher| {
                bencher.iter_batched(
                    || TableChanges {
                        endpoints: [(key(), turns.next().unwrap().clone())].into_iter().collect(),
                        ..TableChanges::default()
                    },
                    |changes| assert_eq!(writer.update(changes).backends, 1),
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

fn served(policy: Balancing, count: u32) -> (TableWriter, Arc<Route>) {
    let spec = RouteSpec {
        backends: vec![(key(), 1)],
        policy: TrafficPolicy::of(&policy.into()),
        ..RouteSpec::new(
            RouteKey::sni_route("bench", "route"),
            "a.test".parse::<Hostname>().unwrap().into(),
        )
    };
    let endpoints = [(key(), addresses(10, count))].into_iter().collect();
    let (mut writer, reader) = channel();
    writer.apply(Snapshot { routes: vec![spec], endpoints, ..Snapshot::default() });
    let route = Arc::clone(reader.table().routes().next().unwrap());
    (writer, route)
}

fn key() -> BackendKey {
    BackendKey::address("", "backend")
}

fn addresses(net: u32, count: u32) -> Vec<SocketAddr> {
    (0..count).map(|number| (Ipv4Addr::from((net << 24) + number), 443).into()).collect()
}
