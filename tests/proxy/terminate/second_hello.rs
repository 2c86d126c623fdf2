//! Clients whose second hello, which follows a HelloRetryRequest, is not like the first.

use std::io::Write;
use std::sync::Arc;

use rcgen::PKCS_ECDSA_P256_SHA256;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::aws_lc_rs::kx_group::SECP256R1;
use rustls::crypto::hash::{Context, Hash, HashAlgorithm, Output};
use rustls::version::TLS13;
use rustls::{CipherSuiteCommon, ClientConfig, SupportedCipherSuite, Tls13CipherSuite};
use sluice::outcome::Outcome;
use sluice::termination::provider;

use super::Site;
use super::handshakes::Unheard;
use super::peer::{TlsPeer, exchange, first_flight};
use super::pki::Authority;
use crate::support::{Backend, Plane, connect, target};

/// The extension that offers `h2`, and one of the same length that no server knows.
const ALPN: &[u8] = &[0, 16, 0, 5, 0, 3, 2, b'h', b'2'];
const UNKNOWN: &[u8] = &[0x7a, 0x7a, 0, 5, 0, 3, 2, b'h', b'2'];
/// The first byte of a transcript that begins with the hash of a first hello (RFC 8446 §4.4.1).
const MESSAGE_HASH: u8 = 254;

/// One whose route is for clients that offer `h2`.
fn site() -> Site {
    let (authority, backend) = (Authority::new(), Backend::new());
    let mut parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    parts.alpn = vec!["h2".into()];
    let target = target("a.test", &[backend.address()]).terminated(parts, None);
    let plane = Plane::start(vec![target.with(|spec| spec.alpn = vec!["h2".into()])]);
    Site { authority, backend, plane }
}

/// The settings of a client that sends two hellos, and takes the second one for what `hash` makes of it.
fn config(site: &Site, hash: impl FnOnce(&'static dyn Hash) -> &'static dyn Hash) -> ClientConfig {
    let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 else { unreachable!() };
    let common = CipherSuiteCommon {
        suite: suite.common.suite,
        hash_provider: hash(suite.common.hash_provider),
        confidentiality_limit: suite.common.confidentiality_limit,
    };
    let (hkdf_provider, aead_alg) = (suite.hkdf_provider, suite.aead_alg);
    let suite = Tls13CipherSuite { common, hkdf_provider, aead_alg, quic: None };
    let provider = CryptoProvider {
        kx_groups: vec![&Unheard, SECP256R1],
        cipher_suites: vec![SupportedCipherSuite::Tls13(Box::leak(Box::new(suite)))],
        ..(**provider()).clone()
    };
    let mut config = site.authority.client_of(&Arc::new(provider), &[&TLS13], None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// A client whose handshake is complete, and whose second hello was sent as `change` makes it.
fn open(site: &Site, config: &ClientConfig, change: impl FnOnce(&[u8]) -> Vec<u8>) -> TlsPeer {
    let (first, mut tls) = first_flight("a.test", config);
    let mut socket = connect(site.plane.address());
    socket.write_all(&first).unwrap();
    while !tls.wants_write() {
        tls.read_tls(&mut socket).unwrap();
        tls.process_new_packets().unwrap();
    }
    let mut second = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut second).unwrap();
    }
    socket.write_all(&change(&second)).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).unwrap();
    }
    TlsPeer { socket, tls: tls.into() }
}

#[test]
fn a_second_hello_like_the_first_is_served() {
    let site = site();
    let mut client = open(&site, &config(&site, |hash| hash), <[u8]>::to_vec);
    exchange(&mut client, &mut site.backend.accept());
    assert_eq!(client.tls.alpn_protocol(), Some(&b"h2"[..]));
}

/// The route was chosen for the protocol of the first.
#[test]
fn a_second_hello_must_not_withdraw_the_protocols_of_the_first() {
    let site = site();
    let config = config(&site, |hash| Box::leak(Box::new(Withdrawing(hash))));
    let mut client = open(&site, &config, withdrawn);
    let (data, _) = client.rest();
    assert!(data.is_empty());
    site.plane.assert_ended(&[("a.test", Outcome::HandshakeFailed, 1)]);
    assert!(!site.backend.is_tried());
    let lines = site.plane.access_log();
    assert_eq!(lines[0]["cause"], "the second hello of the client offers no protocol of the route");
}

/// The same bytes without ALPN.
fn withdrawn(bytes: &[u8]) -> Vec<u8> {
    let at = bytes.windows(ALPN.len()).position(|window| window == ALPN).expect("ALPN");
    [&bytes[..at], UNKNOWN, &bytes[at + ALPN.len()..]].concat()
}

/// The hash of what was sent, for a client that does not know of the change.
struct Withdrawing(&'static dyn Hash);

impl Hash for Withdrawing {
    fn start(&self) -> Box<dyn Context> {
        Box::new(WithdrawingContext(self.0.start()))
    }

    fn hash(&self, data: &[u8]) -> Output {
        self.0.hash(data)
    }

    fn output_len(&self) -> usize {
        self.0.output_len()
    }

    fn algorithm(&self) -> HashAlgorithm {
        self.0.algorithm()
    }
}

struct WithdrawingContext(Box<dyn Context>);

impl Context for WithdrawingContext {
    fn fork_finish(&self) -> Output {
        self.0.fork_finish()
    }

    fn fork(&self) -> Box<dyn Context> {
        Box::new(WithdrawingContext(self.0.fork()))
    }

    fn finish(self: Box<Self>) -> Output {
        self.0.finish()
    }

    fn update(&mut self, data: &[u8]) {
        match data.first() {
            Some(&MESSAGE_HASH) => self.0.update(&withdrawn(data)),
            _ => self.0.update(data),
        }
    }
}
