//! `/routes`, and the way back from it to a table.

use super::*;

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({ "type": kind, "status": status, "reason": reason, "message": message })
}

fn endpoint(address: &str, active: u32) -> Value {
    json!({ "address": address, "state": "serving", "activeConnections": active })
}

#[test]
fn routes_show_everything_in_force_and_everything_refused() {
    let mut server = Server::start();
    assert_eq!(server.routes(), json!({ "generation": 0, "routes": [] }));
    server.writer.apply(snapshot());
    let said = [
        status_of(key("data", "kafka"), true, "accepted"),
        status_of(key("web", "bad"), false, "hostname \"a..b\" has an empty label"),
    ]
    .map(Arc::new);
    server.state.statuses.hold().update([].into_iter(), &said);
    let table = Arc::clone(&server.state.table.table());
    let found = table.lookup(Some("kafka.example.com"), "https", [&b"h2"[..]]).expect("kafka");
    let endpoints = found.route.backends[0].backend.endpoints();
    let _active = endpoints[0].begin(Moment::now(), &EjectionRule::OFF);
    // For longer than the test takes.
    endpoints[1].failed(Moment::now() + Duration::from_secs(600));
    let mut resting = endpoint("[fd00::1]:9093", 0);
    resting["state"] = "resting".into();

    let shared = [endpoint("10.0.0.1:9093", 1), resting];
    let race = json!({ "after": "300ms", "budget": 20 });
    let health = json!({ "passive": { "failures": 3, "ejectFor": "10s", "maxEjectFor": "5m" } });
    let from = |own: &str| {
        json!({
            "health.passive.ejectFor": "default", "health.passive.failures": "default",
            "health.passive.maxEjectFor": "default", "loadBalancing.locality": "default",
            "loadBalancing.policy": own,
            "loadBalancing.race.after": "default", "loadBalancing.race.budget": "default",
            "timeouts.connect": own, "timeouts.idle": own,
        })
    };
    assert_eq!(
        server.routes(),
        json!({ "generation": 1, "routes": [
            {
                "kind": "SniRoute", "namespace": "data", "name": "kafka", "served": true, "created": 1_700_000_000,
                "hostnames": ["kafka.example.com", "*.kafka.example.com"],
                "listeners": ["https"], "alpn": ["h2", "http/1.1"],
                "loadBalancing": { "policy": "LeastConnections", "locality": "Hints", "race": race },
                "health": health,
                "timeouts": { "connect": "5s", "idle": "1s500ms" },
                "policyFrom": from("route"),
                "backends": [
                    { "backend": "data/kafka:9093", "kind": "service", "weight": 90,
                      "endpoints": shared },
                    { "backend": "data/kafka:tls", "kind": "service", "weight": 0,
                      "endpoints": [endpoint("10.0.0.3:9094", 0)] },
                    { "backend": "far.example:9093", "kind": "address", "weight": 10,
                      "endpoints": [] },
                ],
                "conditions": [
                    condition("Accepted", "True", "Accepted", "accepted"),
                    condition("ResolvedRefs", "True", "ResolvedRefs", ""),
                    condition("Programmed", "True", "Programmed", ""),
                ],
            },
            {
                "kind": "SniRoute", "namespace": "web", "name": "any", "served": true, "hostnames": ["*"],
                "anyOn": { "except": ["redis"] },
                "listeners": [], "alpn": [],
                "loadBalancing": { "policy": "RoundRobin", "locality": "Hints", "race": race },
                "health": health,
                "timeouts": { "connect": "5s", "idle": "1h" },
                "policyFrom": from("default"),
                "backends": [{ "backend": "data/kafka:9093", "kind": "service", "weight": 1,
                               "endpoints": shared }],
                "conditions": [],
            },
            {
                "kind": "SniRoute", "namespace": "web", "name": "bad", "served": false, "hostnames": [],
                "listeners": [], "alpn": [], "backends": [],
                "conditions": [
                    condition("Accepted", "False", "InvalidHostname",
                              "hostname \"a..b\" has an empty label"),
                    condition("ResolvedRefs", "True", "ResolvedRefs", ""),
                    condition("Programmed", "False", "Programmed", ""),
                ],
            },
        ] })
    );
}

#[test]
fn a_report_gives_back_the_table_that_it_came_from() {
    let mut server = Server::start();
    server.writer.apply(snapshot());
    let refused = status_of(key("web", "bad"), false, "refused");
    server.state.statuses.hold().update([].into_iter(), &[Arc::new(refused)]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let fetched = runtime.expect("a runtime").block_on(fetch(&server.url("")));
    let (report, unreadable) = fetched.expect("a report");
    let (again, invalid) = report.snapshot();
    assert_eq!((unreadable, invalid), (vec![], vec![]));
    let by_key = |mut routes: Vec<RouteSpec>| {
        routes.sort_by(|a, b| a.key.cmp(&b.key));
        routes
    };
    assert_eq!(by_key(again.routes.clone()), by_key(snapshot().routes));
    for (backend, endpoints) in snapshot().endpoints {
        assert_eq!(again.endpoints.get(&backend), Some(&endpoints));
    }
    let remote = table(again);
    for (name, alpn) in
        [(Some("kafka.example.com"), "h2"), (Some("kafka.example.com"), "x"), (None, "h2")]
    {
        let query =
            Query { name: name.map(Into::into), alpn: vec![alpn.to_owned()], ..Query::default() };
        let local = explain(&server.state.table.table(), &query).to_string();
        assert_eq!(explain(&remote, &query).to_string(), local);
    }
}

#[test]
fn a_report_with_a_fault_names_the_route() {
    let good = json!({ "generation": 1, "later": true, "routes": [
        { "namespace": "ns", "name": "r", "served": true, "hostnames": ["a.com"],
          "loadBalancing": { "policy": "Random" }, "unknown": {},
          "policyFrom": { "loadBalancing.policy": "route" }, "backends": [
            { "backend": "ns/s:1", "kind": "service", "weight": 1, "endpoints": [] }] }] });
    let read = |value: &Value| {
        let (report, unreadable) =
            RoutesReport::read(value.to_string().as_bytes()).expect("a report");
        let (snapshot, invalid) = report.snapshot();
        let faults = unreadable.iter().chain(&invalid).map(ToString::to_string).collect();
        let routes: Vec<_> = snapshot.routes.iter().map(|route| route.key.to_string()).collect();
        (routes, Vec::from_iter::<Vec<String>>(faults))
    };
    let both = |value: &Value| {
        let mut value = value.clone();
        let mut other = good["routes"][0].clone();
        other["name"] = json!("other");
        value["routes"].as_array_mut().expect("routes").push(other);
        read(&value)
    };
    assert_eq!(both(&good), (vec!["ns/r".to_owned(), "ns/other".to_owned()], vec![]));
    for (pointer, bad) in
        [("/routes/0/hostnames/0", json!("a..b")), ("/routes/0/backends/0/backend", json!("s"))]
    {
        let mut value = good.clone();
        *value.pointer_mut(pointer).expect(pointer) = bad.clone();
        let (routes, faults) = both(&value);
        let bad = bad.as_str().expect("text");
        assert!(routes == ["ns/other"] && faults.len() == 1, "{routes:?} {faults:?}");
        assert!(faults[0].starts_with("SniRoute ns/r: ") && faults[0].contains(bad), "{faults:?}");
        value["routes"][0]["served"] = json!(false);
        assert_eq!(read(&value), (vec![], vec![]), "refused routes are skipped");
    }
    for (field, bad, expected) in [
        (
            "loadBalancing",
            json!({ "policy": "Best" }),
            r#""Best" is not a policy; write one of RoundRobin"#,
        ),
        ("kind", json!("UDPRoute"), "unknown variant `UDPRoute`"),
    ] {
        let mut value = good.clone();
        value["routes"][0][field] = bad;
        let (routes, faults) = both(&value);
        assert!(routes == ["ns/other"] && faults.len() == 1, "{routes:?} {faults:?}");
        assert!(faults[0].contains(" ns/r: ") && faults[0].contains(expected), "{faults:?}");
    }
}

/// An installation may have thousands of networks, and thousands of routes.
#[test]
fn routes_do_not_repeat_the_access_lists_of_the_installation() {
    let policy = |value: Value| serde_json::from_value::<Policy>(value).expect("a policy");
    let defaults = policy(json!({ "access": { "allow": ["10.0.0.0/8"] } }));
    let ceiling = policy(json!({ "access": { "deny": ["10.9.0.0/16"] } }));
    let layers = Layers::new(&defaults, ceiling);
    let mut lists = AccessLists::default();
    let mut route = |name: &str, asked: Value| {
        let (effective, _) = layers.effective(&policy(asked));
        let policy = Arc::new(TrafficPolicy::new(effective, &mut lists));
        RouteSpec { policy, ..plain(key("web", name), &format!("{name}.example")) }
    };
    let routes = vec![
        route("one", json!({})),
        route("other", json!({})),
        route("own", json!({ "access": { "allow": ["192.0.2.0/24"] } })),
    ];
    let (mut writer, reader) = channel();
    writer.apply(Snapshot { routes: routes.clone(), ..Snapshot::default() });
    let report = RoutesReport::new(&reader.table(), &[]);
    let text = serde_json::to_string(&report).expect("JSON");
    for network in ["10.0.0.0/8", "10.9.0.0/16", "192.0.2.0/24"] {
        assert_eq!(text.matches(network).count(), 1, "{network} in {text}");
    }
    let (read, unreadable) = RoutesReport::read(text.as_bytes()).expect("a report");
    let (snapshot, invalid) = read.snapshot();
    assert_eq!((unreadable, invalid), (vec![], vec![]));
    assert_eq!(snapshot.routes, routes);
    let list = |index: usize| std::ptr::from_ref(snapshot.routes[index].policy.access());
    assert!(list(0) == list(1) && list(1) != list(2));
}

#[test]
fn near_endpoints_are_shown_with_the_ring_in_use_and_read_back() {
    let backend = BackendKey::address("web", "x");
    let addresses = [1, 2].map(|last| SocketAddr::from(([10, 0, 0, last], 443)));
    let place = |ring: Ring, node: &str, zone: &str| {
        Arc::new(EndpointPlace { ring, node: Some(node.into()), zone: Some(zone.into()) })
    };
    let places: EndpointPlaces = [place(Ring::Any, "n1", "a"), place(Ring::Zone, "n2", "b")].into();
    let snapshot = Snapshot {
        routes: vec![RouteSpec {
            backends: vec![(backend.clone(), 1)],
            ..plain(key("web", "near"), "near.example")
        }],
        endpoints: [(backend.clone(), addresses.into())].into_iter().collect(),
        places: [(backend.clone(), places.clone())].into_iter().collect(),
        ..Snapshot::default()
    };
    let (mut writer, reader) = channel();
    writer.apply(snapshot);
    let report = || RoutesReport::new(&reader.table(), &[]);
    let shown = |field: &str| {
        let report = serde_json::to_value(report()).expect("JSON");
        report["routes"][0]["backends"][0].pointer(field).cloned()
    };
    assert_eq!(shown("/ring"), Some(json!("zone")));
    assert_eq!(shown("/endpoints/0/ring"), None);
    assert_eq!(shown("/endpoints/1/ring"), Some(json!("zone")));
    assert_eq!(shown("/endpoints/1/node"), Some(json!("n2")));
    assert_eq!(shown("/endpoints/1/zone"), Some(json!("b")));
    assert_eq!(report().snapshot().0.places.get(&backend), Some(&places));

    let route = reader.table().routes().next().cloned().expect("a route");
    let endpoint = route.backends[0].backend.endpoints()[1].clone();
    // For longer than the test takes.
    endpoint.failed(Moment::now() + Duration::from_secs(600));
    assert_eq!(shown("/ring"), Some(json!("any")));
}

#[test]
fn routes_of_one_name_and_two_kinds_are_two() {
    let (mut writer, reader) = channel();
    let sni = key("web", "r");
    let tls = RouteKey::new(Kind::TlsRoute, "web", "r");
    let routes = vec![plain(sni.clone(), "sni.example"), plain(tls.clone(), "tls.example")];
    writer.apply(Snapshot { routes, ..Snapshot::default() });
    let table = reader.table();
    for (key, name) in [(&sni, "sni.example"), (&tls, "tls.example")] {
        let found = table.lookup(Some(name), "https", []).expect("a route");
        assert_eq!(&found.route.spec.key, key);
        found.route.stats.ended(Outcome::Completed).fetch_add(1, Ordering::Relaxed);
    }
    let statuses = [sni.clone(), tls.clone()].map(|key| Arc::new(status_of(key, true, "")));
    let report = RoutesReport::new(&table, &statuses);
    let kinds: Vec<_> =
        report.routes.iter().map(|one| (one.route.kind, one.conditions.len())).collect();
    assert_eq!(kinds, [(Kind::SniRoute, 3), (Kind::TlsRoute, 3)]);
    let (again, _) = report.snapshot();
    assert_eq!(again.routes.iter().map(|route| &route.key).collect::<Vec<_>>(), [&sni, &tls]);
}
