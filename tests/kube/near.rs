//! Endpoints that are meant for this zone: the hints of slices, as the API server stores them.

use libtest_mimic::Trial;
use serde_json::{Value, json};
use testkit::Greeted;

use crate::controlled::Sluice;
use crate::objects::{Objects, account, route, servers, service, slice};
use crate::support::{ApiServer, PATIENCE, quick, within};

pub(crate) fn tests() -> Vec<Trial> {
    vec![quick!(hints_of_a_slice_lead_to_the_endpoints_of_the_zone)]
}

fn hints_of_a_slice_lead_to_the_endpoints_of_the_zone() {
    let api = ApiServer::shared();
    let namespace = api.namespace("near");
    let objects = Objects::of(api.admin(), namespace);
    let servers = servers(["198.18.5.1", "198.18.5.2"]);
    objects.put(&service("app"));
    objects.put(&route("app", namespace, "app.test", "app"));
    let hinted = |zones: [Value; 2]| {
        let mut slice = slice("app", &servers);
        for (endpoint, zone) in [0_usize, 1].into_iter().zip(zones) {
            let endpoint = &mut slice["endpoints"][endpoint];
            endpoint["nodeName"] = "some-node".into();
            endpoint["zone"] = "here".into();
            endpoint["hints"] = zone;
        }
        slice
    };
    let zone = |name: &str| json!({ "forZones": [{ "name": name }] });
    objects.put(&hinted([zone("here"), zone("there")]));
    let arguments = ["--require-class", "--namespaces", namespace, "--zone", "here"];
    let sluice = Sluice::start(&account(api, namespace), namespace, &arguments);
    sluice.await_ready();
    let rings = |sluice: &Sluice| {
        let route = sluice.routes().into_iter().find(|route| route["name"] == "app")?;
        let endpoints = route["backends"][0]["endpoints"].as_array()?.clone();
        Some(endpoints.iter().map(|endpoint| endpoint["ring"].clone()).collect::<Vec<_>>())
    };
    assert_eq!(rings(&sluice), Some(vec![json!("zone"), json!(null)]));
    for _ in 0..6 {
        assert_eq!(Greeted::visit(sluice.address, "app.test").unwrap(), "one");
    }
    assert_eq!(sluice.metric("sluice_locality_connections_total{ring=\"zone\"}"), 6.0);

    objects.put(&hinted([zone("there"), zone("here")]));
    within(PATIENCE, "the other is near", || {
        (rings(&sluice)? == [json!(null), json!("zone")]).then_some(())
    });
    assert_eq!(Greeted::visit(sluice.address, "app.test").unwrap(), "two");

    // As long as one has none, they count for nothing.
    objects.put(&hinted([json!({}), zone("here")]));
    within(PATIENCE, "none is near", || {
        (rings(&sluice)? == [json!(null), json!(null)]).then_some(())
    });
    let answers: std::collections::BTreeSet<_> =
        (0..6).map(|_| Greeted::visit(sluice.address, "app.test").unwrap()).collect();
    assert_eq!(answers.len(), 2);
}
