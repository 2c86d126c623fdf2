//! The API server and sluice's own parser, asked about the same odd values.
//!
//! Whatever the parser takes of a manifest, the API server takes. What it lets pass beyond that is listed here,
//! each kind with its reason.

use std::collections::BTreeSet;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use sluice::control::api::{self, SniRouteSpec};
use sluice::yaml::Node;
use testkit::Random;

use crate::dry_run::{spec, try_out};
use crate::support::slow;

pub(crate) fn tests() -> Vec<Trial> {
    vec![slow!(the_api_server_refuses_what_the_parser_refuses)]
}

/// Where a value goes, and how many of them one route can hold.
struct Field {
    /// With `#` for the index, if there may be several.
    place: &'static str,
    indices: std::ops::Range<usize>,
    values: Vec<Value>,
}

/// What the API server lets pass: where, which values, and why it cannot be helped.
struct Difference {
    place: &'static str,
    covers: fn(&Value) -> bool,
    reason: &'static str,
}

const DIFFERENCES: &[Difference] = &[Difference {
    place: "/backends/#/address",
    covers: |value| value.as_str().is_some_and(|address| address.contains('%')),
    reason: "the number of a zone: only the parser sees whether it has more than 32 bits",
}];

fn the_api_server_refuses_what_the_parser_refuses() {
    let fields = fields();
    let mut met = BTreeSet::new();
    let mut wrong = Vec::new();
    for (field, value, taken) in ask(&fields) {
        let manifest = Node::parse(&field.spec(std::slice::from_ref(value)).to_string());
        let parsed = api::parse::<SniRouteSpec, _>(&manifest.expect("JSON is YAML"));
        let difference = DIFFERENCES
            .iter()
            .find(|known| field.place.starts_with(known.place) && (known.covers)(value));
        match (taken, parsed, difference) {
            (true, Ok(_), _) | (false, Err(_), _) => {}
            (true, Err(_), Some(known)) => drop(met.insert(known.reason)),
            (true, Err(error), None) => wrong.push(format!("taken, {}: {error}", field.place)),
            (false, Ok(_), _) => wrong.push(format!("refused, {}: {value}", field.place)),
        }
    }
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
    for Difference { reason, .. } in DIFFERENCES {
        assert!(met.contains(reason), "not met: {reason}");
    }
}

/// Every value of every field, and whether the API server takes it: as many of them in one route as
/// there is room for. What is too long or of another type keeps the API server from looking at the
/// rest of a route, so those of such a route are asked about one by one.
fn ask(fields: &[Field]) -> Vec<(&Field, &Value, bool)> {
    let routes: Vec<(&Field, &[Value])> = fields
        .iter()
        .flat_map(|field| field.values.chunks(field.indices.len()).map(move |some| (field, some)))
        .collect();
    let (mut answered, mut again) = (Vec::new(), Vec::new());
    for ((field, values), answer) in routes.iter().zip(answers(&routes)) {
        if values.len() > 1 && answer.contains("some validation rules were not checked") {
            again.extend(values.chunks(1).map(|one| (*field, one)));
        } else {
            let indices = field.indices.clone().zip(*values);
            answered.extend(
                indices.map(|(index, value)| (*field, value, !field.blames(&answer, index))),
            );
        }
    }
    let singly = answers(&again);
    answered.extend(
        again.iter().zip(singly).map(|((field, one), answer)| (*field, &one[0], answer.is_empty())),
    );
    answered
}

/// What the API server says to a route with these values; nothing if it takes it.
fn answers(routes: &[(&Field, &[Value])]) -> Vec<String> {
    let specs: Vec<Value> = routes.iter().map(|(field, values)| field.spec(values)).collect();
    try_out(&specs).into_iter().map(Option::unwrap_or_default).collect()
}

impl Field {
    fn one(place: &'static str, values: Vec<Value>) -> Self {
        Field { place, indices: 0..1, values }
    }

    fn many(place: &'static str, indices: std::ops::Range<usize>, values: Vec<Value>) -> Self {
        Field { place, indices, values }
    }

    fn spec(&self, values: &[Value]) -> Value {
        let place = |index: usize| self.place.replace('#', &index.to_string());
        let places = self.indices.clone().map(place);
        spec(places.zip(values))
    }

    /// Whether the answer is about the value with this index, or something in or around it.
    fn blames(&self, answer: &str, index: usize) -> bool {
        let Some((list, _)) = self.place.split_once("/#") else { return !answer.is_empty() };
        let item = format!("spec.{}[{index}]", &list[1..]);
        answer.contains(&format!("{item}:")) || answer.contains(&format!("{item}."))
    }
}

fn fields() -> Vec<Field> {
    let labels = texts(&["a", "a-b", "0", "x--1", &long(63), &long(64)], "-.A_é/ \n", 120);
    vec![
        Field::many("/hostnames/#", 0..64, hostnames()),
        Field::many("/backends/#/address", 1..16, addresses()),
        Field::many("/backends/#/service/name", 1..16, labels.clone()),
        Field::many("/backends/#/service/namespace", 1..16, labels.clone()),
        Field::many("/backends/#/service/port", 1..16, ports()),
        Field::many("/backends/#/weight", 1..16, numbers(&[0, 1_000_000])),
        Field::many("/listeners/#", 0..16, labels),
        Field::many("/alpn/#", 0..16, alpn()),
        Field::one(
            "/className",
            texts(&["a", "a/b.c_d-E", &long(253), &long(254)], "@ é\n.-:", 60),
        ),
        Field::one("/timeouts/connect", timeouts()),
        Field::one("/loadBalancing/policy", texts(&["RoundRobin", "Random"], " r", 12)),
        Field::one("/loadBalancing/race/budget", numbers(&[0, 100])),
        Field::one("/limits/connections", numbers(&[1, 10_000_000])),
        Field::one("/limits/newConnections", others()),
        Field::one("/limits/perSource/prefix/ipv4", numbers(&[1, 32])),
        Field::one("/health/passive/failures", numbers(&[0, 16])),
        Field::one("/health/passive/ejectFor", timeouts()),
        Field::one("/health/passive/maxEjectFor", timeouts()),
        Field::one("/health/passive", others()),
        Field::one("/health/active", others()),
        Field::one("/health/active", checks("interval", timeouts())),
        Field::one("/health/active", checks("timeout", timeouts())),
        Field::one("/health/active", checks("healthy", numbers(&[1, 10]))),
        Field::one(
            "/health/active",
            checks("verify", texts(&["None", "Report", "Enforce"], "f", 9)),
        ),
        Field::one("/health/active", checks("ca", others())),
        Field::one("/health/active", checks("serverName", server_names())),
        Field::one("/loadBalancing", others()),
        Field::one("/timeouts", others()),
        Field::one("/hostnames", others()),
        Field::one("/backends", others()),
        Field::one("/backends/1", others()),
        Field::one("/backends/1/service", others()),
    ]
}

fn hostnames() -> Vec<Value> {
    let name = [&long(63), &long(63), &long(63), &*long(61)].join(".");
    let mut seeds = ["a.example", "*.example.com", "*", "_a._b", "10.0.0.1", "::1", "1.2", "*.1"]
        .map(str::to_owned)
        .to_vec();
    seeds.extend([format!("{name}."), format!("{name}x"), format!("*.{}", &name[2..])]);
    seeds.extend([format!("a.{}.b", long(63)), format!("a.{}.b", long(64)), "ffff::1".to_owned()]);
    seeds.extend([long(253), long(254)]);
    texts(&seeds.iter().map(String::as_str).collect::<Vec<_>>(), ".-*_:0aZ ü[]/\n%@", 600)
}

fn addresses() -> Vec<Value> {
    let name = [&long(63), &long(63), &long(63), &*long(61)].join(".");
    let longest = [format!("{name}.:65535"), format!("{name}:1"), format!("{name}x:1")];
    let mut seeds = vec![
        "192.0.2.7:9093",
        "255.255.255.255:1",
        "0.0.0.0:1",
        "0.0.0.1:65535",
        "224.0.0.1:1",
        "239.9.9.9:1",
        "1.2.3:1",
        "a.b:1",
        "a_1.b-c.:443",
        "[::]:1",
        "[::1]:1",
        "[1::]:1",
        "[2001:db8::7]:9093",
        "[1:2:3:4:5:6:7:8]:1",
        "[1:2:3:4:5:6:7::]:1",
        "[::2:3:4:5:6:7:8]:1",
        "[1:2::4:5:6:7:8]:1",
        "[1:2:3:4:5:6:1.2.3.4]:1",
        "[1:2:3:4:5::1.2.3.4]:1",
        "[1:2:3:4:5:6::1.2.3.4]:1",
        "[::ffff:192.0.2.1]:1",
        "[::0.0.0.0]:1",
        "[0:0:0:0:0:0:0:0%1]:1",
        "[fe80::1%3]:443",
        "[fe80::1%99999999999]:443",
        "[ff02::1]:1",
        "[FF02::1%2]:1",
        "[ff:2::1]:1",
        "::1",
        "::ffff:1.2.3.4",
        "2001:db8::7:9093",
        "kafka:00065535",
        "kafka:65536",
        "192.0.2.1:000000080",
        "1.2.3.4:99999999999999999999999",
    ];
    seeds.extend(longest.iter().map(String::as_str));
    texts(&seeds, ".-*_:0165afgF ü[]/\n%", 900)
}

fn ports() -> Vec<Value> {
    let names = texts(&["a", "h-2", "443", "0", "-", &long(63), &long(64)], "-0_Aé. \n", 100);
    [names, numbers(&[1, 65535])].concat()
}

fn alpn() -> Vec<Value> {
    let seeds = ["h2", "é", &"é".repeat(127), &"é".repeat(128), &"é".repeat(256), &long(255)];
    texts(&seeds, "é \n\"\\", 60)
}

fn timeouts() -> Vec<Value> {
    let seeds = ["5s", "0s", "1h30m", "720h", "720h0m0s1ms", "719h59m60s", "719h60m1ms", "99999ms"];
    let more =
        ["99999h99999h99999h99999h", "00000ms00000ms00000ms00000ms", "000000s", "30d", "1us"];
    texts(&[&seeds[..], &more].concat(), "0159hmsdu.-+ \nµ٥e", 220)
}

/// Checks with each of these values in a field.
fn checks(field: &str, values: Vec<Value>) -> Vec<Value> {
    let with = |value| {
        let mut checks = json!({ "type": "TLS" });
        checks[field] = value;
        checks
    };
    values.into_iter().map(with).collect()
}

fn server_names() -> Vec<Value> {
    let name = [&long(63), &long(63), &long(63), &*long(61)].join(".");
    let seeds = [
        "a.example",
        "a-b_",
        "192.0.2.1",
        "1.2.",
        "a.12",
        "a.0x1f",
        "a.0X.",
        "a.0xg",
        "0x1.a",
        &format!("{name}."),
        &format!("{name}x"),
    ];
    texts(&seeds, "-._*0aZ é:\n", 150)
}

fn numbers(edges: &[i64]) -> Vec<Value> {
    let around = edges.iter().flat_map(|edge| (edge - 2..=edge + 2).map(Value::from));
    around.chain([json!(i64::MAX), json!(i64::MIN), json!(u64::MAX), json!(1.5)]).collect()
}

fn others() -> Vec<Value> {
    vec![Value::Null, json!(true), json!(1), json!(""), json!([]), json!({}), json!([null])]
}

fn long(length: usize) -> String {
    "x".repeat(length)
}

/// The seeds, `count` texts that are a step or two away from one of them, and what is no text. The
/// same with every run.
fn texts(seeds: &[&str], alphabet: &str, count: usize) -> Vec<Value> {
    let alphabet: Vec<char> = alphabet.chars().collect();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut texts: BTreeSet<(usize, String)> = BTreeSet::new();
    for round in 0..count {
        let mut text: Vec<char> = seeds[round % seeds.len()].chars().collect();
        for _ in 0..=random.below(2) {
            let place = place(&mut random, &text);
            let letter = alphabet[random.below(alphabet.len())];
            match random.below(3) {
                0 => text.insert(place, letter),
                1 if place < text.len() => text[place] = letter,
                _ if place < text.len() => drop(text.remove(place)),
                _ => {}
            }
        }
        texts.insert((text.len(), text.into_iter().collect()));
    }
    texts.extend(seeds.iter().map(|seed| (seed.chars().count(), (*seed).to_owned())));
    // The longest come last, together.
    let texts = texts.into_iter().map(|(_, text)| Value::String(text));
    texts.chain(others().into_iter().filter(|other| *other != json!(""))).collect()
}

/// A place by chance: half of them where a rule may have an edge, at either end or beside what is no
/// letter.
fn place(random: &mut Random, text: &[char]) -> usize {
    let edges: Vec<usize> = (0..=text.len())
        .filter(|&at| at == 0 || at == text.len() || !text[at].is_alphanumeric())
        .flat_map(|at| [at, (at + 1).min(text.len())])
        .collect();
    match random.below(2) {
        0 => edges[random.below(edges.len())],
        _ => random.below(text.len() + 1),
    }
}
