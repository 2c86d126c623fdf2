//! The layers of a policy, and its ceiling.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::json;

use super::*;

fn policy(value: Value) -> Policy {
    serde_json::from_value(value).unwrap()
}

fn origins(effective: &EffectivePolicy) -> Vec<(&str, &str)> {
    effective.origins.iter().map(|(path, origin)| (&**path, origin.as_str())).collect()
}

#[test]
fn each_field_is_of_the_nearest_layer_that_has_it() {
    let defaults = policy(json!({
        "timeouts": { "connect": "2s" }, "proxyProtocol": { "send": "V2", "checksum": true }
    }));
    let asked = policy(json!({
        "loadBalancing": { "policy": "Random" }, "proxyProtocol": { "checksum": false }
    }));
    let (effective, _) = Layers::new(&defaults, Policy::default()).effective(&asked);
    assert_eq!(effective.of_route(), asked);
    let mut expected = serde_json::to_value(built_in()).unwrap();
    expected["loadBalancing"]["policy"] = json!("Random");
    expected["timeouts"]["connect"] = json!("2s");
    expected["proxyProtocol"] = json!({ "send": "V2", "checksum": false });
    assert_eq!(serde_json::to_value(&effective.policy).unwrap(), expected);
    let (default, of_others): (Vec<_>, Vec<_>) =
        origins(&effective).into_iter().partition(|(_, origin)| *origin == "default");
    assert_eq!(
        of_others,
        [
            ("loadBalancing.policy", "route"),
            ("proxyProtocol.checksum", "route"),
            ("proxyProtocol.send", "policy"),
            ("timeouts.connect", "policy"),
        ]
    );
    assert!(default.contains(&("timeouts.idle", "default")));
}

#[test]
fn an_access_list_is_of_one_layer() {
    let defaults = policy(json!({ "access": { "deny": ["10.9.0.0/16"] } }));
    let asked = policy(json!({ "access": { "allow": ["10.0.0.0/8"] } }));
    let layers = Layers::new(&defaults, Policy::default());
    let (own, _) = layers.effective(&asked);
    assert_eq!((&own.policy.access, own.origins["access"]), (&asked.access, PolicyOrigin::Route));
    assert_eq!(own.of_route(), asked);
    let (default, _) = layers.effective(&Policy::default());
    assert_eq!(
        (&default.policy.access, default.origins["access"]),
        (&defaults.access, PolicyOrigin::Policy)
    );
    assert_eq!(default.of_route(), Policy::default());
    assert!(own.is_consistent() && default.is_consistent());
}

#[test]
fn nothing_exceeds_the_ceiling_and_a_route_is_told() {
    let ceiling = policy(json!({ "timeouts": { "connect": "10s", "idle": "30m" } }));
    let layers = Layers::new(&Policy::default(), ceiling);
    let (effective, exceeded) =
        layers.effective(&policy(json!({ "timeouts": { "connect": "1m" } })));
    let exceeded: Vec<_> = exceeded.iter().map(ToString::to_string).collect();
    let expected = "timeouts.connect is 10s, the most that this installation allows, and not 1m";
    assert_eq!(exceeded, [expected]);
    let cut = origins(&effective).into_iter().filter(|(_, origin)| *origin == "policyCeiling");
    let cut: Vec<_> = cut.map(|(field, _)| field).collect();
    assert_eq!(cut, ["timeouts.connect", "timeouts.idle"]);
    let (within, exceeded) = layers.effective(&policy(json!({ "timeouts": { "connect": "10s" } })));
    assert_eq!(within.origins["timeouts.connect"], PolicyOrigin::Route);
    assert_eq!(exceeded, []);
}

#[test]
fn a_ceiling_bounds_a_lifetime_that_nobody_sets_and_a_maximum_only_one_that_somebody_sets() {
    let lifetime = |layers: &Layers, asked: Value| {
        let (effective, exceeded) = layers.effective(&policy(asked));
        let mut fields = effective.fields().filter(|field| field.0 == "timeouts.lifetime");
        let (value, origin) = fields.next().map(|(_, value, from)| (value, from.as_str())).unzip();
        (value.unwrap_or_default(), origin.unwrap_or_default(), exceeded.len())
    };
    let of = |lifetime: &str| json!({ "timeouts": { "lifetime": lifetime } });
    let bounded = Layers::default().with_max(Timeout::new(Duration::from_hours(2)));
    assert_eq!(lifetime(&bounded, json!({})), (String::new(), "", 0));
    assert_eq!(lifetime(&bounded, of("24h")), ("2h".to_owned(), "policyCeiling", 1));
    let ceiling = Layers::new(&Policy::default(), policy(of("3h")));
    assert_eq!(lifetime(&ceiling, json!({})), ("3h".to_owned(), "policyCeiling", 0));
    assert_eq!(lifetime(&ceiling, of("24h")), ("3h".to_owned(), "policyCeiling", 1));
}

#[test]
fn a_rate_is_of_one_layer() {
    let defaults = policy(json!({ "limits": {
        "connections": 9, "newConnections": { "rate": 5, "per": "1m", "burst": 7 }
    } }));
    let asked = policy(json!({ "limits": { "newConnections": { "rate": 3 } } }));
    let (effective, _) = Layers::new(&defaults, Policy::default()).effective(&asked);
    let limits = serde_json::to_value(&effective.policy.limits).unwrap();
    assert_eq!(limits, json!({ "connections": 9, "newConnections": { "rate": 3 } }));
    let of_limits = origins(&effective).into_iter().filter(|(path, _)| path.starts_with("limits"));
    let expected = [("limits.connections", "policy"), ("limits.newConnections", "route")];
    assert_eq!(of_limits.collect::<Vec<_>>(), expected);
    assert!(effective.is_consistent());
    assert_eq!(effective.of_route(), asked);
    let shown = effective.fields().find(|(path, ..)| *path == "limits.newConnections");
    assert_eq!(shown.unwrap().1, "3 per 1s");
}

#[test]
fn active_checks_are_of_one_layer() {
    let defaults = policy(json!({ "health": {
        "passive": { "failures": 5 }, "active": { "type": "TLS", "serverName": "a.test" },
    } }));
    let asked = policy(json!({ "health": { "active": { "type": "TCP", "interval": "1s" } } }));
    let layers = Layers::new(&defaults, Policy::default());
    let (own, _) = layers.effective(&asked);
    assert_eq!(own.policy.health.active, asked.health.active);
    assert_eq!(own.origins["health.active"], PolicyOrigin::Route);
    assert_eq!(own.origins["health.passive.failures"], PolicyOrigin::Policy);
    assert!(own.is_consistent());
    assert_eq!(own.of_route(), asked);
    let shown = own.fields().find(|(path, ..)| *path == "health.active");
    assert_eq!(shown.unwrap().1, "TCP every 1s");
    let (default, _) = layers.effective(&Policy::default());
    assert_eq!(default.policy.health.active, defaults.health.active);
    assert_eq!(default.of_route(), Policy::default());
}

#[test]
fn limits_are_cut_down_and_hold_even_if_a_route_only_reports() {
    let ceiling = policy(json!({ "limits": {
        "connections": 100,
        "newConnections": { "rate": 10 },
        "perSource": { "connections": 5 },
    } }));
    let layers = Layers::new(&Policy::default(), ceiling.clone());
    let asked = |mode| {
        policy(json!({ "limits": {
        "connections": 50,
        "newConnections": { "rate": 20, "burst": 5 },
        "perSource": { "connections": 6, "prefix": { "ipv6": 128 } },
        "mode": mode,
    } }))
    };
    let (cut, exceeded) = layers.effective(&asked("Enforce"));
    assert_eq!(
        serde_json::to_value(&cut.policy.limits).unwrap(),
        json!({
            "connections": 50,
            "newConnections": { "rate": 10, "burst": 5 },
            "perSource": { "connections": 5, "prefix": { "ipv6": 128 } },
            "mode": "Enforce",
        })
    );
    let exceeded: Vec<_> = exceeded.iter().map(|exceeded| exceeded.field).collect();
    assert_eq!(exceeded, ["limits.newConnections", "limits.perSource.connections"]);
    assert_eq!(cut.limits_ceiling.as_ref(), Some(&ceiling.limits));
    let (reported, exceeded) = layers.effective(&asked("Report"));
    assert_eq!(reported.policy.limits, asked("Report").limits);
    assert_eq!(reported.limits_ceiling, Some(ceiling.limits));
    assert_eq!(exceeded, []);
}

#[test]
fn a_ceiling_of_what_cannot_be_bounded_is_an_error() {
    let bounded = policy(json!({
        "timeouts": { "idle": "1h" }, "access": { "deny": ["::/0"] }, "limits": { "connections": 1 }
    }));
    assert_eq!(Layers::check_ceiling(&bounded), Ok(()));
    let unbounded = policy(json!({ "loadBalancing": { "policy": "Random" } }));
    let expected = UnboundedField("loadBalancing.policy".to_owned());
    assert_eq!(Layers::check_ceiling(&unbounded), Err(expected));
    let mode = policy(json!({ "limits": { "connections": 1, "mode": "Report" } }));
    let expected = UnboundedField("limits.mode".to_owned());
    assert_eq!(Layers::check_ceiling(&mode), Err(expected));
}

#[test]
fn every_field_reads_back_as_it_was_written() {
    let whole = json!({
        "loadBalancing":
            {
                "policy": "SourceAddress",
                "slowStart": "30s",
                "locality": "Ignore",
                "prefix": { "ipv4": 24, "ipv6": 48 },
                "race": { "after": "100ms", "budget": 0 },
            },
        "health": {
            "passive": { "failures": 0, "ejectFor": "30s", "maxEjectFor": "1h" },
            "active": {
                "type": "TLS", "interval": "5s", "timeout": "1s", "unhealthy": 2, "healthy": 1,
                "serverName": "a.test", "alpn": ["h2"], "verify": "Enforce", "ca": { "configMap": "ca" },
            },
        },
        "timeouts": { "connect": "1s500ms", "idle": "2h", "lifetime": "24h" },
        "access": { "allow": ["10.0.0.0/8", "2001:db8::/32"], "deny": ["10.9.0.0/16"] },
        "limits": {
            "connections": 10_000,
            "newConnections": { "rate": 500, "per": "2s", "burst": 1000 },
            "perSource": {
                "connections": 100,
                "newConnections": { "rate": 50 },
                "prefix": { "ipv4": 24, "ipv6": 56 },
            },
            "perEndpoint": { "connections": 10 },
            "mode": "Report",
        },
        "proxyProtocol":
            { "send": "V1", "authority": false, "uniqueId": true, "checksum": false },
        "endpoints": { "onRemoval": "Close", "closeOver": "0s" },
        "suspend": true,
    });
    assert_eq!(serde_json::to_value(policy(whole.clone())).unwrap(), whole);
}
