//! The rules of the definition: what `kubectl apply` refuses and says, and what it takes.

mod policy;
mod route;
mod rule;
mod tls;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use sluice::control::api::SniRouteSpec;

use crate::dry_run::{route, spec, try_out};
use crate::support::{ApiServer, quick, succeeded};
use rule::Rule;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        quick!(each_rule_says_what_to_do_and_takes_the_nearest_neighbour),
        quick!(a_misspelt_field_is_told),
        quick!(a_route_at_all_its_limits_is_taken),
        quick!(a_route_of_nothing_but_faults_is_within_the_budget),
        quick!(managers_share_the_sets_and_own_the_other_lists),
        quick!(routes_are_listed_with_what_became_of_them),
    ]
}

fn each_rule_says_what_to_do_and_takes_the_nearest_neighbour() {
    let rules = [route::rules(), policy::rules(), tls::rules()].concat();
    let specs = |value: fn(&Rule) -> &Value| {
        rules
            .iter()
            .map(|rule| spec([(rule.place.to_owned(), value(rule))]))
            .collect::<Vec<Value>>()
    };
    let refusals = try_out(&specs(|rule| &rule.bad));
    let neighbours = try_out(&specs(|rule| &rule.good));
    for (rule, (refusal, neighbour)) in rules.iter().zip(refusals.iter().zip(&neighbours)) {
        let Rule { place, bad, says, good } = rule;
        let refusal = refusal.as_deref().unwrap_or_else(|| panic!("{place} was taken: {bad}"));
        assert!(refusal.contains(&**says), "{place}: {bad}\n{refusal}\nhas no\n{says}");
        assert_eq!(refusal.matches("spec.").count(), says.matches("spec.").count(), "{refusal}");
        assert_eq!(*neighbour, None, "{place}: {good}");
    }
}

fn a_misspelt_field_is_told() {
    let spec = json!({ "hostnames": ["a.b"], "backends": [{ "adress": "a:1" }], "timeout": {} });
    let manifest = route("misspelt", &spec).to_string();
    let refused = ApiServer::shared().admin().apply_with(&["--dry-run=server"], &manifest);
    let error = String::from_utf8_lossy(&refused.stderr);
    for field in ["\"spec.backends[0].adress\"", "\"spec.timeout\""] {
        assert!(error.contains(&format!("unknown field {field}")), "{error}");
    }
}

/// Its rules cost the API server as much as rules over values that are taken can.
fn a_route_at_all_its_limits_is_taken() {
    let long = |index: usize, length: usize| format!("{index:x<length$}");
    let name = |index| format!("{}.{1}.{1}.{2}", long(index, 63), long(0, 63), long(0, 61));
    let service = json!({ "name": long(1, 63), "namespace": long(2, 63), "port": long(3, 63) });
    let backends: Vec<Value> = (0..16)
        .map(|index| match index % 2 {
            0 => json!({ "service": service, "weight": 1_000_000 }),
            _ => json!({ "address": format!("{}.:65535", name(index)), "weight": 1_000_000 }),
        })
        .collect();
    let spec = json!({
        "className": long(0, 253),
        "hostnames": (0..64).map(|index| name(index) + ".").collect::<Vec<String>>(),
        "listeners": (0..16).map(|index| long(index, 63)).collect::<Vec<String>>(),
        "alpn": (0..16).map(|index| long(index, 255)).collect::<Vec<String>>(),
        "backends": backends,
        "timeouts": {
            "connect": "99999ms99999ms99999ms99999ms",
            "idle": "00719h00059m00059s00999ms",
            "lifetime": "00719h00059m00059s00999ms",
        },
        "health": {
            "passive": {
                "failures": 16,
                "ejectFor": "99999ms99999ms99999ms99999ms",
                "maxEjectFor": "00719h00059m00059s00999ms",
            },
            "active": {
                "type": "TLS",
                "interval": "00719h00059m00059s00999ms",
                "timeout": "00000h00000m00009s00999ms",
                "unhealthy": 10,
                "healthy": 10,
                "serverName": name(0) + ".",
                "alpn": (0..16).map(|index| long(index, 255)).collect::<Vec<String>>(),
                "verify": "Enforce",
                "ca": { "configMap": long(0, 253) },
            },
        },
        "loadBalancing": { "race": { "after": "00719h00059m00059s00999ms", "budget": 100 } },
        "limits": {
            "connections": 10_000_000,
            "newConnections": { "rate": 1_000_000, "per": "1h", "burst": 1_000_000 },
            "perSource": {
                "connections": 10_000_000,
                "newConnections": { "rate": 1_000_000, "per": "1h", "burst": 1_000_000 },
                "prefix": { "ipv4": 32, "ipv6": 128 },
            },
            "perEndpoint": { "connections": 10_000_000 },
            "mode": "Report",
        },
        "endpoints": { "closeOver": "00719h00059m00059s00999ms" },
        "loadBalancing": { "slowStart": "00719h00059m00059s00999ms" },
        "access": {
            // Short ones: kubectl keeps what it applies in an annotation of at most 256 KiB.
            "allow": vec!["fd00::/8"; 10_000],
            "deny": vec!["fe80::/9"; 10_000],
        },
        "tls": tls_at_its_limits(),
    });
    serde_json::from_value::<SniRouteSpec>(spec.clone()).unwrap();
    let api = ApiServer::shared();
    let namespace = ["-n", api.namespace("rules-limits")];
    succeeded(api.admin().apply_with(&namespace, &route("limits", &spec).to_string()));
}

fn tls_at_its_limits() -> Value {
    let (name, namespace) = ("x".repeat(253), "x".repeat(63));
    let secret = json!({ "secret": name, "namespace": namespace });
    let ca = json!({ "configMap": name, "namespace": namespace });
    let server_name = format!("{0}.{0}.{0}.{1}.", "x".repeat(63), "x".repeat(61));
    json!({
        "mode": "Terminate",
        "certificates": vec![&secret; 8],
        "minVersion": "1.3",
        "clientCertificates": { "required": false, "ca": &ca },
        "upstream": { "serverName": server_name, "ca": &ca, "clientCertificate": &secret },
    })
}

fn a_route_of_nothing_but_faults_is_within_the_budget() {
    let long = |index: usize, length: usize| format!("{index:?<length$}");
    let spec = json!({
        "className": long(0, 253),
        "hostnames": (0..64).map(|index| long(index, 254)).collect::<Vec<String>>(),
        "listeners": (0..16).map(|index| long(index, 63)).collect::<Vec<String>>(),
        "alpn": (0..16).map(|index| format!("{index:é<255}")).collect::<Vec<String>>(),
        "backends": (0..16)
            .map(|index| json!({ "address": long(index, 256) + ":1.1" }))
            .collect::<Vec<_>>(),
        "timeouts": { "connect": long(0, 28), "idle": long(0, 28), "lifetime": long(0, 28) },
        "health": {
            "passive": { "ejectFor": long(0, 28), "maxEjectFor": long(0, 28) },
            "active": {
                "type": "TCP",
                "interval": long(0, 28),
                "timeout": long(0, 28),
                "serverName": long(0, 254),
                "alpn": (0..16).map(|index| format!("{index:é<255}")).collect::<Vec<String>>(),
                "verify": "Enforce",
                "ca": { "configMap": long(0, 253) },
            },
        },
        "endpoints": { "closeOver": long(0, 28) },
        "loadBalancing": { "slowStart": long(0, 28) },
        "access": { "allow": vec!["fd00::?/8"; 4_000], "deny": vec!["?"; 4_000] },
        "tls": {
            "mode": "Terminate",
            "certificates": vec![json!({ "secret": long(0, 253), "namespace": long(0, 63) }); 8],
            "clientCertificates": { "ca": { "secret": long(0, 253), "configMap": long(0, 253) } },
            "upstream": { "serverName": long(0, 254), "ca": { "namespace": long(0, 63) } },
        },
    });
    let refusal = try_out(&[spec]).remove(0).unwrap();
    assert!(!refusal.contains("budget"), "{refusal}");
    for field in
        ["className", "hostnames[63]", "listeners[15]", "timeouts.idle", "backends[15].address"]
    {
        assert!(refusal.contains(&format!("spec.{field}: Invalid value: ")), "{field}: {refusal}");
    }
}

/// Whoever applies hostnames or backends owns the list; listeners and protocols are owned one by
/// one.
fn managers_share_the_sets_and_own_the_other_lists() {
    let api = ApiServer::shared();
    let namespace = api.namespace("rules-managers");
    let apply = |manager: &str, spec: Value| {
        let manager = format!("--field-manager={manager}");
        let flags = ["--server-side", &manager, "-n", namespace];
        api.admin().apply_with(&flags, &route("shared", &spec).to_string())
    };
    let backends = json!([{ "address": "a:1" }]);
    succeeded(apply("one", json!({ "hostnames": ["a.b"], "backends": backends, "alpn": ["h2"] })));
    succeeded(apply("two", json!({ "alpn": ["h3"], "listeners": ["https"] })));
    let alpn = ["get", "sni", "shared", "-n", namespace, "-o", "jsonpath={.spec.alpn}"];
    assert_eq!(succeeded(api.admin().kubectl(&alpn)), "[\"h2\",\"h3\"]");

    let refused = apply("two", json!({ "hostnames": ["c.d"] }));
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains("conflict with \"one\": .spec.hostnames"), "{error}");
}

fn routes_are_listed_with_what_became_of_them() {
    let api = ApiServer::shared();
    let namespace = api.namespace("rules-columns");
    let spec = json!({
        "className": "inner",
        "hostnames": ["a.b", "*.a.b"],
        "backends": [{ "address": "a:1" }],
    });
    succeeded(api.admin().apply_with(&["-n", namespace], &route("listed", &spec).to_string()));
    let condition = |kind: &str, status: &str, reason: &str| {
        let at = "2026-01-01T00:00:00Z";
        json!({
            "type": kind,
            "status": status,
            "reason": reason,
            "message": "",
            "lastTransitionTime": at,
        })
    };
    let conditions = [
        condition("Accepted", "True", "PartlyAccepted"),
        condition("ResolvedRefs", "False", "ServiceNotFound"),
        condition("Programmed", "True", "Programmed"),
    ];
    let status = json!({ "endpoints": 3, "hostnames": "a.b,*.a.b", "conditions": conditions });
    let status = json!({ "status": status }).to_string();
    let of = ["sni", "listed", "-n", namespace];
    let patch = ["--subresource=status", "--type=merge", "-p", &status];
    succeeded(api.admin().kubectl(&[&["patch"], &of[..], &patch].concat()));

    let list = |output: &[&str]| {
        let listed = succeeded(api.admin().kubectl(&[&["get"], &of[..], output].concat()));
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let [head, line] = listed.lines().map(words).collect::<Vec<_>>().try_into().unwrap();
        head.into_iter().zip(line).map(|(head, word)| format!("{head}={word}")).collect::<Vec<_>>()
    };
    let narrow = list(&[]);
    let expected = [
        "NAME=listed",
        "HOSTNAMES=a.b,*.a.b",
        "ACCEPTED=True",
        "RESOLVED=False",
        "PROGRAMMED=True",
        "ENDPOINTS=3",
    ];
    assert_eq!(narrow[..6], expected);
    assert!(narrow[6].starts_with("AGE="), "{narrow:?}");
    let wide = list(&["-o", "wide"]);
    for column in ["CLASS=inner", "REASON=PartlyAccepted"] {
        assert!(wide.contains(&column.to_owned()), "{wide:?}");
    }
}
