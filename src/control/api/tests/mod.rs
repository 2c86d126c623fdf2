mod rules;

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::policy::{Balancing, Timeout};
use crate::routing::{Kind, ServicePort};
use crate::yaml::Node;

fn spec(text: &str) -> Result<SniRouteSpec, FieldFault> {
    parse(&node(text))
}

fn node(text: &str) -> Node {
    Node::parse(text).unwrap_or_else(|error| panic!("{}: {error}\n{text}", error.line))
}

const BACKENDS: &str = "backends: [{address: '192.0.2.1:1'}]";

#[test]
fn the_committed_definition_is_fresh() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/sniroutes.sluice.dev.yaml");
    let committed = std::fs::read_to_string(&file).expect("crds/sniroutes.sluice.dev.yaml");
    assert!(
        committed == crds(),
        "the definition is stale; run: sluice crds > crds/sniroutes.sluice.dev.yaml"
    );
}

#[test]
fn a_whole_route_is_read_and_written_back_the_same() {
    let text = "
className: sluice
hostnames: [KAFKA.example.com., '*.kafka.example.com', '*']
listeners: [https]
alpn: [h2, http/1.1]
backends:
- service: {name: kafka, port: 9093}
  weight: 90
- service: {name: kafka, port: tls}
- address: 203.0.113.7:9093
  weight: 0
- address: '[2001:db8::7]:9093'
- address: Kafka.example.com.:9093
- service: {name: kafka, namespace: other, port: 1}
loadBalancing: {policy: LeastConnections}
timeouts: {connect: 5s, idle: 1h30m}
tls:
  mode: Terminate
  certificates: [{secret: a.b-c}, {secret: d, namespace: other}]
  minVersion: '1.3'
  clientCertificates: {required: false, ca: {configMap: clients}}
  upstream:
    serverName: Kafka.example.com.
    ca: {secret: servers, namespace: other}
    clientCertificate: {secret: me}
";
    let route = spec(text).expect("a route");
    assert_eq!(route.hostnames[0].to_string(), "kafka.example.com");
    assert_eq!(route.load_balancing.policy, Some(Balancing::LeastConnections));
    assert_eq!(route.timeouts.connect.map(Timeout::get), Some(Duration::from_secs(5)));
    assert_eq!(route.timeouts.idle.map(Timeout::get), Some(Duration::from_secs(5400)));
    let weights: Vec<u32> = route.backends.iter().map(|backend| backend.weight).collect();
    assert_eq!(weights, [90, 1, 0, 1, 1, 1]);
    let BackendTarget::Address(name) = &route.backends[4].target else { panic!("an address") };
    assert_eq!(name.to_string(), "kafka.example.com:9093");
    let BackendTarget::Service(service) = &route.backends[1].target else { panic!("a Service") };
    assert_eq!(service.port, ServicePort::Name("tls".into()));

    let tls = route.tls.as_ref().expect("tls");
    assert_eq!((tls.min_version, tls.certificates.len()), (Some(MinTlsVersion::V13), 2));
    let clients = tls.client_certificates.as_ref().expect("client certificates");
    assert!(!clients.required);
    let upstream = tls.upstream.as_ref().expect("TLS to the backends");
    assert_eq!(upstream.server_name.as_str(), "kafka.example.com");
    assert!(matches!(&upstream.ca.source, CaObject::Secret(name) if name.as_str() == "servers"));

    let written = serde_yaml::to_string(&route).expect("YAML");
    assert_eq!(spec(&written).expect("the same route"), route, "{written}");
}

#[test]
fn what_is_left_out_has_its_default_and_is_left_out_when_written() {
    let route = spec(&format!("hostnames: [a.com]\n{BACKENDS}")).expect("a route");
    assert_eq!(route.class_name, None);
    assert_eq!(route.policy(), Policy::default());
    let written = serde_json::to_value(&route).expect("JSON");
    let backends = json!([{ "address": "192.0.2.1:1", "weight": 1 }]);
    assert_eq!(written, json!({ "hostnames": ["a.com"], "backends": backends }));
    let tls = "tls: {mode: Terminate, certificates: [{secret: a}], clientCertificates: {ca: {secret: b}}}";
    let tls =
        spec(&format!("hostnames: ['*']\n{BACKENDS}\n{tls}")).expect("a route").tls.expect("tls");
    assert_eq!((tls.min_version, tls.upstream), (None, None));
    assert!(tls.client_certificates.expect("client certificates").required);
}

#[test]
fn unknown_fields_are_passed_over_or_named() {
    let text = format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: SniRoute\nmetadata: {{name: a}}\n\
         spec: {{hostnames: [a.com], later: {{a: 1}}, {BACKENDS}}}"
    );
    let node = node(&text);
    assert!(parse::<SniRoute, _>(&node).is_ok());
    let faults = parse_strictly::<SniRoute, _>(Kind::SniRoute, &node).expect_err("a fault");
    let shown: Vec<_> = faults.iter().map(ToString::to_string).collect();
    let known = "access, alpn, backends, className, endpoints, health, hostnames, limits, listeners, \
                 loadBalancing, proxyProtocol, suspend, timeouts, tls";
    assert_eq!(shown, [format!("spec.later: unknown field; there are {known}")]);
}

#[test]
fn durations_are_read_and_written_as_gateway_api_has_them() {
    for (text, millis, shown) in [
        ("5s", 5_000, "5s"),
        ("500ms", 500, "500ms"),
        ("1h30m", 5_400_000, "1h30m"),
        ("90m", 5_400_000, "1h30m"),
        ("1h2m3s4ms", 3_723_004, "1h2m3s4ms"),
        ("30m1h", 5_400_000, "1h30m"),
    ] {
        let timeout: Timeout = text.parse().expect(text);
        assert_eq!(timeout.get(), Duration::from_millis(millis), "{text}");
        assert_eq!(timeout.to_string(), shown);
    }
    for text in [
        "",
        "5",
        "s",
        "0",
        "5 s",
        " 5s",
        "5s ",
        "1.5s",
        "-5s",
        "+5s",
        "5S",
        "1d",
        "5us",
        "100000s",
        "1h1m1s1ms1ms",
        "5s5",
        "٥s",
        "1e3s",
        "00s",
    ] {
        assert!(text.parse::<Timeout>().is_err(), "{text:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in ".{0,40}") {
        let _ = (text.parse::<Timeout>(), text.parse::<Address>(), text.parse::<ClassName>());
        let _ = (text.parse::<AlpnProtocol>(), text.parse::<ServiceName>());
        let _ = Node::parse(&text).map(|node| parse::<SniRouteSpec, _>(&node));
    }
}
