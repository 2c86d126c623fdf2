//! Objects with what typed readers of them cannot parse. The API server takes it from everybody who
//! may write the object, and one of them must not stop what follows all.

use std::net::SocketAddr;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::controlled::Sluice;
use crate::objects::{Objects, account, route, servers, service, slice};
use crate::place::{FINE, Place, lenient};
use crate::support::{ApiServer, PATIENCE, quick, slow, succeeded, within};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        quick!(what_nothing_uses_is_never_at_fault),
        slow!(a_poisoned_grant_goes_on_granting),
        slow!(what_cannot_be_read_is_named_counted_and_told_until_that_is_over),
    ]
}

/// How deep parsers of JSON go that have a bound.
const BOUND: usize = 128;

/// Each of these alone is more than typed readers can parse.
const POISONS: [&str; 2] = ["time", "deep"];

/// Poisons an object, and makes sure that the API server has the poison.
fn poison(objects: &Objects, object: &Value, which: &str) {
    let deep = (0..BOUND + 2).fold(json!({ "f:a": {} }), |inner, _| json!({ "f:a": inner }));
    let (time, fields) = match which {
        "deep" => ("2026-01-01T00:00:00Z", deep),
        _ => ("9999-12-31T23:59:59Z", json!({ "f:metadata": { "f:annotations": {} } })),
    };
    let entry = json!({
        "manager": "poison", "operation": "Update", "apiVersion": object["apiVersion"],
        "time": time, "fieldsType": "FieldsV1", "fieldsV1": fields,
    });
    let text = objects.merge(object, &json!({ "metadata": { "managedFields": [entry] } }));
    let proof = match which {
        "deep" => "{\"f:a\":".repeat(BOUND),
        _ => "9999-12-31T23:59:59Z".to_owned(),
    };
    assert!(text.contains(&proof), "{text}");
}

fn what_nothing_uses_is_never_at_fault() {
    let api = ApiServer::shared();
    let mut place = Place::start(api, "poison-used");
    for name in POISONS {
        let app = route(name, "poison-used", &format!("{name}.test"), name);
        let parts = [service(name), slice(name, &place.servers[..1]), app];
        parts.iter().for_each(|part| place.objects.put(part));
        place.await_route(name, FINE, &place.servers[..1]);
        parts.iter().for_each(|part| poison(&place.objects, part, name));
    }
    // The one that was running goes on, and follows what is poisoned, too.
    let follows = |sluice: &Sluice, servers: &[SocketAddr]| {
        for name in POISONS {
            place.objects.put(&slice(name, servers));
            place.objects.put(&route(name, "poison-used", &format!("new-{name}.test"), name));
            place.await_route_of(sluice, name, FINE, servers);
            within(PATIENCE, "its new name is served", || {
                place.visit_at(sluice, &format!("new-{name}.test"))
            });
        }
    };
    follows(&place.sluice, &place.servers[1..]);
    let arguments = ["--require-class", "--namespaces", "poison-used"];
    let fresh = Sluice::start(&place.account, "poison-used", &arguments);
    fresh.await_ready();
    for name in POISONS {
        place.await_route_of(&fresh, name, FINE, &place.servers[1..]);
    }
    follows(&fresh, &place.servers[..1]);
    for sluice in [&place.sluice, &fresh] {
        for kind in ["SniRoute", "Service", "EndpointSlice", "ReferenceGrant"] {
            assert_eq!(sluice.metric(&format!("sluice_manifest_faults{{kind=\"{kind}\"}}")), 0.0);
        }
        assert_eq!(sluice.logged("an object cannot be read"), None);
    }
    // Whoever leads has read and written what it found.
    for name in ["good", "time", "deep"] {
        await_status(api, "poison-used", name, "Accepted");
    }
    place.unharmed();
}

fn a_poisoned_grant_goes_on_granting() {
    let api = ApiServer::start();
    api.install_crds();
    api.install_grants();
    for namespace in ["poison-user", "poison-owner"] {
        api.namespace(namespace);
    }
    let (user, owner) =
        (Objects::of(api.admin(), "poison-user"), Objects::of(api.admin(), "poison-owner"));
    let servers = servers(["198.18.7.1", "198.18.7.2"]);
    owner.put(&service("app"));
    owner.put(&slice("app", &servers[..1]));
    let mut app = route("app", "poison-user", "app.test", "app");
    app["spec"]["backends"][0]["service"]["namespace"] = json!("poison-owner");
    user.put(&app);
    let grant = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "ReferenceGrant",
        "metadata": { "name": "open" },
        "spec": {
            "from": [{ "group": "sluice.dev", "kind": "SniRoute", "namespace": "poison-user" }],
            "to": [{ "group": "", "kind": "Service" }],
        },
    });
    let account = account(&api, "poison-user");
    for which in POISONS {
        owner.put(&grant);
        poison(&owner, &grant, which);
        let sluice = Sluice::start(&account, "poison-user", &[]);
        sluice.await_ready();
        within(PATIENCE, "it is granted", || {
            let route = sluice.routes().into_iter().find(|route| route["name"] == "app")?;
            (route["backends"][0]["endpoints"][0]["address"] == servers[0].to_string())
                .then_some(())
        });
        owner.delete(&grant);
        within(PATIENCE, "it is not granted", || {
            let route = sluice.routes().into_iter().find(|route| route["name"] == "app")?;
            (route["conditions"][1]["reason"] == "RefNotPermitted").then_some(())
        });
    }
}

fn what_cannot_be_read_is_named_counted_and_told_until_that_is_over() {
    let api = ApiServer::start();
    succeeded(api.admin().apply(&lenient("sniroutes.sluice.dev", "SniRoute", "v1alpha1")));
    let grants = lenient("referencegrants.gateway.networking.k8s.io", "ReferenceGrant", "v1");
    succeeded(api.admin().apply(&grants));
    for kind in ["sniroutes", "referencegrants"] {
        within(PATIENCE, kind, || {
            api.admin().kubectl(&["get", kind]).status.success().then_some(())
        });
    }
    let mut place = Place::start(&api, "poison-read");
    let plain = route("bad", "poison-read", "bad.test", "good");
    let deep = (0..BOUND + 2).fold(json!("x"), |inner, _| json!([inner]));
    // What is deep and unknown is passed over.
    place.objects.put(&plain);
    place.objects.merge(&plain, &json!({ "spec": { "timeouts": { "odd": deep } } }));
    place.await_route("bad", FINE, &place.servers[..1]);

    let grant = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "ReferenceGrant",
        "metadata": { "name": "bad" }, "spec": { "from": 5, "to": [] },
    });
    place.objects.merge(&plain, &json!({ "spec": { "hostnames": deep } }));
    place.objects.put(&grant);
    place.await_invalid("bad", "spec.hostnames[0]", true);
    assert!(place.visit_at(&place.sluice, "bad.test").is_some(), "it is served as it was");
    for (kind, field) in [("SniRoute", "spec.hostnames[0]"), ("ReferenceGrant", "spec.from")] {
        await_faults(&place, kind, 1.0);
        let line = place.await_line("an object cannot be read", kind);
        assert_eq!((&line["namespace"], &line["name"]), (&json!("poison-read"), &json!("bad")));
        assert!(line["detail"].as_str().unwrap().starts_with(field), "{line}");
    }
    await_status(&api, "poison-read", "bad", "Invalid");
    await_status(&api, "poison-read", "good", "Accepted");
    place.unharmed();
    let mended = json!({ "spec": { "hostnames": ["bad.test"], "timeouts": null } });
    place.objects.merge(&plain, &mended);
    place.await_route("bad", FINE, &place.servers);
    place.objects.delete(&grant);
    await_faults(&place, "SniRoute", 0.0);
    await_faults(&place, "ReferenceGrant", 0.0);
    place.await_line("an object can be read again", "SniRoute");
    place.await_line("an object that could not be read is gone", "ReferenceGrant");
    // Said once, however often the object changed meanwhile.
    let said = place.lines("an object cannot be read", "SniRoute");
    assert_eq!(said.len(), 1, "{said:?}");
}

fn await_faults(place: &Place, kind: &str, count: f64) {
    place.sluice.await_metric(&format!("sluice_manifest_faults{{kind=\"{kind}\"}}"), count);
}

/// Waits until the API server has this reason for `Accepted` in the status of a route.
fn await_status(api: &ApiServer, namespace: &str, route: &str, reason: &str) {
    let path = "-o=jsonpath={.status.conditions[?(@.type==\"Accepted\")].reason}";
    within(PATIENCE, &format!("{route} is {reason}"), || {
        let found = succeeded(api.admin().kubectl(&["get", "sni", "-n", namespace, route, path]));
        (found == reason).then_some(())
    });
}
