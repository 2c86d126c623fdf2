//! What the client sent is what the backend receives: no byte lost, none added, none moved.

use std::io::Write;
use std::net::Shutdown;

use sluice::outcome::Outcome;

use crate::support::{
    Backend, Bulk, End, Plane, connect, expect, fresh, hello, hello_with_alpn, in_records, open,
    refusing, rest, target,
};

/// A record of application data, as early data comes in.
fn early_data(size: u16) -> Vec<u8> {
    let body = Bulk::new(5).at(0, size.into()).to_vec();
    [&[23, 3, 3][..], &size.to_be_bytes(), &body].concat()
}

/// The backend receives just these bytes and then the end; its answer comes back.
#[track_caller]
fn replayed(send: impl FnOnce(&Plane) -> std::net::TcpStream, sent: &[u8]) {
    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    let mut client = send(&plane);
    let mut server = backend.accept_with(sent);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut server), (vec![], End::Eof));
    server.write_all(b"answer").unwrap();
    drop(server);
    assert_eq!(rest(&mut client), (b"answer".to_vec(), End::Eof));
    plane.assert_ended(&[("a.test", Outcome::Completed, 1)]);
    assert_eq!(plane.bytes("a.test"), (sent.len() as u64, 6));
}

#[track_caller]
fn replayed_at_once(sent: &[u8]) {
    replayed(|plane| open(plane.address(), sent), sent);
}

/// Each byte is a segment of its own.
#[track_caller]
fn replayed_in_bytes(sent: &[u8]) {
    let send = |plane: &Plane| {
        let mut client = connect(plane.address());
        sent.iter().for_each(|byte| client.write_all(&[*byte]).unwrap());
        client
    };
    replayed(send, sent);
}

#[test]
fn a_hello_in_one_piece() {
    replayed_at_once(&hello("a.test"));
}

#[test]
fn a_hello_in_segments_of_one_byte() {
    replayed_in_bytes(&hello("a.test"));
}

#[test]
fn a_hello_in_records_of_one_byte() {
    let cut = in_records(&hello("a.test"), 1);
    replayed_at_once(&cut);
    replayed_in_bytes(&cut);
}

#[test]
fn a_hello_in_two_records_at_every_cut() {
    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    let hello = hello("a.test");
    for size in (1..hello.len() - 5).step_by(7) {
        let cut = in_records(&fresh(&hello), size);
        let _client = open(plane.address(), &cut);
        backend.accept_with(&cut);
    }
}

#[test]
fn a_hello_and_early_data() {
    let early = [hello("a.test"), early_data(16_000), early_data(1)].concat();
    replayed_at_once(&early);
    replayed_in_bytes(&[hello("a.test"), early_data(20)].concat());
}

#[test]
fn a_hello_and_the_next_bytes_cut_anywhere() {
    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    let sent = [hello("a.test"), early_data(300)].concat();
    for cut in (1..sent.len()).step_by(13) {
        let sent = fresh(&sent);
        let mut client = open(plane.address(), &sent[..cut]);
        client.write_all(&sent[cut..]).unwrap();
        backend.accept_with(&sent);
    }
}

#[test]
fn a_hello_and_100_kb_behind_it() {
    replayed_at_once(&[&hello("a.test"), Bulk::new(1).at(0, 100_000)].concat());
    let cut = in_records(&hello("a.test"), 1);
    replayed_at_once(&[&cut, Bulk::new(2).at(0, 100_000)].concat());
}

#[test]
fn a_hello_that_fills_many_reads() {
    let protocols = (0..55u8).map(|n| vec![b'a' + n % 26; 250]).collect();
    let long = hello_with_alpn("a.test", protocols);
    assert!(long.len() > 15_000);
    replayed_at_once(&long);
    replayed_at_once(&[&in_records(&long, 6), Bulk::new(3).at(0, 100_000)].concat());
}

#[test]
fn what_comes_while_another_endpoint_is_tried() {
    let (dead, _socket) = refusing();
    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[dead, backend.address()])]);
    let sent = [&hello("a.test"), Bulk::new(4).at(0, 100_000)].concat();
    for _ in 0..4 {
        let sent = fresh(&sent);
        let mut client = open(plane.address(), &sent);
        let mut server = backend.accept_with(&sent);
        server.write_all(b"answer").unwrap();
        expect(&mut client, b"answer");
    }
}
