//! Bytes that TCP marks as urgent are passed on in their place (RFC 6093 §5), and hold nothing up.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use rustix::net::{SendFlags, send};

use crate::support::{
    Backend, Bulk, End, Plane, expect, hello, open, open_narrow, receive_bulk, rest, send_bulk,
    target, wait_until,
};

const MIB: usize = 1 << 20;

fn pair(plane: &Plane, backend: &Backend) -> (TcpStream, TcpStream) {
    let hello = hello("a.test");
    let client = open(plane.address(), &hello);
    let server = backend.accept_with(&hello);
    (client, server)
}

fn send_urgent(stream: &TcpStream, byte: u8) {
    assert_eq!(send(stream, &[byte], SendFlags::OOB).unwrap(), 1);
}

fn one_urgent(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"abc").unwrap();
    send_urgent(from, b'U');
    from.write_all(b"def").unwrap();
    // All arrives though nothing more is sent.
    expect(to, b"abcUdef");
}

#[test]
fn they_stay_in_their_place_among_small_messages() {
    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    let (mut client, mut server) = pair(&plane, &backend);
    for _ in 0..20 {
        one_urgent(&mut client, &mut server);
        one_urgent(&mut server, &mut client);
    }
}

/// While a reader takes nothing, sluice is told of nothing: not even of them. When it goes on, they
/// must not pass for the end that is behind them.
#[test]
fn they_are_not_the_end_of_bulk_that_has_waited() {
    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    for _ in 0..5 {
        let hello = hello("a.test");
        let mut client = open_narrow(plane.address(), &hello);
        let mut server = backend.accept_with(&hello);
        let bulk = Bulk::new(60);
        let (mut total, mut quiet) = (0, 0);
        wait_until("bytes that stay in a pipe", || {
            quiet += 1;
            if plane.metrics.pipes.busy.get() == 0 {
                let chunk = bulk.at(total, MIB);
                server.write_all(chunk).unwrap();
                (total, quiet) = (total + chunk.len(), 0);
            }
            quiet > 20
        });
        send_urgent(&server, b'U');
        server.write_all(b"more").unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        receive_bulk(&mut client, &bulk, total);
        assert_eq!(rest(&mut client), (b"Umore".to_vec(), End::Eof));
    }
}

#[test]
fn they_do_not_stop_bulk() {
    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    let (client, mut server) = pair(&plane, &backend);
    let bulk = Bulk::new(60);
    std::thread::scope(|scope| {
        let (bulk, mut sender) = (&bulk, client.try_clone().unwrap());
        scope.spawn(move || {
            send_bulk(&mut sender, bulk, 16 * MIB);
            send_urgent(&sender, b'U');
            send_bulk(&mut sender, bulk, 16 * MIB);
        });
        receive_bulk(&mut server, bulk, 16 * MIB);
        let mut urgent = [0];
        server.read_exact(&mut urgent).unwrap();
        assert_eq!(urgent, *b"U");
        receive_bulk(&mut server, bulk, 16 * MIB);
    });
    // A pipe is given back a moment after its last byte has arrived.
    wait_until("the pipe of bulk", || plane.metrics.pipes.idle.get() > 0);
}
