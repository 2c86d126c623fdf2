//! TLS with the endpoints.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use rcgen::PKCS_ECDSA_P256_SHA256;
use serde_json::json;
use sluice::outcome::Outcome;
use sluice::policy::Timeout;
use sluice::termination::{CertificateText, UpstreamParts};

use super::peer::{TlsEnd, TlsPeer};
use super::pki::Authority;
use crate::support::{Backend, Plane, millis, target};

fn plane(authority: &Authority, backends: &[&Backend], upstream: UpstreamParts) -> Plane {
    let mut parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    parts.alpn = vec!["h2".into(), "http/1.1".into()];
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address()).collect();
    Plane::start(vec![target("a.test", &addresses).terminated(parts, Some(upstream))])
}

#[test]
fn an_endpoint_is_offered_what_was_negotiated_and_its_end_is_passed_on() {
    let (authority, backend) = (Authority::new(), Backend::new());
    let mut upstream = authority.upstream("inner.test");
    let text = CertificateText { secret: "test/sluice".into() };
    let identity = authority.identity("sluice.test", &PKCS_ECDSA_P256_SHA256);
    upstream.certificate = Some((text, identity));
    let plane = plane(&authority, &[&backend], upstream);
    let mut own = authority.server("inner.test", true);
    own.alpn_protocols = vec![b"other".to_vec(), b"http/1.1".to_vec(), b"h2".to_vec()];
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut server = TlsPeer::accept(backend.accept(), &own).unwrap();
            assert_eq!(server.tls.alpn_protocol(), Some(&b"http/1.1"[..]));
            assert!(server.tls.peer_certificates().is_some());
            server.expect(b"request");
            server.send(b"answer");
            server
        });
        let mut config = authority.client();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut client = TlsPeer::open(plane.address(), "a.test", &config);
        assert_eq!(client.tls.alpn_protocol(), Some(&b"http/1.1"[..]));
        client.send(b"request");
        client.expect(b"answer");
        let mut server = server.join().unwrap();
        client.close();
        assert_eq!(server.rest(), (vec![], TlsEnd::Closed));
        server.send(b"late");
        client.expect(b"late");
        server.close();
        assert_eq!(client.rest(), (vec![], TlsEnd::Closed));
    });
    plane.assert_ended(&[("a.test", Outcome::Completed, 1)]);
}

/// How a client fares whose endpoint ends without `close_notify`, and maybe after it has ended itself.
fn cut(client_ends: bool) -> (TlsEnd, Plane) {
    let (authority, backend) = (Authority::new(), Backend::new());
    let plane = plane(&authority, &[&backend], authority.upstream("inner.test"));
    let own = authority.server("inner.test", false);
    let end = thread::scope(|scope| {
        let server = scope.spawn(|| TlsPeer::accept(backend.accept(), &own).unwrap());
        let mut client = TlsPeer::open(plane.address(), "a.test", &authority.client());
        let mut server = server.join().unwrap();
        server.send(b"half");
        client.expect(b"half");
        if client_ends {
            client.close();
            assert_eq!(server.rest(), (vec![], TlsEnd::Closed));
        }
        server.socket.shutdown(Shutdown::Write).unwrap();
        client.rest().1
    });
    (end, plane)
}

#[test]
fn the_end_of_an_endpoints_connection_alone_is_no_end() {
    let (end, plane) = cut(false);
    assert_eq!(end, TlsEnd::Cut);
    plane.assert_ended(&[("a.test", Outcome::UpstreamReset, 1)]);
    let lines = plane.access_log();
    let cause = "TLS with the endpoint: the connection has ended without close_notify";
    assert_eq!(lines[0]["cause"], cause);
}

/// Nothing is in doubt but whether the endpoint's data are complete: its client sees that too.
#[test]
fn what_an_endpoint_leaves_out_is_left_out() {
    let (end, plane) = cut(true);
    assert_eq!(end, TlsEnd::Cut);
    plane.assert_ended(&[("a.test", Outcome::Completed, 1)]);
}

#[test]
fn an_endpoint_that_cannot_be_trusted_gets_nothing_and_the_next_one_is_tried() {
    let (authority, other) = (Authority::new(), Authority::new());
    let bad = [other.server("inner.test", false), authority.server("wrong.test", false)];
    for server in bad {
        let (first, second) = (Backend::new(), Backend::new());
        let plane = plane(&authority, &[&first, &second], authority.upstream("inner.test"));
        plane.prefer(0);
        let own = authority.server("inner.test", false);
        thread::scope(|scope| {
            let refused = scope.spawn(|| TlsPeer::accept(first.accept(), &server).err());
            let accepted = scope.spawn(|| TlsPeer::accept(second.accept(), &own).unwrap());
            let mut client = TlsPeer::open(plane.address(), "a.test", &authority.client());
            let refused = refused.join().unwrap().expect("an alert").to_string();
            assert!(refused.contains("alert"), "{refused}");
            let mut server = accepted.join().unwrap();
            client.send(b"request");
            server.expect(b"request");
            crate::support::reset(server.socket);
            assert_eq!(client.rest().1, TlsEnd::Reset);
        });
        plane.assert_ended(&[("a.test", Outcome::UpstreamReset, 1)]);
        let lines = plane.access_log();
        assert!(lines[0]["cause"].is_null(), "it is that of the first one: {lines:?}");
    }
}

#[test]
fn a_plain_endpoint_sees_no_plain_byte() {
    let (authority, backend) = (Authority::new(), Backend::new());
    let plane = plane(&authority, &[&backend], authority.upstream("inner.test"));
    let mut client = TlsPeer::open(plane.address(), "a.test", &authority.client());
    client.send(b"secret");
    let mut server = backend.accept();
    let mut bytes = vec![0; 4096];
    let read = server.read(&mut bytes).unwrap();
    assert!(bytes.starts_with(&[22, 3]), "no hello");
    server.write_all(b"220 plain server ready\r\n").unwrap();
    let more = server.read_to_end(&mut bytes).unwrap_or_default();
    assert!(!bytes.windows(6).any(|window| window == b"secret"), "{read} and {more} bytes");
    assert_ne!(client.rest().1, TlsEnd::Closed);
    plane.assert_ended(&[("a.test", Outcome::ConnectFailed, 1)]);
    let lines = plane.access_log();
    let cause = lines[0]["cause"].as_str().unwrap();
    assert!(cause.starts_with("TLS with the endpoint: "), "{cause}");
}

#[test]
fn an_endpoint_that_is_silent_is_not_waited_for_for_long() {
    let (authority, backend) = (Authority::new(), Backend::new());
    let parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    let upstream = Some(authority.upstream("inner.test"));
    let target = target("a.test", &[backend.address()]).terminated(parts, upstream);
    let target = target.policy(|policy| policy.timeouts.connect = Timeout::new(millis(400)));
    let plane = Plane::start(vec![target]);
    let mut client = TlsPeer::open(plane.address(), "a.test", &authority.client());
    let silent = backend.accept();
    assert_ne!(client.rest().1, TlsEnd::Closed);
    plane.assert_ended(&[("a.test", Outcome::ConnectTimeout, 1)]);
    drop(silent);
}

#[test]
fn a_client_that_leaves_meanwhile_is_noticed() {
    let (authority, backend) = (Authority::new(), Backend::new());
    let plane = plane(&authority, &[&backend], authority.upstream("inner.test"));
    let client = TlsPeer::open(plane.address(), "a.test", &authority.client());
    let silent = backend.accept();
    crate::support::reset(client.socket);
    plane.assert_ended(&[("a.test", Outcome::DownstreamReset, 1)]);
    drop(silent);
}

/// In TLS 1.3, sluice learns only after its handshake that the endpoint wants a certificate.
#[test]
fn an_endpoint_that_wants_a_certificate_says_so_in_the_log() {
    let (authority, backend) = (Authority::new(), Backend::new());
    let plane = plane(&authority, &[&backend], authority.upstream("inner.test"));
    let own = authority.server("inner.test", true);
    thread::scope(|scope| {
        let refused = scope.spawn(|| TlsPeer::accept(backend.accept(), &own).err());
        let mut client = TlsPeer::open(plane.address(), "a.test", &authority.client());
        assert!(refused.join().unwrap().is_some());
        assert_eq!(client.rest().1, TlsEnd::Reset);
    });
    plane.assert_ended(&[("a.test", Outcome::UpstreamReset, 1)]);
    let lines = plane.access_log();
    let cause = lines[0]["cause"].as_str().unwrap();
    assert!(cause.contains("CertificateRequired"), "{cause}");
}

/// Before TLS, as the endpoint's own proxy reads it.
#[test]
fn a_proxy_header_comes_before_tls() {
    let (authority, backend) = (Authority::new(), Backend::new());
    let parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    let upstream = Some(authority.upstream("inner.test"));
    let target = target("a.test", &[backend.address()]).terminated(parts, upstream);
    let plane = Plane::start(vec![target.policy(|policy| {
        policy.proxy_protocol = serde_json::from_value(json!({ "send": "V1" })).unwrap();
    })]);
    let own = authority.server("inner.test", false);
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut socket = backend.accept();
            let mut header = Vec::new();
            while !header.ends_with(b"\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                header.extend_from_slice(&byte);
            }
            assert!(header.starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.1 "), "{header:?}");
            TlsPeer::accept(socket, &own).unwrap().expect(b"request");
        });
        let mut client = TlsPeer::open(plane.address(), "a.test", &authority.client());
        client.send(b"request");
        server.join().unwrap();
    });
}
