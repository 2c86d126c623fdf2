//! Clients that have to show a certificate.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::PKCS_ECDSA_P256_SHA256;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, SignatureScheme};
use sluice::outcome::Outcome;
use sluice::termination::{TicketKeySet, provider};

use super::peer::{TlsPeer, exchange};
use super::pki::Authority;
use crate::support::{Backend, Plane, target, wait_until};

struct Mutual {
    authority: Authority,
    backend: Backend,
    plane: Plane,
}

fn mutual(required: bool) -> Mutual {
    let (authority, backend) = (Authority::new(), Backend::new());
    let mut parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    parts.client_certificates = Some(authority.of_clients(required));
    let target = target("a.test", &[backend.address()]);
    let plane = Plane::start(vec![target.terminated(parts, None)]);
    Mutual { authority, backend, plane }
}

impl Mutual {
    /// Whether a client gets through. With TLS 1.3, it is told only after its handshake that it does not.
    fn admits(&self, config: &ClientConfig) -> bool {
        let opened = TlsPeer::try_open(self.plane.address(), "a.test", config);
        let Ok(mut client) = opened else { return false };
        let mut answer = [0; 4];
        let served = std::thread::scope(|scope| {
            let serving = scope.spawn(|| {
                // A client that is refused never reaches it.
                let waits = || {
                    self.backend.is_tried()
                        || self.plane.count("a.test", Outcome::HandshakeFailed) > 0
                };
                crate::support::wait_until("an answer", waits);
                let mut server = self.backend.accept_waiting()?;
                crate::support::expect(&mut server, b"ping");
                std::io::Write::write_all(&mut server, b"pong").unwrap();
                Some(server)
            });
            let _ = std::io::Write::write_all(&mut client, b"ping");
            let read = std::io::Read::read_exact(&mut client, &mut answer);
            drop(serving.join().unwrap());
            read.is_ok()
        });
        served && answer == *b"pong"
    }
}

#[test]
fn a_client_with_a_good_certificate_is_served() {
    let site = mutual(true);
    let own = site.authority.issue("client.test", &PKCS_ECDSA_P256_SHA256);
    for version in [&TLS12, &TLS13] {
        let config = site.authority.client_of(provider(), &[version], Some(&own));
        let mut client = TlsPeer::open(site.plane.address(), "a.test", &config);
        exchange(&mut client, &mut site.backend.accept());
    }
    let lines = site.plane.access_log();
    assert!(lines.iter().all(|line| line["tls"]["clientSubject"] == "CN=client.test"), "{lines:?}");
}

#[test]
fn a_client_with_a_bad_certificate_or_none_is_refused_before_any_endpoint_hears_of_it() {
    for version in [&TLS12, &TLS13] {
        let site = mutual(true);
        let stranger = Authority::new().issue("client.test", &PKCS_ECDSA_P256_SHA256);
        let bad = site.authority.client_of(provider(), &[version], Some(&stranger));
        assert!(!site.admits(&bad));
        let none = site.authority.client_of(provider(), &[version], None);
        assert!(!site.admits(&none));
        assert!(!site.backend.is_tried());
        site.plane.assert_ended(&[("a.test", Outcome::HandshakeFailed, 2)]);
        let lines = site.plane.access_log();
        let causes: Vec<_> = lines.iter().map(|line| line["cause"].as_str().unwrap()).collect();
        for cause in ["invalid peer certificate", "peer sent no certificates"] {
            assert!(causes.iter().any(|other| other.contains(cause)), "{causes:?}");
        }
    }
}

/// A ticket does not make it valid for longer.
#[test]
#[ignore = "slow: waits until a certificate has expired, three seconds"]
fn a_session_whose_certificate_has_expired_is_not_resumed() {
    let (authority, backend) = (Authority::new(), Backend::new());
    let mut parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    parts.client_certificates = Some(authority.of_clients(true));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    parts.tickets.set(TicketKeySet::new(now).unwrap());
    let target = target("a.test", &[backend.address()]);
    let plane = Plane::start(vec![target.terminated(parts, None)]);
    let failed = || plane.count("a.test", Outcome::HandshakeFailed);
    let open = |config: &_| TlsPeer::try_open(plane.address(), "a.test", config);
    for version in [&TLS12, &TLS13] {
        // A busy machine takes longer for the handshakes.
        let resumed = [3, 6, 12, 24].into_iter().find_map(|seconds| {
            let end = SystemTime::now() + Duration::from_secs(seconds);
            let own = authority.issue_until(end, "client.test", &PKCS_ECDSA_P256_SHA256);
            let config = authority.client_of(provider(), &[version], Some(&own));
            let kinds = [(); 2].map(|()| {
                let before = failed();
                let mut client = open(&config).ok()?;
                wait_until("an answer", || backend.is_tried() || failed() > before);
                exchange(&mut client, &mut backend.accept_waiting()?);
                client.tls.handshake_kind()
            });
            (SystemTime::now() < end).then_some((end, config, kinds))
        });
        let (end, config, kinds) = resumed.expect("two handshakes in 24 seconds");
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed].map(Some));
        // In whole seconds, as certificates have it.
        wait_until("the certificate to expire", || {
            SystemTime::now() > end + Duration::from_secs(1)
        });
        let before = failed();
        // A client of TLS 1.3 is ready before its certificate was looked at.
        let client = open(&config);
        wait_until("it to be refused", || failed() == before + 1);
        assert!(!backend.is_tried());
        drop(client);
    }
}

/// A client's certificate, which it may renew.
#[derive(Debug)]
struct Renewing(Mutex<Arc<CertifiedKey>>);

impl ResolvesClientCert for Renewing {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.lock().unwrap()))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Its session does not lock it out.
#[test]
#[ignore = "slow: waits until a certificate has expired, two seconds"]
fn a_client_that_has_renewed_its_certificate_is_served_whatever_its_session() {
    let (authority, backend) = (Authority::new(), Backend::new());
    let mut parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    parts.client_certificates = Some(authority.of_clients(true));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    parts.tickets.set(TicketKeySet::new(now).unwrap());
    let target = target("a.test", &[backend.address()]);
    let plane = Plane::start(vec![target.terminated(parts, None)]);
    for version in [&TLS12, &TLS13] {
        let end = SystemTime::now() + Duration::from_secs(2);
        let old = authority.issue_until(end, "client.test", &PKCS_ECDSA_P256_SHA256);
        let new = authority.issue("client.test", &PKCS_ECDSA_P256_SHA256);
        let renewing = Arc::new(Renewing(Mutex::new(old.certified())));
        let mut config = authority.client_of(provider(), &[version], None);
        config.client_auth_cert_resolver = Arc::<Renewing>::clone(&renewing);
        let connect = || {
            let mut client = TlsPeer::open(plane.address(), "a.test", &config);
            exchange(&mut client, &mut backend.accept());
            client.tls.handshake_kind().unwrap()
        };
        assert_eq!(connect(), HandshakeKind::Full);
        assert_eq!(connect(), HandshakeKind::Resumed);
        wait_until("the certificate to expire", || {
            SystemTime::now() > end + Duration::from_secs(1)
        });
        *renewing.0.lock().unwrap() = new.certified();
        assert_eq!(connect(), HandshakeKind::Full);
        assert_eq!(connect(), HandshakeKind::Resumed);
    }
}

#[test]
fn an_optional_certificate_may_be_missing_but_not_bad() {
    let site = mutual(false);
    assert!(site.admits(&site.authority.client()));
    let own = site.authority.issue("client.test", &PKCS_ECDSA_P256_SHA256);
    assert!(site.admits(&site.authority.client_with(&own)));
    let stranger = Authority::new().issue("client.test", &PKCS_ECDSA_P256_SHA256);
    assert!(!site.admits(&site.authority.client_with(&stranger)));
}
