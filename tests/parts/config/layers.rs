//! Where a value comes from, and what is in force in the end.

use std::time::Duration;

use sluice::config::{AccessLogMode, ListenerConfig, Protocol};
use sluice::logging::LogFormat;
use sluice::policy::{Layers, Policy};

use super::{fault, load, load_alone, parse};

#[test]
fn the_source_follows_from_what_is_given() {
    let source = |file: &str, variables: &[(&str, &str)], flags: &[&str]| {
        load_alone(file, variables, flags).map(|config| config.source.as_str())
    };
    let in_cluster = ("KUBERNETES_SERVICE_HOST", "10.96.0.1");
    let routes = "routes: [src]";
    let both = "source: kubernetes\nroutes: [src]";
    for (file, variables, flags, expected) in [
        (routes, &[][..], &[][..], "files"),
        (routes, &[in_cluster], &[], "files"),
        ("", &[in_cluster], &[], "kubernetes"),
        ("", &[("KUBECONFIG", "Cargo.toml")], &[], "kubernetes"),
        ("", &[], &["--kubeconfig", "Cargo.toml"], "kubernetes"),
        ("source: kubernetes", &[], &[], "kubernetes"),
        (both, &[("SLUICE_SOURCE", "files")], &[], "files"),
        (both, &[("SLUICE_SOURCE", "kubernetes")], &["--source", "files"], "files"),
    ] {
        let found = source(file, variables, flags);
        assert_eq!(found.ok(), Some(expected), "{file:?} {variables:?} {flags:?}");
    }
    for (file, flags, part) in [
        ("", &[][..], "no routes: give"),
        ("source: files", &[], "no routes: give"),
        (routes, &["--source", "kubernetes"], "not from both"),
        (routes, &["--source", "etcd"], "--source: \"etcd\" is not one of"),
        (routes, &["--state-dir", "state"], "stateDir is for routes from kubernetes"),
        (routes, &["--access-log-start", "--access-log", "errors"], "accessLog has to be all"),
        ("", &["--state-dir", "LICENSE"], "--state-dir: \"LICENSE\" is not a folder"),
        (
            "routes: [src]\ntimeouts: {max: 59m}",
            &[],
            "the longest timeouts.idle that routes may ask for, by timeouts.max or policyCeiling, is 59m",
        ),
        (routes, &["--timeouts-max", "1h", "--timeouts-connect", "2h"], "longest timeouts.connect"),
        ("stateDir: ''", &[], "sluice.yaml:1: stateDir: an empty path names no folder"),
        ("source: etcd", &[], "sluice.yaml:1: source: \"etcd\" is not one of"),
    ] {
        let fault = source(file, &[], flags).unwrap_err().to_string();
        assert!(fault.contains(part), "{fault}");
    }
}

#[test]
fn the_file_is_named_by_flag_or_variable() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, class: &str| {
        let path = folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(&path, format!("routes: [src]\nclass: {class}")).unwrap();
        path
    };
    let (one, two) = (path("one.yaml", "one"), path("two.yaml", "two"));
    let load = |variables: &[(&str, &str)], flags: &[&str]| parse(variables, flags).unwrap().class;
    assert_eq!(load(&[("SLUICE_CONFIG", &one)], &[]), "one");
    assert_eq!(load(&[], &["--config", &two]), "two");
    assert_eq!(load(&[("SLUICE_CONFIG", &one)], &["--config", &two]), "two");

    let missing = parse(&[("SLUICE_CONFIG", "/nowhere.yaml")], &[]).unwrap_err().to_string();
    assert_eq!(missing, r#"SLUICE_CONFIG: cannot read "/nowhere.yaml""#);
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let config = parse(&[], &["--routes", "src"]).unwrap();
    let any = |address: &str| ListenerConfig::new("https", address.parse().unwrap());
    assert_eq!(config.listeners, [any("0.0.0.0:8443"), any("[::]:8443")]);
    assert_eq!(config.admin, "127.0.0.1:9901".parse().unwrap());
    assert_eq!(config.class, "sluice");
    assert!(!config.require_class);
    assert_eq!(config.workers, std::thread::available_parallelism().unwrap());
    assert_eq!(config.timeouts.hello, Duration::from_secs(5));
    assert_eq!(config.policy, Policy::default());
    assert_eq!(config.policy_layers(), Layers::default());
    assert_eq!(config.timeouts.stall, Some(Duration::from_secs(300)));
    assert_eq!(config.timeouts.max, None);
    assert_eq!(config.max_hello, 16_384);
    assert_eq!(config.drain.delay, Duration::from_secs(5));
    assert_eq!(config.drain.timeout, Duration::from_secs(30));
    assert_eq!(config.access_log, AccessLogMode::All);
    assert_eq!(config.log.level, "info");
    assert_eq!(config.log.format, LogFormat::Auto);
}

#[test]
fn rust_log_comes_between_the_flag_and_the_other_variable() {
    let both = [("RUST_LOG", "warn"), ("SLUICE_LOG_LEVEL", "debug")];
    let level = |variables: &[(&str, &str)], flags: &[&str]| {
        load("log: {level: trace}", variables, flags).unwrap().log.level
    };
    assert_eq!(level(&both, &["--log-level", "error"]), "error");
    assert_eq!(level(&both, &[]), "warn");
    assert_eq!(level(&both[..1], &[]), "warn");
    assert_eq!(level(&both[1..], &[]), "debug");
    assert!(fault(load("", &[("RUST_LOG", "loud")], &[])).starts_with(r#"RUST_LOG: "loud" is"#));
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_do_no_harm() {
    let variables = [
        ("SLUICE_SERVICE_HOST", "10.0.0.1"),
        ("SLUICE_PORT", "tcp://10.0.0.1:8443"),
        ("SLUICE_PORT_8443_TCP_ADDR", "10.0.0.1"),
        ("SLUICE_ADMIN_SERVICE_PORT", "9901"),
    ];
    assert_eq!(load("", &variables, &[]).unwrap(), load("", &[], &[]).unwrap());
}

#[test]
fn an_empty_variable_is_none() {
    let variables = [("SLUICE_CLASS", ""), ("SLUICE_LISTEN", ""), ("RUST_LOG", "")];
    let config = load("class: one\nlog: {level: debug}", &variables, &[]).unwrap();
    assert_eq!((config.class.as_str(), config.log.level.as_str()), ("one", "debug"));
    assert_eq!(config.listeners.len(), 2);
}

#[test]
fn a_switch_can_be_turned_off_by_its_flag() {
    let variables = [("SLUICE_REQUIRE_CLASS", "true")];
    assert!(load("", &variables, &[]).unwrap().require_class);
    assert!(!load("", &variables, &["--require-class=false"]).unwrap().require_class);
    assert!(!load("", &variables, &["--require-class", "false"]).unwrap().require_class);
}

#[test]
fn a_setting_without_a_value_in_the_file_is_none() {
    let config = load("class:\nlisten: []\ndrain:\ntimeouts: {idle: }", &[], &[]).unwrap();
    assert_eq!(config, load("", &[], &[]).unwrap());
}

#[test]
fn listeners_in_the_file_are_objects_or_text() {
    let file = "
listen:
- 127.0.0.1:1
- {address: '[::1]:1'}
- name: quic-less
  address: 127.0.0.1:2
  protocol: tls
  alerts: true
- db=tcp://127.0.0.1:3
";
    let config = load(file, &[], &[]).unwrap();
    let listener = |name: &str, address: &str| ListenerConfig::new(name, address.parse().unwrap());
    let expected = [
        listener("https", "127.0.0.1:1"),
        listener("https", "[::1]:1"),
        ListenerConfig { alerts: true, ..listener("quic-less", "127.0.0.1:2") },
        ListenerConfig { protocol: Protocol::Tcp, ..listener("db", "127.0.0.1:3") },
    ];
    assert_eq!(config.listeners, expected);
    assert!(config.in_force().contains("quic-less=127.0.0.1:2+alerts"), "{}", config.in_force());
}

#[test]
fn a_value_that_is_overruled_is_not_looked_at() {
    let config = load("class: ''", &[("SLUICE_CLASS", "a b")], &["--class", "c"]).unwrap();
    assert_eq!(config.class, "c");
}
