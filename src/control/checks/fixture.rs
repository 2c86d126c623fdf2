//! Tables with checks, for tests.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::{Value, json};

use crate::policy::Policy;
use crate::routing::{
    BackendKey, CheckMethod, CheckParams, Hostname, Hostnames, RouteKey, RouteSpec, Snapshot,
    TableReader, TableWriter, TrafficPolicy, channel,
};

/// Checks by TCP, every 10 seconds.
pub(super) fn params() -> CheckParams {
    CheckParams {
        method: CheckMethod::Tcp,
        proxy_header: None,
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(3),
        unhealthy: 3,
        healthy: 2,
    }
}

/// A route `namespace/name` with checks of this type.
pub(super) fn route(name: &str, backends: &[&str], check: Option<&str>) -> RouteSpec {
    let active = check.map(|kind| json!({ "type": kind, "serverName": kind_name(kind) }));
    route_with(name, backends, active.unwrap_or_default())
}

/// A route with these checks.
pub(super) fn route_with(name: &str, backends: &[&str], active: Value) -> RouteSpec {
    let (namespace, name) = name.split_once('/').unwrap();
    let policy: Policy = serde_json::from_value(json!({ "health": { "active": active } })).unwrap();
    let hostname: Hostname = format!("{name}.{namespace}.test").parse().unwrap();
    RouteSpec {
        backends: backends.iter().map(|key| (BackendKey::address("", key), 1)).collect(),
        policy: TrafficPolicy::of(&policy),
        ..RouteSpec::new(RouteKey::sni_route(namespace, name), Hostnames::from(hostname))
    }
}

fn kind_name(kind: &str) -> Option<&str> {
    (kind == "TLS").then_some("a.test")
}

/// A table of these routes and backends.
pub(super) fn table(
    routes: Vec<RouteSpec>,
    backends: &[(&str, &[&str])],
) -> (TableWriter, TableReader) {
    let (mut writer, reader) = channel();
    writer.apply(snapshot(routes, backends));
    (writer, reader)
}

/// What such a table is made from.
pub(super) fn snapshot(routes: Vec<RouteSpec>, backends: &[(&str, &[&str])]) -> Snapshot {
    let endpoints = backends.iter().map(|(key, addresses)| {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        (BackendKey::address("", key), addresses)
    });
    Snapshot { routes, endpoints: endpoints.collect(), ..Snapshot::default() }
}
