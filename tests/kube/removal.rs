//! Connections whose endpoint leaves its Service, as the API server tells of it.

use libtest_mimic::Trial;
use serde_json::json;
use testkit::Greeted;

use crate::controlled::Sluice;
use crate::objects::{Objects, account, route, servers, service, slice};
use crate::support::{ApiServer, PATIENCE, quick, within};

pub(crate) fn tests() -> Vec<Trial> {
    vec![quick!(connections_of_a_removed_endpoint_end_only_where_the_route_says_so)]
}

fn connections_of_a_removed_endpoint_end_only_where_the_route_says_so() {
    let api = ApiServer::shared();
    let namespace = api.namespace("removal");
    let objects = Objects::of(api.admin(), namespace);
    let servers = servers(["198.18.6.1", "198.18.6.2"]);
    objects.put(&service("app"));
    objects.put(&slice("app", &servers));
    objects.put(&route("keeps", namespace, "keeps.test", "app"));
    let mut closes = route("closes", namespace, "closes.test", "app");
    closes["spec"]["endpoints"] = json!({ "onRemoval": "Close" });
    objects.put(&closes);
    let arguments = ["--require-class", "--namespaces", namespace];
    let sluice = Sluice::start(&account(api, namespace), namespace, &arguments);
    sluice.await_ready();
    let to = |hostname: &str, server: &str| {
        within(PATIENCE, "the server's turn", || {
            let greeted = Greeted::ask(sluice.address, hostname).unwrap();
            (greeted.by == server).then_some(greeted)
        })
    };
    let mut kept = to("keeps.test", "one");
    let (closed, mut other) = (to("closes.test", "one"), to("closes.test", "two"));

    // An endpoint that is not ready still serves the connections that it has.
    let mut unready = slice("app", &servers);
    unready["endpoints"][0]["conditions"] = json!({ "ready": false, "serving": false });
    objects.put(&unready);
    let ready = || {
        let routes = sluice.routes();
        let route = routes.iter().find(|route| route["name"] == "closes")?;
        Some(route["backends"][0]["endpoints"].as_array()?.len())
    };
    within(PATIENCE, "one endpoint is left", || (ready()? == 1).then_some(()));
    let mut closed = closed;
    closed.echo("not ready").unwrap();

    objects.put(&slice("app", &servers[1..]));
    let ended = ["route=\"closes\"", "outcome=\"endpoint_removed\""];
    within(PATIENCE, "the end", || {
        (sluice.metrics().sum("sluice_connections_total", &ended) == 1.0).then_some(())
    });
    closed.echo("removed").unwrap_err();
    kept.echo("still there").unwrap();
    other.echo("still there").unwrap();
}
