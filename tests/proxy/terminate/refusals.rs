//! Clients that are refused.

use std::io::{Read, Write};
use std::sync::Arc;

use rcgen::PKCS_ECDSA_P256_SHA256;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, Error};
use sluice::config::Protocol;
use sluice::outcome::Outcome;
use sluice::termination::{MinVersion, NotReady, Termination, TerminationText, provider};

use super::Site;
use super::peer::{TlsPeer, first_flight};
use super::pki::Authority;
use crate::support::{
    Backend, End, Plane, connect, hello, hello_with_any_name, listener, open, refusing, rest,
    target, wait_until,
};

#[test]
fn without_a_certificate_a_name_is_refused_and_never_passed_through() {
    for why in [NotReady::Disabled, NotReady::NoCertificate] {
        let backend = Backend::new();
        let termination = Termination::not_ready(TerminationText::default(), why);
        let target = target("a.test", &[backend.address()])
            .with(|spec| spec.termination = Some(Arc::new(termination)));
        let listeners = vec![listener("https", Protocol::Tls, true)];
        let plane = Plane::with(vec![target], |config| config.listeners = listeners);
        let mut client = open(plane.address(), &hello("a.test"));
        // An internal error.
        assert_eq!(rest(&mut client), (vec![21, 3, 3, 0, 2, 2, 80], End::Eof));
        plane.assert_ended(&[("a.test", Outcome::NoCertificate, 1)]);
        assert!(!backend.is_tried());
        let lines = plane.access_log();
        assert_eq!(lines[0]["cause"], why.to_string());
        assert!(lines[0]["tls"].is_null(), "{lines:?}");
    }
}

#[test]
fn a_listener_that_reads_no_hello_serves_no_tls() {
    let (authority, backend) = (Authority::new(), Backend::new());
    let parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    let target = target("*", &[backend.address()]).terminated(parts, None);
    let listeners = vec![listener("plain", Protocol::Tcp, false)];
    let plane = Plane::with(vec![target], |config| config.listeners = listeners);
    let mut client = open(plane.address(), &hello("a.test"));
    rest(&mut client);
    plane.assert_ended(&[("*", Outcome::NoCertificate, 1)]);
    assert!(!backend.is_tried());
}

#[test]
fn a_version_that_is_too_low_gets_an_alert() {
    let (authority, backend) = (Authority::new(), Backend::new());
    let mut parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    parts.min_version = MinVersion::V13;
    let target = target("a.test", &[backend.address()]);
    let plane = Plane::start(vec![target.terminated(parts, None)]);
    let config = authority.client_of(provider(), &[&TLS12], None);
    let error = TlsPeer::try_open(plane.address(), "a.test", &config).err().unwrap();
    let error = error.downcast::<Error>().unwrap();
    assert_eq!(error, Error::AlertReceived(AlertDescription::ProtocolVersion));
    plane.assert_ended(&[("a.test", Outcome::HandshakeFailed, 1)]);
    assert!(!backend.is_tried());
    let lines = plane.access_log();
    assert!(lines[0]["cause"].as_str().is_some_and(|cause| !cause.is_empty()), "{lines:?}");
}

#[test]
fn the_alert_of_a_client_is_the_cause() {
    let site = Site::new();
    let config = Authority::new().client_of(provider(), &[&TLS13], None);
    let error = TlsPeer::try_open(site.plane.address(), "a.test", &config).err().unwrap();
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
    site.plane.assert_ended(&[("a.test", Outcome::HandshakeFailed, 1)]);
    assert!(!site.backend.is_tried());
    let lines = site.plane.access_log();
    let cause = lines[0]["cause"].as_str().unwrap();
    assert!(cause.contains("alert"), "{cause}");
}

#[test]
fn a_client_that_leaves_amid_its_handshake_has_failed() {
    let site = Site::new();
    let (bytes, _tls) = first_flight("a.test", &site.authority.client());
    let mut client = open(site.plane.address(), &bytes);
    assert!(client.read(&mut [0; 1]).unwrap() > 0);
    drop(client);
    site.plane.assert_ended(&[("a.test", Outcome::HandshakeFailed, 1)]);
    assert!(!site.backend.is_tried());
}

#[test]
fn a_handshake_that_the_drain_ends_is_logged_as_far_as_it_has_come() {
    let site = Site::new();
    let (bytes, _tls) = first_flight("a.test", &site.authority.client());
    let mut client = open(site.plane.address(), &bytes);
    assert!(client.read(&mut [0; 1]).unwrap() > 0);
    site.plane.running().abort();
    wait_until("the record", || site.plane.has_ended("a.test", Outcome::Drained));
    let lines = site.plane.access_log();
    assert!(lines[0]["tls"]["certificate"].is_string(), "{lines:?}");
}

#[test]
fn garbage_amid_a_handshake_gets_an_alert() {
    let site = Site::new();
    let config = site.authority.client_of(provider(), &[&TLS12], None);
    let (bytes, _tls) = first_flight("a.test", &config);
    let mut client = connect(site.plane.address());
    client.write_all(&bytes).unwrap();
    // Data instead of keys.
    client.write_all(b"\x17\x03\x03\x00\x05hello").unwrap();
    let (answer, end) = rest(&mut client);
    assert_eq!(end, End::Eof);
    assert_eq!(answer[answer.len() - 7..answer.len() - 1], [21, 3, 3, 0, 2, 2]);
    site.plane.assert_ended(&[("a.test", Outcome::HandshakeFailed, 1)]);
}

/// Its handshake is complete, so an alert would have to be encrypted. What it gets is no orderly end.
#[test]
fn a_client_whose_endpoint_is_down_sees_no_orderly_end() {
    let (down, _socket) = refusing();
    let authority = Authority::new();
    let parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    let plane = Plane::start(vec![target("a.test", &[down]).terminated(parts, None)]);
    let mut client = TlsPeer::open(plane.address(), "a.test", &authority.client());
    let end = client.rest().1;
    assert_ne!(end, super::peer::TlsEnd::Closed);
    plane.assert_ended(&[("a.test", Outcome::ConnectFailed, 1)]);
}

/// Where a route for such a name, or for all, would take it. An address counts as no name.
#[test]
fn a_name_that_no_certificate_can_have_is_refused() {
    let (authority, backend) = (Authority::new(), Backend::new());
    let parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    let plane = Plane::start(vec![target("*", &[backend.address()]).terminated(parts, None)]);
    let refused: [&[u8]; 9] = [
        b"-a.test",
        b"a-.test",
        b"node.1",
        b"host.0x1f",
        b"127.1",
        b"a.test:8443",
        b"*.a.test",
        b"a..test",
        "\u{e4}.test".as_bytes(),
    ];
    for name in refused {
        let mut client = open(plane.address(), &hello_with_any_name(name));
        // An illegal parameter.
        assert_eq!(rest(&mut client), (vec![21, 3, 3, 0, 2, 2, 47], End::Eof));
    }
    plane.assert_ended(&[("*", Outcome::HandshakeFailed, refused.len() as u64)]);
    let accepted: [&[u8]; 4] = [b"a.test.", b"a_b.test", b"127.0.0.1", b"::1"];
    for name in accepted {
        let mut client = open(plane.address(), &hello_with_any_name(name));
        let mut answer = [0];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [22], "{}", name.escape_ascii());
    }
}
