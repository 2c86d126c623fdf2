//! Objects that the API server takes and that are not as one expects: each hurts itself alone.

use std::net::SocketAddr;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use testkit::Greeted;

use crate::controlled::Sluice;
use crate::objects::{Objects, account, route, servers, service, slice};
use crate::support::{ApiServer, Kubeconfig, PATIENCE, quick, slow, succeeded, within};

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

/// A sluice in a namespace with one route, `good.test`, that is as one expects.
pub(crate) struct Place {
    pub(crate) objects: Objects,
    pub(crate) account: Kubeconfig,
    class: String,
    pub(crate) servers: [SocketAddr; 2],
    pub(crate) sluice: Sluice,
    /// How often it was seen that [`unharmed`](Self::unharmed).
    seen: usize,
}

impl Place {
    pub(crate) fn start(api: &ApiServer, namespace: &str) -> Self {
        api.namespace(namespace);
        let objects = Objects::of(api.admin(), namespace);
        let servers = servers(["198.18.5.1", "198.18.5.2"]);
        objects.put(&service("good"));
        objects.put(&slice("good", &servers[..1]));
        objects.put(&route("good", namespace, "good.test", "good"));
        let arguments = ["--require-class", "--namespaces", namespace];
        let account = account(api, namespace);
        let sluice = Sluice::start(&account, namespace, &arguments);
        sluice.await_ready();
        Place { objects, account, class: namespace.to_owned(), servers, sluice, seen: 0 }
    }

    /// Waits for what becomes of a route: the reasons of `Accepted` and `ResolvedRefs`, and the
    /// endpoints of its first backend.
    pub(crate) fn await_route(&self, name: &str, reasons: [&str; 2], endpoints: &[SocketAddr]) {
        self.await_route_of(&self.sluice, name, reasons, endpoints);
    }

    /// The same, as another sluice has it.
    pub(crate) fn await_route_of(
        &self,
        sluice: &Sluice,
        name: &str,
        reasons: [&str; 2],
        endpoints: &[SocketAddr],
    ) {
        let what = format!("{name} has {reasons:?} and {endpoints:?}");
        within(PATIENCE, &what, || {
            let route = sluice.routes().into_iter().find(|route| route["name"] == name)?;
            let has = [0, 1].map(|index| route["conditions"][index]["reason"].clone());
            (has == reasons && addresses(&route["backends"][0]) == endpoints).then_some(())
        });
    }

    /// Waits until a route is told that it cannot be read, with a message that has `why` in it;
    /// `served` as it was before, or not at all.
    pub(crate) fn await_invalid(&self, name: &str, why: &str, served: bool) {
        within(PATIENCE, why, || {
            let route = self.sluice.routes().into_iter().find(|route| route["name"] == name)?;
            let accepted = &route["conditions"][0];
            let told = accepted["message"].as_str()?.contains(why);
            (route["served"] == served && accepted["reason"] == "Invalid" && told).then_some(())
        });
    }

    /// The good route is served and changes, as do its endpoints, and the admin port answers.
    pub(crate) fn unharmed(&mut self) {
        self.seen += 1;
        let seen = self.seen;
        let hostname = format!("good-{seen}.test");
        let mut good = route("good", &self.class, "good.test", "good");
        good["spec"]["hostnames"] = json!(["good.test", hostname]);
        self.objects.put(&good);
        self.objects.put(&slice("good", &self.servers[..1 + seen % 2]));
        within(PATIENCE, "the good route is followed", || {
            let route = self.sluice.routes().into_iter().find(|route| route["name"] == "good")?;
            let endpoints = addresses(&route["backends"][0]).len();
            (route["hostnames"][1] == *hostname && endpoints == 1 + seen % 2).then_some(())
        });
        for name in ["good.test", &hostname] {
            self.visit(name);
        }
        for page in ["/livez", "/readyz", "/metrics", "/routes"] {
            assert_eq!(self.sluice.get(page).0, 200, "{page}");
        }
        assert_eq!(self.sluice.metric("sluice_panics_total"), 0.0);
    }

    /// Who answers to a name at another sluice, if anybody does.
    pub(crate) fn visit_at(&self, sluice: &Sluice, name: &str) -> Option<String> {
        Greeted::visit(sluice.address, name).ok()
    }

    /// What was logged with this message of objects of this kind.
    pub(crate) fn lines(&self, message: &str, kind: &str) -> Vec<Value> {
        let mut lines = self.sluice.all_logged(message);
        lines.retain(|line| line["kind"] == kind);
        lines
    }

    /// Waits for the first of those lines.
    pub(crate) fn await_line(&self, message: &str, kind: &str) -> Value {
        within(PATIENCE, message, || self.lines(message, kind).into_iter().next())
    }

    fn visit(&self, name: &str) -> String {
        Greeted::visit(self.sluice.address, name).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn refuses(&self, name: &str) -> bool {
        Greeted::visit(self.sluice.address, name).is_err()
    }
}

pub(crate) const FINE: [&str; 2] = ["Accepted", "ResolvedRefs"];

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

/// A definition that takes whatever it is given, as one may that is not known here.
pub(crate) fn lenient(name: &str, kind: &str, version: &str) -> String {
    let (plural, group) = name.split_once('.').unwrap();
    format!(
        "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: {name}
  annotations: {{ api-approved.kubernetes.io: unapproved }}
spec:
  group: {group}
  names: {{ kind: {kind}, plural: {plural}, singular: {}, shortNames: [{}] }}
  scope: Namespaced
  versions:
    - name: {version}
      served: true
      storage: true
      subresources: {{ status: {{}} }}
      schema:
        openAPIV3Schema: {{ type: object, x-kubernetes-preserve-unknown-fields: true }}
",
        kind.to_lowercase(),
        if kind == "SniRoute" { "sni" } else { "refgrant" },
    )
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
    // Fields that are not known here make no difference.
    let passed_over = [
        with("/spec/mirror", json!({ "service": { "name": "other", "port": 1 } })),
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

fn addresses(backend: &Value) -> Vec<SocketAddr> {
    let endpoints = backend["endpoints"].as_array().into_iter().flatten();
    endpoints.map(|endpoint| endpoint["address"].as_str().unwrap().parse().unwrap()).collect()
}
