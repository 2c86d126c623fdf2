//! What the endpoint and the access log are told of TLS.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustls::version::{TLS12, TLS13};
use serde_json::json;
use sluice::termination::{TicketKeySet, provider};

use super::peer::{TlsPeer, exchange};
use super::pki::Authority;
use crate::support::{Backend, Plane, target};

/// The extensions of a PROXY header of version 2, by type.
fn extensions(server: &mut TcpStream) -> BTreeMap<u8, Vec<u8>> {
    let mut fixed = [0; 16];
    server.read_exact(&mut fixed).unwrap();
    let mut rest = vec![0; u16::from_be_bytes([fixed[14], fixed[15]]).into()];
    server.read_exact(&mut rest).unwrap();
    // Two addresses of IPv4.
    parse(&rest[12..])
}

fn parse(mut bytes: &[u8]) -> BTreeMap<u8, Vec<u8>> {
    let mut found = BTreeMap::new();
    while let [kind, high, low, rest @ ..] = bytes {
        let (value, after) = rest.split_at(u16::from_be_bytes([*high, *low]).into());
        found.insert(*kind, value.to_vec());
        bytes = after;
    }
    found
}

#[test]
fn an_endpoint_is_told_of_tls_and_of_the_certificate_of_its_client() {
    let (authority, backend) = (Authority::new(), Backend::new());
    let mut parts = authority.parts("a.test", &PKCS_RSA_SHA256);
    parts.client_certificates = Some(authority.of_clients(false));
    parts.alpn = vec!["h2".into()];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    parts.tickets.set(TicketKeySet::new(now).unwrap());
    let target = target("a.test", &[backend.address()]).terminated(parts, None);
    let plane = Plane::start(vec![target.policy(|policy| {
        policy.proxy_protocol = serde_json::from_value(json!({ "send": "V2" })).unwrap();
    })]);
    let own = authority.issue("client.test", &PKCS_ECDSA_P256_SHA256);
    let told = |config| {
        let mut client = TlsPeer::open(plane.address(), "a.test", config);
        let mut server = backend.accept();
        let extensions = extensions(&mut server);
        exchange(&mut client, &mut server);
        extensions
    };
    let mut config = authority.client_of(provider(), &[&TLS13], Some(&own));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let version_13: &[u8] = b"TLSv1.3";
    for (full, flags) in [(true, 0b111), (false, 0b101)] {
        let extensions = told(&config);
        assert_eq!(extensions[&1], b"h2");
        assert_eq!(extensions[&2], b"a.test");
        let tls = &extensions[&0x20];
        assert_eq!(tls[..5], [flags, 0, 0, 0, 0]);
        let inner = parse(&tls[5..]);
        assert_eq!(inner[&0x21], version_13);
        assert_eq!(inner[&0x22], b"client.test");
        assert_eq!(inner[&0x23], b"TLS_AES_256_GCM_SHA384");
        assert_eq!(inner.get(&0x25).map(|key| &key[..]), full.then_some(&b"RSA2048"[..]));
    }
    // Without a certificate, nothing was verified.
    let extensions = told(&authority.client_of(provider(), &[&TLS12], None));
    assert!(!extensions.contains_key(&1));
    let tls = &extensions[&0x20];
    assert_eq!(tls[..5], [1, 0, 0, 0, 1]);
    let inner = parse(&tls[5..]);
    assert_eq!(inner[&0x21], b"TLSv1.2");
    assert_eq!(inner[&0x23], b"ECDHE-RSA-AES256-GCM-SHA384");
    assert!(!inner.contains_key(&0x22));
}

#[test]
fn the_access_log_and_the_metrics_have_the_handshake() {
    let (authority, backend) = (Authority::new(), Backend::new());
    let mut parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    parts.alpn = vec!["http/1.1".into()];
    let serial = parts.certificates[0].1.facts().serial.clone();
    let target = target("a.test", &[backend.address()]).terminated(parts, None);
    let plane = Plane::start(vec![target]);
    let mut config = authority.client_of(provider(), &[&TLS13], None);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut client = TlsPeer::open(plane.address(), "a.test", &config);
    exchange(&mut client, &mut backend.accept());
    let text = plane.metrics.encode().unwrap();
    for line in [
        "sluice_handshakes_total{result=\"full\"} 1",
        "sluice_handshakes_total{result=\"resumed\"} 0",
        "sluice_handshakes_total{result=\"failed\"} 0",
        "sluice_handshake_duration_seconds_count 1",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    }
    drop(client);
    let lines = plane.access_log();
    let tls = &lines[0]["tls"];
    assert_eq!(tls["version"], "TLSv1.3");
    assert_eq!(tls["cipher"], "TLS_AES_256_GCM_SHA384");
    assert_eq!(tls["alpn"], "http/1.1");
    assert_eq!(tls["resumed"], false);
    assert_eq!(tls["certificate"], *serial);
    assert!(tls["handshakeMs"].as_f64().is_some_and(|took| took > 0.0), "{tls}");
    assert!(lines[0]["connectMs"].as_f64().is_some(), "{lines:?}");
    assert!(tls.get("clientSubject").is_none());
}
