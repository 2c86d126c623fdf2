//! Records in any pieces.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::sync::{Arc, LazyLock};

use proptest::collection::vec;
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use super::engine::{Plaintext, TlsEngine};
use super::layer::{CipherBuffer, TlsLayer};
use crate::termination::provider;

/// Settings of a server and of its client.
fn configs() -> &'static (Arc<ServerConfig>, [Arc<ClientConfig>; 2]) {
    static CONFIGS: LazyLock<(Arc<ServerConfig>, [Arc<ClientConfig>; 2])> = LazyLock::new(|| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        let certificate: CertificateDer<'static> = params.self_signed(&key).unwrap().into();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let server = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key.into())
            .unwrap();
        let client = [&TLS12, &TLS13].map(|version| {
            let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
                .with_protocol_versions(&[version])
                .unwrap();
            let roots = roots.clone();
            Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
        });
        (Arc::new(server), client)
    });
    &CONFIGS
}

/// A client, and the layer that it talks to.
struct Pair {
    client: ClientConnection,
    layer: TlsLayer,
    /// What the layer has read.
    read: Vec<u8>,
}

impl Pair {
    /// One whose handshake is complete.
    fn shaken(version: usize) -> Self {
        let (server, clients) = configs();
        let name = ServerName::try_from("a.test").unwrap();
        let client = ClientConnection::new(Arc::clone(&clients[version]), name).unwrap();
        let engine = UnbufferedServerConnection::new(Arc::clone(server)).unwrap();
        let engine = TlsEngine::Server(engine);
        let layer = TlsLayer::new(engine, &CipherBuffer::new(), Vec::new(), Vec::new());
        let mut pair = Pair { client, layer, read: Vec::new() };
        while pair.client.is_handshaking() || pair.layer.state().is_handshaking() {
            let bytes = pair.sent();
            assert!(pair.receive(&bytes));
            let answer = pair.layer.take_output();
            pair.client.read_tls(&mut &answer[..]).unwrap();
            pair.client.process_new_packets().unwrap();
        }
        pair
    }

    /// What the client has to send.
    fn sent(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// Gives bytes to the layer. Returns whether it accepts them.
    fn receive(&mut self, bytes: &[u8]) -> bool {
        self.layer.receive(bytes, &mut self.read)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn data_are_read_whatever_pieces_they_come_in(
        version in 0_usize..2,
        messages in vec(vec(any::<u8>(), 1..30_000), 1..8),
        cuts in vec(1_usize..40_000, 1..50),
        changes_keys in any::<bool>(),
    ) {
        let mut pair = Pair::shaken(version);
        let mut bytes = Vec::new();
        for message in &messages {
            if changes_keys && version == 1 {
                pair.client.refresh_traffic_keys().unwrap();
            }
            pair.client.writer().write_all(message).unwrap();
            bytes.extend(pair.sent());
        }
        let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            prop_assert!(pair.receive(piece));
            rest = after;
        }
        prop_assert_eq!(&pair.read, &messages.concat());
    }

    /// A changed byte is found, and what was read before it is what was sent.
    #[test]
    fn a_changed_byte_does_no_harm(
        version in 0_usize..2,
        message in vec(any::<u8>(), 1..40_000),
        place in any::<prop::sample::Index>(),
        change in 1_u8..,
        cut in 1_usize..40_000,
    ) {
        let mut pair = Pair::shaken(version);
        pair.client.writer().write_all(&message).unwrap();
        let mut bytes = pair.sent();
        let place = place.index(bytes.len());
        bytes[place] ^= change;
        for piece in bytes.chunks(cut) {
            if !pair.receive(piece) {
                break;
            }
        }
        prop_assert!(message.starts_with(&pair.read));
        prop_assert!(pair.read.len() < message.len());
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(version in 0_usize..2, bytes in vec(any::<u8>(), 0..2000)) {
        let mut pair = Pair::shaken(version);
        pair.receive(&bytes);
        prop_assert_eq!(&pair.read, b"");
    }
}

/// Small records are as much work as large ones, and those without data are more: a read ends after some of them.
#[test]
fn a_read_is_limited_in_its_work() {
    const RECORDS: usize = 1000;
    let mut pair = Pair::shaken(1);
    pair.layer.take_work();
    let mut bytes = Vec::new();
    for _ in 0..RECORDS {
        pair.client.writer().write_all(b"x").unwrap();
        bytes.extend(pair.sent());
    }
    let mut buffer = vec![0; 64 * 1024];
    let mut plaintext = Plaintext::new(&mut buffer);
    let worked = pair.layer.process(&mut bytes, &mut plaintext, 64 * 1024).unwrap();
    let read = plaintext.len();
    assert!((32..=64).contains(&read), "{read}");
    assert!(pair.layer.may_go_on() && pair.layer.take_work() + read as u64 == worked);
    assert!(pair.receive(&[]));
    assert_eq!(pair.read.len() + read, RECORDS);
    pair.layer.take_work();
    for _ in 0..20 {
        pair.client.refresh_traffic_keys().unwrap();
    }
    let mut bytes = pair.sent();
    pair.layer.process(&mut bytes, &mut Plaintext::new(&mut buffer), 64 * 1024).unwrap();
    assert_eq!(pair.layer.take_work(), 64 * 1024, "four of them");
}

impl TlsLayer {
    /// Processes bytes as if they had come from a socket. Returns whether they are good.
    fn receive(&mut self, bytes: &[u8], read: &mut Vec<u8>) -> bool {
        let mut received = self.take_input();
        received.extend_from_slice(bytes);
        loop {
            let mut buffer = vec![0; 64 * 1024];
            let mut plaintext = Plaintext::new(&mut buffer);
            let worked = self.process(&mut received, &mut plaintext, 256 * 1024);
            let length = plaintext.len();
            read.extend_from_slice(&buffer[..length]);
            match worked {
                Err(_) => return false,
                Ok(0) => return true,
                Ok(_) => received = self.take_input(),
            }
        }
    }
}
