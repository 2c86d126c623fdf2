//! Headers that sluice sends to endpoints.

use serde_json::json;
use sluice::config::{AccessLogMode, Protocol};
use sluice::outcome::Outcome;
use sluice::policy::ProxyVersion;
use sluice::proxy_protocol::{Header, HeaderProgress, Version, read};

use super::*;
use crate::support::{Backend, Target, connect, exchange, expect, hello, listener, open, target};

/// What an endpoint got before the hello.
#[track_caller]
fn header_at(mut server: TcpStream, hello: &[u8], version: Version) -> (Header, Vec<u8>) {
    let mut received = Vec::new();
    let header = loop {
        let mut byte = [0];
        expect_any(&mut server, &mut byte);
        received.extend_from_slice(&byte);
        if let HeaderProgress::Header(header) = read(&received) {
            break header;
        }
    };
    expect(&mut server, hello);
    assert_eq!(received.starts_with(b"PROXY "), version == Version::V1);
    (header, received)
}

fn expect_any(server: &mut TcpStream, buffer: &mut [u8]) {
    std::io::Read::read_exact(server, buffer).unwrap();
}

/// A route that sends a header.
fn sending(backend: &Backend, send: ProxyVersion, change: impl FnOnce(&mut Value)) -> Target {
    let mut fields = json!({ "send": if send == ProxyVersion::V1 { "V1" } else { "V2" } });
    change(&mut fields);
    target("a.test", &[backend.address()])
        .policy(|policy| policy.proxy_protocol = serde_json::from_value(fields).unwrap())
}

#[test]
fn an_endpoint_is_told_who_the_client_is_and_where_it_connected_to() {
    let hello = hello("a.test");
    for (send, version) in [(ProxyVersion::V1, Version::V1), (ProxyVersion::V2, Version::V2)] {
        for (ip, access_log) in
            [([127, 0, 0, 1], AccessLogMode::All), ([0, 0, 0, 0], AccessLogMode::Off)]
        {
            let backend = Backend::new();
            let plane = Plane::with(vec![sending(&backend, send, |_| {})], |config| {
                config.listeners[0].address = (ip, 0).into();
                config.access_log = access_log;
            });
            let served = SocketAddr::from(([127, 0, 0, 1], plane.address().port()));
            let client = open(served, &hello);
            let (header, bytes) = header_at(backend.accept(), &hello, version);
            let expected =
                ConnectionAddresses { source: client.local_addr().unwrap(), destination: served };
            assert_eq!(header.addresses, Some(expected));
            // The name, and nothing else.
            let authority = b"\x02\0\x06a.test";
            assert_eq!(bytes.ends_with(authority), version == Version::V2, "{bytes:?}");
            drop(client);
            plane.assert_ended(&[("a.test", Outcome::Completed, 1)]);
            assert_eq!(plane.bytes("a.test").0, hello.len() as u64);
        }
    }
}

#[test]
fn what_a_header_has_besides_is_for_the_route_to_say() {
    let hello = hello("a.test");
    let backend = Backend::new();
    let all = |fields: &mut Value| {
        fields["authority"] = json!(false);
        fields["uniqueId"] = json!(true);
        fields["checksum"] = json!(true);
    };
    let plane = Plane::start(vec![sending(&backend, ProxyVersion::V2, all)]);
    let client = open(plane.address(), &hello);
    // The reader checks the checksum.
    let (header, bytes) = header_at(backend.accept(), &hello, Version::V2);
    drop(client);
    assert!(!bytes.windows(6).any(|part| part == b"a.test"));
    assert!(bytes.windows(3).any(|part| part == b"\x03\0\x04"), "{bytes:?}");
    let id = String::from_utf8(header.unique_id.unwrap().into()).unwrap();
    assert_eq!(only_line(plane)["id"], id);
}

#[test]
fn what_one_proxy_says_is_passed_on_to_the_next() {
    let hello = hello("a.test");
    let backend = Backend::new();
    let unique = |fields: &mut Value| fields["uniqueId"] = json!(true);
    let plane = Plane::with(vec![sending(&backend, ProxyVersion::V2, unique)], requiring);
    for (source, destination) in
        [(CLIENT, SERVED), ("[2001:db8::7]:1", "[2001:db8::9]:443"), (CLIENT, "[2001:db8::9]:443")]
    {
        let extensions = Extensions { unique_id: Some(b"theirs"), ..Extensions::default() };
        let first = header_of(Version::V2, source, destination, extensions);
        let _client = open(plane.address(), &[first, hello.clone()].concat());
        let (header, _) = header_at(backend.accept(), &hello, Version::V2);
        let addresses = header.addresses.unwrap();
        assert_eq!(addresses.source.to_string(), source);
        assert_eq!(addresses.destination.to_string(), destination);
        assert_eq!(header.unique_id.as_deref(), Some(&b"theirs"[..]));
    }
    assert!(plane.access_log().iter().all(|line| line["uniqueId"] == "theirs"));
}

/// A server may speak first.
#[test]
fn a_header_does_not_wait_for_the_client() {
    let backend = Backend::new();
    let route = target("*", &[backend.address()])
        .policy(|policy| policy.proxy_protocol.send = Some(ProxyVersion::V1));
    let plane = Plane::with(vec![route], |config| {
        config.listeners = vec![listener("https", Protocol::Tcp, false)];
    });
    let mut client = connect(plane.address());
    let mut server = backend.accept();
    let source = client.local_addr().unwrap().port();
    let served = plane.address().port();
    let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {source} {served}\r\n");
    expect(&mut server, line.as_bytes());
    exchange(&mut client, &mut server);
    drop((client, server));
    plane.assert_ended(&[("*", Outcome::Completed, 1)]);
    assert_eq!(plane.bytes("*").0, 4);
}
