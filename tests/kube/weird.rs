//! Objects that the API server takes and that are not as one expects: each hurts itself alone.

use std::net::SocketAddr;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::objects::{route, servers, service, slice};
use crate::place::{FINE, Place, addresses, lenient};
use crate::support::{ApiServer, PATIENCE, quick, slow, succeeded, within};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        quick!(what_has_nothing_in_it_leads_nowhere),
        quick!(names_are_as_long_as_they_may_be),
        quick!(slices_that_disagree_are_taken_together),
        quick!(a_slice_waits_for_its_service),
        quick!(a_service_changes_its_type_and_back),
        quick!(a_route_has_64_hostnames_and_16_backends),
        slow!(what_a_newer_version_writes_is_passed_over_or_told),
        slow!(what_is_wrong_from_the_start_keeps_its_name_from_others),
    ]
}

fn what_has_nothing_in_it_leads_nowhere() {
    let mut place = Place::start(ApiServer::shared(), "weird-empty");
    place.objects.put(&service("app"));
    place.objects.put(&route("app", "weird-empty", "app.test", "app"));
    let whole = slice("app", &place.servers[..1]);
    let without = |change: &dyn Fn(&mut Value)| {
        let mut slice = whole.clone();
        change(&mut slice);
        slice
    };
    for weird in [
        without(&|slice| slice["endpoints"] = json!([])),
        without(&|slice| slice["endpoints"] = json!(null)),
        without(&|slice| slice["ports"] = json!([])),
        without(&|slice| slice["ports"] = json!(null)),
        // Every port, which is no port to connect to.
        without(&|slice| slice["ports"] = json!([{ "name": "tls" }])),
        without(&|slice| slice["endpoints"][0]["conditions"] = json!({ "ready": false })),
        without(&|slice| slice["metadata"]["labels"] = json!({})),
    ] {
        place.objects.put(&whole);
        place.await_route("app", FINE, &place.servers[..1]);
        place.objects.put(&weird);
        place.await_route("app", FINE, &[]);
        assert!(place.refuses("app.test"), "{weird}");
        place.unharmed();
    }
    let mut portless = service("app");
    portless["spec"]["ports"] = json!([]);
    place.objects.put(&whole);
    place.objects.put(&portless);
    place.await_route("app", ["Accepted", "PortNotFound"], &[]);
    assert!(place.refuses("app.test"));
    place.unharmed();
    place.objects.put(&service("app"));
    place.await_route("app", FINE, &place.servers[..1]);
    assert_eq!(place.visit("app.test"), "one");
}

fn names_are_as_long_as_they_may_be() {
    let namespace = format!("weird-{}", "n".repeat(57));
    let (name, service_name) = (["r"; 127].join("."), "s".repeat(63));
    let hostname = [&*"h".repeat(63), &"i".repeat(63), &"j".repeat(63), &"k".repeat(61)].join(".");
    assert_eq!((namespace.len(), name.len(), hostname.len()), (63, 253, 253));
    let mut place = Place::start(ApiServer::shared(), &namespace);
    place.objects.put(&service(&service_name));
    place.objects.put(&slice(&service_name, &place.servers[1..]));
    place.objects.put(&route(&name, &namespace, &hostname, &service_name));
    place.await_route(&name, FINE, &place.servers[1..]);
    assert_eq!(place.visit(&hostname), "two");
    let label = format!("route=\"{name}\"");
    assert!(place.sluice.get("/metrics").1.contains(&label));
    place.unharmed();
}

fn slices_that_disagree_are_taken_together() {
    let mut place = Place::start(ApiServer::shared(), "weird-disagreeing");
    let [one, two] = place.servers;
    // Servers on other ports than the first two.
    let [other, _] = servers(["198.18.5.1", "198.18.5.2"]);
    let named = |name: &str, endpoints: &[SocketAddr]| {
        let mut slice = slice("app", endpoints);
        slice["metadata"]["name"] = json!(name);
        slice
    };
    place.objects.put(&service("app"));
    place.objects.put(&route("app", "weird-disagreeing", "app.test", "app"));

    // On the port's number: each is right about its own endpoints.
    place.objects.put(&named("app-1", &[one, two]));
    place.objects.put(&named("app-2", &[other]));
    let mut all = vec![one, two, other];
    all.sort_unstable();
    place.await_route("app", FINE, &all);
    place.unharmed();

    // On whether an endpoint is ready: it is, if one of them says so.
    let mut unready = named("app-2", &[one]);
    unready["endpoints"][0]["conditions"] = json!({ "ready": false });
    place.objects.put(&unready);
    place.await_route("app", FINE, &[one, two]);
    place.objects.put(&named("app-1", &[two]));
    place.await_route("app", FINE, &[two]);
    place.objects.put(&named("app-2", &[two]));
    place.objects.put(&named("app-1", &[]));
    place.await_route("app", FINE, &[two]);
    assert_eq!(place.visit("app.test"), "two");
    place.unharmed();
}

fn a_slice_waits_for_its_service() {
    let mut place = Place::start(ApiServer::shared(), "weird-orphan");
    place.objects.put(&slice("app", &place.servers[1..]));
    place.objects.put(&route("app", "weird-orphan", "app.test", "app"));
    place.await_route("app", ["Accepted", "BackendNotFound"], &[]);
    assert!(place.refuses("app.test"));
    place.unharmed();
    place.objects.put(&service("app"));
    place.await_route("app", FINE, &place.servers[1..]);
    assert_eq!(place.visit("app.test"), "two");
    place.objects.delete(&service("app"));
    place.await_route("app", ["Accepted", "BackendNotFound"], &[]);
    assert!(place.refuses("app.test"));
    place.unharmed();
}

fn a_service_changes_its_type_and_back() {
    let mut place = Place::start(ApiServer::shared(), "weird-type");
    let mut app = service("app");
    place.objects.put(&slice("app", &place.servers[1..]));
    place.objects.put(&route("app", "weird-type", "app.test", "app"));
    let ports = app["spec"]["ports"].clone();
    for spec in [
        json!({ "clusterIP": "None", "ports": ports }),
        json!({ "type": "ExternalName", "externalName": "nowhere.invalid", "ports": ports }),
        json!({ "type": "NodePort", "ports": ports }),
        json!({ "type": "ExternalName", "externalName": "nowhere.invalid" }),
        json!({ "type": "LoadBalancer", "ports": ports }),
        json!({ "type": "ClusterIP", "ports": ports }),
    ] {
        app["spec"] = spec;
        place.objects.put(&app);
        if app["spec"]["type"] == "ExternalName" {
            // Whatever slices there are, they are not the endpoints of that name.
            within(PATIENCE, "it is refused", || place.refuses("app.test").then_some(()));
        } else {
            place.await_route("app", FINE, &place.servers[1..]);
            assert_eq!(place.visit("app.test"), "two");
        }
        place.unharmed();
    }
}

fn a_route_has_64_hostnames_and_16_backends() {
    let mut place = Place::start(ApiServer::shared(), "weird-wide");
    let hostnames: Vec<String> = (0..64).map(|number| format!("wide-{number}.test")).collect();
    let services: Vec<String> = (0..16).map(|number| format!("wide-{number}")).collect();
    let backends: Vec<Value> = services
        .iter()
        .map(|name| json!({ "service": { "name": name, "port": "tls" }, "weight": 1_000_000 }))
        .collect();
    for name in &services {
        place.objects.put(&service(name));
        place.objects.put(&slice(name, &place.servers));
    }
    let mut wide = route("wide", "weird-wide", "wide.test", "app");
    wide["spec"]["hostnames"] = json!(hostnames);
    wide["spec"]["backends"] = json!(backends);
    place.objects.put(&wide);
    place.await_route("wide", FINE, &place.servers);
    hostnames.iter().for_each(|name| drop(place.visit(name)));
    // Endpoints come by a watch of their own.
    within(PATIENCE, "every backend has its endpoints", || {
        let routes = place.sluice.routes();
        let route = routes.iter().find(|route| route["name"] == "wide").unwrap();
        assert_eq!(route["hostnames"].as_array().unwrap().len(), 64);
        let backends = route["backends"].as_array().unwrap();
        assert_eq!(backends.len(), 16);
        backends.iter().all(|backend| addresses(backend) == place.servers).then_some(())
    });
    place.unharmed();
}

/// A cluster whose definition takes any route.
fn anything_goes() -> ApiServer {
    let api = ApiServer::start();
    succeeded(api.admin().apply(&lenient("sniroutes.sluice.dev", "SniRoute", "v1alpha1")));
    within(PATIENCE, "its routes are served", || {
        api.admin().kubectl(&["get", "sniroutes"]).status.success().then_some(())
    });
    api
}

fn what_a_newer_version_writes_is_passed_over_or_told() {
    let api = anything_goes();
    let mut place = Place::start(&api, "weird-newer");
    place.objects.put(&service("app"));
    place.objects.put(&slice("app", &place.servers[..1]));
    let plain = route("new", "weird-newer", "new.test", "app");
    let with = |path: &str, value: Value| {
        let mut route = plain.clone();
        let (parent, field) = path.rsplit_once('/').unwrap();
        match route.pointer_mut(path) {
            Some(there) => *there = value,
            None => route.pointer_mut(parent).unwrap()[field] = value,
        }
        route
    };
    // Fields that are not known here make no difference, except directly in the spec.
    let passed_over = [
        with("/spec/backends/0/retries", json!(3)),
        with("/spec/backends/0/service/group", json!("multicluster.x-k8s.io")),
        with("/spec/loadBalancing", json!({ "hash": { "field": "alpn" } })),
        with("/spec/timeouts", json!({ "handshake": "5s" })),
        with("/extra", json!([[[[{}]]]])),
    ];
    for (number, mut route) in passed_over.into_iter().enumerate() {
        let hostname = format!("new-{number}.test");
        route["spec"]["hostnames"] = json!([hostname]);
        place.objects.put(&route);
        within(PATIENCE, &route.to_string(), || (!place.refuses(&hostname)).then_some(()));
        place.await_route("new", FINE, &place.servers[..1]);
        place.unharmed();
    }
    // Values that are not known here are, and the route is served as it was.
    place.objects.put(&plain);
    within(PATIENCE, "it is as it was at first", || (!place.refuses("new.test")).then_some(()));
    for (route, why) in [
        (with("/spec/loadBalancing", json!({ "policy": "Sticky" })), "Sticky"),
        (with("/spec/backends/0", json!({ "bucket": { "name": "x" } })), "neither service nor"),
        (with("/spec/backends", json!([])), "at least one backend"),
        (with("/spec/backends", json!(null)), "at least one backend"),
        (with("/spec/backends/0/weight", json!(-1)), "-1"),
        (with("/spec/backends/0/service/port", json!(65_536)), "65536"),
        (with("/spec/hostnames", json!([])), "at least one hostname"),
        (with("/spec/hostnames", json!({ "exact": "new.test" })), "object"),
        (with("/spec/hostnames/0", json!("not a name")), "not a name"),
        (with("/spec/timeouts", json!({ "idle": 60 })), "60"),
        (with("/spec/alpn", json!([""])), "ALPN"),
        (with("/spec/mirror", json!({ "service": { "name": "other", "port": 1 } })), "mirror"),
    ] {
        place.objects.put(&route);
        place.await_invalid("new", why, true);
        assert_eq!(place.visit("new.test"), "one", "{route}");
        place.unharmed();
    }
    // Who deletes it is rid of it.
    place.objects.delete(&plain);
    within(PATIENCE, "it is gone", || place.refuses("new.test").then_some(()));
    place.unharmed();
}

fn what_is_wrong_from_the_start_keeps_its_name_from_others() {
    let api = anything_goes();
    let mut place = Place::start(&api, "weird-first");
    let mut first = route("first", "weird-first", "first.test", "good");
    first["spec"]["loadBalancing"] = json!({ "policy": "Sticky" });
    place.objects.put(&first);
    place.await_invalid("first", "Sticky", false);
    assert!(place.refuses("first.test"));
    place.unharmed();
    // In its own namespace another one may be served under the name.
    place.objects.put(&route("second", "weird-first", "first.test", "good"));
    place.await_route("second", FINE, &place.servers);
    assert!(!place.refuses("first.test"));
    place.unharmed();
    first["spec"]["loadBalancing"] = json!({ "policy": "Random" });
    first["spec"]["hostnames"] = json!(["mended.test"]);
    place.objects.put(&first);
    within(PATIENCE, "it is mended", || (!place.refuses("mended.test")).then_some(()));
    place.unharmed();
}
