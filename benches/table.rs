//! The table: what a lookup, a change and the whole of it cost, up to a million hostnames.
//!
//! Without `--bench`, as in a test, a small table shows that this works.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::env;
use std::fs;

use allocation_counter::measure;
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, criterion_group, criterion_main};
use sluice::routing::{
    BackendKey, Hostname, MOST_CLAIMED_HOSTNAMES, MOST_OFFERS, MOST_ROUTES_A_HOSTNAME, MatchKind,
    RouteKey, RouteSpec, Snapshot, TableChanges, TableReader, TableWriter, channel,
};

/// How many hostnames there are.
const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];
const SIZE_IN_A_TEST: usize = 1_000;
/// The most that a route may have.
const HOSTNAMES_A_ROUTE: usize = 64;
/// The most protocols that a route may have.
const PROTOCOLS: usize = 16;
/// One hostname of so many is a wildcard.
const WILDCARD_EVERY: usize = 10;
/// So many different names are looked up in turn, so that not all that they touch is in a cache.
const NAMES: usize = 1 << 16;
/// Takes them out of their order: a prime, and so of no common measure with any size.
const STRIDE: usize = 7_368_787;
const LISTENER: &str = "https";
/// What a million hostnames may take.
const MOST_MEBIBYTES: f64 = 60.0;

criterion_group!(benches, table, with_protocols, worst);
criterion_main!(benches);

fn table(criterion: &mut Criterion) {
    let measured = env::args().any(|argument| argument == "--bench");
    // The largest first: its memory is measured in a process that has not been used yet.
    let sizes = if measured { SIZES.to_vec() } else { vec![SIZE_IN_A_TEST] };
    for size in sizes.into_iter().rev() {
        let (mut writer, reader) = report_memory(size);
        let mut group = criterion.benchmark_group(format!("{size} hostnames"));
        bench_lookups(&mut group, &reader, size);
        bench_change(&mut group, &mut writer, size);
        drop((writer, reader));
        group.sample_size(10);
        group.bench_function("all at once", |bencher| {
            bencher.iter_batched(|| snapshot(size), served, BatchSize::PerIteration);
        });
        group.finish();
    }
}

/// Makes the table, and says what it takes.
fn report_memory(size: usize) -> (TableWriter, TableReader) {
    let before = resident();
    let mut table = None;
    let allocated = measure(|| table = Some(served(snapshot(size))));
    let mebibytes = |bytes: i64| bytes as f64 / f64::from(1 << 20);
    assert!(
        size < 1_000_000 || mebibytes(allocated.bytes_current) < MOST_MEBIBYTES,
        "{allocated:?}"
    );
    println!(
        "{size} hostnames take {:.1} MiB in {} allocations; {:.1} MiB more are resident",
        mebibytes(allocated.bytes_current),
        allocated.count_current,
        mebibytes(resident() - before),
    );
    table.unwrap()
}

fn bench_lookups(group: &mut BenchmarkGroup<'_, WallTime>, reader: &TableReader, size: usize) {
    let names = |kind: fn(usize) -> Option<String>| -> Vec<String> {
        (0..NAMES).filter_map(|number| kind(number * STRIDE % size)).collect()
    };
    let exact = names(|number| (!is_wildcard(number)).then(|| name(number)));
    let wildcard = names(|number| is_wildcard(number).then(|| format!("www.{}", name(number))));
    let miss = names(|number| Some(format!("www.no-{}", name(number))));
    let table = reader.table();
    let mut bench = |what: &str, names: &[String], found: fn(Option<MatchKind<'_>>) -> bool| {
        let mut turns = names.iter().cycle();
        group.bench_function(format!("lookup of {what} (goal: 1 µs)"), |bencher| {
            bencher.iter(|| {
                let name = turns.next().unwrap();
                let kind = table.lookup(Some(name), LISTENER, []).map(|found| found.kind);
                assert!(found(kind), "{name}: {kind:?}");
            });
        });
    };
    bench("an exact name", &exact, |kind| kind == Some(MatchKind::Exact));
    bench("a name under a wildcard", &wildcard, |kind| {
        matches!(kind, Some(MatchKind::Wildcard(_)))
    });
    bench("a name that nobody has", &miss, |kind| kind.is_none());
}

/// A route changes back and forth.
fn bench_change(group: &mut BenchmarkGroup<'_, WallTime>, writer: &mut TableWriter, size: usize) {
    let change = |label: &str| {
        let mut changed = route(size / HOSTNAMES_A_ROUTE / 2, size);
        let others = changed.hostnames().take(HOSTNAMES_A_ROUTE - 1).map(Hostname::owned);
        let new: Hostname = format!("{label}.changed.test").parse().unwrap();
        changed.attachments[0].hostnames = others.chain([new]).collect();
        TableChanges {
            routes: vec![(changed.key.clone(), Some(changed))],
            ..TableChanges::default()
        }
    };
    let changes = [change("a"), change("b")];
    let mut turns = changes.iter().cycle();
    group.bench_function("one changed route", |bencher| {
        let next = || turns.next().unwrap().clone();
        bencher.iter_batched(
            next,
            |change| assert!(writer.update(change).table),
            BatchSize::PerIteration,
        );
    });
}

/// Routes of the most hostnames and protocols, each with hostnames of its own; and as many for the
/// same hostnames as may be.
fn with_protocols(criterion: &mut Criterion) {
    let measured = env::args().any(|argument| argument == "--bench");
    let routes = if measured { 10_000 } else { 200 };
    let name =
        format!("{routes} routes of {HOSTNAMES_A_ROUTE} hostnames and {PROTOCOLS} protocols");
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20);
    for (what, routes_a_hostname) in
        [("own hostnames", 1), ("the same hostnames", MOST_ROUTES_A_HOSTNAME)]
    {
        let spec = |number: usize, alpn: &str| {
            let size = routes * HOSTNAMES_A_ROUTE;
            let own = route(number, size);
            let attachments = route(number / routes_a_hostname, size).attachments;
            let alpn = (0..PROTOCOLS).map(|n| format!("{alpn}-{number}-{n}").into()).collect();
            RouteSpec { attachments, alpn, ..own }
        };
        let all = (0..routes).map(|number| spec(number, "p")).collect();
        let (mut writer, _reader) = served(Snapshot { routes: all, ..Snapshot::default() });
        let changes = ["a", "b"].map(|alpn| {
            let changed = spec(routes / 2, alpn);
            TableChanges {
                routes: vec![(changed.key.clone(), Some(changed))],
                ..TableChanges::default()
            }
        });
        let mut turns = changes.iter().cycle();
        group.bench_function(format!("one changed route, {what}"), |bencher| {
            let next = || turns.next().unwrap().clone();
            bencher.iter_batched(
                next,
                |change| assert!(writer.update(change).table),
                BatchSize::PerIteration,
            );
        });
    }
}

/// The most that one hello can cost: eight hostnames that cover its name have as many routes as one
/// may have, with as many protocols, and none takes it; a wildcard is claimed at each other depth;
/// and it offers thousands of protocols, of which the first are those of routes of another listener,
/// or these take any.
fn worst(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("the worst table");
    let pairs =
        |count: usize| (0..count).map(|n| vec![format!("{n}-a"), format!("{n}-b")]).collect();
    let offered = |number| {
        (0..PROTOCOLS).map(|n| format!("offer-{}", (number + 2 * n) % MOST_OFFERS)).collect()
    };
    let any = |_| Vec::new();
    let cases: [(_, _, &dyn Fn(usize) -> Vec<String>); 3] = [
        ("the worst hello (goal: 20 µs)", vec![vec!["other".to_owned()]], &offered),
        ("the same, of routes with two of eight listeners (goal: 20 µs)", pairs(4), &offered),
        ("the same, of routes without protocols (goal: 20 µs)", pairs(4), &any),
    ];
    for (what, elsewhere, asked) in cases {
        let (_writer, reader) = served(worst_snapshot(elsewhere, asked));
        let table = reader.table();
        let name = vec!["a"; DEEPEST].join(".");
        let offers: Vec<String> = (0..4000).map(|number| format!("offer-{number}")).collect();
        let ask = || table.lookup(Some(&name), LISTENER, offers.iter().map(String::as_bytes));
        assert!(ask().is_none());
        group.bench_function(what, |bencher| bencher.iter(ask));
    }
}

/// The most labels that a name of 253 characters has.
const DEEPEST: usize = 127;

/// `elsewhere_on` are the listeners of other routes, and `asked` are their protocols.
fn worst_snapshot(
    elsewhere_on: Vec<Vec<String>>,
    asked: &dyn Fn(usize) -> Vec<String>,
) -> Snapshot {
    let covering =
        (1..=MOST_CLAIMED_HOSTNAMES).map(|labels| ["*"].into_iter().chain(vec!["a"; labels]));
    let covering: Vec<String> = covering.map(|name| name.collect::<Vec<_>>().join(".")).collect();
    let elsewhere = (1..DEEPEST).map(|labels| format!("*.{}", vec!["b"; labels].join(".")));
    let elsewhere: Vec<String> = elsewhere.collect();
    let claim = |name: String, hostnames: &[String], on: &[&str], alpn: Vec<String>| {
        let hostnames = hostnames.iter().map(|name| name.parse::<Hostname>().unwrap()).collect();
        RouteSpec {
            alpn: alpn.into_iter().map(Into::into).collect(),
            backends: route(0, 1).backends,
            ..RouteSpec::new(RouteKey::sni_route("bench", &name), hostnames).on(on)
        }
    };
    let mut routes: Vec<RouteSpec> = elsewhere
        .chunks(HOSTNAMES_A_ROUTE)
        .enumerate()
        .map(|(n, some)| claim(format!("depth-{n}"), some, &[LISTENER], Vec::new()))
        .collect();
    for number in 0..MOST_ROUTES_A_HOSTNAME {
        let own = (0..PROTOCOLS).map(|n| format!("p-{number}-{n}")).collect();
        routes.push(claim(format!("own-{number}"), &covering, &[LISTENER], own));
        for (group, listeners) in elsewhere_on.iter().enumerate() {
            let on: Vec<&str> = listeners.iter().map(String::as_str).collect();
            let name = format!("other-{group}-{number}");
            routes.push(claim(name, &covering, &on, asked(number)));
        }
    }
    Snapshot { routes, ..Snapshot::default() }
}

fn served(snapshot: Snapshot) -> (TableWriter, TableReader) {
    let (mut writer, reader) = channel();
    assert!(writer.apply(snapshot).table);
    (writer, reader)
}

fn snapshot(size: usize) -> Snapshot {
    let routes = size.div_ceil(HOSTNAMES_A_ROUTE);
    let routes: Vec<RouteSpec> = (0..routes).map(|number| route(number, size)).collect();
    Snapshot { routes, ..Snapshot::default() }
}

fn route(number: usize, size: usize) -> RouteSpec {
    let first = number * HOSTNAMES_A_ROUTE;
    let hostname = |number: usize| match is_wildcard(number) {
        true => format!("*.{}", name(number)),
        false => name(number),
    };
    let hostnames = first..size.min(first + HOSTNAMES_A_ROUTE);
    RouteSpec {
        created: Some(1_700_000_000),
        backends: vec![(BackendKey::address("", &format!("backend-{}", number % 100)), 1)],
        ..RouteSpec::new(
            RouteKey::sni_route("bench", &format!("route-{number}")),
            hostnames.map(|number| hostname(number).parse::<Hostname>().unwrap()).collect(),
        )
    }
}

fn is_wildcard(number: usize) -> bool {
    number.is_multiple_of(WILDCARD_EVERY)
}

fn name(number: usize) -> String {
    format!("app-{number}.team-{}.example.com", number % 997)
}

/// What the process has in memory, in bytes.
fn resident() -> i64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: i64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
