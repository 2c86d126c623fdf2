//! Clients that want to cost much.

use std::io::Write;

use rustix::process::Signal;
use rustls::version::{TLS12, TLS13};
use sluice::outcome::Outcome;
use sluice::termination::provider;

use super::Site;
use super::costs::documents;
use super::peer::{TlsPeer, first_flight};
use super::pki::Authority;
use crate::support::{Backend, Process, connect, rest, wait_until};

/// The next message of the handshake is announced with 16 MiB: nobody waits for it.
#[test]
fn a_huge_handshake_message_is_refused_at_once() {
    let site = Site::new();
    let config = site.authority.client_of(provider(), &[&TLS12], None);
    let (bytes, _tls) = first_flight("a.test", &config);
    let mut client = connect(site.plane.address());
    client.write_all(&bytes).unwrap();
    // A record of 8 bytes: a ClientKeyExchange of 2^24 - 1.
    client.write_all(&[22, 3, 3, 0, 8, 16, 255, 255, 255, 0, 0, 0, 0]).unwrap();
    rest(&mut client);
    site.plane.assert_ended(&[("a.test", Outcome::HandshakeFailed, 1)]);
    let cause = site.plane.access_log()[0]["cause"].clone();
    assert_ne!(cause, "the handshake was not complete in time");
}

/// In records of one byte, a message takes six times its size: no more is kept than one may have.
#[test]
fn a_message_in_tiny_records_is_refused_when_it_takes_too_much() {
    let site = Site::new();
    let config = site.authority.client_of(provider(), &[&TLS12], None);
    let (bytes, _tls) = first_flight("a.test", &config);
    let mut client = connect(site.plane.address());
    client.write_all(&bytes).unwrap();
    // A ClientKeyExchange of 60,000 bytes.
    client.write_all(&[22, 3, 3, 0, 4, 16, 0, 234, 96]).unwrap();
    let tiny = [22, 3, 3, 0, 1, 7].repeat(60_000);
    // It is refused before all of them are sent.
    let _ = client.write_all(&tiny);
    let mut answer = Vec::new();
    let _ = std::io::Read::read_to_end(&mut client, &mut answer);
    site.plane.assert_ended(&[("a.test", Outcome::HandshakeFailed, 1)]);
    let lines = site.plane.access_log();
    assert_eq!(lines[0]["cause"], "a handshake message is too large");
}

/// Each change of keys makes work.
#[test]
fn key_changes_without_data_are_not_endured_for_long() {
    let site = Site::new();
    let config = site.authority.client_of(provider(), &[&TLS13], None);
    let mut client = TlsPeer::open(site.plane.address(), "a.test", &config);
    let mut server = site.backend.accept();
    let mut records = Vec::new();
    for _ in 0..100 {
        client.tls.refresh_traffic_keys().unwrap();
        while client.tls.wants_write() {
            client.tls.write_tls(&mut records).unwrap();
        }
    }
    client.socket.write_all(&records).unwrap();
    rest(&mut server);
    site.plane.assert_ended(&[("a.test", Outcome::DownstreamReset, 1)]);
}

/// The library warns of messages that break the rules: as often as anybody sends one.
#[test]
fn a_client_that_breaks_the_rules_writes_nothing_into_the_log() {
    let (authority, backend) = (Authority::new(), Backend::new());
    let process = Process::start(&documents(&authority, &backend), &["--terminate"]);
    let config = authority.client_of(provider(), &[&TLS12], None);
    let (bytes, _tls) = first_flight("a.test", &config);
    let mut client = connect(process.address);
    client.write_all(&bytes).unwrap();
    // Data instead of keys.
    client.write_all(b"\x17\x03\x03\x00\x05hello").unwrap();
    rest(&mut client);
    assert_eq!(process.access_line()["outcome"], "handshake_failed");
    process.signal(Signal::HUP);
    wait_until("a later line", || process.has_logged("SIGHUP: reading the manifests again"));
    assert!(!process.has_logged("rustls"));
}
