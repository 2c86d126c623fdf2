#![allow(clippy::unwrap_used)]

mod tickets;

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256,
    SignatureAlgorithm,
};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ProducesTickets, UnbufferedServerConnection, WebPkiClientVerifier};
use rustls::unbuffered::{ConnectionState, EncodeError};
use rustls::{ClientConfig, HandshakeKind, NamedGroup};

use super::*;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// The texts of a certificate for these names, and of its key.
fn issue(
    issuer: &Issuer,
    names: &[&str],
    algorithm: &'static SignatureAlgorithm,
    change: impl FnOnce(&mut CertificateParams),
) -> [String; 2] {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    change(&mut params);
    let key = KeyPair::generate_for(algorithm).unwrap();
    [params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem()]
}

fn identity(issuer: &Issuer, names: &[&str]) -> Arc<Identity> {
    let [chain, key] = issue(issuer, names, &PKCS_ECDSA_P256_SHA256, |_| ());
    Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
}

fn fault(chain: &str, key: &str) -> String {
    Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err().to_string()
}

#[test]
fn identities_are_read_and_faults_say_nothing_of_the_key() {
    let ca = authority();
    for (algorithm, kind) in [
        (&PKCS_ECDSA_P256_SHA256, KeyKind::Ecdsa(256)),
        (&PKCS_ECDSA_P384_SHA384, KeyKind::Ecdsa(384)),
        (&PKCS_ECDSA_P521_SHA512, KeyKind::Ecdsa(521)),
        (&PKCS_RSA_SHA256, KeyKind::Rsa(2048)),
        (&PKCS_ED25519, KeyKind::Other),
    ] {
        let [chain, key] = issue(&ca, &["A.test", "*.b.test"], algorithm, |_| ());
        let text = format!("{chain}{}", ca.pem());
        let read = Identity::from_pem(text.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(read.facts().key, kind);
        assert_eq!(*read.facts().names, ["a.test".into(), "*.b.test".into()]);
        assert!(read.facts().covers("x.b.test") && !read.facts().covers("x.y.b.test"));
        assert!(!read.facts().covers("b.test"));
    }
    let [chain, key] = issue(&ca, &["a.test"], &PKCS_ECDSA_P256_SHA256, |_| ());
    let [_, other] = issue(&ca, &["a.test"], &PKCS_ECDSA_P256_SHA256, |_| ());
    assert!(fault("", &key).starts_with("tls.crt has no certificate"));
    assert!(fault(&chain, "").starts_with("tls.key has no private key"));
    assert!(fault(&chain, &chain).starts_with("tls.key has no private key"));
    assert!(fault(&chain, &other).contains("is not the private key of the first certificate"));
    assert!(fault(&chain.repeat(11), &key).contains("more than 10 certificates"));
    assert!(fault(&" ".repeat((64 << 10) + 1), &key).contains("longer than 64 KiB"));
    assert!(fault(&chain, &" ".repeat((16 << 10) + 1)).contains("longer than 16 KiB"));
    let names: Vec<String> = (0..257).map(|number| format!("n{number}.test")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let [many, its] = issue(&ca, &names, &PKCS_ECDSA_P256_SHA256, |_| ());
    assert!(fault(&many, &its).contains("more than 256 names"));
    // What is longer than it may be does not fill logs and reports.
    let long = format!("{}.test", ["x"; 130].join("."));
    let [chain, its] = issue(&ca, &["a.test", &long], &PKCS_ECDSA_P256_SHA256, |params| {
        params.serial_number = Some(vec![0x7a; 1000].into());
    });
    let read = Identity::from_pem(chain.as_bytes(), its.as_bytes()).unwrap();
    assert_eq!(*read.facts().serial, "7a".repeat(21));
    assert_eq!(*read.facts().names, ["a.test".into()]);
    // A key where the certificate belongs, in every broken form, is not repeated.
    let body = key.lines().nth(1).unwrap();
    for broken in [
        key.clone(),
        key.replace("-----END", "----END"),
        key.replace("KEY-----\n", "KEY-----\n*"),
        format!("-----BEGIN {body}"),
    ] {
        for [chain, key] in [[&broken, &key], [&chain, &broken]] {
            let read = Identity::from_pem(chain.as_bytes(), key.as_bytes());
            let said = read.map_err(|fault| format!("{fault} {fault:?}"));
            assert!(said.as_ref().err().is_none_or(|said| !said.contains(body)), "{said:?}");
        }
    }
}

fn parts(certificates: Vec<Arc<Identity>>) -> ServerParts {
    let named = |identity| (CertificateText { secret: "a/b".into() }, identity);
    ServerParts {
        certificates: certificates.into_iter().map(named).collect(),
        alpn: Vec::new(),
        min_version: MinVersion::V12,
        client_certificates: None,
        tickets: TicketKeys::local(0).unwrap(),
        route: "SniRoute a/r".into(),
    }
}

fn roots(issuer: &Issuer) -> Arc<Roots> {
    Roots::from_pem(issuer.pem().as_bytes()).unwrap()
}

fn client(issuer: &Issuer) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(Arc::clone(roots(issuer).store()))
        .with_no_client_auth()
}

/// The state of one side after everything was exchanged that there is to exchange.
macro_rules! go_on {
    ($connection:expr, $incoming:expr, $outgoing:expr) => {{
        loop {
            let status = $connection.process_tls_records(&mut $incoming);
            let (discard, state) = (status.discard, status.state);
            let mut blocked = false;
            match state {
                Err(error) => break Err(error),
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let needed = match data.encode(&mut []) {
                        Err(EncodeError::InsufficientSize(needed)) => needed.required_size,
                        _ => unreachable!(),
                    };
                    let start = $outgoing.len();
                    $outgoing.resize(start + needed, 0);
                    data.encode(&mut $outgoing[start..]).unwrap();
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(_) => blocked = true,
            }
            $incoming.drain(..discard);
            if blocked {
                break Ok(());
            }
        }
    }};
}

/// Makes a handshake of a client that offers these protocols.
fn shake(
    server: &ServerTls,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<(UnbufferedServerConnection, UnbufferedClientConnection), rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client_side = UnbufferedClientConnection::new(Arc::clone(client), name).unwrap();
    let offers = client.alpn_protocols.iter().map(Vec::as_slice);
    let mut server_side = server.accept(offers).unwrap();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        go_on!(client_side, down, up)?;
        go_on!(server_side, up, down)?;
    }
    assert!(!server_side.is_handshaking() && !client_side.is_handshaking());
    Ok((server_side, client_side))
}

fn kind(server: &ServerTls, client: &Arc<ClientConfig>, name: &str) -> HandshakeKind {
    shake(server, client, name).unwrap().0.handshake_kind().unwrap()
}

#[test]
fn handshakes_are_hybrid_and_protocols_are_selected_only_where_listed() {
    let ca = authority();
    let ca_identity = || identity(&ca, &["a.test"]);
    let server = ServerTls::new(parts(vec![ca_identity()])).unwrap();
    let with = |protocols: &[&str]| {
        let mut config = client(&ca);
        config.alpn_protocols = protocols.iter().map(|one| one.as_bytes().to_vec()).collect();
        Arc::new(config)
    };
    let (connection, _) = shake(&server, &with(&[]), "a.test").unwrap();
    let group = connection.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    let selected = |server: &ServerTls, offered: &[&str]| {
        let (connection, _) = shake(server, &with(offered), "a.test").unwrap();
        connection.alpn_protocol().map(|one| String::from_utf8_lossy(one).into_owned())
    };
    assert_eq!(selected(&server, &["h2", "http/1.1"]), None);
    assert_eq!(selected(&server, &["acme-tls/1"]), None);
    assert_eq!(selected(&server, &["postgresql"]).as_deref(), Some("postgresql"));
    assert_eq!(selected(&server, &["postgresql", "h2"]), None);
    let alpn = vec!["http/1.1".into(), "h2".into()];
    let listed = ServerTls::new(ServerParts { alpn, ..parts(vec![ca_identity()]) }).unwrap();
    assert_eq!(selected(&listed, &["h2", "http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(selected(&listed, &["h2"]).as_deref(), Some("h2"));
}

#[test]
fn the_best_certificate_is_chosen() {
    let ca = authority();
    let long_ago = |params: &mut CertificateParams| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    };
    let make = |names: &[&str], algorithm, old: bool| {
        let change = |params: &mut CertificateParams| {
            if old {
                long_ago(params)
            }
        };
        let [chain, key] = issue(&ca, names, algorithm, change);
        Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
    };
    let expired = make(&["a.test"], &PKCS_ECDSA_P256_SHA256, true);
    let rsa = make(&["a.test"], &PKCS_RSA_SHA256, false);
    let exact = make(&["a.test"], &PKCS_ECDSA_P256_SHA256, false);
    let wildcard = make(&["*.test"], &PKCS_ECDSA_P256_SHA256, false);
    let other = make(&["b.example"], &PKCS_ECDSA_P256_SHA256, false);
    let all = vec![expired.clone(), other.clone(), wildcard.clone(), rsa.clone(), exact.clone()];
    let server = ServerTls::new(parts(all)).unwrap();
    let served = |server: &ServerTls, name: &str| {
        // A client that does not care for names.
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let config = Arc::new(client(&ca));
        let mut client = UnbufferedClientConnection::new(config, name).unwrap();
        let (mut up, mut down) = (Vec::new(), Vec::new());
        go_on!(client, down, up).unwrap();
        let mut server = server.accept([]).unwrap();
        go_on!(server, up, down).unwrap();
        ServerTls::take_served().unwrap()
    };
    assert_eq!(served(&server, "a.test"), *exact.facts());
    assert_eq!(served(&server, "x.test"), *wildcard.facts());
    assert_eq!(served(&server, "b.example"), *other.facts());
    assert_eq!(served(&server, "c.example"), *other.facts());
    assert!(ServerTls::take_served().is_none());
    let server = ServerTls::new(parts(vec![expired.clone()])).unwrap();
    assert_eq!(served(&server, "a.test"), *expired.facts());
}

/// As it changes nothing for the choice of the route.
#[test]
fn a_trailing_dot_changes_nothing_for_the_choice_of_the_certificate() {
    let ca = authority();
    let (first, second) = (identity(&ca, &["a.test"]), identity(&ca, &["b.test"]));
    let server = ServerTls::new(parts(vec![first, Arc::clone(&second)])).unwrap();
    // rustls's own clients send no dot.
    let name = ServerName::try_from("b.testx").unwrap();
    let mut client = UnbufferedClientConnection::new(Arc::new(client(&ca)), name).unwrap();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    go_on!(client, down, up).unwrap();
    let at = up.windows(7).position(|bytes| bytes == b"b.testx").unwrap();
    up[at + 6] = b'.';
    let mut server = server.accept([]).unwrap();
    go_on!(server, up, down).unwrap();
    assert_eq!(ServerTls::take_served().unwrap(), *second.facts());
}

#[test]
fn client_certificates_are_judged_again_when_a_session_is_resumed() {
    let (ca, clients, strangers) = (authority(), authority(), authority());
    let rules = ClientCertificates { roots: roots(&clients), required: true };
    let parts = parts(vec![identity(&ca, &["a.test"])]);
    let server = ServerTls::new(ServerParts { client_certificates: Some(rules), ..parts }).unwrap();
    let shown = |issuer: &Issuer| {
        let text = CertificateText { secret: "test/client".into() };
        let certificate = Some((text, identity(issuer, &["client"])));
        UpstreamParts { server_name: "a.test".into(), roots: roots(&ca), certificate }
    };
    let chain = |parts: &UpstreamParts| {
        let (_, identity) = parts.certificate.as_ref().unwrap();
        identity.certified_key().cert.clone()
    };
    let (good, bad) = (shown(&clients), shown(&strangers));
    assert!(server.check_resumed(&chain(&good)).is_ok());
    assert!(server.check_resumed(&chain(&bad)).is_err());
    let long = vec![chain(&good).remove(0); 7];
    assert!(server.check_resumed(&long).is_err());
    let run = |parts: UpstreamParts| {
        let upstream = UpstreamTls::new(parts).unwrap();
        let mut client = upstream.connect(None).unwrap();
        let mut server = server.accept([]).unwrap();
        let (mut up, mut down) = (Vec::new(), Vec::new());
        for _ in 0..6 {
            go_on!(client, down, up)?;
            go_on!(server, up, down)?;
        }
        Ok::<_, rustls::Error>(server.peer_certificates().map(<[_]>::len))
    };
    assert_eq!(run(good.clone()), Ok(Some(1)));
    assert!(run(bad).is_err());
    assert!(run(UpstreamParts { certificate: None, ..good.clone() }).is_err());
    // The name and the authority of the endpoint count, too.
    assert!(run(UpstreamParts { server_name: "b.test".into(), ..good.clone() }).is_err());
    assert!(run(UpstreamParts { roots: roots(&strangers), ..good }).is_err());
}

/// A verifier has a copy of the names of all authorities, and routes may be many.
#[test]
fn routes_with_the_same_authorities_share_a_verifier() {
    let roots = roots(&authority());
    let verifier = |required| roots.client_verifier(required).unwrap();
    assert!(Arc::ptr_eq(&verifier(true), &verifier(true)));
    assert!(verifier(true).client_auth_mandatory() && !verifier(false).client_auth_mandatory());
}
