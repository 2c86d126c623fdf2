//! What the paths that every connection takes allocate: nothing that a client could make large.

use std::net::Ipv4Addr;
use std::sync::Arc;

use allocation_counter::measure;
use sluice::limiter::{LimitSet, Limiter, SourceTable, Tick};
use sluice::policy::Balancing;
use sluice::routing::{
    BackendKey, EndpointRequest, Hostname, RouteKey, RouteSpec, Snapshot, TrafficPolicy, channel,
    choose,
};
use sluice::tls::{HelloReader, InvalidHello, Progress};

const HELLO: &[u8] = include_bytes!("../corpus/hello/chromium.bin");

fn route(hostname: &str, alpn: &[&str]) -> RouteSpec {
    RouteSpec {
        alpn: alpn.iter().map(|protocol| (*protocol).into()).collect(),
        backends: vec![(BackendKey::address("", "one"), 1)],
        ..RouteSpec::new(
            RouteKey::sni_route("ns", hostname),
            hostname.parse::<Hostname>().unwrap().into(),
        )
        .on(&["https"])
    }
}

#[test]
fn a_lookup_allocates_nothing() {
    let (mut writer, reader) = channel();
    let routes = ["a.example.com", "*.example.com", "*.b.c.example.com", "*"];
    let routes = routes.iter().map(|name| route(name, &[])).chain([route("h2.com", &["h2"])]);
    writer.apply(Snapshot { routes: routes.collect(), ..Snapshot::default() });
    let longest = format!("{}com", "a.".repeat(125));
    let table = reader.table();
    for (name, listener, found) in [
        (Some("a.example.com"), "https", true),
        (Some("x.y.b.c.example.com"), "https", true),
        (Some(&*longest), "https", true),
        (Some("h2.com"), "https", true),
        (None, "https", true),
        (Some("a.example.com"), "other", false),
    ] {
        let mut result = None;
        let count = measure(|| result = table.lookup(name, listener, []));
        assert_eq!((count.count_total, result.is_some()), (0, found), "{name:?}");
    }
}

/// Of what the allocator was asked for, so that it is the same on any machine.
#[test]
fn a_hostname_takes_few_bytes_of_the_table() {
    const ROUTES: usize = 1000;
    const HOSTNAMES_A_ROUTE: usize = 64;
    /// Its name, of 33 bytes here, is there once, beside those of its route. 16 bytes find it. The
    /// rest is its part of the route.
    const MOST_BYTES: i64 = 66;
    let host = |route: usize, n: usize| format!("app-{n:02}.team-{route:04}.prod.example.com");
    let routes = (0..ROUTES).map(|number| {
        let hostnames =
            (0..HOSTNAMES_A_ROUTE).map(|n| host(number, n).parse::<Hostname>().unwrap());
        let mut route = route(&host(number, 0), &[]);
        route.attachments[0].hostnames = hostnames.collect();
        route
    });
    let mut served = None;
    let count = measure(|| {
        let (mut writer, reader) = channel();
        writer.apply(Snapshot { routes: routes.collect(), ..Snapshot::default() });
        served = Some((writer, reader));
    });
    let (_, reader) = served.unwrap();
    assert_eq!(reader.table().hostnames(), ROUTES * HOSTNAMES_A_ROUTE);
    let bytes = count.bytes_current / (ROUTES * HOSTNAMES_A_ROUTE) as i64;
    assert!(bytes <= MOST_BYTES, "{bytes} bytes for each");
}

/// Nor does it keep anything: what counts the connection is the endpoint's own.
#[test]
fn a_choice_of_an_endpoint_allocates_nothing() {
    let key = |number: usize| BackendKey::address("", &number.to_string());
    for policy in Balancing::ALL {
        for count in [3u8, 200] {
            let backends = vec![(key(0), 3), (key(1), 1)];
            let spec = RouteSpec {
                backends,
                policy: TrafficPolicy::of(&policy.into()),
                ..route("a.com", &[])
            };
            let addresses = |net| (0..count).map(|n| ([10, 0, net, n], 443).into()).collect();
            let endpoints = [(key(0), addresses(0)), (key(1), addresses(1))].into_iter().collect();
            let (mut writer, reader) = channel();
            writer.apply(Snapshot { routes: vec![spec], endpoints, ..Snapshot::default() });
            let table = reader.table();
            let route = table.routes().next().unwrap();
            let choice = |number| {
                let request = EndpointRequest::new([192, 0, 2, 7].into(), &[], number);
                drop(choose(route, &request).unwrap());
            };
            // The clock and the thread have something once.
            choice(0);
            let count = measure(|| (0..100).for_each(choice));
            assert_eq!(count.count_total, 0, "{policy:?}");
        }
    }
}

/// One limiter may have an eighth of it.
#[test]
fn a_full_table_of_sources_takes_few_bytes() {
    const SOURCES: usize = 65_536;
    const MOST_BYTES: i64 = 8 << 20;
    let limits = serde_json::json!({ "perSource": { "connections": 1 } });
    let limits = LimitSet::of(&serde_json::from_value(limits).unwrap()).unwrap();
    let table = Arc::<SourceTable>::default();
    let limiter = |n: u8| Arc::new(Limiter::new(&table, &n.to_string()));
    let limiters: Vec<_> = (0..12).map(limiter).collect();
    let now = Tick::now();
    let mut permits = Vec::with_capacity(12 * SOURCES / 8);
    let count = measure(|| {
        for limiter in &limiters {
            let sources = (0..SOURCES as u32 / 8).map(|source| Ipv4Addr::from(source).into());
            permits.extend(sources.filter_map(|source| limiter.admit(&limits, source, now).ok()));
        }
    });
    assert_eq!(table.len(), SOURCES);
    assert!(count.bytes_current <= MOST_BYTES, "{count:?}");
    let connections = measure(|| permits.clear());
    assert!(table.is_empty() && connections.count_total == 0, "{connections:?}");
}

#[test]
fn a_hello_in_one_record_is_not_copied() {
    let mut progress = Progress::Incomplete;
    let count = measure(|| progress = HelloReader::new(16384).read(HELLO));
    assert!(matches!(progress, Progress::Hello(_)));
    // Its name and its protocols are kept; nothing else, and nothing large on the way.
    assert_eq!(count.count_current, 2, "{count:?}");
    assert!(count.count_total <= 4 && count.bytes_max <= 64, "{count:?}");
}

#[test]
fn a_declared_length_allocates_nothing() {
    // A handshake message of 16 MiB, and one of the most that is taken, in their first bytes.
    for (length, refused) in [([0xff, 0xff, 0xff], true), ([0x00, 0x40, 0x00], false)] {
        let mut bytes = vec![22, 3, 1, 0x40, 0x00, 1];
        bytes.extend(length);
        let mut progress = Progress::Incomplete;
        let count = measure(|| progress = HelloReader::new(16384).read(&bytes));
        let too_large = matches!(progress, Progress::Refused(InvalidHello::TooLarge));
        assert_eq!(too_large, refused);
        assert!(count.bytes_max <= bytes.len() as u64, "{count:?}");
    }
}
