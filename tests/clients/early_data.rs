//! TLS 1.3 sessions that are resumed with early data: bytes right behind the hello.

use std::path::Path;

use testkit::{Authority, Program, eventually, tool};

use super::server::s_server;
use super::sluice::{Sluice, route};

const EARLY: &str = "what could not wait for the handshake";

#[test]
fn a_resumed_session_gets_its_early_data_through() {
    let authority = Authority::new();
    let identity = authority.issue(&["early.test"]);
    let (address, mut server) = s_server(&identity, &["-tls1_3", "-early_data"]);
    let sluice = Sluice::start(&[("routes.yaml", route("early", &["early.test"], address))]);
    let session = authority.folder().join("session.pem");
    let early = authority.folder().join("early.txt");
    std::fs::write(&early, EARLY).unwrap();

    let mut first = client(&sluice, &authority, &["-sess_out"], &session);
    converse(&mut server, &mut first, "first");
    let first = close(first);
    assert!(first.contains("New, TLSv1.3"), "{first}");

    let early = early.to_str().unwrap();
    let resume = ["-early_data", early, "-sess_in"];
    let mut second = client(&sluice, &authority, &resume, &session);
    eventually("the early data is there", || server.stdout.text().contains(EARLY).then_some(()));
    converse(&mut server, &mut second, "second");
    let second = close(second);
    assert!(second.contains("Reused, TLSv1.3"), "{second}");
    assert!(second.contains("Early data was accepted"), "{second}");

    let log = eventually("both are in the access log", || {
        Some(sluice.access_log()).filter(|log| log.len() == 2)
    });
    for entry in log {
        assert_eq!(entry["outcome"], "completed", "{entry}");
        assert_eq!(entry["serverName"], "early.test", "{entry}");
    }
}

fn client(sluice: &Sluice, authority: &Authority, flags: &[&str], session: &Path) -> Program {
    let mut command = tool("openssl");
    command.args(["s_client", "-connect", &sluice.address.to_string(), "-tls1_3"]);
    command.args(["-servername", "early.test", "-verify_hostname", "early.test"]);
    command.arg("-verify_return_error").arg("-CAfile").arg(authority.file());
    Program::start(command.args(flags).arg(session))
}

/// A line each way. Whoever has heard the server has its session tickets too.
fn converse(server: &mut Program, client: &mut Program, word: &str) {
    let (up, down) = (format!("up: {word}"), format!("down: {word}"));
    client.say(&format!("{up}\n"));
    eventually("the server hears", || server.stdout.text().contains(&up).then_some(()));
    server.say(&format!("{down}\n"));
    eventually("the client hears", || client.stdout.text().contains(&down).then_some(()));
}

fn close(mut client: Program) -> String {
    client.close_stdin();
    let finished = client.finish();
    assert!(finished.status.success(), "{finished:?}");
    finished.stdout
}
