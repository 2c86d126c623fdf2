//! `/limits`, and what `sluice explain` makes of it.

use std::sync::Arc;

use sluice::admin::limits::{LimitsQuery, LimitsReport};
use sluice::explain::fetch_limits;
use sluice::limiter::{Permit, SourceTable, Tick};

use super::*;

const SOURCE: &str = "192.0.2.1";

/// A server with one route of these limits, under this ceiling.
fn server(limits: Value, ceiling: Value) -> Server {
    let mut server = Server::start();
    let policy = |limits| serde_json::from_value::<Policy>(json!({ "limits": limits })).unwrap();
    let layers = Layers::new(&Policy::default(), policy(ceiling));
    let (effective, _) = layers.effective(&policy(limits));
    let policy = TrafficPolicy::new(effective, &mut AccessLists::default());
    let hostname: Hostname = "a.com".parse().unwrap();
    let spec = RouteSpec::new(RouteKey::sni_route("data", "kafka"), Hostnames::from(hostname));
    let routes = vec![RouteSpec { policy: Arc::new(policy), ..spec }];
    server.writer.apply(Snapshot { routes, ..Snapshot::default() });
    server
}

/// Connections of a client, as the data plane counts them.
fn connect(server: &Server, source: &str) -> Vec<Permit> {
    let table = server.state.table.table();
    let route = table.route(&RouteKey::sni_route("data", "kafka")).unwrap();
    let limiters = route.stats.limiters(&Arc::new(SourceTable::default()), "data");
    let limits = route.spec.policy.limits().into_iter().flatten().zip(limiters);
    let counted = limits.filter_map(|(limits, limiter)| {
        limiter.admit(limits.as_ref()?, source.parse().unwrap(), Tick::now()).ok()
    });
    counted.collect()
}

fn asked(server: &Server, source: &str) -> Value {
    let (status, body) = server.get(&format!("/limits?namespace=data&name=kafka&source={source}"));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn the_limit_that_a_client_would_exceed_is_told_and_nothing_is_counted() {
    let server = server(json!({ "perSource": { "connections": 1 } }), json!({}));
    for _ in 0..2 {
        assert_eq!(asked(&server, SOURCE), json!({ "exceeded": [] }), "no client has come yet");
    }
    let held = connect(&server, SOURCE);
    for _ in 0..2 {
        assert_eq!(
            asked(&server, SOURCE),
            json!({ "exceeded": [{ "limit": "source", "of": "route", "mode": "Enforce" }] })
        );
        assert_eq!(asked(&server, "192.0.2.2"), json!({ "exceeded": [] }));
    }
    drop(held);
    assert_eq!(asked(&server, SOURCE), json!({ "exceeded": [] }));
}

#[test]
fn limits_of_the_ceiling_and_those_that_are_only_reported_are_told_apart() {
    let reported = json!({ "newConnections": { "rate": 1, "per": "1h" }, "mode": "Report" });
    let server = server(reported, json!({ "connections": 1 }));
    let _held = connect(&server, SOURCE);
    assert_eq!(
        asked(&server, SOURCE),
        json!({ "exceeded": [
            { "limit": "rate", "of": "route", "mode": "Report" },
            { "limit": "route", "of": "policyCeiling", "mode": "Enforce" },
        ] })
    );
}

#[test]
fn a_question_that_cannot_be_answered_has_an_error() {
    let server = server(json!({}), json!({}));
    for (query, status, part) in [
        ("", 400, "namespace is missing"),
        ("?namespace=data&name=kafka&source=nowhere", 400, "source cannot be read"),
        ("?namespace=data&name=other&source=::1", 404, "is not served"),
    ] {
        let (answered, body) = server.get(&format!("/limits{query}"));
        assert_eq!(answered, status, "{query}");
        assert!(body.contains(part), "{body}");
    }
}

#[tokio::test]
async fn explain_asks_a_running_sluice() {
    let server = server(json!({ "connections": 1 }), json!({}));
    let _held = connect(&server, SOURCE);
    let url = format!("http://{}", server.address);
    let mut query = LimitsQuery {
        route: RouteKey::sni_route("data", "kafka"),
        source: SOURCE.parse().unwrap(),
    };
    let report = fetch_limits(&url, &query).await.unwrap();
    let exceeded = report.map(|LimitsReport { exceeded }| exceeded).unwrap();
    let mut explanation = {
        let (report, _) = fetch(&url).await.unwrap();
        let asked =
            Query { name: Some("a.com".into()), source: Some(query.source), ..Query::default() };
        explain(&table(report.snapshot().0), &asked)
    };
    explanation.exceeded = exceeded;
    let text = explanation.to_string();
    let expected =
        "a connection of 192.0.2.1 would be refused now: the route has limits.connections of them";
    assert!(text.contains(expected), "{text}");
    query.route = RouteKey::sni_route("data", "gone");
    assert_eq!(fetch_limits(&url, &query).await.unwrap(), None);
}
