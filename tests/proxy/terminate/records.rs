//! Records of unusual kinds and sizes.

use std::io::Write;
use std::net::TcpStream;

use rustls::version::{TLS12, TLS13};
use sluice::termination::provider;

use super::Site;
use super::peer::{TlsPeer, exchange, first_flight};
use crate::support::{Bulk, connect, expect, receive_bulk};

#[test]
fn keys_change_both_ways() {
    let site = Site::new();
    let (mut client, mut server) = site.pair();
    for _ in 0..100 {
        client.change_keys();
        exchange(&mut client, &mut server);
    }
}

/// A byte in each record, in as few segments as the kernel likes.
#[test]
fn small_records_arrive_in_order() {
    const SIZE: usize = 20_000;
    let site = Site::new();
    let (mut client, mut server) = site.pair();
    let bulk = Bulk::new(5);
    let mut records = Vec::new();
    for place in 0..SIZE {
        client.tls.writer().write_all(bulk.at(place, 1)).unwrap();
        while client.tls.wants_write() {
            client.tls.write_tls(&mut records).unwrap();
        }
    }
    std::thread::scope(|scope| {
        scope.spawn(|| client.socket.write_all(&records).unwrap());
        receive_bulk(&mut server, &bulk, SIZE);
    });
    server.write_all(b"done").unwrap();
    client.expect(b"done");
}

#[test]
fn a_handshake_may_come_byte_by_byte() {
    let site = Site::new();
    for version in [&TLS12, &TLS13] {
        let config = site.authority.client_of(provider(), &[version], None);
        let (bytes, mut tls) = first_flight("a.test", &config);
        let mut socket = connect(site.plane.address());
        let send = |bytes: Vec<u8>, socket: &mut TcpStream| {
            bytes.into_iter().for_each(|byte| socket.write_all(&[byte]).unwrap());
        };
        send(bytes, &mut socket);
        while tls.is_handshaking() {
            tls.read_tls(&mut socket).unwrap();
            tls.process_new_packets().unwrap();
            let mut bytes = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut bytes).unwrap();
            }
            send(bytes, &mut socket);
        }
        let mut client = TlsPeer { socket, tls: tls.into() };
        exchange(&mut client, &mut site.backend.accept());
    }
}

#[test]
fn a_record_may_come_byte_by_byte() {
    let site = Site::new();
    let (mut client, mut server) = site.pair();
    let mut records = Vec::new();
    client.tls.writer().write_all(b"slowly").unwrap();
    client.tls.write_tls(&mut records).unwrap();
    for byte in records {
        client.socket.write_all(&[byte]).unwrap();
    }
    expect(&mut server, b"slowly");
}
