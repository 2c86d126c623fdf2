//! From objects to the table in force: all routes at once, and one change among them.
//!
//! `make bench-control` runs it, next to `benches/controller.rs`. Without `--bench`, as in a test,
//! a small table shows that it works.

#![allow(missing_docs, clippy::unwrap_used)]

use std::env;
use std::net::Ipv4Addr;

use criterion::BatchSize::PerIteration;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, from_value, json};
use sluice::control::api::SniRoute;
use sluice::control::build::{Builder, Installation};
use sluice::reach::Reach;
use sluice::routing::{Reader, Writer, channel};

/// In the table, each with a Service of its own that has two endpoints.
const ROUTES: u32 = 100_000;
const ROUTES_IN_A_TEST: u32 = 500;

criterion_group!(benches, build, flood);
criterion_main!(benches);

fn build(criterion: &mut Criterion) {
    let measured = env::args().any(|argument| argument == "--bench");
    let routes = if measured { ROUTES } else { ROUTES_IN_A_TEST };
    let objects: Vec<Objects> = (0..routes).map(Objects::of).collect();
    let mut group = criterion.benchmark_group(format!("{routes} routes"));
    group.sample_size(10);
    group.bench_function("all at once (goal: 1 s)", |bencher| {
        // It counts neither what is dropped nor that nothing was dropped yet.
        bencher.iter_batched_ref(
            || None,
            |source| *source = Some(Source::of(&objects)),
            PerIteration,
        );
    });
    group.sample_size(100);
    let mut source = Source::of(&objects);
    bench_changes(&mut group, &mut source, routes / 2);
    group.finish();
}

/// Changes of one route and of its endpoints, back and forth.
fn bench_changes(group: &mut BenchmarkGroup<'_, WallTime>, source: &mut Source, number: u32) {
    let routes = [route(number, "b"), route(number, "a")];
    let mut turns = routes.iter().cycle();
    group.bench_function("one changed route (goal: 5 ms)", |bencher| {
        bencher.iter(|| {
            source.builder.put_route(turns.next().unwrap());
            source.serve();
        });
    });
    let slices = [slice(number, 2), slice(number, 1)];
    let mut turns = slices.iter().cycle();
    group.bench_function("one changed endpoint (goal: 5 ms)", |bencher| {
        bencher.iter(|| {
            source.builder.put_slice(turns.next().unwrap());
            source.serve();
        });
    });
}

/// One tenant's routes for the same names, each with a protocol of its own.
fn flood(criterion: &mut Criterion) {
    let measured = env::args().any(|argument| argument == "--bench");
    let routes = if measured { 1200 } else { 100 };
    let claims: Vec<SniRoute> = (0..routes).map(|number| claim(number, "")).collect();
    let mut group = criterion.benchmark_group(format!("{routes} routes for the same 64 names"));
    group.sample_size(10);
    let fill = |source: &mut Source| {
        claims.iter().for_each(|route| source.builder.put_route(route));
        let settled = source.builder.settle();
        source.writer.update(settled.changes);
    };
    group.bench_function("all at once (goal: 300 ms)", |bencher| {
        bencher.iter_batched_ref(|| Source::of(&[]), fill, PerIteration);
    });
    let mut source = Source::of(&[]);
    fill(&mut source);
    for (which, number) in [("the oldest", 0), ("the youngest", routes - 1)] {
        let turns = [claim(number, "-changed"), claim(number, "")];
        let mut turns = turns.iter().cycle();
        group.bench_function(format!("{which} is edited (goal: 50 ms)"), |bencher| {
            bencher.iter(|| {
                source.builder.put_route(turns.next().unwrap());
                let settled = source.builder.settle();
                source.writer.update(settled.changes);
            });
        });
    }
    group.finish();
}

fn claim(number: u32, more: &str) -> SniRoute {
    let hostnames: Vec<String> = (0..64).map(|n| format!("n{n}.flood.example.com")).collect();
    from_value(json!({
        "metadata": {
            "namespace": "flood",
            "name": format!("f{number:04}"),
            "creationTimestamp": format!("2026-01-01T{:02}:{:02}:00Z", number / 60, number % 60),
        },
        "spec": {
            "hostnames": hostnames,
            "alpn": [format!("p{number}{more}")],
            "backends": [{ "address": "192.0.2.1:443" }],
        },
    }))
    .unwrap()
}

/// What a source holds, and what it feeds.
struct Source {
    builder: Builder,
    writer: Writer,
    reader: Reader,
}

impl Source {
    /// Served from nothing to the first table.
    fn of(objects: &[Objects]) -> Self {
        let installation = Installation {
            listeners: vec!["https".into()],
            reach: Reach { local_addresses: true, ..Reach::default() },
            ..Installation::default()
        };
        let (writer, reader) = channel();
        let mut source = Source { builder: Builder::new(installation), writer, reader };
        for Objects { route, service, slice } in objects {
            source.builder.put_service(service);
            source.builder.put_slice(slice);
            source.builder.put_route(route);
        }
        source.serve();
        assert_eq!(source.reader.table().len(), objects.len());
        source
    }

    fn serve(&mut self) {
        let settled = self.builder.settle();
        let applied = self.writer.update(settled.changes);
        assert!(applied.table || applied.backends == 1);
    }
}

/// A route with all that it takes.
struct Objects {
    route: SniRoute,
    service: Service,
    slice: EndpointSlice,
}

impl Objects {
    fn of(number: u32) -> Self {
        Objects { route: route(number, "a"), service: service(number), slice: slice(number, 1) }
    }
}

fn metadata(number: u32) -> Value {
    json!({
        "namespace": format!("namespace-{}", number % 100),
        "name": format!("app-{number}"),
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": { "kubernetes.io/service-name": format!("app-{number}") },
    })
}

fn route(number: u32, label: &str) -> SniRoute {
    let backend = json!({ "service": { "name": format!("app-{number}"), "port": "tls" } });
    from_value(json!({
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "SniRoute",
        "metadata": metadata(number),
        "spec": {
            "hostnames": [format!("{label}.app-{number}.example.com")],
            "backends": [backend],
        },
    }))
    .unwrap()
}

fn service(number: u32) -> Service {
    from_value(json!({
        "metadata": metadata(number),
        "spec": { "ports": [{ "name": "tls", "port": 443 }] },
    }))
    .unwrap()
}

fn slice(number: u32, first: u32) -> EndpointSlice {
    let address = |which: u32| Ipv4Addr::from_bits(0x0a00_0000 + 4 * number + which);
    from_value(json!({
        "metadata": metadata(number),
        "addressType": "IPv4",
        "ports": [{ "name": "tls", "port": 8443 }],
        "endpoints": [{ "addresses": [address(first)] }, { "addresses": [address(first + 1)] }],
    }))
    .unwrap()
}
