//! How keys are agreed on, and renewed.

use serde_json::json;
use testkit::{Authority, eventually};

use super::backends;
use super::manifests::{call, secret, served, start};
use crate::client::{MESSAGE, Session, client_config, go_dial, s_client_started, s_client_with};
use crate::server::reversed;
use crate::sluice::Sluice;

const NAME: &str = "keys.test";

fn landscape(authority: &Authority) -> Sluice {
    start(&[
        secret("tls", &authority.issue(&[NAME])),
        served("keys", &[NAME], backends::lines(), &["tls"], ""),
    ])
}

#[test]
fn a_post_quantum_group_is_agreed_on_by_default() {
    let authority = Authority::new();
    let sluice = landscape(&authority);
    let call = call(&sluice, &authority, NAME, "1.3");
    for (flags, curve) in [
        (&[][..], "X25519MLKEM768"),
        (&["-curves", "X25519,X25519MLKEM768"], "X25519MLKEM768"),
        (&["-curves", "X25519"], "X25519"),
        (&["-curves", "P256"], "CurveP256"),
        (&["-curves", "P384"], "CurveP384"),
    ] {
        let report = go_dial(&call, flags).unwrap();
        assert_eq!(report["curve"], curve, "{flags:?}");
        assert_eq!(report["retried"], false, "{flags:?}");
    }
    let mut session = Session::with(client_config(&call), &call).unwrap();
    session.say(MESSAGE).unwrap();
    let group = session.connection().negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    session.close().unwrap();
}

#[test]
fn a_client_whose_first_group_is_not_served_is_asked_again() {
    let authority = Authority::new();
    let sluice = landscape(&authority);
    let call = call(&sluice, &authority, NAME, "1.3");
    let flags = ["-curves", "SecP256r1MLKEM768,P384"];
    let report = go_dial(&call, &flags).unwrap();
    assert_eq!((&report["curve"], &report["retried"]), (&json!("CurveP384"), &json!(true)));

    let said = s_client_with(&call, NAME, &["-groups", "P-521:P-384", "-msg"]).unwrap();
    let hellos =
        said.lines().filter(|line| line.starts_with(">>>") && line.ends_with("ClientHello"));
    assert_eq!(hellos.count(), 2, "{said}");
    // There is none in common.
    let refused = s_client_with(&call, NAME, &["-groups", "P-521"]).unwrap_err();
    assert!(refused.contains("alert handshake failure"), "{refused}");
    // TLS 1.2 has no such question, and needs none. There the groups are the client's for the certificate too, which
    // has one of P-256.
    let call = crate::client::Call { version: "1.2", ..call };
    s_client_with(&call, NAME, &["-groups", "P-521:P-256"]).unwrap();
}

#[test]
fn a_client_renews_its_keys() {
    let authority = Authority::new();
    let sluice = landscape(&authority);
    let call = call(&sluice, &authority, NAME, "1.3");
    let mut client = s_client_started(&call, NAME, &["-msg"]);
    let mut said = Vec::new();
    // By `k` those of its own direction; by `K` the other's too.
    for (round, command) in ["", "k", "K", "K", "k"].into_iter().enumerate() {
        if !command.is_empty() {
            client.say(&format!("{command}\n"));
            said.push(command);
            eventually("the client sends the message", || {
                (client.stderr.text().matches("KEYUPDATE").count() == said.len()).then_some(())
            });
        }
        let line = format!("{MESSAGE}-{round}");
        client.say(&format!("{line}\n"));
        eventually("the answer by the new keys", || {
            client.stdout.text().contains(&reversed(&line)).then_some(())
        });
    }
    client.close_stdin();
    let finished = client.finish();
    assert!(finished.status.success(), "{finished:?}");
    let from_sluice = |line: &&str| line.starts_with("<<<") && line.ends_with("KeyUpdate");
    assert_eq!(finished.stdout.lines().filter(from_sluice).count(), 2, "{}", finished.stdout);
    assert_eq!(sluice.entry_of(NAME)["outcome"], "completed");
}

#[test]
fn a_client_that_renews_its_keys_a_hundred_times_is_served() {
    let authority = Authority::new();
    let sluice = landscape(&authority);
    let mut session = Session::open(&call(&sluice, &authority, NAME, "1.3")).unwrap();
    for round in 0..100 {
        let line = format!("{MESSAGE}-{round}");
        assert_eq!(session.say(&line).unwrap(), reversed(&line));
        session.connection().refresh_traffic_keys().unwrap();
    }
    session.close().unwrap();
}
