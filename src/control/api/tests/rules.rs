//! What is refused, and what is said of it.

use super::*;

/// Each is refused with the field and its line, beside a neighbour that passes.
#[test]
fn every_rule_names_the_field_and_the_line() {
    let many = |n: usize, item: &str| vec![item; n].join(", ");
    let address = "{address: '192.0.2.1:1'}";
    for (good, bad, part) in [
        ("a.com", "10.0.0.1", "hostnames[0]: hostname \"10.0.0.1\" is an IP address"),
        ("*.a.com", "w*.a.com", "hostnames[0]: hostname \"w*.a.com\": '*' may only"),
    ] {
        refused(
            &format!("hostnames: ['{good}']\n{BACKENDS}"),
            &format!("hostnames: ['{bad}']\n{BACKENDS}"),
            1,
            part,
        );
    }
    for (good, bad, part) in [
        (many(1, "a.com"), String::new(), "hostnames: is empty"),
        (many(64, "a.com"), many(65, "a.com"), "hostnames: has 65 hostnames"),
    ] {
        refused(
            &format!("hostnames: [{good}]\n{BACKENDS}"),
            &format!("hostnames: [{bad}]\n{BACKENDS}"),
            1,
            part,
        );
    }
    for (good, bad, part) in [
        (address.to_owned(), String::new(), "backends: is empty"),
        (many(16, address), many(17, address), "backends: has 17 backends"),
        (
            "{address: '192.0.2.1:1', weight: 0}, {address: '192.0.2.1:1'}".to_owned(),
            "{address: '192.0.2.1:1', weight: 0}".to_owned(),
            "backends: all have weight 0",
        ),
    ] {
        refused(
            &format!("hostnames: [a.com]\nbackends: [{good}]"),
            &format!("hostnames: [a.com]\nbackends: [{bad}]"),
            2,
            part,
        );
    }
    for (field, good, bad, part) in [
        ("className", "in-house/a.b_c", "''", "className: \"\" is not a class"),
        ("className", "a", "a b", "className: \"a b\" is not a class"),
        ("listeners", "[https]", "[a/b]", "listeners[0]: \"a/b\" is not a listener's name"),
        // As strict as the configuration: a listener of these names cannot be.
        ("listeners", "[a-1]", "[Https]", "listeners[0]: \"Https\" is not a listener's name"),
        ("listeners", "['0']", "[a.b]", "listeners[0]: \"a.b\" is not a listener's name"),
        ("listeners", "[a--b]", "[-a]", "listeners[0]: \"-a\" is not a listener's name"),
        ("listeners", "[a, b]", "[a, b, a]", "listeners: has \"a\" twice"),
        ("alpn", "[h2]", "[h2, '']", "alpn[1]: an ALPN protocol has 1 to 255 bytes"),
        ("alpn", "[h2, H2]", "[h2, h2]", "alpn: has \"h2\" twice"),
        (
            "loadBalancing",
            "{policy: Random}",
            "{policy: random}",
            "loadBalancing.policy: \"random\" is not a policy; write one of RoundRobin, ",
        ),
        (
            "timeouts",
            "{connect: 1ms}",
            "{connect: 0s}",
            "timeouts.connect: \"0s\" is no time at all",
        ),
        (
            "timeouts",
            "{idle: 720h}",
            "{idle: 720h1ms}",
            "timeouts.idle: \"720h1ms\" is over the maximum",
        ),
        (
            "health",
            "{passive: {failures: 16}}",
            "{passive: {failures: 17}}",
            "health.passive.failures: 17 is not a number from 0 to 16",
        ),
        (
            "health",
            "{passive: {ejectFor: 5m, maxEjectFor: 5m}}",
            "{passive: {ejectFor: 5m1ms, maxEjectFor: 5m}}",
            "health: passive.maxEjectFor is 5m, less than ejectFor, which is 5m1ms",
        ),
        (
            "health",
            "{active: {type: TLS, verify: Enforce, ca: {configMap: a}}}",
            "{active: {type: TLS, verify: Enforce}}",
            "health: active.verify is Enforce, and ca is missing",
        ),
        (
            "loadBalancing",
            "{race: {budget: 0}}",
            "{race: {budget: -1}}",
            "loadBalancing.race.budget: -1 is not a number from 0 to 100",
        ),
        ("timeouts", "{idle: 5s}", "{idle: -5s}", "timeouts.idle: \"-5s\" is not a duration"),
        ("timeouts", "{}", "[5s]", "timeouts: invalid type: list, expected an object"),
        ("timeouts", "", "5s", "timeouts: invalid type: string \"5s\", expected an object"),
        (
            "timeouts",
            "{idle: 5s}",
            "{idle: 5}",
            "timeouts.idle: invalid type: integer `5`, expected a duration such as 5s",
        ),
        (
            "timeouts",
            "{idle: 5s}",
            "{idle: [5s]}",
            "timeouts.idle: invalid type: list, expected a duration",
        ),
    ] {
        let around = format!("hostnames: [a.com]\n{BACKENDS}\n{field}: ");
        refused(&format!("{around}{good}"), &format!("{around}{bad}"), 3, part);
    }
    for field in ["listeners", "alpn"] {
        let names: Vec<String> = (1..=17).map(|n| format!("n{n}")).collect();
        let around = format!("hostnames: [a.com]\n{BACKENDS}\n{field}: ");
        let [good, bad] = [16, 17].map(|n| format!("{around}[{}]", names[..n].join(", ")));
        refused(&good, &bad, 3, &format!("{field}: has 17 "));
    }
    let long = "x".repeat(256);
    let around = format!("hostnames: [a.com]\n{BACKENDS}\nalpn: ");
    refused(
        &format!("{around}[{}]", &long[1..]),
        &format!("{around}[{long}]"),
        3,
        "this one has 256",
    );
}

#[test]
fn a_check_of_tls_needs_a_name_to_ask_for() {
    for (hostnames, kind, refused) in [
        ("['*.a.com', '*']", "TLS", true),
        ("['*.a.com', b.com]", "TLS", false),
        ("['*']", "TLS, serverName: a.com", false),
        ("['*']", "TCP", false),
        ("['*']", "None", false),
    ] {
        let text =
            format!("hostnames: {hostnames}\n{BACKENDS}\nhealth: {{active: {{type: {kind}}}}}");
        let fault = spec(&text).err().map(|fault| fault.to_string()).unwrap_or_default();
        let expected = "health.active.serverName is missing, and no hostname is an exact name";
        assert_eq!(fault.starts_with(expected), refused, "{text}: {fault}");
        assert!(refused || fault.is_empty(), "{text}: {fault}");
        // With `tls`, it is the name of `upstream`, or there is no TLS to check.
        let text = format!("{text}\ntls: {{mode: Terminate, certificates: [{{secret: a}}]}}");
        assert_eq!(spec(&text).err().map(|fault| fault.to_string()), None);
    }
}

#[test]
fn every_rule_of_tls_names_the_field_and_the_line() {
    let many = |n: usize| vec!["{secret: a}"; n].join(", ");
    let certificates = |list: &str| format!("mode: Terminate, certificates: [{list}]");
    let with = |field: &str| format!("mode: Terminate, certificates: [{{secret: a}}], {field}");
    let upstream = |fields: &str| with(&format!("upstream: {{{fields}}}"));
    for (good, bad, part) in [
        (
            certificates("{secret: a}"),
            "mode: Passthrough, certificates: [{secret: a}]".to_owned(),
            "tls.mode: unknown variant `Passthrough`, expected `Terminate`",
        ),
        (
            certificates("{secret: a}"),
            "certificates: [{secret: a}]".to_owned(),
            "tls: missing field `mode`",
        ),
        (
            certificates("{secret: a}"),
            "mode: Terminate".to_owned(),
            "tls: missing field `certificates`",
        ),
        (certificates(&many(8)), certificates(&many(9)), "tls.certificates: has 9 certificates"),
        (
            certificates(&many(1)),
            certificates(""),
            "tls.certificates: is empty; write at least one",
        ),
        (
            certificates("{secret: a.b}"),
            certificates("{secret: a/b}"),
            "tls.certificates[0].secret: \"a/b\" is not the name of a Secret",
        ),
        (
            certificates("{secret: a, namespace: b}"),
            certificates("{secret: a, namespace: b.c}"),
            "tls.certificates[0].namespace: \"b.c\" is not the name of a namespace",
        ),
        (
            with("minVersion: '1.3'"),
            with("minVersion: '1.1'"),
            "tls.minVersion: unknown variant `1.1`, expected `1.2` or `1.3`",
        ),
        (
            with("clientCertificates: {ca: {configMap: a}}"),
            with("clientCertificates: {required: true}"),
            "tls.clientCertificates: missing field `ca`",
        ),
        (
            with("clientCertificates: {ca: {configMap: a}}"),
            with("clientCertificates: {ca: {}}"),
            "tls.clientCertificates.ca: has neither configMap nor secret; give exactly one",
        ),
        (
            with("clientCertificates: {ca: {secret: a}}"),
            with("clientCertificates: {ca: {secret: a, configMap: a}}"),
            "tls.clientCertificates.ca: has both configMap and secret; give exactly one",
        ),
        (
            upstream("serverName: a.b, ca: {configMap: a}"),
            upstream("serverName: a.b"),
            "tls.upstream: missing field `ca`",
        ),
        (
            upstream("serverName: a.b, ca: {configMap: a}"),
            upstream("ca: {configMap: a}"),
            "tls.upstream: missing field `serverName`",
        ),
        (
            upstream("serverName: a.b, ca: {configMap: a}"),
            upstream("serverName: '*.b', ca: {configMap: a}"),
            "tls.upstream.serverName: \"*.b\" is not a server name",
        ),
    ] {
        let around = format!("hostnames: [a.com]\n{BACKENDS}\ntls: ");
        refused(&format!("{around}{{{good}}}"), &format!("{around}{{{bad}}}"), 3, part);
    }
}

#[test]
fn every_rule_of_a_backend_names_the_field_and_the_line() {
    for (good, bad, part) in [
        ("address: '192.0.2.1:1'", "weight: 1", "backends[1]: has neither service nor address"),
        (
            "address: '192.0.2.1:1'",
            "{address: '192.0.2.1:1', service: {name: a, port: 1}}",
            "backends[1]: has both service and address",
        ),
        (
            "{address: '192.0.2.1:1', weight: 1000000}",
            "{address: '192.0.2.1:1', weight: 1000001}",
            "backends[1].weight: 1000001 is over the maximum of 1000000",
        ),
        (
            "{address: '192.0.2.1:1', weight: 0}",
            "{address: '192.0.2.1:1', weight: -1}",
            "backends[1].weight: invalid value: integer `-1`, expected a whole number from 0",
        ),
        (
            "address: kafka.example.com:9093",
            "address: kafka.example.com",
            "backends[1].address: \"kafka.example.com\" has no port; write an IP address or a DNS \
             name",
        ),
        (
            "address: KAFKA_1.example.com.:1",
            "address: kafka.example.com:tls",
            "backends[1].address: \"kafka.example.com:tls\" has no port number",
        ),
        (
            "address: kafka:65535",
            "address: kafka:65536",
            "backends[1].address: \"kafka:65536\" has a port over 65535",
        ),
        ("address: kafka:1", "address: kafka:0", "nothing can be reached at port 0"),
        ("address: a.b:1", "address: '*.b:1'", "backends[1].address: \"*.b:1\" is not an address"),
        (
            "address: a.b:1",
            "address: 'a..b:1'",
            "backends[1].address: \"a..b:1\" is not an address",
        ),
        ("address: '192.0.2.1:1'", "address: 1.2.3:1", "\"1.2.3:1\" is not an address"),
        ("address: '[::1]:1'", "address: '2001:db8::g:1'", "\"2001:db8::g:1\" is not an address"),
        (
            "address: '192.0.2.1:1'",
            "address: 192.0.2.1",
            "backends[1].address: \"192.0.2.1\" has no port",
        ),
        ("address: '[::1]:1'", "address: '::1'", "backends[1].address: \"::1\" has no port"),
        (
            "address: '[::1]:1'",
            "address: '[::1]'",
            "backends[1].address: \"[::1]\" is not an address",
        ),
        (
            "address: '192.0.2.1:1'",
            "address: 192.0.2.1:0",
            "backends[1].address: \"192.0.2.1:0\": nothing can be reached at port 0",
        ),
        (
            "address: '192.0.2.1:65535'",
            "address: 192.0.2.1:65536",
            "backends[1].address: \"192.0.2.1:65536\" is not an address",
        ),
        ("address: '192.0.2.1:1'", "address: 0.0.0.0:1", "nothing can be reached at 0.0.0.0"),
        ("address: '192.0.2.1:1'", "address: 224.0.0.1:1", "nothing can be reached at 224.0.0.1"),
        (
            "service: {name: a, port: 65535}",
            "service: {name: a, port: 65536}",
            "backends[1].service.port: 65536 is not a port",
        ),
        (
            "service: {name: a, port: 1}",
            "service: {name: a, port: 0}",
            "backends[1].service.port: 0 is not a port",
        ),
        (
            "service: {name: a, port: 1}",
            "service: {name: a, port: -1}",
            "backends[1].service.port: -1 is not a port",
        ),
        (
            "service: {name: a, port: 443}",
            "service: {name: a, port: '443'}",
            "write the number without quotes",
        ),
        (
            "service: {name: a, port: h-2}",
            "service: {name: a, port: H2}",
            "\"H2\" is not the name of a port",
        ),
        (
            "service: {name: a, port: 1}",
            "service: {name: a}",
            "backends[1].service: missing field `port`",
        ),
        (
            "service: {name: a, port: 1}",
            "service: {name: ns/a, port: 1}",
            "backends[1].service.name: \"ns/a\" is not the name of a Service",
        ),
        (
            "service: {name: a, port: 1, namespace: ns-1}",
            "service: {name: a, port: 1, namespace: Ns}",
            "backends[1].service.namespace: \"Ns\" is not the name of a namespace",
        ),
        (
            "service: {name: a, port: 1}",
            "service: [ns, a, 1]",
            "backends[1].service: invalid type: list, expected an object with a name and a port",
        ),
        ("address: '192.0.2.1:1'", "[1]", "backends[1]: invalid type: list, expected a backend"),
    ] {
        let around = "hostnames: [a.com]\nbackends:\n- address: '192.0.2.2:2'\n- ";
        refused(&format!("{around}{good}"), &format!("{around}{bad}"), 4, part);
    }
}

#[track_caller]
fn refused(good: &str, bad: &str, line: usize, part: &str) {
    if let Err(error) = spec(good) {
        panic!("the neighbour does not pass: {error}\n{good}");
    }
    let error = spec(bad).expect_err(bad);
    let shown = error.to_string();
    assert!(shown.contains(part), "{shown:?} has no {part:?}");
    assert_eq!(node(bad).line_of(&error.field), line, "{shown}");
}
