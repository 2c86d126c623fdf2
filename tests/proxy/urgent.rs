//! Bytes that TCP marks as urgent are passed on in their place (RFC 6093 §5), and hold nothing up.

use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::net::{SendFlags, send};

use crate::support::{
    Backend, Bulk, Plane, expect, hello, open, receive_bulk, send_bulk, target, wait_until,
};

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

#[test]
fn they_do_not_stop_bulk() {
    const MIB: usize = 1 << 20;
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
    wait_until("the pipe of bulk", || plane.metrics.pipes_idle.get() > 0);
}
