//! A reset is passed on as a reset, promptly, and nothing else is ever turned into one.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use sluice::outcome::Outcome;

use crate::support::{
    Backend, Blackhole, Bulk, End, Flow, PATIENCE, Plane, exchange, expect, expect_reset, hello,
    in_own_network, millis, open, open_narrow, reset, rest, run, stall, target, wait_until,
};

/// Both ends of a connection through sluice, which ends with `outcome`.
#[track_caller]
fn ends<T>(outcome: Outcome, story: impl FnOnce(TcpStream, TcpStream) -> T) {
    let backend = Backend::narrow();
    let plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    let hello = hello("a.test");
    let client = open_narrow(plane.address(), &hello);
    let server = backend.accept_with(&hello);
    // What it returns stays open meanwhile.
    let _open = story(client, server);
    plane.assert_ended(&[("a.test", outcome, 1)]);
}

#[test]
fn of_the_client() {
    ends(Outcome::DownstreamReset, |mut client, mut server| {
        exchange(&mut client, &mut server);
        reset(client);
        expect_reset(server);
    });
}

#[test]
fn of_the_server() {
    ends(Outcome::UpstreamReset, |mut client, mut server| {
        exchange(&mut client, &mut server);
        reset(server);
        expect_reset(client);
    });
}

#[test]
fn of_the_client_after_it_has_said_all() {
    ends(Outcome::DownstreamReset, |client, mut server| {
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut server), (vec![], End::Eof));
        reset(client);
        // The server hears of it when it speaks at the latest.
        write_until_it_fails(&mut server);
    });
}

#[test]
fn of_the_client_after_the_server_has_said_all() {
    ends(Outcome::DownstreamReset, |mut client, server| {
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut client), (vec![], End::Eof));
        reset(client);
        expect_reset(server);
    });
}

#[test]
fn of_the_server_after_the_client_has_said_all() {
    ends(Outcome::UpstreamReset, |client, mut server| {
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut server), (vec![], End::Eof));
        reset(server);
        expect_reset(client);
    });
}

#[test]
fn of_a_server_that_has_answered() {
    for _ in 0..20 {
        ends(Outcome::UpstreamReset, |mut client, mut server| {
            server.write_all(b"answer").unwrap();
            expect(&mut client, b"answer");
            reset(server);
            assert_eq!(rest(&mut client), (vec![], End::Reset));
        });
    }
}

/// As a server does that turns down an upload: it answers, and closes with the rest unread.
#[test]
fn of_a_server_that_answers_and_takes_no_more() {
    for _ in 0..50 {
        ends(Outcome::UpstreamReset, |mut client, mut server| {
            client.write_all(&[7; 200_000]).unwrap();
            expect(&mut server, &[7; 1000]);
            server.write_all(b"too much").unwrap();
            drop(server);
            assert_eq!(rest(&mut client), (b"too much".to_vec(), End::Reset));
        });
    }
}

#[test]
fn of_a_client_that_does_not_read() {
    ends(Outcome::DownstreamReset, |client, mut server| {
        write_until_it_stalls(&mut server);
        reset(client);
        write_until_it_fails(&mut server);
    });
}

#[test]
fn of_a_server_that_does_not_read() {
    ends(Outcome::UpstreamReset, |mut client, server| {
        write_until_it_stalls(&mut client);
        reset(server);
        write_until_it_fails(&mut client);
    });
}

#[test]
fn behind_bytes_that_the_server_takes_its_time_to_read() {
    ends(Outcome::DownstreamReset, |mut client, server| {
        write_until_it_stalls(&mut client);
        reset(client);
        expect_reset(server);
    });
}

#[test]
fn behind_bytes_that_the_client_takes_its_time_to_read() {
    ends(Outcome::UpstreamReset, |client, mut server| {
        write_until_it_stalls(&mut server);
        reset(server);
        expect_reset(client);
    });
}

#[test]
fn behind_bytes_that_the_server_never_reads() {
    ends(Outcome::DownstreamReset, |mut client, server| {
        write_until_it_stalls(&mut client);
        reset(client);
        server
    });
}

#[test]
fn of_a_client_whose_server_is_slow_to_accept_it() {
    let blackhole = Blackhole::new();
    let plane = Plane::start(vec![target("a.test", &[blackhole.address()])]);
    let client = open(plane.address(), &hello("a.test"));
    let table = plane.reader.table();
    let endpoints: Vec<_> =
        table.routes().flat_map(|route| route.backends[0].backend.endpoints().to_vec()).collect();
    wait_until("the connect", || endpoints[0].active() == 1);
    reset(client);
    // Before the connect times out.
    plane.assert_ended(&[("a.test", Outcome::DownstreamReset, 1)]);
}

/// As a network plugin does with the connections to an endpoint that it takes away. The kernel says
/// so only once; if the relay hears it when it sends, the read after that must not pass for an end
/// in good order.
#[test]
fn of_a_connection_that_the_system_breaks_off() {
    in_own_network("resets::of_a_connection_that_the_system_breaks_off", || {
        let backend = Backend::narrow_at([127, 0, 0, 2]);
        let plane = Plane::start(vec![target("a.test", &[backend.address()])]);
        let hello = hello("a.test");
        let client = open_narrow(plane.address(), &hello);
        let server = backend.accept_with(&hello);
        // In pieces that are not bulk: what is held is sent before anything is read.
        let mut flows = [Flow::new(&client, &server, &Arc::new(Bulk::new(1)), 0, 4096)];
        assert_eq!(stall(&mut flows, 64 << 20), 1);
        drop(flows);
        let port = backend.address().port();
        run(&format!("ss --kill dst 127.0.0.2 dport = {port}"));
        client.set_nonblocking(false).unwrap();
        expect_reset(client);
        plane.assert_ended(&[("a.test", Outcome::UpstreamReset, 1)]);
    });
}

/// Writes until every buffer on the way is full.
fn write_until_it_stalls(stream: &mut TcpStream) {
    stream.set_write_timeout(Some(millis(300))).unwrap();
    while stream.write(&[7; 65536]).is_ok() {}
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
}

#[track_caller]
fn write_until_it_fails(stream: &mut TcpStream) {
    // Not even a timeout: the error has to come.
    let error = loop {
        if let Err(error) = stream.write(&[7; 65536]) {
            break error;
        }
    };
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    assert!([BrokenPipe, ConnectionReset].contains(&error.kind()), "{error}");
    assert!(!matches!(stream.read(&mut [0]), Ok(1)));
}
