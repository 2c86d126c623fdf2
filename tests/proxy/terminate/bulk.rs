//! Much data.

use std::io::{ErrorKind, Read, Write};
use std::thread;

use rcgen::PKCS_ECDSA_P256_SHA256;

use super::Site;
use super::peer::{TlsEnd, TlsPeer, exchange};
use super::pki::Authority;
use crate::support::{Backend, Bulk, Plane, receive_bulk, rest, send_bulk, target, wait_until};

const SIZE: usize = 64 << 20;

#[test]
fn all_bytes_arrive_both_ways_at_once() {
    let site = Site::new();
    let (mut client, mut server) = site.pair();
    let (up, down) = (Bulk::new(1), Bulk::new(2));
    let mut server_again = server.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| send_bulk(&mut server, &down, SIZE / 4));
        scope.spawn(|| receive_bulk(&mut server_again, &up, SIZE / 4));
        // A client of one thread sends and receives in turns.
        let (mut sent, mut received) = (0, 0);
        let mut buffer = vec![0; 64 * 1024];
        while received < SIZE / 4 || sent < SIZE / 4 {
            if sent < SIZE / 4 {
                let chunk = up.at(sent, (SIZE / 4 - sent).min(48 * 1024));
                client.send(chunk);
                sent += chunk.len();
            }
            if received < SIZE / 4 {
                let read = client.read(&mut buffer).unwrap();
                assert!(read > 0 && buffer[..read] == *down.at(received, read), "{received}");
                received += read;
            }
        }
    });
    exchange(&mut client, &mut server);
}

#[test]
fn a_download_arrives_and_ends() {
    let site = Site::new();
    let (mut client, mut server) = site.pair();
    let bulk = Bulk::new(3);
    thread::scope(|scope| {
        scope.spawn(|| {
            send_bulk(&mut server, &bulk, SIZE);
            server.shutdown(std::net::Shutdown::Write).unwrap();
        });
        client.receive_bulk(&bulk, SIZE);
        assert_eq!(client.rest(), (vec![], TlsEnd::Closed));
    });
    client.close();
    drop(client);
    wait_until("the bytes to be counted", || site.plane.bytes("a.test") == (0, SIZE as u64));
}

#[test]
fn an_upload_arrives_and_ends() {
    let site = Site::new();
    let (mut client, mut server) = site.pair();
    let bulk = Bulk::new(4);
    thread::scope(|scope| {
        scope.spawn(|| receive_bulk(&mut server, &bulk, SIZE));
        client.send_bulk(&bulk, SIZE);
        client.close();
    });
    assert_eq!(rest(&mut server).0.len(), 0);
    server.write_all(b"thanks").unwrap();
    drop(server);
    assert_eq!(client.rest(), (b"thanks".to_vec(), TlsEnd::Closed));
    wait_until("the bytes to be counted", || site.plane.bytes("a.test") == (SIZE as u64, 6));
}

/// What a client does not take is not taken from its server either.
#[test]
fn a_client_that_stops_reading_holds_its_server_back() {
    const MOST: usize = 8 << 20;
    let site = Site::new();
    let (mut client, mut server) = site.pair();
    exchange(&mut client, &mut server);
    let bulk = Bulk::new(6);
    server.set_nonblocking(true).unwrap();
    let (mut sent, mut quiet) = (0, 0);
    wait_until("the server to be held back", || {
        match server.write(bulk.at(sent, MOST)) {
            Ok(written) => (sent, quiet) = (sent + written, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => quiet += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(sent < MOST, "{sent} bytes are held");
        quiet > 50
    });
    // The other direction does not wait.
    client.tls.writer().write_all(b"still here").unwrap();
    client.tls.write_tls(&mut client.socket).unwrap();
    server.set_nonblocking(false).unwrap();
    crate::support::expect(&mut server, b"still here");
    client.receive_bulk(&bulk, sent);
    exchange(&mut client, &mut server);
}

/// TLS with the client, and other TLS with the endpoint.
#[test]
fn all_bytes_arrive_over_two_connections_of_tls() {
    let (authority, backend) = (Authority::new(), Backend::new());
    let parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    let target = target("a.test", &[backend.address()]);
    let upstream = Some(authority.upstream("inner.test"));
    let plane = Plane::start(vec![target.terminated(parts, upstream)]);
    let config = authority.server("inner.test", false);
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut server = TlsPeer::accept(backend.accept(), &config).unwrap();
            server.receive_bulk(&Bulk::new(7), SIZE / 2);
            server.send_bulk(&Bulk::new(8), SIZE / 2);
            server.close();
            server
        });
        let mut client = TlsPeer::open(plane.address(), "a.test", &authority.client());
        client.send_bulk(&Bulk::new(7), SIZE / 2);
        client.receive_bulk(&Bulk::new(8), SIZE / 2);
        assert_eq!(client.rest(), (vec![], TlsEnd::Closed));
        client.close();
        assert_eq!(server.join().unwrap().rest(), (vec![], TlsEnd::Closed));
    });
}
