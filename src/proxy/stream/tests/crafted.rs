//! Records that rustls never sends.

use rustls::crypto::cipher::{
    AeadKey, Iv, MessageDecrypter, MessageEncrypter, OutboundOpaqueMessage, OutboundPlainMessage,
    Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::{AlertDescription, ConnectionTrafficSecrets, ContentType, Error, Tls13CipherSuite};

use super::*;

/// Data that begin so are sent as a record of the kind that follows.
const MARK: &[u8] = b"crafted: ";

/// The usual provider, for a client that may be told what to send.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let usual = crate::termination::provider();
    let crafting = |suite: &SupportedCipherSuite| {
        let SupportedCipherSuite::Tls13(suite) = suite else { return *suite };
        let aead_alg: &dyn Tls13AeadAlgorithm = Box::leak(Box::new(Crafting(suite.aead_alg)));
        let common = CipherSuiteCommon { ..suite.common };
        let crafting = Tls13CipherSuite { common, aead_alg, ..**suite };
        SupportedCipherSuite::Tls13(Box::leak(Box::new(crafting)))
    };
    let cipher_suites = usual.cipher_suites.iter().map(crafting).collect();
    Arc::new(CryptoProvider { cipher_suites, ..(**usual).clone() })
}

struct Crafting(&'static dyn Tls13AeadAlgorithm);

impl Tls13AeadAlgorithm for Crafting {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(CraftingEncrypter(self.0.encrypter(key, iv)))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.0.decrypter(key, iv)
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv)
    }
}

struct CraftingEncrypter(Box<dyn MessageEncrypter>);

impl MessageEncrypter for CraftingEncrypter {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        number: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let payload = message.payload.to_vec();
        let Some([kind, content @ ..]) = payload.strip_prefix(MARK) else {
            return self.0.encrypt(message, number);
        };
        let (typ, version) = (ContentType::from(*kind), message.version);
        self.0.encrypt(OutboundPlainMessage { typ, version, payload: content.into() }, number)
    }

    fn encrypted_payload_len(&self, length: usize) -> usize {
        self.0.encrypted_payload_len(length)
    }
}

impl Pair {
    /// A record of a [`CRAFTED`] client.
    fn crafted(&mut self, kind: ContentType, content: &[u8]) -> Vec<u8> {
        let bytes = [MARK, &[kind.into()], content].concat();
        self.client.writer().write_all(&bytes).unwrap();
        self.sent()
    }

    /// Changes of the client's keys.
    fn key_changes(&mut self, count: usize) -> Vec<u8> {
        (0..count).for_each(|_| self.client.refresh_traffic_keys().unwrap());
        self.sent()
    }
}

/// rustls counts empty records and changes of keys, but each ends the row of the other.
#[test]
fn records_without_data_are_not_endured_for_long_however_they_are_mixed() {
    let mut pair = Pair::connected(CRAFTED);
    for _ in 0..20 {
        let changes = pair.key_changes(30);
        assert!(pair.receive(&changes));
        let data = pair.crafted(ContentType::ApplicationData, b"x");
        assert!(pair.receive(&data), "{:?}", pair.layer.failure());
    }
    assert_eq!(pair.read, [b'x'; 20]);
    let mut received = 0;
    while !pair.layer.has_failed() {
        let changes = pair.key_changes(20);
        let empty = pair.crafted(ContentType::ApplicationData, b"");
        let good = pair.receive(&[changes, empty].concat());
        received += usize::from(good) * 21;
        assert!(received < 100, "{received} records");
    }
    assert_eq!(pair.layer.failure(), Some(&StreamFault::Barren));
    assert!(received >= 40, "{received} records");
}

/// The engine keeps the place of the incomplete message in bytes that are gone.
#[test]
fn a_layer_that_fails_amid_a_handshake_message_is_closed_without_its_engine() {
    on_reactor(async |reactor| {
        let (socket, peer) = sockets(&reactor);
        let mut pair = Pair::connected(CRAFTED);
        // A change of keys, and the first byte of another one.
        let change = pair.crafted(ContentType::Handshake, &[24, 0, 0, 1, 0, 24]);
        assert!(!pair.receive(&change));
        assert!(pair.layer.has_failed() && pair.layer.has_output());
        assert!(matches!(pair.layer.poll_close(&socket), Poll::Ready(Err(_))));
        assert!(matches!(pair.layer.poll_send(&socket, b"x"), Poll::Ready(Err(_))));
        assert!(matches!(pair.layer.poll_recv(&socket, &mut [0; 16]), Poll::Ready(Err(_))));
        let mut alert = [0; 64];
        let read = rustix::io::read(&peer, &mut alert).unwrap();
        pair.client.read_tls(&mut &alert[..read]).unwrap();
        let told = pair.client.process_new_packets().unwrap_err();
        assert_eq!(told, Error::AlertReceived(AlertDescription::UnexpectedMessage));
    });
}
