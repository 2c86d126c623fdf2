//! Clients that offer less than they could, and what is not served at all.

use std::io::{Read, Write};
use std::net::TcpStream;

use testkit::{Authority, Finished, PATIENCE, Program, wait_until};

use super::backends::{self, hex};
use super::manifests::{call, secret, served, start};
use crate::client::{Call, MESSAGE, gnutls_cli, go_dial, s_client_with};
use crate::server::s_server;
use crate::sluice::Sluice;

const NAME: &str = "old.test";
const STRICT: &str = "strict.test";

/// OpenSSL does not offer older versions by itself.
const EVERYTHING: [&str; 2] = ["-cipher", "ALL:@SECLEVEL=0"];

fn landscape(authority: &Authority) -> Sluice {
    let backend = backends::lines();
    start(&[
        secret("tls", &authority.issue_rsa(&[NAME, STRICT])),
        served("old", &[NAME], backend, &["tls"], ""),
        served("strict", &[STRICT], backend, &["tls"], "minVersion: '1.3'"),
    ])
}

#[test]
fn older_versions_are_refused_with_an_alert() {
    let authority = Authority::new();
    let sluice = landscape(&authority);
    for version in ["1.0", "1.1"] {
        let call = call(&sluice, &authority, NAME, version);
        let refused = s_client_with(&call, NAME, &EVERYTHING).unwrap_err();
        assert!(refused.contains("alert protocol version"), "{version}: {refused}");
        let refused = go_dial(&call, &[""; 0]).unwrap_err();
        assert!(refused.contains("remote error: tls: protocol version"), "{version}: {refused}");
        let Finished { status, stdout, stderr } = Program::run(&mut gnutls_cli(&call));
        assert!(!status.success(), "{version}: {stdout}");
        assert!(
            format!("{stdout}{stderr}").contains("protocol version"),
            "{version}: {stdout}{stderr}"
        );
    }
    let metrics = sluice.metrics();
    assert_eq!(metrics.connections("handshake_failed"), 6.0, "{}", metrics.0);
}

#[test]
fn a_route_that_asks_for_the_newest_version_refuses_the_one_before() {
    let authority = Authority::new();
    let sluice = landscape(&authority);
    let old = call(&sluice, &authority, STRICT, "1.2");
    let refused = s_client_with(&old, STRICT, &[""; 0]).unwrap_err();
    assert!(refused.contains("alert protocol version"), "{refused}");
    let new = Call { version: "1.3", ..old };
    s_client_with(&new, STRICT, &[""; 0]).unwrap();
}

/// By RFC 8446, 4.1.3, with which a client of TLS 1.3 finds out that somebody on the way took it away. OpenSSL
/// does by itself if it is told that this is its second try.
#[test]
fn a_client_of_an_older_version_is_told_of_the_newer_one() {
    let authority = Authority::new();
    let sluice = landscape(&authority);
    let call = call(&sluice, &authority, NAME, "1.2");
    let said = s_client_with(&call, NAME, &["-msg"]).unwrap();
    let hello = said.split("ServerHello").nth(1).expect("a ServerHello");
    let dump: String = hello.lines().skip(1).take(3).flat_map(str::split_whitespace).collect();
    // Header of the message and version, and then the random value.
    let random = &dump[12..76];
    assert_eq!(&random[48..], hex(b"DOWNGRD\x01"), "{said}");
    let refused = s_client_with(&call, NAME, &["-fallback_scsv"]).unwrap_err();
    assert!(refused.contains("inappropriate fallback"), "{refused}");
}

/// SSL 3.0 as its clients said hello, without extensions and with some.
#[test]
fn a_hello_of_ssl_3_is_never_answered_by_one() {
    let authority = Authority::new();
    let sluice = landscape(&authority);
    let name = [&[0, 0, 0, 13, 0, 11, 0, 0, 8][..], NAME.as_bytes()].concat();
    for extensions in [&[][..], &name] {
        let mut body = [&[3, 0][..], &[7; 32], &[0], &[0, 4, 0, 0x2f, 0, 0x0a], &[1, 0]].concat();
        if !extensions.is_empty() {
            body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
            body.extend(extensions);
        }
        let length = u8::try_from(body.len()).unwrap();
        let hello = [&[22, 3, 0, 0, length + 4, 1, 0, 0, length][..], &body].concat();
        let mut stream = TcpStream::connect(sluice.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&hello).unwrap();
        let mut answer = Vec::new();
        // It may end in a reset.
        let _ = stream.read_to_end(&mut answer);
        // At most an alert.
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    }
    assert_eq!(sluice.metrics().connections("completed"), 0.0);
}

/// Tickets allow for none, and who sends some nevertheless has it ignored: here with the ticket of another
/// server, which did.
#[test]
fn early_data_is_never_accepted() {
    let authority = Authority::new();
    let sluice = landscape(&authority);
    let ours = call(&sluice, &authority, NAME, "1.3");
    let file = |name: &str| authority.folder().join(name).display().to_string();
    let (session, foreign, early) = (file("ours.pem"), file("foreign.pem"), file("early.txt"));
    std::fs::write(&early, "early data\n").unwrap();

    s_client_with(&ours, NAME, &["-sess_out", &session]).unwrap();
    let of_ticket = ["sess_id", "-noout", "-text", "-in", &session];
    let ticket = Program::run(testkit::tool("openssl").args(of_ticket));
    assert!(ticket.stdout.contains("Max Early Data: 0"), "{ticket:?}");
    let second = ["-sess_in", &session, "-early_data", &early];
    let said = s_client_with(&ours, NAME, &second).unwrap();
    assert!(said.contains("Reused, TLSv1.3"), "{said}");
    assert!(!said.contains("Early data was accepted"), "{said}");

    let identity = authority.issue_rsa(&[NAME]);
    // With early data, it answers nobody by itself.
    let (address, mut server) = s_server(&identity, &["-tls1_3", "-early_data"]);
    let theirs = Call { to: address, ..ours };
    std::thread::scope(|scope| {
        scope.spawn(|| s_client_with(&theirs, NAME, &["-sess_out", &foreign]).unwrap());
        wait_until("the server hears the client", || server.stdout.text().contains(MESSAGE));
        server.say(&format!("{}\n", crate::server::reversed(MESSAGE)));
    });
    let third = ["-sess_in", &foreign, "-early_data", &early];
    let said = s_client_with(&ours, NAME, &third).unwrap();
    assert!(said.contains("Early data was rejected"), "{said}");
    assert!(said.contains("New, TLSv1.3"), "{said}");
    // What came early has not reached the server, which would have answered it.
    assert!(!said.contains("atad ylrae"), "{said}");
    assert!(said.contains(&crate::server::reversed(MESSAGE)), "{said}");
}
