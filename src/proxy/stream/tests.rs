//! Records in any pieces.

#![allow(clippy::unwrap_used)]

mod crafted;

use std::future::poll_fn;
use std::io::Write;
use std::rc::Rc;
use std::sync::{Arc, LazyLock, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CipherSuiteCommon, ClientConfig, ClientConnection, RootCertStore, ServerConfig,
    SupportedCipherSuite, Tls12CipherSuite,
};

use super::cipher_buffer::CipherBuffer;
use super::engine::{Plaintext, TlsEngine};
use super::layer::TlsLayer;
use super::stream_fault::StreamFault;
use crate::proxy::reactor::{Inbox, Reactor};
use crate::proxy::socket::Socket;
use crate::termination::provider;

/// The settings of a client of TLS 1.3 that sends what it is told to.
const CRAFTED: usize = 2;

/// Settings of a server and of its clients: of TLS 1.2, of TLS 1.3, and [`CRAFTED`].
fn configs() -> &'static (Arc<ServerConfig>, [Arc<ClientConfig>; 3]) {
    static CONFIGS: LazyLock<(Arc<ServerConfig>, [Arc<ClientConfig>; 3])> = LazyLock::new(|| {
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
        let clients = [(&TLS12, provider()), (&TLS13, provider()), (&TLS13, &crafted::provider())];
        let client = clients.map(|(version, provider)| {
            let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
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
pub(in crate::proxy) struct Pair {
    pub(in crate::proxy) client: ClientConnection,
    pub(in crate::proxy) layer: TlsLayer,
    /// What the layer has read.
    read: Vec<u8>,
}

impl Pair {
    /// One whose handshake is complete.
    pub(in crate::proxy) fn connected(version: usize) -> Self {
        Pair::connected_with(&configs().0, version)
    }

    /// The same, with a server of these settings.
    fn connected_with(server: &Arc<ServerConfig>, version: usize) -> Self {
        let (_, clients) = configs();
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
    pub(in crate::proxy) fn sent(&mut self) -> Vec<u8> {
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
        let mut pair = Pair::connected(version);
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
        let mut pair = Pair::connected(version);
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
        let mut pair = Pair::connected(version);
        pair.receive(&bytes);
        prop_assert_eq!(&pair.read, b"");
    }
}

/// DTLS has the same kinds of records, with other headers.
#[test]
fn a_record_of_another_protocol_is_refused_by_its_header() {
    for version in 0..2 {
        for (major, minor) in [(0xfe, 0xfd), (0xfe, 0xff), (2, 0), (0, 0)] {
            let mut pair = Pair::connected(version);
            assert!(!pair.receive(&[23, major, minor, 0, 40]), "{major} {minor}");
            assert!(pair.layer.has_failed());
        }
    }
}

/// Small records are as much work as large ones, and those without data are more: a read ends after some of them.
#[test]
fn a_read_is_limited_in_its_work() {
    const RECORDS: usize = 1000;
    let mut pair = Pair::connected(1);
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

/// Settings of a server whose keys of TLS 1.2 encrypt few records.
fn short_lived() -> Arc<ServerConfig> {
    const RECORDS: u64 = 10;
    let short = |suite: &SupportedCipherSuite| {
        let SupportedCipherSuite::Tls12(suite) = suite else { return *suite };
        let common = CipherSuiteCommon { confidentiality_limit: RECORDS, ..suite.common };
        let short = Tls12CipherSuite { common, ..**suite };
        SupportedCipherSuite::Tls12(Box::leak(Box::new(short)))
    };
    let cipher_suites = provider().cipher_suites.iter().map(short).collect();
    let short = CryptoProvider { cipher_suites, ..(**provider()).clone() };
    let server = ServerConfig::builder_with_provider(Arc::new(short))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&configs().0.cert_resolver));
    Arc::new(server)
}

/// Runs a task on a reactor of its own. One that is not woken would wait for ever, and one that panics is silent.
#[track_caller]
pub(in crate::proxy) fn on_reactor<F: Future<Output = ()> + 'static>(
    main: impl FnOnce(Rc<Reactor>) -> F + Send + 'static,
) {
    let (done, end) = mpsc::channel();
    thread::spawn(move || {
        let reactor = Reactor::new(Arc::new(Inbox::new().unwrap()), || ()).unwrap();
        reactor.block_on(main(Rc::clone(&reactor))).unwrap();
        done.send(())
    });
    assert!(end.recv_timeout(Duration::from_secs(60)).is_ok());
}

/// A socket, and its peer.
pub(in crate::proxy) fn sockets(reactor: &Rc<Reactor>) -> (Socket, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (fd, peer) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    (Socket::accepted(reactor, fd).unwrap(), peer)
}

/// The other side may wait for the bytes that were not sent, so nothing else would end the connection.
#[test]
fn a_stream_whose_keys_are_used_up_fails_and_its_task_is_told() {
    on_reactor(use_keys_up);
}

async fn use_keys_up(reactor: Rc<Reactor>) {
    let (socket, _peer) = sockets(&reactor);
    let mut layer = Pair::connected_with(&short_lived(), 0).layer;
    let mut sent = 0;
    poll_fn(|_| {
        loop {
            match layer.poll_send(&socket, b"x") {
                Poll::Ready(Ok(1)) if sent < 100 => sent += 1,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                other => panic!("{other:?} after {sent}"),
            }
        }
    })
    .await;
    // Only the wake of the layer has this polled again.
    let mut polled = false;
    poll_fn(|_| match std::mem::replace(&mut polled, true) {
        false => Poll::Pending,
        true => Poll::Ready(()),
    })
    .await;
    assert!(layer.has_failed() && layer.may_go_on() && !layer.has_output());
    assert_eq!(layer.failure(), Some(&StreamFault::Exhausted));
    assert!(matches!(layer.poll_recv(&socket, &mut [0; 16]), Poll::Ready(Err(_))));
    assert!(matches!(layer.poll_send(&socket, b"x"), Poll::Ready(Err(_))));
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
                _ if self.has_failed() => return false,
                Err(_) => return false,
                Ok(0) => return true,
                Ok(_) => received = self.take_input(),
            }
        }
    }
}
