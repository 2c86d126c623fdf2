//! Which signals end the process.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::fs::Mode;
use rustix::process::Signal;
use tempfile::tempdir;

use crate::support::{Process, answering, ask, manifest, run, wait_until};

/// Those that end it in good order, that nobody can catch, that stop it for a while, or that tell of
/// a fault of its own; and two that belong to the C library.
const OTHERS: &[i32] = &[2, 15, 9, 19, 20, 21, 22, 4, 5, 6, 7, 8, 11, 31, 32, 33];

#[test]
fn no_other_signal_ends_it() {
    let mut process = Process::start(&manifest("a.test", answering("served"), ""), &[]);
    for signal in (1..=64).filter(|signal| !OTHERS.contains(signal)) {
        run(&format!("kill -{signal} {}", process.pid().as_raw_nonzero()));
        assert_eq!(ask(process.address, "a.test"), "served", "after signal {signal}");
    }
    assert_eq!(process.get("/livez").0, 200);
    process.signal(Signal::TERM);
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn a_hangup_has_the_manifests_read_again() {
    let process = Process::start(&manifest("a.test", answering("served"), ""), &[]);
    process.signal(Signal::HUP);
    wait_until("a line", || process.has_logged("SIGHUP: reading the manifests again"));
    assert_eq!(ask(process.address, "a.test"), "served");
}

/// It waits for its configuration, which is a pipe that nobody has written to yet.
#[test]
fn signals_do_not_end_it_while_it_starts() {
    let folder = tempdir().unwrap();
    let config = folder.path().join("sluice.yaml");
    rustix::fs::mkfifoat(rustix::fs::CWD, &config, Mode::RUSR | Mode::WUSR).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(["run", "--config", config.to_str().unwrap()])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    wait_until("the signals are caught", || {
        assert!(child.try_wait().unwrap().is_none());
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        // SIGHUP is the first.
        u64::from_str_radix(caught.trim(), 16).unwrap() & 1 == 1
    });
    for signal in ["HUP", "USR1", "USR2"] {
        run(&format!("kill -{signal} {pid}"));
    }
    let routes = folder.path().display();
    let settings = format!(
        "routes: [{routes}]\nadmin: 127.0.0.1:0\nlisten: [127.0.0.1:0]\nlog: {{ format: json }}\n"
    );
    fs::write(&config, settings).unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let served = log.lines().map_while(Result::ok).any(|line| line.contains("routes are live"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(served, "it ended");
}
