//! testssl.sh, which knows what is wrong with servers.

use serde_json::Value;
use testkit::{Authority, PATIENCE, Program, tool, within};

use super::backends;
use super::manifests::{secret, served, start};

const NAME: &str = "tls.test";

/// What is told of every server here, and why.
const EXPECTED: [&str; 5] = [
    // The program itself has no engine for GOST.
    "engine_problem",
    // No authority of a test has a server for what it revoked.
    "cert_revocation",
    // Its certificates are for all times.
    "cert_validityPeriod",
    // All ciphers are good ones, so that the client may know best which is fast for it.
    "cipher_order",
    // On a busy machine it gives up waiting for its own second connection. `resumption` has tests of that.
    "sessionresumption_ticket",
];

/// The worst that may be found otherwise. `LOW` is for tickets of more than a day, say.
const HARMLESS: [&str; 3] = ["OK", "INFO", "LOW"];

#[test]
#[ignore = "slow: testssl.sh makes hundreds of connections, which takes a minute"]
fn testssl_finds_nothing_to_mend() {
    let authority = Authority::new();
    let sluice = start(&[
        secret("rsa", &authority.issue_rsa(&[NAME])),
        secret("ecdsa", &authority.issue(&[NAME])),
        // Some of its calls are to no name.
        served("tls", &[NAME, "*"], backends::lines(), &["ecdsa", "rsa"], ""),
    ]);
    let report = authority.folder().join("report.json");
    let mut command = tool("testssl");
    command.args(["--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none"]);
    // Protocols, ciphers, forward secrecy, preferences, certificates and vulnerabilities: all but what is
    // about HTTP, and about what old browsers would do.
    command.args(["-p", "-s", "-f", "-P", "-S", "-U", "--ip", "127.0.0.1"]);
    command.arg("--add-ca").arg(authority.file()).arg("--jsonfile").arg(&report);
    command.arg(format!("{NAME}:{}", sluice.address.port())).current_dir(authority.folder());
    let mut program = Program::start(&mut command);
    program.close_stdin();
    within(10 * PATIENCE, "testssl ends", || (!program.is_running()).then_some(()));
    let told = program.finish();

    let findings = std::fs::read_to_string(&report).unwrap_or_else(|_| panic!("{told:?}"));
    let findings: Vec<Value> = serde_json::from_str(&findings).unwrap();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let bad = |finding: &&Value| {
        !HARMLESS.contains(&&*text(finding, "severity"))
            && !EXPECTED.contains(&text(finding, "id").split(' ').next().unwrap())
    };
    let bad: Vec<&Value> = findings.iter().filter(bad).collect();
    assert!(bad.is_empty(), "{bad:#?}");

    // It has looked, and at this server.
    let finding = |id: &str| {
        let found = findings.iter().find(|finding| text(finding, "id") == id);
        found.map(|finding| text(finding, "finding")).unwrap_or_default()
    };
    for (id, expected) in [
        ("SSLv2", "not offered"),
        ("SSLv3", "not offered"),
        ("TLS1", "not offered"),
        ("TLS1_1", "not offered"),
        ("TLS1_2", "offered"),
        ("TLS1_3", "offered with final"),
        ("PFS", "offered"),
        ("heartbleed", "not vulnerable"),
        ("ROBOT", "not vulnerable"),
        ("secure_renego", "supported"),
        ("secure_client_renego", "not vulnerable"),
    ] {
        assert!(finding(id).starts_with(expected), "{id}: {} in {findings:#?}", finding(id));
    }
}
