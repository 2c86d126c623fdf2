//! The rules over the policy of a route.

use serde_json::{Value, json};

use super::rule::{Rule, rule};

const DURATION: &str = "is not a duration; write e.g. 5s, 500ms or 1h30m";

pub(super) fn rules() -> Vec<Rule> {
    [words(), timeouts(), ejections(), checks(), networks(), limits()].concat()
}

fn words() -> Vec<Rule> {
    let over = |bad: &str, says: &str, good: &str| {
        let says = format!("spec.endpoints.closeOver: Invalid value: {bad:?}: {says}");
        rule("/endpoints/closeOver", json!(bad), says, json!(good))
    };
    vec![
        rule(
            "/loadBalancing/policy",
            json!("random"),
            "spec.loadBalancing.policy: Unsupported value: \"random\": supported values: \
             \"RoundRobin\", \"LeastConnections\", \"Random\", \"SourceAddress\", \
             \"ServerName\"",
            json!("Random"),
        ),
        rule(
            "/loadBalancing/locality",
            json!("Zone"),
            "spec.loadBalancing.locality: Unsupported value: \"Zone\": supported values: \"Hints\", \"Ignore\"",
            json!("Ignore"),
        ),
        rule(
            "/endpoints/onRemoval",
            json!("Drop"),
            "spec.endpoints.onRemoval: Unsupported value: \"Drop\": supported values: \"Keep\", \"Close\"",
            json!("Close"),
        ),
        over("5", DURATION, "0s"),
        over("721h", "is over the maximum of 720h (30 days)", "720h"),
    ]
}

fn timeouts() -> Vec<Rule> {
    let zero = "is no time at all; leave the field out to have the installation's own";
    let rules = [
        ("5", DURATION, "5s"),
        ("1.5s", DURATION, "1s500ms"),
        ("-5s", DURATION, "00005s"),
        ("100000s", DURATION, "99999s"),
        ("1h1m1s1ms1ms", DURATION, "1h1m1s1ms"),
        ("1d", DURATION, "24h"),
        ("0h0ms", zero, "0h1ms"),
        ("720h1ms", "is over the maximum of 720h (30 days)", "719h60m"),
    ];
    let fields = [
        ("/loadBalancing/slowStart", "loadBalancing.slowStart"),
        ("/timeouts/connect", "timeouts.connect"),
        ("/timeouts/idle", "timeouts.idle"),
        ("/timeouts/lifetime", "timeouts.lifetime"),
    ];
    let each = |(bad, says, good): (&str, &str, &str)| {
        fields.map(|(place, field)| {
            let says = format!("spec.{field}: Invalid value: {bad:?}: {says}");
            rule(place, json!(bad), says, json!(good))
        })
    };
    rules.into_iter().flat_map(each).collect()
}

/// What failures of endpoints lead to.
fn ejections() -> Vec<Rule> {
    let passive = "/health/passive";
    vec![
        rule(
            passive,
            json!({ "ejectFor": "5m1ms", "maxEjectFor": "5m" }),
            "spec.health.passive: Invalid value: ".to_owned(),
            json!({ "ejectFor": "5m", "maxEjectFor": "300s" }),
        ),
        // A fault of one field is told once.
        rule(
            passive,
            json!({ "ejectFor": "5", "maxEjectFor": "1s" }),
            "spec.health.passive.ejectFor: Invalid value: \"5\": is not a duration".to_owned(),
            json!({ "maxEjectFor": "1s" }),
        ),
        rule(
            "/health/passive/failures",
            json!(17),
            "spec.health.passive.failures: Invalid value: 17: spec.health.passive.failures in body \
             should be less than or equal to 16"
                .to_owned(),
            json!(16),
        ),
        rule(
            "/loadBalancing/race/budget",
            json!(-1),
            "spec.loadBalancing.race.budget: Invalid value: -1: spec.loadBalancing.race.budget in \
             body should be greater than or equal to 0"
                .to_owned(),
            json!(0),
        ),
        rule(
            "/loadBalancing/race/after",
            json!("0s"),
            "spec.loadBalancing.race.after: Invalid value: \"0s\": is no time at all".to_owned(),
            json!("1ms"),
        ),
    ]
}

/// What active health checks do.
fn checks() -> Vec<Rule> {
    let check = |bad: Value, says: &str, good: Value| {
        let says = says.replace('~', "spec.health.active");
        rule("/health/active", bad, says, good)
    };
    let with = |field: &str, value: Value| {
        let mut check = json!({ "type": "TLS" });
        check[field] = value;
        check
    };
    let of_tls = "~: Invalid value: serverName, alpn, verify and ca are for checks of type TLS";
    let no_ca = "~: Invalid value: verify is Enforce, and ca is missing; write ca: { configMap: NAME }, or \
                 verify: Report";
    let ca = |name: &str| json!({ "configMap": name });
    let claiming = |hostnames: &[&str]| {
        let backends = json!([{ "address": "a:1" }]);
        json!({ "hostnames": hostnames, "backends": backends, "health": { "active": { "type": "TLS" } } })
    };
    let no_name = "spec.health.active.serverName: Required value: is missing, and no hostname is an exact name";
    vec![
        rule("", claiming(&["*.a.test", "*"]), no_name, claiming(&["*.a.test", "a.test"])),
        check(
            json!({ "type": "HTTP" }),
            "~.type: Unsupported value: \"HTTP\": supported values: \"TCP\", \"TLS\", \"None\"",
            json!({ "type": "None" }),
        ),
        check(
            json!({ "type": "TCP", "interval": "999ms" }),
            "~.interval: Invalid value: \"999ms\": is under the minimum of 1s",
            json!({ "type": "TCP", "interval": "1s" }),
        ),
        check(
            json!({ "type": "TCP", "timeout": "10s1ms" }),
            "~.timeout: Invalid value: \"10s1ms\": is over the maximum of 10s",
            json!({ "type": "TCP", "timeout": "10s" }),
        ),
        check(
            with("unhealthy", json!(0)),
            "~.unhealthy: Invalid value: 0: ~.unhealthy in body should be \
             greater than or equal to 1",
            with("unhealthy", json!(1)),
        ),
        check(
            with("healthy", json!(11)),
            "~.healthy: Invalid value: 11: ~.healthy in body should be less \
             than or equal to 10",
            with("healthy", json!(10)),
        ),
        check(json!({ "type": "TCP", "alpn": ["h2"] }), of_tls, with("alpn", json!(["h2"]))),
        check(json!({ "type": "TCP", "ca": ca("a") }), of_tls, with("ca", ca("a"))),
        check(
            json!({ "type": "TLS", "verify": "Enforce" }),
            no_ca,
            with("verify", json!("Report")),
        ),
        check(
            with("serverName", json!("*.a.test")),
            "~.serverName: Invalid value: \"*.a.test\": is not a server name",
            with("serverName", json!("_x.a.test.")),
        ),
        check(
            with("serverName", json!("192.0.2.1")),
            "~.serverName: Invalid value: \"192.0.2.1\": is not a server name",
            with("serverName", json!("192.0.2.x")),
        ),
        check(
            with("ca", ca("a..b")),
            "~.ca.configMap: Invalid value: \"a..b\": is not the name of a ConfigMap",
            with("ca", ca("a.b-0")),
        ),
    ]
}

fn networks() -> Vec<Rule> {
    let wrong = "is not a network; write an address and the length of its prefix, as in 10.0.0.0/8 or \
                 2001:db8::/32";
    let rules = [
        ("10.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/", "10.0.0.0"),
        ("10.0.0.0/+8", "0.0.0.0/0"),
        ("example.com", "::"),
        ("fd00::/", "fd00::/8"),
        ("fe80::1%eth0", "::ffff:10.0.0.0/104"),
    ];
    let lists = [("/access/allow", "allow"), ("/access/deny", "deny")];
    let each = |(bad, good): (&str, &str)| {
        lists.map(|(place, list)| {
            let says = format!("spec.access.{list}[0]: Invalid value: {bad:?}: {wrong}");
            rule(place, json!([bad]), says, json!([good]))
        })
    };
    let send =
        "spec.proxyProtocol.send: Unsupported value: \"V3\": supported values: \"V1\", \"V2\"";
    let version = rule("/proxyProtocol/send", json!("V3"), send.to_owned(), json!("V2"));
    rules.into_iter().flat_map(each).chain([version]).collect()
}

fn limits() -> Vec<Rule> {
    let number = |place: &'static str, most: u32| {
        let bound = |bad: u32, side: &str, good: u32| {
            let says = out_of_bounds(&place.replace('/', "."), bad, side, good);
            rule(place, json!(bad), says, json!(good))
        };
        [bound(0, "greater", 1), bound(most + 1, "less", most)]
    };
    let numbers = [
        ("/limits/connections", 10_000_000),
        ("/limits/perSource/connections", 10_000_000),
        ("/limits/perEndpoint/connections", 10_000_000),
        ("/limits/perSource/prefix/ipv4", 32),
        ("/limits/perSource/prefix/ipv6", 128),
    ];
    let rate = |bad: Value, says: &str, good: Value| {
        rule(
            "/limits/newConnections",
            bad,
            says.replace("rate.", "spec.limits.newConnections."),
            good,
        )
    };
    let beyond = |field: &str| out_of_bounds(field, 1_000_001, "less", 1_000_000);
    let mode =
        "spec.limits.mode: Unsupported value: \"Log\": supported values: \"Enforce\", \"Report\"";
    let others = [
        rate(
            json!({ "rate": 1_000_001 }),
            &beyond(".limits.newConnections.rate"),
            json!({ "rate": 1_000_000 }),
        ),
        rate(
            json!({ "rate": 1, "burst": 1_000_001 }),
            &beyond(".limits.newConnections.burst"),
            json!({ "rate": 1, "burst": 1_000_000 }),
        ),
        rate(
            json!({ "rate": 1, "per": "61m" }),
            "rate.per: Invalid value: \"61m\": is over the maximum of 1h",
            json!({ "rate": 1, "per": "60m" }),
        ),
        rate(json!({ "per": "1m" }), "rate.rate: Required value", json!({ "rate": 1 })),
        rule("/limits/mode", json!("Log"), mode.to_owned(), json!("Report")),
    ];
    numbers.into_iter().flat_map(|(place, most)| number(place, most)).chain(others).collect()
}

fn out_of_bounds(field: &str, bad: u32, side: &str, bound: u32) -> String {
    format!(
        "spec{field}: Invalid value: {bad}: spec{field} in body should be {side} than or equal to {bound}"
    )
}
