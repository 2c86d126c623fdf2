//! Connections end one way at a time, in either order, and nothing in flight is lost.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;

use sluice::outcome::Outcome;

use crate::support::{
    Backend, Bulk, End, Flow, Plane, exchange, expect, hello, open, receive_bulk, rest, send_bulk,
    settle, stall, target,
};

const MUCH: usize = 8 << 20;

/// Both ends of a connection through sluice, which ends as completed.
fn completes(story: impl FnOnce(TcpStream, TcpStream)) {
    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    let hello = hello("a.test");
    let client = open(plane.address(), &hello);
    let server = backend.accept_with(&hello);
    story(client, server);
    plane.assert_ended(&[("a.test", Outcome::Completed, 1)]);
}

#[test]
fn a_client_that_has_said_all_still_gets_a_long_answer() {
    completes(|mut client, mut server| {
        client.write_all(b"request").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut server), (b"request".to_vec(), End::Eof));
        let answer = thread::spawn(move || send_bulk(&mut server, &Bulk::new(1), MUCH));
        receive_bulk(&mut client, &Bulk::new(1), MUCH);
        assert_eq!(rest(&mut client), (vec![], End::Eof));
        answer.join().unwrap();
    });
}

#[test]
fn a_server_that_has_said_all_still_gets_a_long_upload() {
    completes(|mut client, mut server| {
        server.write_all(b"answer").unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut client), (b"answer".to_vec(), End::Eof));
        let upload = thread::spawn(move || send_bulk(&mut client, &Bulk::new(2), MUCH));
        receive_bulk(&mut server, &Bulk::new(2), MUCH);
        assert_eq!(rest(&mut server), (vec![], End::Eof));
        upload.join().unwrap();
    });
}

#[test]
fn the_client_closes_first() {
    completes(|mut client, mut server| {
        exchange(&mut client, &mut server);
        drop(client);
        assert_eq!(rest(&mut server), (vec![], End::Eof));
    });
}

#[test]
fn the_server_closes_first() {
    completes(|mut client, mut server| {
        exchange(&mut client, &mut server);
        drop(server);
        assert_eq!(rest(&mut client), (vec![], End::Eof));
    });
}

#[test]
fn the_server_answers_and_closes_before_the_client() {
    completes(|mut client, mut server| {
        client.write_all(b"request").unwrap();
        expect(&mut server, b"request");
        server.write_all(b"answer").unwrap();
        drop(server);
        assert_eq!(rest(&mut client), (b"answer".to_vec(), End::Eof));
    });
}

#[test]
fn both_end_at_the_same_time() {
    for _ in 0..20 {
        completes(|mut client, mut server| {
            server.write_all(b"from the server").unwrap();
            client.write_all(b"from the client").unwrap();
            server.shutdown(Shutdown::Write).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(rest(&mut client), (b"from the server".to_vec(), End::Eof));
            assert_eq!(rest(&mut server), (b"from the client".to_vec(), End::Eof));
        });
    }
}

#[test]
fn a_client_that_ends_with_its_hello_is_served() {
    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    let hello = hello("a.test");
    let mut client = open(plane.address(), &hello);
    client.shutdown(Shutdown::Write).unwrap();
    let mut server = backend.accept_with(&hello);
    assert_eq!(rest(&mut server), (vec![], End::Eof));
    server.write_all(b"answer").unwrap();
    drop(server);
    assert_eq!(rest(&mut client), (b"answer".to_vec(), End::Eof));
    plane.assert_ended(&[("a.test", Outcome::Completed, 1)]);
}

/// What fits into the buffers on the way is sent, and the sender gone, before anybody reads.
#[test]
fn what_is_in_flight_arrives_before_the_end() {
    for size in [1, 1000, 60_000, 300_000] {
        completes(|mut client, mut server| {
            send_bulk(&mut server, &Bulk::new(3), size);
            drop(server);
            receive_bulk(&mut client, &Bulk::new(3), size);
            assert_eq!(rest(&mut client), (vec![], End::Eof));
        });
        completes(|mut client, mut server| {
            send_bulk(&mut client, &Bulk::new(4), size);
            drop(client);
            receive_bulk(&mut server, &Bulk::new(4), size);
            assert_eq!(rest(&mut server), (vec![], End::Eof));
        });
    }
}

/// The end is said while every buffer on the way is full.
#[test]
fn an_end_waits_for_a_reader_that_is_late() {
    completes(|mut client, server| {
        let bulk = Arc::new(Bulk::new(5));
        let mut flows = [Flow::new(&server, &client, &bulk, 0, 1 << 20)];
        assert_eq!(stall(&mut flows, 64 << 20), 1);
        server.shutdown(Shutdown::Write).unwrap();
        settle(&mut flows);
        client.set_nonblocking(false).unwrap();
        assert_eq!(rest(&mut client), (vec![], End::Eof));
    });
}
