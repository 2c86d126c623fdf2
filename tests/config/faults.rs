//! What a wrong value is answered with.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::Parser;
use sluice::cli::{Cli, Command};
use sluice::config::Config;

use super::{fault, load, parse};

#[test]
fn faults_in_the_file_have_line_and_name() {
    for (file, expected) in [
        (
            "drain:\n  timeout: 1s\n\n  # how long\n  delay: \"5 parsecs\"\n",
            "5: drain.delay: \"5 parsecs\" is not a duration; write e.g. 5s, 500ms or 1h30m",
        ),
        ("class: a\ndrian:\n  delay: 5s\n", "2: drian: unknown setting; did you mean drain?"),
        ("drain:\n  dely: 5s\n", "2: drain.dely: unknown setting; did you mean drain.delay?"),
        ("drain-delay: 5s", "1: drain-delay: unknown setting; did you mean drain.delay?"),
        ("access_log: all", "1: access_log: unknown setting; did you mean accessLog?"),
        ("zzz: 1", "1: zzz: unknown setting; sluice run --help lists all"),
        ("7: 1", "1: \"7\" is not the name of a setting"),
        ("drain: 5s", "1: drain: takes settings by name: delay, timeout"),
        ("- class", "1: write settings by name, e.g. class: sluice"),
        ("class: 1.10", "1: class: 1.1 is a number, not text or a whole number"),
        ("class: [a]", "1: class: takes one value, not a list"),
        ("class: {a: b}", "1: class: takes one value, not an object"),
        (
            "class: ''",
            "1: class: \"\" is not a class; write letters, digits and - . _ / (at most 253)",
        ),
        ("routes: src", "1: routes: takes a list; write each item after a -"),
        ("routes:\n- src\n-\n", "3: routes[1]: has no value"),
        ("routes:\n- src\n- a: b\n", "3: routes[1]: takes text, not an object"),
        (
            "routes:\n- src\n- nowhere\n",
            "3: routes[1]: \"nowhere\": No such file or directory (os error 2)",
        ),
        (
            "drain: &d {delay: x}",
            "1: drain.delay: \"x\" is not a duration; write e.g. 5s, 500ms or 1h30m",
        ),
        ("class: a\nclass: b", "1: duplicate entry with key \"class\""),
        (
            "timeouts: {hello: 0s}",
            "1: timeouts.hello: \"0s\" is no time at all; write more, e.g. 5s",
        ),
        ("hostnames: {below: owner}", "1: hostnames.below: \"owner\" is not one of Owner, Anyone"),
        ("requireClass: yes", "1: requireClass: \"yes\" is not one of true, false"),
        (
            "lease: a/b/c",
            "1: lease: \"a/b/c\" is not the name of a Lease; write NAME or NAMESPACE/NAME, in \
             lower-case letters, digits, - and .",
        ),
        (
            "lease: -a",
            "1: lease: \"-a\" is not the name of a Lease; write NAME or NAMESPACE/NAME, in \
             lower-case letters, digits, - and .",
        ),
        (
            "lease: /a",
            "1: lease: \"\" is not a namespace; write lower-case letters, digits and - (at most \
             63)",
        ),
        ("leaseDuration: 999ms", "1: leaseDuration: \"999ms\" is not from 1s to 1h"),
        ("leaseDuration: 2h", "1: leaseDuration: \"2h\" is not from 1s to 1h"),
        ("accessLog: some", "1: accessLog: \"some\" is not one of off, errors, all"),
        ("log:\n  format: xml", "2: log.format: \"xml\" is not one of auto, json, text"),
        ("workers: 0", "1: workers: \"0\" is not a number from 1 to 1024"),
        ("workers: 1025", "1: workers: \"1025\" is not a number from 1 to 1024"),
        ("maxHello: 511", "1: maxHello: \"511\" is not a number from 512 to 65536"),
        ("maxHello: 16KiB", "1: maxHello: \"16KiB\" is not a number from 512 to 65536"),
    ] {
        assert_eq!(fault(load(file, &[], &[])), format!("sluice.yaml:{expected}"), "{file}");
    }
    let fault = fault(load("class: a\n x: b", &[], &[]));
    assert!(fault.starts_with("sluice.yaml:2: mapping values are not allowed"), "{fault}");
}

#[test]
fn faults_of_listeners_in_the_file_have_line_and_name() {
    for (items, expected) in [
        (
            "- address: 127.0.0.1:2\n  adress: x",
            "4: listen[1].adress: unknown key; did you mean address?",
        ),
        (
            "- address: 127.0.0.1",
            "3: listen[1].address: \"127.0.0.1\" has no port; write e.g. 127.0.0.1:8443",
        ),
        ("- name: a\n  protocol: tcp", "3: listen[1]: a listener needs an address"),
        (
            "- address: 127.0.0.1:2\n  protocol: udp",
            "4: listen[1].protocol: \"udp\" is not one of tls, tcp",
        ),
        (
            "- name: a\n  address: 127.0.0.1:2\n  protocol: tcp\n  alerts: true",
            "6: listen[1].alerts: alerts are TLS alerts; they need protocol: tls",
        ),
        ("- name: {a: b}", "3: listen[1]: name: takes one value, not an object"),
        (
            "- tcp://127.0.0.1:2",
            "3: listen[1]: 127.0.0.1:1 and 127.0.0.1:2 are both named https, \
             but one is tls and the other tcp; rename one",
        ),
        (
            "- address: 127.0.0.1:2\n  alerts: true",
            "3: listen[1]: 127.0.0.1:1 and 127.0.0.1:2 are both named https, \
             but differ in alerts; rename one",
        ),
        ("- a=127.0.0.1:1", "3: listen[1]: 127.0.0.1:1 is given twice"),
    ] {
        let file = format!("listen:\n- 127.0.0.1:1\n{items}\n");
        assert_eq!(fault(load(&file, &[], &[])), format!("sluice.yaml:{expected}"), "{file}");
    }
}

#[test]
fn a_listener_says_what_to_write() {
    for (text, expected) in [
        (":8443", "\":8443\" has no address; write 0.0.0.0:8443 (IPv4) or [::]:8443 (IPv6)"),
        ("8443", "\"8443\" has no address; write 0.0.0.0:8443 (IPv4) or [::]:8443 (IPv6)"),
        ("[::1]", "\"[::1]\" has no port; write e.g. [::1]:8443"),
        (
            "localhost:8443",
            "\"localhost:8443\" is not an IP address and port; \
             write e.g. 127.0.0.1:8443 or [::1]:8443",
        ),
        ("udp://127.0.0.1:1", "\"udp\" is not one of tls, tcp"),
        ("=127.0.0.1:1", "\"\" is not a listener's name; write lower-case letters, digits and -"),
        ("A=127.0.0.1:1", "\"A\" is not a listener's name; write lower-case letters, digits and -"),
    ] {
        assert_eq!(fault(load("", &[], &["--listen", text])), format!("--listen: {expected}"));
        let fault = fault(load("", &[("SLUICE_LISTEN", text)], &[]));
        assert_eq!(fault, format!("SLUICE_LISTEN: {expected}"));
    }
    // Any free port, twice.
    assert!(load("", &[], &["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]).is_ok());
}

#[test]
fn a_variable_that_is_not_utf8_is_named() {
    let Command::Run(run) = Cli::parse_from(["sluice", "run"]).command else { unreachable!() };
    let variable = |name: &str| (name == "SLUICE_CLASS").then(|| OsString::from_vec(vec![0xff]));
    let fault = fault(Config::load(&run.flags, variable));
    assert_eq!(fault, r#"SLUICE_CLASS: "\xFF" is not UTF-8"#);
}

#[test]
fn without_routes_it_says_what_to_give() {
    let fault = fault(parse(&[], &[]));
    assert!(fault.starts_with("no routes: give a file or folder"), "{fault}");
    assert!(fault.contains("--routes PATH") && fault.contains("SLUICE_ROUTES"), "{fault}");
}
