//! What a wrong value is answered with; of the file, see `tests/parts/faults`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::Parser;
use sluice::cli::{Cli, Command};
use sluice::config::Config;

use super::{fault, load, parse};

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
