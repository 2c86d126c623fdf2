//! The command line, by its real binary: texts, streams, exit codes.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

#[test]
fn version_and_help_go_to_stdout() {
    let version = sluice(&["--version"]);
    assert_eq!(code(&version), 0);
    assert_eq!(stdout(&version), format!("sluice {}\n", env!("CARGO_PKG_VERSION")));

    let help = sluice(&["--help"]);
    assert_eq!(code(&help), 0);
    for word in ["run", "check", "explain", "crds", "Exit codes"] {
        assert!(stdout(&help).contains(word), "{word}");
    }

    let help = sluice(&["run", "--help"]);
    assert_eq!(code(&help), 0);
    assert!(stdout(&help).contains("--drain-delay <DURATION>"), "{}", stdout(&help));
    assert!(stdout(&help).contains("[env: RUST_LOG, SLUICE_LOG_LEVEL] [default: info]"));
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [
        &[][..],
        &["serve"],
        &["run", "--drian-delay", "5s"],
        &["run", "--class"],
        &["run", "--class", "a", "--class", "b"],
        &["check"],
        &["explain", "--sni", "a.example.com"],
        &["explain", "--routes", "src"],
        &["explain", "--sni", "a", "--routes", "src", "--admin", "http://127.0.0.1:9901"],
        &["explain", "--sni", "a", "--admin", "http://127.0.0.1:9901", "--class", "b"],
        &["explain", "--sni", "a", "--routes", "src", "--source-ip", "nowhere"],
    ] {
        let output = sluice(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
        assert!(!stderr(&output).is_empty(), "{arguments:?}");
    }
    let output = sluice(&["run", "--drian-delay", "5s"]);
    assert!(stderr(&output).contains("--drain-delay"), "{}", stderr(&output));
}

#[test]
fn each_place_of_a_wrong_setting_is_named() {
    let flag = sluice(&["run", "--drain-delay", "5 parsecs"]);
    let rest = "\"5 parsecs\" is not a duration; write e.g. 5s, 500ms or 1h30m\n";
    assert_eq!((code(&flag), stderr(&flag)), (2, format!("error: --drain-delay: {rest}")));

    let variable = command(&["run"]).env("SLUICE_DRAIN_DELAY", "5 parsecs").output().unwrap();
    let expected = format!("error: SLUICE_DRAIN_DELAY: {rest}");
    assert_eq!((code(&variable), stderr(&variable)), (2, expected));

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("sluice.yaml"), "# ours\ndrain:\n  delay: 5 parsecs\n").unwrap();
    let file =
        command(&["run", "--config", "sluice.yaml"]).current_dir(folder.path()).output().unwrap();
    let expected = format!("error: sluice.yaml:3: drain.delay: {rest}");
    assert_eq!((code(&file), stderr(&file)), (2, expected));
}

#[test]
fn run_says_what_is_missing() {
    let output = sluice(&["run"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("no routes: give"), "{}", stderr(&output));

    let output = sluice(&["run", "--routes", "/nowhere"]);
    assert_eq!(code(&output), 2);
    let expected = "error: --routes: \"/nowhere\": No such file or directory (os error 2)\n";
    assert_eq!(stderr(&output), expected);

    let output = sluice(&["run", "--config", "/nowhere.yaml"]);
    assert_eq!(code(&output), 2);
    let expected =
        "error: --config: cannot read \"/nowhere.yaml\": No such file or directory (os error 2)\n";
    assert_eq!(stderr(&output), expected);

    let output = sluice(&["run", "--source", "etcd"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("is not one of kubernetes, files"), "{}", stderr(&output));
}

#[test]
fn the_configuration_in_force_is_logged_first() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = command(&["run", "--drain-delay", "250ms"])
        .args(run_that_fails(&taken))
        .env("SLUICE_CLASS", "blue")
        .output()
        .unwrap();
    let stderr = stderr(&output);
    let first = stderr.lines().next().unwrap();
    let line: serde_json::Value = serde_json::from_str(first).unwrap();
    assert_eq!(line["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(line["level"], "INFO");
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{first}");
    let config = line["config"].as_str().unwrap();
    assert!(config.contains("class=blue "), "{config}");
    assert!(config.contains("drain.delay=250ms "), "{config}");
}

#[test]
fn a_closed_stderr_is_no_panic() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let status = command(&["run"]).args(run_that_fails(&taken)).stderr(closed_pipe()).status();
    assert_eq!(status.unwrap().code(), Some(1));
}

#[test]
fn a_closed_stdout_is_no_panic() {
    for arguments in [&["run", "--help"][..], &["--version"], &["crds"]] {
        let mut command = command(arguments);
        let output = command.stdout(closed_pipe()).stderr(Stdio::piped()).output().unwrap();
        assert!(!stderr(&output).contains("panicked"), "{arguments:?}: {}", stderr(&output));
    }
}

/// One whose reader has gone.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A port in use: `run` gets as far as logging, and ends.
fn run_that_fails(taken: &TcpListener) -> [String; 6] {
    let routes = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let listen = taken.local_addr().unwrap().to_string();
    let routes = routes.to_str().unwrap().to_owned();
    ["--listen".into(), listen, "--admin".into(), "127.0.0.1:0".into(), "--routes".into(), routes]
}

fn sluice(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
