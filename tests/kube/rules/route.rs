//! The rules over what a route claims, and where it leads.

use serde_json::{Value, json};

use super::rule::{Rule, rule};

pub(super) fn rules() -> Vec<Rule> {
    [hostnames(), words(), lists(), addresses(), services()].concat()
}

fn hostnames() -> Vec<Rule> {
    let at = |bad: &str, says: &str, good: &str| {
        let says = format!("spec.hostnames[1]: Invalid value: {bad:?}: {says}");
        rule("/hostnames/1", json!(bad), says, json!(good))
    };
    let label = |length: usize| "x".repeat(length);
    // 253 characters, and one more.
    let longest = format!("{0}.{0}.{0}.{1}", label(63), label(61));
    let ip = "is an IP address; TLS clients send no server name for those: use * instead";
    let wildcard = "'*' may only stand alone or as the whole first label, as in *.example.com";
    let hyphen = "has a label that begins or ends with a hyphen";
    let empty = "has an empty label; write one dot between labels, and none in front";
    let character = "has a character that no server name has; allowed are a-z, 0-9, '-' and '_' \
                     (write international names in their xn-- form, and no port)";
    vec![
        at("", "write a name, a wildcard such as *.example.com, or * for any name", "*"),
        at(&format!("{longest}x"), "is longer than 253 characters", &longest),
        rule(
            "/hostnames/1",
            json!(format!("{longest}x.")),
            "spec.hostnames[1]: Too long: may not be more than 254 bytes",
            json!(format!("{longest}.")),
        ),
        at(
            &format!("{}.com", label(64)),
            "has a label that is longer",
            &format!("{}.com", label(63)),
        ),
        at("a..com", empty, "a.com."),
        at(".a.com", empty, "a.com"),
        at("-a.com", hyphen, "a-b.com"),
        at("a-.com", hyphen, "_a_.com"),
        at("w*.com", wildcard, "*.com"),
        at("*.*.com", wildcard, "*.a.com"),
        at("10.0.0.1", ip, "10.0.0.1a"),
        at("*.1", ip, "*.a1"),
        at("2130706433", ip, "2130706433.com"),
        at("::1", ip, "a1"),
        at("a.com:443", character, "a.com"),
        at("bücher.example", character, "xn--bcher-kva.example"),
        at("a b.com", character, "A_B.com"),
    ]
}

/// Classes, listeners and protocols.
fn words() -> Vec<Rule> {
    let long = |length: usize| "x".repeat(length);
    let class = "is not a class; write letters, digits, and any of - . _ / (1 to 253)";
    let listener = "is not a listener's name; it has 1 to 63 of a-z, 0-9 and '-', and begins and \
                    ends with a letter or digit";
    let alpn = "an ALPN protocol has 1 to 255 bytes, as in h2 or http/1.1";
    let invalid = |place: &'static str, field: &str, bad: &str, says: &str, good: &str| {
        let says = format!("spec.{field}: Invalid value: {bad:?}: {says}");
        rule(place, json!(bad), says, json!(good))
    };
    let too_long = |place: &'static str, field: &str, max: usize| {
        let says = format!("spec.{field}: Too long: may not be more than {max} bytes");
        rule(place, json!(long(max + 1)), says, json!(long(max)))
    };
    vec![
        invalid("/className", "className", "a b", class, "in-house/a.b_C"),
        invalid("/className", "className", "", class, "a"),
        too_long("/className", "className", 253),
        invalid("/listeners/0", "listeners[0]", "Https", listener, "https"),
        invalid("/listeners/0", "listeners[0]", "-a", listener, "a--1"),
        too_long("/listeners/0", "listeners[0]", 63),
        invalid("/alpn/0", "alpn[0]", "", alpn, "h2"),
        invalid("/alpn/0", "alpn[0]", &"é".repeat(128), alpn, &"é".repeat(127)),
        too_long("/alpn/0", "alpn[0]", 255),
    ]
}

/// The rules over a whole list.
fn lists() -> Vec<Rule> {
    let names = |count: usize| json!((0..count).map(|n| format!("n{n}")).collect::<Vec<_>>());
    let addresses = |count: usize| json!(vec![json!({ "address": "a:1" }); count]);
    let weights =
        |weights: [u32; 2]| json!(weights.map(|n| json!({ "address": "a:1", "weight": n })));
    let too_many = |field: &str, count: usize| {
        format!("spec.{field}: Too many: {count}: must have at most {} items", count - 1)
    };
    let too_few = |field: &str| {
        format!("spec.{field}: Invalid value: 0: spec.{field} in body should have at least 1 items")
    };
    vec![
        rule("/hostnames", names(0), too_few("hostnames"), names(1)),
        rule("/hostnames", names(65), too_many("hostnames", 65), names(64)),
        rule("/listeners", names(17), too_many("listeners", 17), names(16)),
        rule(
            "/listeners",
            json!(["a", "a"]),
            "spec.listeners[1]: Duplicate value: \"a\"",
            json!(["a", "b"]),
        ),
        rule("/alpn", names(17), too_many("alpn", 17), names(16)),
        rule(
            "/alpn",
            json!(["h2", "h2"]),
            "spec.alpn[1]: Duplicate value: \"h2\"",
            json!(["h2", "H2"]),
        ),
        rule("/backends", addresses(0), too_few("backends"), addresses(1)),
        rule("/backends", addresses(17), too_many("backends", 17), addresses(16)),
        rule(
            "/backends",
            weights([0, 0]),
            "spec.backends: Invalid value: all have weight 0; at least one needs a weight above 0",
            weights([0, 1]),
        ),
    ]
}

fn addresses() -> Vec<Rule> {
    let at = |bad: &str, says: &str, good: &str| {
        let says = format!("spec.backends[1].address: Invalid value: {bad:?}: {says}");
        rule("/backends/1/address", json!(bad), says, json!(good))
    };
    let place = |fault: &str| {
        format!(
            "{fault}; write an IP address or a DNS name with a port, as in 203.0.113.7:9093, \
             [2001:db8::7]:9093 or kafka.example.com:9093"
        )
    };
    let (wrong, no_port) = (place("is not an address"), place("has no port"));
    let number = place("has no port number");
    let port = "has a port that nothing can be reached at; write 1 to 65535";
    let nowhere = "cannot be reached; write the address of one machine";
    let label = |length: usize| "x".repeat(length);
    let name = format!("{0}.{0}.{0}.{1}", label(63), label(61));
    vec![
        at("kafka.example.com", &no_port, "kafka.example.com:9093"),
        at("192.0.2.1", &no_port, "192.0.2.1:1"),
        at("2001:db8::7", &no_port, "[2001:db8::7]:1"),
        at("2001:db8::7:9093", &no_port, "[2001:db8::7]:9093"),
        at("[::1]", &wrong, "[::1]:1"),
        at("kafka:tls", &number, "kafka:1"),
        at("kafka:", &number, "kafka.:1"),
        at("kafka:0", port, "kafka:1"),
        at("kafka:65536", port, "kafka:65535"),
        at("[::1]:99999", port, "[::1]:9999"),
        at("1.2.3:1", &wrong, "1.2.3.4:1"),
        at("1.2.3.256:1", &wrong, "1.2.3.255:1"),
        at("01.2.3.4:1", &wrong, "1.2.3.4:01"),
        at("[::g]:1", &wrong, "[::F]:1"),
        at("[1:2:3:4:5:6:7]:1", &wrong, "[1:2:3:4:5:6:7:8]:1"),
        at("[1::2:3:4:5:6:7:8]:1", &wrong, "[1:2:3:4:5:6:7::]:1"),
        at("[::1.2.3]:1", &wrong, "[::1.2.3.4]:1"),
        at("[1::2::3]:1", &wrong, "[1::2:3]:1"),
        at("a b:1", &wrong, "a_b:1"),
        at("*.b:1", &wrong, "b:1"),
        at("-a:1", &wrong, "a-a:1"),
        at("a..b:1", &wrong, "a.b.:1"),
        at(&format!("{}:1", label(64)), &wrong, &format!("{}:1", label(63))),
        at(&format!("{name}x:1"), &wrong, &format!("{name}.:1")),
        at("0.0.0.0:1", nowhere, "0.0.0.1:1"),
        at("224.0.0.1:1", nowhere, "223.0.0.1:1"),
        at("239.255.255.255:1", nowhere, "240.0.0.1:1"),
        at("[::]:1", nowhere, "[::2]:1"),
        at("[ff02::1]:1", nowhere, "[fe02::1]:1"),
        rule(
            "/backends/1/address",
            json!(format!("{name}.:000001")),
            "spec.backends[1].address: Too long: may not be more than 260 bytes",
            json!(format!("{name}.:00001")),
        ),
    ]
}

/// The rules over a backend, but for those over an address.
fn services() -> Vec<Rule> {
    let label = "it has 1 to 63 of a-z, 0-9 and '-', ";
    let text = |place: &'static str, bad: &str, says: String, good: Value| {
        let field = place.replace("/backends/1/", "spec.backends[1].").replace('/', ".");
        rule(place, json!(bad), format!("{field}: Invalid value: {bad:?}: {says}"), good)
    };
    let number = |place: &'static str, bad: i64, says: &str, good: i64| {
        let field = place.replace("/backends/1/", "spec.backends[1].").replace('/', ".");
        let says = format!("{field}: Invalid value: {bad}: {field} in body should be {says}");
        rule(place, json!(bad), says, json!(good))
    };
    let (name, namespace) = ("/backends/1/service/name", "/backends/1/service/namespace");
    let (port, weight) = ("/backends/1/service/port", "/backends/1/weight");
    let quotes = "is a name that looks like a number; write the number without quotes".to_owned();
    let pattern = "spec.backends[1].service.port in body should match '^[a-z0-9-]+$'".to_owned();
    let own_field = format!(
        "is not the name of a Service; {label}begins and ends with a letter or digit, and its \
         namespace goes into a field of its own"
    );
    let exactly = |what: &str| format!("spec.backends[1]: Invalid value: {what}; give exactly one");
    let service = json!({ "name": "app", "port": 1 });
    let address = json!({ "address": "a:1" });
    vec![
        rule(
            "/backends/1",
            json!({ "service": service, "address": "a:1" }),
            exactly("has both service and address"),
            json!({ "service": service }),
        ),
        rule(
            "/backends/1",
            json!({ "weight": 1 }),
            exactly("has neither service nor address"),
            address,
        ),
        rule(
            "/backends/1/service",
            json!({ "name": "app" }),
            "spec.backends[1].service.port: Required value",
            service,
        ),
        text(name, "other/app", own_field.clone(), json!("app")),
        text(name, "other.app", own_field, json!("other-app")),
        text(
            namespace,
            "Other",
            format!("is not the name of a namespace; {label}"),
            json!("other"),
        ),
        text(port, "443", quotes, json!(443)),
        text(port, "H2", pattern.clone(), json!("h2")),
        text(port, "", pattern, json!("-")),
        number(port, 0, "greater than or equal to 1", 1),
        number(port, 65536, "less than or equal to 65535", 65535),
        number(weight, -1, "greater than or equal to 0", 0),
        number(weight, 1_000_001, "less than or equal to 1000000", 1_000_000),
    ]
}
