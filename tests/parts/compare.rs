//! The comparison with other proxies goes on working. What it measures here means nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

/// What is measured of sluice whatever else is installed, by its row: in general, by the time of the
/// core, the same two while it serves TLS, and of sluice alone.
const ROWS: usize = 17 + 6 + 11 + 10 + 7;

#[test]
#[ignore = "slow: builds the load and sends it through every proxy that is installed"]
fn the_comparison_measures_every_proxy_that_is_there() {
    let compared = compare(&[]);
    let printed = String::from_utf8(compared.stdout).unwrap();
    let said = String::from_utf8_lossy(&compared.stderr);
    assert!(compared.status.success(), "{said}\n{printed}");

    let rows: Vec<Vec<&str>> = printed
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .filter(|row| !row.starts_with("---"))
        .map(|row| row.split(" | ").map(str::trim).collect())
        .collect();
    let is_head = |row: &Vec<&str>| row[1] == "sluice" || row[0] == "sluice alone";
    let (heads, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_head);
    assert_eq!((heads.len(), rows.len()), (5, ROWS), "{printed}");
    for row in &rows {
        assert!(!row[1].is_empty(), "{row:?}");
    }
    assert!(heads[0].contains(&"`floor`") && heads[0].contains(&"no proxy"), "{printed}");
    assert!(heads[2][0] == "serving TLS" && !heads[2].contains(&"`floor`"), "{printed}");
    assert!(rows.iter().any(|row| row[..2] == ["passes half-closes on", "yes"]), "{printed}");
}

#[test]
#[ignore = "slow: builds the load; takes root"]
fn every_proxy_has_the_congestion_control_that_is_asked_for() {
    let loads = ["--only", "sluice", "--loads", "ping64", "--pin", "no", "--congestion"];
    // Every kernel has it. The comparison looks itself whether a connection has it too.
    let compared = compare(&[&loads[..], &["reno"]].concat());
    let printed = String::from_utf8_lossy(&compared.stdout);
    let said = String::from_utf8_lossy(&compared.stderr);
    assert!(compared.status.success(), "{said}\n{printed}");
    assert!(printed.contains("\n* Congestion control: reno\n"), "{printed}");

    let compared = compare(&[&loads[..], &["nonsense"]].concat());
    let said = String::from_utf8_lossy(&compared.stderr);
    assert!(!compared.status.success(), "{said}");
    assert!(said.contains("--congestion nonsense: this kernel has "), "{said}");
}

#[test]
#[ignore = "slow: builds the load"]
fn an_earlier_binary_is_measured_in_the_same_rounds_and_beside_itself() {
    let printed = against(env!("CARGO_BIN_EXE_sluice"));
    assert!(printed.contains("\n|  | sluice to the earlier one | that to itself |\n"), "{printed}");
    assert_eq!(ratios_to_earlier(&printed, "64 pings: round trips/s"), Some(2), "{printed}");
    let row = "serving TLS: idle connection: KiB";
    assert_eq!(ratios_to_earlier(&printed, row), Some(2), "{printed}");
}

#[test]
#[ignore = "slow: builds the load"]
fn an_earlier_binary_that_serves_no_tls_is_measured_for_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let earlier = folder.path().join("earlier");
    let sluice = env!("CARGO_BIN_EXE_sluice");
    // Its help names no flag.
    let script = format!("#!/bin/sh\n[ \"$2\" = --help ] || exec {sluice} \"$@\"\n");
    fs::write(&earlier, script).unwrap();
    fs::set_permissions(&earlier, Permissions::from_mode(0o755)).unwrap();
    let printed = against(earlier.to_str().unwrap());
    assert_eq!(ratios_to_earlier(&printed, "64 pings: round trips/s"), Some(2), "{printed}");
    assert_eq!(ratios_to_earlier(&printed, "serving TLS: idle connection: KiB"), None, "{printed}");
    assert!(printed.contains("\n| serving TLS | sluice |"), "{printed}");
}

fn against(earlier: &str) -> String {
    let only = ["--only", "sluice,earlier,earlier-again", "--against", earlier];
    let compared = compare(&[&only[..], &["--loads", "ping64,tls-idle", "--pin", "no"]].concat());
    let printed = String::from_utf8(compared.stdout).unwrap();
    let said = String::from_utf8_lossy(&compared.stderr);
    assert!(compared.status.success(), "{said}\n{printed}");
    printed
}

/// How many ratios the last row with this title has; none, if there is no such row.
fn ratios_to_earlier(printed: &str, title: &str) -> Option<usize> {
    let row = printed.lines().rfind(|line| line.starts_with(&format!("| {title} |")))?;
    Some(row.matches(" of earlier sluice").count())
}

fn compare(arguments: &[&str]) -> Output {
    let root = env!("CARGO_MANIFEST_DIR");
    Command::new(format!("{root}/benches/compare/compare.py"))
        .args(["--quick", "--sluice", env!("CARGO_BIN_EXE_sluice")])
        .args(arguments)
        .output()
        .unwrap()
}
