//! What a connection costs whose TLS sluice serves: counted, not timed, as in the costs of others.

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use rcgen::PKCS_ECDSA_P256_SHA256;
use rustls::ClientConfig;

use super::peer::{TlsEnd, TlsPeer, exchange};
use super::pki::Authority;
use crate::costs::{Limits, WAIT, assert_within, calls_of, descriptors, raise_descriptors};
use crate::support::{Backend, End, Process, Traced, manifest, rest};

/// A connection of a handshake, a request, its answer and the end from both sides.
const CONNECTION: Limits = &[
    ("accept4", 2),
    ("socket", 1),
    ("setsockopt", 1),
    ("connect", 1),
    ("epoll_ctl", 2),
    // The hello, the end of the handshake, the request and the end of the client; the answer and the end of the server.
    ("recvfrom", 6),
    // The server's part of the handshake and its ticket; a message each way, and the end of the server.
    ("sendto", 5),
    // The client's end, for the server.
    ("shutdown", 1),
    ("close", 2),
    (WAIT, 10),
];
/// A request and its answer on an open connection.
const ROUND_TRIP: Limits = &[("recvfrom", 2), ("sendto", 2), (WAIT, 2)];
/// Bytes that an idle connection may keep.
const MOST_BYTES: i64 = 6 * 1024;

/// The documents of a route for `a.test` whose TLS sluice serves.
pub(super) fn documents(authority: &Authority, backend: &Backend) -> String {
    let [certificate, key] = authority.texts("a.test", &PKCS_ECDSA_P256_SHA256);
    let indented = |text: String| text.trim_end().replace('\n', "\n    ");
    let secret = format!(
        "---\napiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\n\
         metadata: {{ name: tls, namespace: test }}\nstringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
        indented(certificate),
        indented(key),
    );
    let tls = "  tls: { mode: Terminate, certificates: [{ secret: tls }] }\n";
    manifest("a.test", backend.address(), tls) + &secret
}

fn pair(process: &Process, backend: &Backend, config: &ClientConfig) -> (TlsPeer, TcpStream) {
    (TlsPeer::open(process.address, "a.test", config), backend.accept())
}

#[test]
fn a_connection_takes_few_system_calls_more_than_one_that_is_passed_through() {
    let (authority, backend) = (Authority::new(), Backend::new());
    let sluice = Traced::start_of(&documents(&authority, &backend), &["--terminate"]);
    let config = authority.client();
    let mut connection = || {
        let (mut client, mut server) = pair(&sluice.process, &backend, &config);
        exchange(&mut client, &mut server);
        client.close();
        assert_eq!(rest(&mut server), (vec![], End::Eof));
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.rest(), (vec![], TlsEnd::Closed));
    };
    let calls = calls_of(&sluice, "close", 2, &mut connection);
    assert_within(CONNECTION, &calls);
}

#[test]
fn a_round_trip_takes_one_read_and_one_write_each_way() {
    let (authority, backend) = (Authority::new(), Backend::new());
    let sluice = Traced::start_of(&documents(&authority, &backend), &["--terminate"]);
    let (mut client, mut server) = pair(&sluice.process, &backend, &authority.client());
    let mut round_trip = || exchange(&mut client, &mut server);
    let calls = calls_of(&sluice, "sendto", 2, &mut round_trip);
    assert_within(ROUND_TRIP, &calls);
}

#[test]
fn an_idle_connection_keeps_little_memory() {
    const CONNECTIONS: usize = 1000;
    let (authority, backend) = (Authority::new(), Backend::new());
    let arguments = ["--access-log", "off", "--terminate"];
    let process = Process::start_unread("", &documents(&authority, &backend), &arguments);
    raise_descriptors();
    let config = authority.client();
    let used = |process: &Process| {
        let (mut client, mut server) = pair(process, &backend, &config);
        exchange(&mut client, &mut server);
        // A record that has not arrived completely has memory of its own, until it has.
        client.tls.writer().write_all(&[7; 10_000]).unwrap();
        let mut record = Vec::new();
        client.tls.write_tls(&mut record).unwrap();
        let (first, last) = record.split_at(5_000);
        client.socket.write_all(first).unwrap();
        client.socket.write_all(last).unwrap();
        crate::support::expect(&mut server, &[7; 10_000]);
        // The client's own state is not the proxy's to save.
        (client.socket, server)
    };
    let warm: Vec<_> = (0..CONNECTIONS / 10).map(|_| used(&process)).collect();
    let before = (process.memory(), descriptors(&process));
    let idle: Vec<_> = (0..CONNECTIONS).map(|_| used(&process)).collect();
    let after = (process.memory(), descriptors(&process));
    let bytes = (after.0 - before.0) * 1024 / CONNECTIONS as i64;
    assert!(bytes <= MOST_BYTES, "{bytes} bytes for each");
    assert_eq!(after.1 - before.1, 2 * CONNECTIONS);
    drop((warm, idle));
}
