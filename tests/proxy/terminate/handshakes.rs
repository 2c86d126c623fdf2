//! Handshakes of all kinds.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, X25519};
use rustls::crypto::{ActiveKeyExchange, CryptoProvider, SupportedKxGroup};
use rustls::version::{TLS12, TLS13};
use rustls::{Error, HandshakeKind, NamedGroup, ProtocolVersion};
use sluice::outcome::Outcome;
use sluice::termination::{TicketKeySet, TicketKeys, provider};

use super::Site;
use super::peer::{TlsEnd, TlsPeer, exchange};
use super::pki::Authority;
use crate::support::{Backend, Plane, hello, open, target};

#[test]
fn clients_of_both_versions_and_keys_are_served() {
    for (of, kind) in [(&PKCS_RSA_SHA256, "RSA"), (&PKCS_ECDSA_P256_SHA256, "ECDSA")] {
        let (authority, backend) = (Authority::new(), Backend::new());
        let target = target("a.test", &[backend.address()]);
        let plane = Plane::start(vec![target.terminated(authority.parts("a.test", of), None)]);
        for version in [&TLS12, &TLS13] {
            let config = authority.client_of(provider(), &[version], None);
            let mut client = TlsPeer::open(plane.address(), "a.test", &config);
            let suite = client.tls.negotiated_cipher_suite().unwrap().suite();
            let suite = suite.as_str().unwrap().to_owned();
            assert!(suite.contains(kind) || suite.starts_with("TLS13"), "{suite}");
            exchange(&mut client, &mut backend.accept());
        }
    }
}

#[test]
fn a_client_may_choose_post_quantum_keys_others_or_a_second_hello() {
    let site = Site::new();
    let of = |groups: &[&'static dyn SupportedKxGroup]| {
        let provider = CryptoProvider { kx_groups: groups.to_vec(), ..(**provider()).clone() };
        site.authority.client_of(&Arc::new(provider), &[&TLS13], None)
    };
    let own = site.authority.client();
    for (config, group, kind) in [
        (own, NamedGroup::X25519MLKEM768, HandshakeKind::Full),
        (of(&[X25519]), NamedGroup::X25519, HandshakeKind::Full),
        (
            of(&[&Unheard, SECP256R1]),
            NamedGroup::secp256r1,
            HandshakeKind::FullWithHelloRetryRequest,
        ),
    ] {
        let mut client = TlsPeer::open(site.plane.address(), "a.test", &config);
        assert_eq!(client.tls.negotiated_key_exchange_group().unwrap().name(), group);
        assert_eq!(client.tls.handshake_kind(), Some(kind));
        exchange(&mut client, &mut site.backend.accept());
    }
}

/// A group that no server knows.
#[derive(Debug)]
pub(super) struct Unheard;

impl SupportedKxGroup for Unheard {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        X25519.start()
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::Unknown(0x4242)
    }
}

/// The first server to speak is not the client.
#[test]
fn a_server_may_speak_first() {
    use std::io::Write;
    let site = Site::new();
    let (mut client, mut server) = site.pair();
    server.write_all(b"220 ready").unwrap();
    client.expect(b"220 ready");
}

#[test]
fn sessions_are_resumed() {
    let (authority, backend) = (Authority::new(), Backend::new());
    let mut parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    parts.tickets = TicketKeys::default();
    parts.tickets.set(TicketKeySet::new(now).unwrap());
    let target = target("a.test", &[backend.address()]);
    let plane = Plane::start(vec![target.terminated(parts, None)]);
    for (version, name) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)]
    {
        let config = authority.client_of(provider(), &[version], None);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut client = TlsPeer::open(plane.address(), "a.test", &config);
            assert_eq!(client.tls.handshake_kind(), Some(kind), "{name:?}");
            // The ticket comes without waiting for data.
            exchange(&mut client, &mut backend.accept());
        }
    }
    let lines = plane.access_log();
    let resumed: Vec<_> = lines.iter().map(|line| line["tls"]["resumed"].as_bool()).collect();
    assert_eq!(resumed.iter().filter(|resumed| **resumed == Some(true)).count(), 2, "{lines:?}");
}

/// Passthrough and this, side by side on one listener.
#[test]
fn other_routes_of_the_listener_are_passed_through() {
    let (authority, served, passed) = (Authority::new(), Backend::new(), Backend::new());
    let parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    let mut plane = Plane::start(vec![
        target("a.test", &[served.address()]).terminated(parts, None),
        target("b.test", &[passed.address()]),
    ]);
    let mut client = TlsPeer::open(plane.address(), "a.test", &authority.client());
    let mut server = served.accept();
    exchange(&mut client, &mut server);
    let hello = hello("b.test");
    let through = open(plane.address(), &hello);
    drop(passed.accept_with(&hello));
    drop(through);
    // A change of the table touches no open connection.
    plane.apply(Vec::new());
    exchange(&mut client, &mut server);
    client.close();
    drop(server);
    assert_eq!(client.rest(), (vec![], TlsEnd::Closed));
    drop(client);
    plane.assert_ended(&[("a.test", Outcome::Completed, 1), ("b.test", Outcome::Completed, 1)]);
}
