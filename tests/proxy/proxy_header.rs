//! PROXY headers, from proxies and to endpoints.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use serde_json::{Value, json};
use sluice::config::{AccessLogMode, Config, OtherPeers, Protocol, ProxyProtocolIn, TrustedPeers};
use sluice::outcome::Outcome;
use sluice::policy::{Access, ProxyVersion};
use sluice::proxy::PassedSocket;
use sluice::proxy_protocol::{
    Addresses, Extensions, Header, LOCAL, Progress, Version, read, write,
};

use crate::support::{
    Backend, End, Plane, Target, connect, exchange, expect, hello, listener, millis, open,
    open_from, rest, target, wait_until,
};

const CLIENT: &str = "192.0.2.7:40000";
const SERVED: &str = "203.0.113.9:443";

fn header(version: Version) -> Vec<u8> {
    header_of(version, CLIENT, SERVED, Extensions::default())
}

fn header_of(
    version: Version,
    source: &str,
    destination: &str,
    extensions: Extensions<'_>,
) -> Vec<u8> {
    let mut header = Vec::new();
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    write(&mut header, version, Addresses { source, destination }, extensions);
    header
}

/// Trusts 127.0.0.1, and not 127.0.0.2.
fn trusting(trusted: TrustedPeers, others: OtherPeers) -> impl Fn(&mut Config) {
    move |config| {
        let from = vec!["127.0.0.1".parse().unwrap()];
        config.listeners[0].proxy_protocol = Some(ProxyProtocolIn { from, trusted, others });
    }
}

fn requiring(config: &mut Config) {
    trusting(TrustedPeers::Require, OtherPeers::Plain)(config);
}

/// A client that is not trusted.
fn stranger(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    open_from(([127, 0, 0, 2], 0).into(), address, bytes)
}

#[track_caller]
fn is_refused(mut client: TcpStream) {
    let _ = client.shutdown(Shutdown::Write);
    assert_eq!(rest(&mut client).0, b"");
}

/// The log line of a plane that served one connection.
#[track_caller]
fn only_line(plane: Plane) -> Value {
    let mut lines = plane.access_log();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

/// The log line whose field has this value.
#[track_caller]
fn line_with(plane: Plane, field: &str, value: &str) -> Value {
    let lines = plane.access_log();
    lines.iter().find(|line| line[field] == value).unwrap_or_else(|| panic!("{lines:?}")).clone()
}

#[test]
fn the_client_of_a_trusted_proxy_is_the_one_in_the_header() {
    let hello = hello("a.test");
    for version in [Version::V1, Version::V2] {
        let backend = Backend::new();
        let plane = Plane::with(vec![target("a.test", &[backend.address()])], requiring);
        let bytes = [header(version), hello.clone()].concat();
        // At once, in two pieces that are cut anywhere, and byte by byte.
        for cut in [bytes.len(), 1, 20, header(version).len(), header(version).len() + 1] {
            let mut client = connect(plane.address());
            client.write_all(&bytes[..cut]).unwrap();
            client.write_all(&bytes[cut..]).unwrap();
            let mut server = backend.accept_with(&hello);
            exchange(&mut client, &mut server);
        }
        let mut client = connect(plane.address());
        bytes.iter().for_each(|byte| client.write_all(&[*byte]).unwrap());
        let mut server = backend.accept_with(&hello);
        exchange(&mut client, &mut server);
        let peer = client.local_addr().unwrap().to_string();
        drop((client, server));
        plane.assert_ended(&[("a.test", Outcome::Completed, 6)]);
        let bytes_up = hello.len() as u64 + 4;
        assert_eq!(plane.bytes("a.test").0, 6 * bytes_up, "the header is not the client's");
        let line = line_with(plane, "peer", &peer);
        assert_eq!(line["source"], CLIENT);
        assert_eq!(line["id"].as_str().map(str::len), Some(16), "{line}");
    }
}

#[test]
fn a_listener_of_any_protocol_reads_it_as_well() {
    let backend = Backend::new();
    let plane = Plane::with(vec![target("*", &[backend.address()])], |config| {
        config.listeners = vec![listener("https", Protocol::Tcp, false)];
        requiring(config);
    });
    let mut client = open(plane.address(), &[&header(Version::V2)[..], b"any"].concat());
    let mut server = backend.accept_with(b"any");
    exchange(&mut client, &mut server);
    drop((client, server));
    assert_eq!(only_line(plane)["source"], CLIENT);
}

#[test]
fn a_trusted_proxy_has_to_send_one_unless_it_is_told_otherwise() {
    let backend = Backend::new();
    let routes = || vec![target("a.test", &[backend.address()])];
    let plane = Plane::with(routes(), requiring);
    is_refused(open(plane.address(), &hello("a.test")));
    plane.assert_ended(&[("", Outcome::BadPreamble, 1)]);
    let line = only_line(plane);
    let cause = line["cause"].as_str().unwrap();
    assert!(cause.ends_with("is in proxyProtocol.from, and sent no PROXY header"), "{line}");

    let plane = Plane::with(routes(), trusting(TrustedPeers::Accept, OtherPeers::Plain));
    let hello = hello("a.test");
    let mut client = open(plane.address(), &hello);
    exchange(&mut client, &mut backend.accept_with(&hello));
    let mut client = open(plane.address(), &[header(Version::V2), hello.clone()].concat());
    exchange(&mut client, &mut backend.accept_with(&hello));
}

#[test]
fn an_invalid_header_is_refused_with_what_is_wrong() {
    let plane = Plane::with(vec![], requiring);
    is_refused(open(plane.address(), b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n"));
    plane.assert_ended(&[("", Outcome::BadPreamble, 1)]);
    let line = only_line(plane);
    assert!(line["cause"].as_str().unwrap().starts_with("the PROXY header is invalid: "), "{line}");
}

#[test]
fn a_header_of_a_stranger_is_recognised_and_never_believed() {
    for bytes in [header(Version::V1), header(Version::V2)] {
        for trusts in [true, false] {
            let plane = Plane::with(vec![], |config| {
                if trusts {
                    requiring(config);
                }
            });
            let client = stranger(plane.address(), &bytes);
            let peer = client.local_addr().unwrap().to_string();
            is_refused(client);
            // In pieces, of which the first says little.
            let mut client = stranger(plane.address(), &bytes[..1]);
            client.write_all(&bytes[1..]).unwrap();
            is_refused(client);
            plane.assert_ended(&[("", Outcome::UntrustedProxyHeader, 2)]);
            let line = line_with(plane, "source", &peer);
            let cause = line["cause"].as_str().unwrap();
            let expected =
                "sent a PROXY header, and is not in proxyProtocol.from of listener https";
            assert!(cause.starts_with(&peer) && cause.ends_with(expected), "{cause}");
        }
    }
    // What only begins like one is something else.
    let plane = Plane::start(vec![]);
    is_refused(open(plane.address(), b"PROPFIND / HTTP/1.1\r\n\r\n"));
    is_refused(open(plane.address(), b"\r\n"));
    plane.assert_ended(&[("", Outcome::NotTls, 2)]);
}

#[test]
fn strangers_are_clients_or_are_refused() {
    let backend = Backend::new();
    let hello = hello("a.test");
    let routes = || vec![target("a.test", &[backend.address()])];
    let plane = Plane::with(routes(), requiring);
    let mut client = stranger(plane.address(), &hello);
    exchange(&mut client, &mut backend.accept_with(&hello));
    drop(client);
    let plane = Plane::with(routes(), trusting(TrustedPeers::Require, OtherPeers::Refuse));
    is_refused(stranger(plane.address(), b""));
    plane.assert_ended(&[("", Outcome::AccessDenied, 1)]);
}

#[test]
fn a_proxy_that_speaks_for_itself_is_no_client() {
    let plane = Plane::with(vec![], requiring);
    is_refused(open(plane.address(), &LOCAL));
    is_refused(open(plane.address(), b"PROXY UNKNOWN\r\n"));
    is_refused(open(plane.address(), b""));
    plane.assert_ended(&[("", Outcome::NoHello, 3)]);
}

#[test]
fn a_header_that_does_not_end_is_not_waited_for() {
    let plane = Plane::with(vec![], |config| {
        requiring(config);
        config.timeouts.hello = millis(200);
    });
    let mut slow = open(plane.address(), &header(Version::V2)[..20]);
    // One deadline for both.
    let mut slower = open(plane.address(), &header(Version::V2));
    for client in [&mut slow, &mut slower] {
        assert_eq!(rest(client), (vec![], End::Eof));
    }
    plane.assert_ended(&[("", Outcome::BadPreamble, 1), ("", Outcome::HelloTimeout, 1)]);
    let silent = open(plane.address(), b"");
    wait_until("nobody waits for a header", || plane.count("", Outcome::BadPreamble) == 2);
    drop(silent);
}

/// Its health checks do not depend on the clients that are admitted.
#[test]
fn a_proxy_that_names_no_client_is_judged_when_it_wants_a_route() {
    let backend = Backend::new();
    let plane = Plane::with(vec![target("a.test", &[backend.address()])], |config| {
        requiring(config);
        config.listeners[0].access = only(&["192.0.2.0/24"]);
    });
    is_refused(open(plane.address(), &LOCAL));
    plane.assert_ended(&[("", Outcome::NoHello, 1)]);
    is_refused(open(plane.address(), &[&LOCAL[..], &hello("a.test")].concat()));
    plane.assert_ended(&[("", Outcome::NoHello, 1), ("a.test", Outcome::AccessDenied, 1)]);
    assert!(!backend.is_wanted());
}

/// What an endpoint got before the hello.
#[track_caller]
fn header_at(mut server: TcpStream, hello: &[u8], version: Version) -> (Header, Vec<u8>) {
    let mut received = Vec::new();
    let header = loop {
        let mut byte = [0];
        expect_any(&mut server, &mut byte);
        received.extend_from_slice(&byte);
        if let Progress::Header(header) = read(&received) {
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
            let expected = Addresses { source: client.local_addr().unwrap(), destination: served };
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

fn only(networks: &[&str]) -> Access {
    let allow = networks.iter().map(|network| network.parse().unwrap()).collect();
    Access { allow, ..Access::default() }
}

#[test]
fn a_listener_admits_clients_by_their_addresses() {
    let hello = hello("a.test");
    let backend = Backend::new();
    let routes = || vec![target("a.test", &[backend.address()])];
    let plane = Plane::with(routes(), |config| config.listeners[0].access = only(&["127.0.0.1"]));
    // Before a byte is read.
    is_refused(stranger(plane.address(), b""));
    let mut client = open(plane.address(), &hello);
    exchange(&mut client, &mut backend.accept_with(&hello));
    drop(client);
    plane.assert_ended(&[("", Outcome::AccessDenied, 1), ("a.test", Outcome::Completed, 1)]);

    // Of a proxy's clients, theirs count.
    let plane = Plane::with(routes(), |config| {
        requiring(config);
        config.listeners[0].access = only(&["192.0.2.0/24"]);
    });
    let mut client = open(plane.address(), &[header(Version::V2), hello.clone()].concat());
    exchange(&mut client, &mut backend.accept_with(&hello));
    let other = header_of(Version::V2, "198.51.100.1:1", SERVED, Extensions::default());
    is_refused(open(plane.address(), &other));
    is_refused(stranger(plane.address(), b""));
    drop(client);
    plane.assert_ended(&[("", Outcome::AccessDenied, 2), ("a.test", Outcome::Completed, 1)]);
}

#[test]
fn a_route_admits_clients_by_their_addresses_before_it_connects() {
    let hello = hello("a.test");
    let backend = Backend::new();
    let route = target("a.test", &[backend.address()])
        .policy(|policy| policy.access = Some(only(&["127.0.0.1"])));
    let plane = Plane::start(vec![route]);
    is_refused(stranger(plane.address(), &hello));
    plane.assert_ended(&[("a.test", Outcome::AccessDenied, 1)]);
    assert!(!backend.is_wanted());
    let mut client = open(plane.address(), &hello);
    exchange(&mut client, &mut backend.accept_with(&hello));
}

#[test]
fn no_route_admits_more_than_the_ceiling() {
    let backend = Backend::new();
    let hello = hello("a.test");
    let route = target("a.test", &[backend.address()])
        .policy(|policy| policy.access = Some(only(&["127.0.0.0/8"])));
    let plane = Plane::with(vec![route], |config| {
        config.policy_ceiling.access = Some(only(&["127.0.0.1", "10.0.0.0/8"]));
    });
    is_refused(stranger(plane.address(), &hello));
    let mut client = open(plane.address(), &hello);
    exchange(&mut client, &mut backend.accept_with(&hello));
    drop(client);
    plane.assert_ended(&[("a.test", Outcome::AccessDenied, 1), ("a.test", Outcome::Completed, 1)]);
}

/// An IPv4 client of a socket of both families has an address of IPv6 there.
#[test]
fn an_ipv4_client_is_judged_as_one_whatever_the_socket() {
    let hello = hello("a.test");
    let backend = Backend::new();
    let socket = TcpListener::bind("[::]:0").unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], socket.local_addr().unwrap().port()));
    let passed = PassedSocket {
        name: Some("https".to_owned()),
        described: "a socket".to_owned(),
        socket: socket.into(),
    };
    let route = target("a.test", &[backend.address()]);
    let plane = Plane::with_passed(vec![route], passed, |config| {
        requiring(config);
        config.listeners[0].access = only(&["192.0.2.0/24", "127.0.0.3"]);
    });
    let mut client = open(address, &[header(Version::V2), hello.clone()].concat());
    exchange(&mut client, &mut backend.accept_with(&hello));
    is_refused(stranger(address, b""));
    let mut other = open_from(([127, 0, 0, 3], 0).into(), address, &hello);
    exchange(&mut other, &mut backend.accept_with(&hello));
    drop((client, other));
    plane.assert_ended(&[("", Outcome::AccessDenied, 1), ("a.test", Outcome::Completed, 2)]);
}

#[test]
fn a_suspended_route_keeps_what_it_has_and_takes_nothing_new() {
    let hello = hello("a.test");
    let backend = Backend::new();
    let route = || target("a.test", &[backend.address()]);
    let mut plane = Plane::start(vec![route()]);
    let mut client = open(plane.address(), &hello);
    let mut server = backend.accept_with(&hello);
    plane.apply(vec![route().policy(|policy| policy.suspend = Some(true))]);
    wait_until("it is refused", || {
        is_refused(open(plane.address(), &hello));
        plane.has_ended("a.test", Outcome::Suspended)
    });
    exchange(&mut client, &mut server);
}
