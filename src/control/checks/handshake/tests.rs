//! Checks of real TLS servers.

use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::super::authorities::KnownAuthorities;
use super::super::fixture::params;
use super::super::goodbyes::Goodbyes;
use super::super::probe::{CheckOutcome, Probe, probe};
use super::*;
use crate::routing::{CheckMethod, CheckParams, ObjectKey};

/// An authority, and a certificate of it for `a.test`.
struct Pki {
    roots: Arc<RootCertStore>,
    chain: Chain,
    key: PrivateKeyDer<'static>,
}

fn pki(names: &[&str]) -> Pki {
    let mut of_ca = CertificateParams::new(Vec::new()).unwrap();
    of_ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = of_ca.self_signed(&ca_key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let issuer = Issuer::new(of_ca, ca_key);
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Pki { roots: Arc::new(roots), chain: vec![own.der().clone()], key }
}

/// What the server has seen of a connection: the name, the protocol, and how it ended.
type Seen = (Option<String>, Option<Vec<u8>>, io::Result<usize>);

struct Server {
    address: SocketAddr,
    seen: tokio::sync::mpsc::UnboundedReceiver<Seen>,
}

/// A server that also says how handshakes fail: their name is then missing.
async fn serve(pki: &Pki, version: &'static SupportedProtocolVersion, asks: bool) -> Server {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[version])
        .unwrap();
    let builder = match asks {
        false => builder.with_no_client_auth(),
        true => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(
                Arc::clone(&pki.roots),
                Arc::clone(provider()),
            )
            .build()
            .unwrap(),
        ),
    };
    let mut config = builder.with_single_cert(pki.chain.clone(), pki.key.clone_key()).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, seen) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let told = match acceptor.accept(socket).await {
                Ok(mut stream) => {
                    let end = stream.read(&mut [0; 16]).await;
                    let (_, connection) = stream.get_ref();
                    let name = connection.server_name().map(str::to_owned);
                    (name, connection.alpn_protocol().map(<[u8]>::to_vec), end)
                }
                Err(error) => (None, None, Err(error)),
            };
            let _ = tell.send(told);
        }
    });
    Server { address, seen }
}

fn tls(verify: VerifyMode) -> TlsCheck {
    let ca = (verify == VerifyMode::Enforce).then(|| ObjectKey::new("ns", "ca"));
    let alpn = vec!["h2".parse().unwrap()];
    TlsCheck { server_name: Some("a.test".into()), alpn, verify, ca }
}

fn authorities_of(pki: &Pki) -> Authorities {
    let authorities = Authorities::default();
    let roots = Arc::new(Roots::from(pki.roots.as_ref().clone()));
    let one = (ObjectKey::new("ns", "ca"), Ok(roots));
    let by_config_map = [one].into_iter().collect();
    authorities.set(KnownAuthorities { by_config_map, ..KnownAuthorities::default() });
    authorities
}

async fn probed(server: &Server, tls: TlsCheck, authorities: &Authorities) -> Probe {
    let timeout = Duration::from_secs(10);
    let params = CheckParams { method: CheckMethod::Tls(tls), timeout, ..params() };
    probe(server.address, &params, authorities).await
}

async fn checked(server: &Server, tls: TlsCheck, authorities: &Authorities) -> CheckOutcome {
    probed(server, tls, authorities).await.outcome
}

#[tokio::test]
async fn a_whole_handshake_with_name_and_protocol_ends_quietly() {
    for version in [&version::TLS13, &version::TLS12] {
        let mut server = serve(&pki(&["other.test"]), version, false).await;
        let probe = probed(&server, tls(VerifyMode::Report), &Authorities::default()).await;
        assert_eq!(probe.outcome, CheckOutcome::Passed);
        let mut goodbyes = Goodbyes::new(1);
        goodbyes.say(probe.stream.unwrap());
        let (name, protocol, end) = server.seen.recv().await.unwrap();
        assert_eq!((name.as_deref(), protocol.as_deref()), (Some("a.test"), Some(&b"h2"[..])));
        // An end without close_notify would be an error.
        assert_eq!(end.unwrap(), 0);
    }
}

#[tokio::test]
async fn no_check_waits_for_a_goodbye_and_only_so_many_are_said_at_a_time() {
    let pki = pki(&["a.test"]);
    let check = async |server: &Server| {
        probed(server, tls(VerifyMode::Report), &Authorities::default()).await.stream.unwrap()
    };
    let mut one = serve(&pki, &version::TLS13, false).await;
    let mut other = serve(&pki, &version::TLS13, false).await;
    let [first, second] = [check(&one).await, check(&other).await];
    assert!(one.seen.try_recv().is_err(), "its connection is still open");
    let mut goodbyes = Goodbyes::new(1);
    goodbyes.say(first);
    goodbyes.say(second);
    assert_eq!(one.seen.recv().await.unwrap().2.unwrap(), 0);
    assert!(other.seen.recv().await.unwrap().2.is_err(), "there was no room for its goodbye");
    let quiet = async {
        loop {
            goodbyes.say(check(&one).await);
            if one.seen.recv().await.unwrap().2.is_ok() {
                return;
            }
        }
    };
    assert!(timeout(Duration::from_secs(10), quiet).await.is_ok(), "the first one has ended");
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_passes() {
    for version in [&version::TLS13, &version::TLS12] {
        let mut server = serve(&pki(&["a.test"]), version, true).await;
        let outcome = checked(&server, tls(VerifyMode::Report), &Authorities::default()).await;
        assert_eq!(outcome, CheckOutcome::Passed, "{version:?}");
        assert!(server.seen.recv().await.unwrap().2.is_err());
    }
}

#[tokio::test]
async fn only_enforce_makes_a_certificate_without_authority_or_name_a_failure() {
    let (own, other) = (pki(&["a.test"]), pki(&["a.test"]));
    let server = serve(&own, &version::TLS13, false).await;
    let enforce = || tls(VerifyMode::Enforce);
    assert_eq!(checked(&server, enforce(), &authorities_of(&own)).await, CheckOutcome::Passed);
    assert_eq!(
        checked(&server, enforce(), &authorities_of(&other)).await,
        CheckOutcome::Certificate
    );
    let unread = Authorities::default();
    assert_eq!(checked(&server, enforce(), &unread).await, CheckOutcome::NoAuthorities);
    let renamed = TlsCheck { server_name: Some("b.test".into()), ..enforce() };
    assert_eq!(checked(&server, renamed, &authorities_of(&own)).await, CheckOutcome::Certificate);
    // They vouch for names.
    for authorities in [authorities_of(&other), Authorities::default()] {
        let nameless = TlsCheck { server_name: None, ..enforce() };
        assert_eq!(checked(&server, nameless, &authorities).await, CheckOutcome::Passed);
    }
    assert_eq!(
        checked(&server, tls(VerifyMode::Report), &authorities_of(&other)).await,
        CheckOutcome::Passed
    );
}

#[tokio::test]
async fn a_chain_with_too_many_certificates_is_not_judged() {
    let mut pki = pki(&["a.test"]);
    let authorities = authorities_of(&pki);
    pki.chain.resize(MOST_CERTIFICATES, pki.chain[0].clone());
    let server = serve(&pki, &version::TLS13, false).await;
    let enforce = || tls(VerifyMode::Enforce);
    assert_eq!(checked(&server, enforce(), &authorities).await, CheckOutcome::Passed);
    pki.chain.push(pki.chain[0].clone());
    let server = serve(&pki, &version::TLS13, false).await;
    assert_eq!(checked(&server, enforce(), &authorities).await, CheckOutcome::Certificate);
}

#[tokio::test]
async fn a_server_that_speaks_something_else_or_refuses_the_protocol_fails() {
    let server = serve(&pki(&["a.test"]), &version::TLS13, false).await;
    let alpn = vec!["imap".parse().unwrap()];
    let other = TlsCheck { alpn, ..tls(VerifyMode::Report) };
    assert_eq!(checked(&server, other, &Authorities::default()).await, CheckOutcome::Handshake);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.write_all(b"220 mail.test ESMTP\r\n").await;
            let _ = socket.read(&mut [0; 4096]).await;
        }
    });
    let (_, seen) = tokio::sync::mpsc::unbounded_channel();
    let plain = Server { address, seen };
    let outcome = checked(&plain, tls(VerifyMode::Report), &Authorities::default()).await;
    assert_eq!(outcome, CheckOutcome::Handshake);
}

#[tokio::test]
async fn a_server_that_sends_without_end_ends_the_check_and_fills_no_memory() {
    // A handshake message that is larger than any, then records that only seem to be the start of one, and bytes.
    let large = [&[0x16, 3, 3, 0x40, 0, 2, 0xff, 0xff, 0xff][..], &[0; 16_380]].concat();
    let empty = [0x16, 3, 3, 0, 0].repeat(4096);
    for sent in [large, empty, vec![0x16; 16_384]] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut total = 0;
            while total < 64 << 20 && socket.write_all(&sent).await.is_ok() {
                total += sent.len();
            }
            let _ = tell.send(total);
        });
        let server = Server { address, seen: tokio::sync::mpsc::unbounded_channel().1 };
        let outcome = checked(&server, tls(VerifyMode::Report), &Authorities::default()).await;
        assert_eq!(outcome, CheckOutcome::Handshake);
        // What is in buffers of sockets is the kernel's.
        assert!(told.recv().await.unwrap() < 64 << 20);
    }
}
