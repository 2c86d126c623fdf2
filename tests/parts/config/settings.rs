//! Every setting: its layers, its flag, its variable, and how it reads back.

use clap::CommandFactory;
use sluice::cli::Cli;
use sluice::config::Config;

use super::{load, parse};

/// One setting in all three layers, with another value in each.
struct Row {
    name: &'static str,
    file: &'static str,
    variable: (&'static str, &'static str),
    flags: &'static [&'static str],
    /// What is in force if the file, the environment, the flags win.
    shown: [&'static str; 3],
}

const ROWS: &[Row] = &[
    Row {
        name: "routes",
        file: "routes: [src, tests]",
        variable: ("SLUICE_ROUTES", "src/tls, Cargo.toml"),
        flags: &["--routes", "src/proxy", "--routes", "src/lib.rs"],
        shown: ["src,tests", "src/tls,Cargo.toml", "src/proxy,src/lib.rs"],
    },
    Row {
        name: "kubeconfig",
        file: "kubeconfig: Cargo.toml",
        variable: ("SLUICE_KUBECONFIG", "README.md"),
        flags: &["--kubeconfig", "LICENSE"],
        shown: ["Cargo.toml", "README.md", "LICENSE"],
    },
    Row {
        name: "namespaces",
        file: "namespaces: [a, b]",
        variable: ("SLUICE_NAMESPACES", "c, d"),
        flags: &["--namespaces", "e", "--namespaces", "f"],
        shown: ["a,b", "c,d", "e,f"],
    },
    Row {
        name: "dns.servers",
        file: "dns: {servers: [10.96.0.10]}",
        variable: ("SLUICE_DNS_SERVERS", "[::1], 127.0.0.1:5353"),
        flags: &["--dns-servers", "[2001:db8::53]:5353", "--dns-servers", "::1"],
        shown: ["10.96.0.10:53", "[::1]:53,127.0.0.1:5353", "[2001:db8::53]:5353,[::1]:53"],
    },
    Row {
        name: "addresses.allow",
        file: "addresses: {allow: [10.0.0.0/8, '::/0']}",
        variable: ("SLUICE_ADDRESSES_ALLOW", "192.0.2.0/24, 10.0.0.1"),
        flags: &["--addresses-allow", "fd00::/8"],
        shown: ["10.0.0.0/8,::/0", "192.0.2.0/24,10.0.0.1/32", "fd00::/8"],
    },
    Row {
        name: "addresses.deny",
        file: "addresses: {deny: [10.9.0.0/16]}",
        variable: ("SLUICE_ADDRESSES_DENY", "::ffff:10.0.0.0/104"),
        flags: &["--addresses-deny", "192.0.2.1", "--addresses-deny", "0.0.0.0/0"],
        shown: ["10.9.0.0/16", "10.0.0.0/8", "192.0.2.1/32,0.0.0.0/0"],
    },
    Row {
        name: "ownServices",
        file: "ownServices: [edge/sluice]",
        variable: ("SLUICE_OWN_SERVICES", "edge/sluice, edge/sluice-admin"),
        flags: &["--own-services", "a/b"],
        shown: ["edge/sluice", "edge/sluice,edge/sluice-admin", "a/b"],
    },
    Row {
        name: "node",
        file: "node: worker-1",
        variable: ("SLUICE_NODE", "worker-2.example.com"),
        flags: &["--node", "worker_3"],
        shown: ["worker-1", "worker-2.example.com", "worker_3"],
    },
    Row {
        name: "zone",
        file: "zone: eu-1a",
        variable: ("SLUICE_ZONE", "eu-1b"),
        flags: &["--zone", "C"],
        shown: ["eu-1a", "eu-1b", "C"],
    },
    Row {
        name: "stateDir",
        file: "stateDir: src",
        variable: ("SLUICE_STATE_DIR", "not/there/yet"),
        flags: &["--state-dir", "/var/lib/sluice"],
        shown: ["src", "not/there/yet", "/var/lib/sluice"],
    },
    Row {
        name: "listen",
        file: "listen: ['127.0.0.1:1', {name: db, address: '127.0.0.1:2', protocol: tcp}]",
        variable: ("SLUICE_LISTEN", "a=127.0.0.1:3,db=tcp://[::1]:4"),
        flags: &["--listen", "tls://127.0.0.1:5", "--listen", "b=127.0.0.1:6"],
        shown: [
            "https=127.0.0.1:1,db=tcp://127.0.0.1:2",
            "a=127.0.0.1:3,db=tcp://[::1]:4",
            "https=127.0.0.1:5,b=127.0.0.1:6",
        ],
    },
    Row {
        name: "admin",
        file: "admin: '127.0.0.1:1'",
        variable: ("SLUICE_ADMIN", "127.0.0.1:2"),
        flags: &["--admin", "[::1]:3"],
        shown: ["127.0.0.1:1", "127.0.0.1:2", "[::1]:3"],
    },
    Row {
        name: "class",
        file: "class: one",
        variable: ("SLUICE_CLASS", "two"),
        flags: &["--class", "three"],
        shown: ["one", "two", "three"],
    },
    Row {
        name: "requireClass",
        file: "requireClass: true",
        variable: ("SLUICE_REQUIRE_CLASS", "false"),
        flags: &["--require-class"],
        shown: ["true", "false", "true"],
    },
    Row {
        name: "hostnames.below",
        file: "hostnames: { below: Owner }",
        variable: ("SLUICE_HOSTNAMES_BELOW", "Anyone"),
        flags: &["--hostnames-below", "Owner"],
        shown: ["Owner", "Anyone", "Owner"],
    },
    Row {
        name: "writeStatus",
        file: "writeStatus: false",
        variable: ("SLUICE_WRITE_STATUS", "true"),
        flags: &["--write-status", "false"],
        shown: ["false", "true", "false"],
    },
    Row {
        name: "lease",
        file: "lease: one",
        variable: ("SLUICE_LEASE", "ns/two"),
        flags: &["--lease", "three.a-b"],
        shown: ["one", "ns/two", "three.a-b"],
    },
    Row {
        name: "leaseDuration",
        file: "leaseDuration: 1s",
        variable: ("SLUICE_LEASE_DURATION", "90s"),
        flags: &["--lease-duration", "1h"],
        shown: ["1s", "1m30s", "1h"],
    },
    Row {
        name: "terminate",
        file: "terminate: true",
        variable: ("SLUICE_TERMINATE", "false"),
        flags: &["--terminate"],
        shown: ["true", "false", "true"],
    },
    Row {
        name: "resumption",
        file: "resumption: false",
        variable: ("SLUICE_RESUMPTION", "true"),
        flags: &["--resumption", "false"],
        shown: ["false", "true", "false"],
    },
    Row {
        name: "ticketKeys",
        file: "ticketKeys: one",
        variable: ("SLUICE_TICKET_KEYS", "ns/two"),
        flags: &["--ticket-keys", "three.a-b"],
        shown: ["one", "ns/two", "three.a-b"],
    },
    Row {
        name: "workers",
        file: "workers: 3",
        variable: ("SLUICE_WORKERS", "4"),
        flags: &["--workers", "1024"],
        shown: ["3", "4", "1024"],
    },
    Row {
        name: "timeouts.hello",
        file: "timeouts: {hello: 1s}",
        variable: ("SLUICE_TIMEOUTS_HELLO", "2s"),
        flags: &["--timeouts-hello", "3s"],
        shown: ["1s", "2s", "3s"],
    },
    Row {
        name: "timeouts.handshake",
        file: "timeouts: {handshake: 1s}",
        variable: ("SLUICE_TIMEOUTS_HANDSHAKE", "2s"),
        flags: &["--timeouts-handshake", "3s"],
        shown: ["1s", "2s", "3s"],
    },
    Row {
        name: "timeouts.connect",
        file: "timeouts: {connect: 1s}",
        variable: ("SLUICE_TIMEOUTS_CONNECT", "2s"),
        flags: &["--timeouts-connect", "3s"],
        shown: ["1s", "2s", "3s"],
    },
    Row {
        name: "timeouts.idle",
        file: "timeouts: {idle: 10m}",
        variable: ("SLUICE_TIMEOUTS_IDLE", "90m"),
        flags: &["--timeouts-idle", "3h"],
        shown: ["10m", "1h30m", "3h"],
    },
    Row {
        name: "timeouts.stall",
        file: "timeouts: {stall: 1m}",
        variable: ("SLUICE_TIMEOUTS_STALL", "90s"),
        flags: &["--timeouts-stall", "0s"],
        shown: ["1m", "1m30s", "0s"],
    },
    Row {
        name: "timeouts.max",
        file: "timeouts: {max: 1h}",
        variable: ("SLUICE_TIMEOUTS_MAX", "0s"),
        flags: &["--timeouts-max", "720h"],
        shown: ["1h", "0s", "720h"],
    },
    Row {
        name: "maxHello",
        file: "maxHello: 512",
        variable: ("SLUICE_MAX_HELLO", "65536"),
        flags: &["--max-hello", "4096"],
        shown: ["512", "65536", "4096"],
    },
    Row {
        name: "maxHellos",
        file: "maxHellos: 100",
        variable: ("SLUICE_MAX_HELLOS", "10000000"),
        flags: &["--max-hellos", "0"],
        shown: ["100", "10000000", "0"],
    },
    Row {
        name: "healthChecks.perSecond",
        file: "healthChecks: { perSecond: 1 }",
        variable: ("SLUICE_HEALTH_CHECKS_PER_SECOND", "10000"),
        flags: &["--health-checks-per-second", "50"],
        shown: ["1", "10000", "50"],
    },
    Row {
        name: "whenFull",
        file: "whenFull: Refuse",
        variable: ("SLUICE_WHEN_FULL", "Fair"),
        flags: &["--when-full", "Refuse"],
        shown: ["Refuse", "Fair", "Refuse"],
    },
    Row {
        name: "drain.delay",
        file: "drain: {delay: 1s}",
        variable: ("SLUICE_DRAIN_DELAY", "0s"),
        flags: &["--drain-delay", "500ms"],
        shown: ["1s", "0s", "500ms"],
    },
    Row {
        name: "drain.timeout",
        file: "drain: {timeout: 1s}",
        variable: ("SLUICE_DRAIN_TIMEOUT", "2s"),
        flags: &["--drain-timeout", "0s"],
        shown: ["1s", "2s", "0s"],
    },
    Row {
        name: "accessLog",
        file: "accessLog: off",
        variable: ("SLUICE_ACCESS_LOG", "errors"),
        flags: &["--access-log", "all"],
        shown: ["off", "errors", "all"],
    },
    Row {
        name: "accessLogStart",
        file: "accessLogStart: true",
        variable: ("SLUICE_ACCESS_LOG_START", "false"),
        flags: &["--access-log-start"],
        shown: ["true", "false", "true"],
    },
    Row {
        name: "log.level",
        file: "log: {level: warn}",
        variable: ("SLUICE_LOG_LEVEL", "info,sluice::proxy=debug"),
        flags: &["--log-level", "trace"],
        shown: ["warn", "info,sluice::proxy=debug", "trace"],
    },
    Row {
        name: "log.format",
        file: "log: {format: json}",
        variable: ("SLUICE_LOG_FORMAT", "text"),
        flags: &["--log-format", "auto"],
        shown: ["json", "text", "auto"],
    },
];

#[test]
fn flags_beat_environment_beats_file_for_every_setting() {
    for Row { name, file, variable, flags, shown } in ROWS {
        let in_force = |file: &str, variables: &[(&str, &str)], flags: &[&str]| {
            shown_value(&load(file, variables, flags).unwrap(), name)
        };
        let [by_file, by_variable, by_flag] = shown;
        assert_eq!(in_force(file, &[], &[]), *by_file, "{name}: the file alone");
        assert_eq!(in_force("", &[*variable], &[]), *by_variable, "{name}: the variable alone");
        assert_eq!(in_force("", &[], flags), *by_flag, "{name}: the flag alone");
        assert_eq!(in_force(file, &[*variable], &[]), *by_variable, "{name}: file, variable");
        assert_eq!(in_force(file, &[], flags), *by_flag, "{name}: file, flag");
        assert_eq!(in_force("", &[*variable], flags), *by_flag, "{name}: variable, flag");
        assert_eq!(in_force(file, &[*variable], flags), *by_flag, "{name}: all");
    }
}

#[test]
fn the_rows_above_are_all_settings() {
    let mut rows: Vec<_> = ROWS.iter().map(|row| row.flags[0].to_owned()).collect();
    // These two have tests of their own.
    rows.extend(["--config".to_owned(), "--source".to_owned()]);
    let mut command = Cli::command();
    command.build();
    let run = command.find_subcommand("run").unwrap();
    let flags = run.get_arguments().filter(|arg| arg.get_id() != "help");
    let mut flags: Vec<_> = flags.map(|arg| format!("--{}", arg.get_long().unwrap())).collect();
    rows.sort();
    flags.sort();
    assert_eq!(flags, rows);
}

#[test]
fn help_names_flag_variable_and_default_of_every_setting() {
    let mut command = Cli::command();
    command.build();
    let help = command.find_subcommand_mut("run").unwrap().render_long_help().to_string();
    for row in ROWS {
        assert!(help.contains(row.flags[0]), "{}", row.name);
        assert!(help.contains(&format!("{}]", row.variable.0)), "{}", row.name);
    }
    assert!(help.contains("[env: SLUICE_DRAIN_TIMEOUT] [default: 30s]"), "{help}");
    assert!(help.contains("[default: https=0.0.0.0:8443,https=[::]:8443]"), "{help}");
    assert!(help.contains("[::] is IPv6 only"), "{help}");
}

#[test]
fn what_is_in_force_reads_back_as_variables() {
    // These two exclude each other.
    for without in ["routes", "stateDir"] {
        let rows = || ROWS.iter().filter(|row| row.name != without);
        let flags: Vec<_> = rows().flat_map(|row| row.flags.iter().copied()).collect();
        let config = parse(&[], &flags).unwrap();
        let shown: Vec<_> =
            rows().map(|row| (row.variable.0, shown_value(&config, row.name))).collect();
        let variables: Vec<_> = shown.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(parse(&variables, &[]).unwrap(), config);
    }
}

fn shown_value(config: &Config, name: &str) -> String {
    let in_force = config.in_force();
    let prefix = format!("{name}=");
    in_force.split(' ').find_map(|pair| pair.strip_prefix(&prefix)).unwrap().to_owned()
}
