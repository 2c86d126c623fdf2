//! From objects to the table in force: all routes at once, and one change among them.
//!
//! `make bench-control` runs it, next to `benches/controller.rs`. Without `--bench`, as in a test,
//! a small table shows that it works.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing)]

use std::env;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use criterion::BatchSize::PerIteration;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, from_value, json};
use sluice::control::api::{ReferenceGrant, SniRoute};
use sluice::control::translate::{Builder, Installation, SLICE};
use sluice::reach::Reach;
use sluice::routing::{TableReader, TableWriter, channel};

/// In the table, each with a Service of its own that has two endpoints.
const ROUTES: u32 = 100_000;
const ROUTES_IN_A_TEST: u32 = 500;

criterion_group!(benches, build, flood, endpoints, wildcards, grants, slices);
criterion_main!(benches);

fn is_measured() -> bool {
    env::args().any(|argument| argument == "--bench")
}

fn build(criterion: &mut Criterion) {
    let routes = if is_measured() { ROUTES } else { ROUTES_IN_A_TEST };
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
    let routes = if is_measured() { 1200 } else { 100 };
    let claims: Vec<SniRoute> = (0..routes).map(|number| claim(number, "")).collect();
    let mut group = criterion.benchmark_group(format!("{routes} routes for the same 64 names"));
    group.sample_size(10);
    let fill = |source: &mut Source| {
        claims.iter().for_each(|route| source.builder.put_route(route));
        source.settle();
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
                source.settle();
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

/// A Service of many pods that many routes name at many ports, and a slice as large as there can be.
fn endpoints(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one Service");
    group.sample_size(10);
    let (routes, pods) = if is_measured() { (1200, 1000) } else { (20, 10) };
    let mut source = Source::of(&[]);
    source.builder.put_service(&wide_service(16));
    (0..routes).for_each(|number| source.builder.put_route(&wide_route(number, 16)));
    source.settle();
    let slices = [wide_slice(16, pods), wide_slice(16, pods - 1)];
    let mut turns = slices.iter().cycle();
    let name = format!("an endpoint of {pods}, for {routes} routes to 16 ports each (goal: 50 ms)");
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            source.builder.put_slice(turns.next().unwrap());
            source.settle();
        });
    });
    let (ports, addresses) = if is_measured() { (20_000, 100_000) } else { (20, 100) };
    let mut source = Source::of(&[]);
    source.builder.put_service(&wide_service(16));
    source.builder.put_route(&wide_route(0, 16));
    let slices = [wide_slice(ports, addresses), wide_slice(ports, addresses - 1)];
    let mut turns = slices.iter().cycle();
    let name = format!("a slice of {addresses} addresses at {ports} ports (goal: 50 ms)");
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            source.builder.put_slice(turns.next().unwrap());
            source.settle();
        });
    });
    group.finish();
}

/// A Service with ports `p0`, `p1`….
fn wide_service(ports: u32) -> Service {
    let ports: Vec<Value> =
        (0..ports).map(|port| json!({ "name": format!("p{port}"), "port": port + 1 })).collect();
    from_value(json!({
        "metadata": { "namespace": "wide", "name": "wide" }, "spec": { "ports": ports },
    }))
    .unwrap()
}

fn wide_slice(ports: u32, addresses: u32) -> EndpointSlice {
    let port = |port: u32| json!({ "name": format!("p{port}"), "port": port + 1 });
    let addresses: Vec<Ipv4Addr> =
        (0..addresses).map(|number| Ipv4Addr::from_bits(0x0a00_0000 + number)).collect();
    from_value(json!({
        "metadata": {
            "namespace": "wide", "name": "wide", "labels": { "kubernetes.io/service-name": "wide" },
        },
        "addressType": "IPv4",
        "ports": (0..ports).map(port).collect::<Vec<_>>(),
        "endpoints": [{ "addresses": addresses }],
    }))
    .unwrap()
}

fn wide_route(number: u32, ports: u32) -> SniRoute {
    let backend = |port: u32| json!({ "service": { "name": "wide", "port": format!("p{port}") } });
    claiming("wide", number, &[format!("w{number}.example.com")], (0..ports).map(backend).collect())
}

fn claiming(namespace: &str, number: u32, hostnames: &[String], backends: Vec<Value>) -> SniRoute {
    let (hour, minute) = (number / 60, number % 60);
    from_value(json!({
        "metadata": {
            "namespace": namespace,
            "name": format!("r{number}"),
            "creationTimestamp": format!("2026-01-01T{hour:02}:{minute:02}:00Z"),
        },
        "spec": { "hostnames": hostnames, "backends": backends },
    }))
    .unwrap()
}

/// Names of very many labels with wildcards at each of them, by turns of two namespaces.
fn wildcards(criterion: &mut Criterion) {
    let chains = if is_measured() { 80 } else { 4 };
    let backend = || vec![json!({ "address": "192.0.2.1:443" })];
    let route = |chain: u32, half: u32, more: &str| {
        let depths = (1..=120).filter(|depth| depth % 2 == half);
        let name = |depth| format!("*.{}c{chain}{more}.test", "a.".repeat(depth as usize));
        let namespace = ["one", "two"][half as usize];
        claiming(namespace, chain, &depths.map(name).collect::<Vec<_>>(), backend())
    };
    let mut source = Source::of(&[]);
    for chain in 0..chains {
        (0..2).for_each(|half| source.builder.put_route(&route(chain, half, "")));
    }
    source.settle();
    let turns = [route(0, 0, "x"), route(0, 0, "")];
    let mut turns = turns.iter().cycle();
    let mut group = criterion.benchmark_group(format!("{chains} chains of wildcards"));
    group.bench_function("one route (goal: 50 ms)", |bencher| {
        bencher.iter(|| {
            source.builder.put_route(turns.next().unwrap());
            source.settle();
        });
    });
    group.finish();
}

/// Routes of one namespace, and one of each of many others that it shares its names with, by name.
fn grants(criterion: &mut Criterion) {
    let others = if is_measured() { 600 } else { 20 };
    let hostnames: Vec<String> = (0..64).map(|n| format!("n{n}.shared.example.com")).collect();
    let backend = || vec![json!({ "address": "192.0.2.1:443" })];
    let grant = |number: u32| -> ReferenceGrant {
        let to = |route: u32| json!({ "group": "sluice.dev", "kind": "SniRoute", "name": format!("r{route}") });
        from_value(json!({
            "metadata": { "namespace": "owner", "name": format!("g{number}") },
            "spec": {
                "from": [{
                    "group": "sluice.dev", "kind": "SniRoute", "namespace": format!("other-{number}"),
                }],
                // The last of them is there.
                "to": (0..16).map(|n| to(10_000 * (15 - n) + number)).collect::<Vec<_>>(),
            },
        }))
        .unwrap()
    };
    let mut source = Source::of(&[]);
    for number in 0..others {
        source.builder.put_route(&claiming("owner", number, &hostnames, backend()));
        let namespace = format!("other-{number}");
        source.builder.put_route(&claiming(&namespace, others + number, &hostnames, backend()));
        source.builder.put_grant(&grant(number));
    }
    source.settle();
    let edited = claiming("owner", 0, &hostnames, vec![json!({ "address": "192.0.2.2:443" })]);
    let turns = [edited, claiming("owner", 0, &hostnames, backend())];
    let mut turns = turns.iter().cycle();
    let mut group = criterion.benchmark_group(format!("{} routes that share 64 names", 2 * others));
    group.sample_size(10);
    group.bench_function("one is edited (goal: 50 ms)", |bencher| {
        bencher.iter(|| {
            source.builder.put_route(turns.next().unwrap());
            source.settle();
        });
    });
    group.finish();
}

/// How long the longest slice of a settle is, and how long it is published. Not measured by
/// criterion, which knows means alone.
fn slices(_: &mut Criterion) {
    type Names = fn(u32) -> Vec<String>;
    let count = if is_measured() { 10_000 } else { 100 };
    let one: Names = |route| vec![format!("r{route}.example.com")];
    let own: Names = |route| (0..64).map(|name| format!("n{name}.r{route}.example.com")).collect();
    let same: Names = |_| (0..64).map(|name| format!("n{name}.example.com")).collect();
    for (what, count, names) in [
        ("a name each", count, one),
        ("64 names each", count, own),
        ("the same 64 names", count, same),
        ("the same 64 names", count * 12 / 100, same),
    ] {
        let mut source = Source::of(&[]);
        for number in 0..count {
            let backend = vec![json!({ "address": "192.0.2.1:443" })];
            let mut route = claiming("one", number % 1440, &names(number), backend);
            route.metadata.name = Some(format!("r{number}"));
            source.builder.put_route(&route);
        }
        let mut computation = source.builder.begin_delta();
        let mut took = Vec::new();
        let delta = loop {
            let begun = Instant::now();
            let delta = computation.go_on(SLICE);
            took.push(begun.elapsed());
            if let Some(delta) = delta {
                break delta;
            }
        };
        let begun = Instant::now();
        source.writer.update(delta.changes);
        let swapped = begun.elapsed();
        let (all, longest) = (took.iter().sum::<Duration>(), took.iter().max().unwrap());
        println!(
            "{count} routes with {what}: settled in {all:?}, longest slice {longest:?} \
             (goal: 50 ms), swapped in {swapped:?}"
        );
    }
}

/// What a source holds, and what it feeds.
struct Source {
    builder: Builder,
    writer: TableWriter,
    reader: TableReader,
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

    fn settle(&mut self) {
        let delta = self.builder.settle();
        self.writer.update(delta.changes);
    }

    fn serve(&mut self) {
        let delta = self.builder.settle();
        let applied = self.writer.update(delta.changes);
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
