//! Clients that take next to nothing of what there is for them, beside those that take their time.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use sluice::outcome::Outcome;

use crate::support::innocent;
use crate::support::{
    Backend, Innocent, Plane, exchange, expect_reset, hello, millis, open, open_narrow, target,
    wait_until,
};

const STALL: Duration = Duration::from_secs(1);

/// A server's end whose client's is known, and how much the client takes in a millisecond or so.
struct Download {
    client: TcpStream,
    server: TcpStream,
    pace: usize,
}

impl Download {
    fn new(plane: &Plane, backend: &Backend, pace: usize) -> Self {
        let (client, server) = pair(plane, backend);
        client.set_nonblocking(true).unwrap();
        server.set_nonblocking(true).unwrap();
        Download { client, server, pace }
    }

    fn go_on(&mut self) {
        // Of those that are ended, both fail.
        while self.server.write(&[7; 16 * 1024]).is_ok() {}
        let _ = self.client.read(&mut [0; 16 * 1024][..self.pace]);
    }

    fn is_open(&mut self) -> bool {
        !matches!(self.client.read(&mut [0]), Ok(0))
            && !matches!(self.server.write(&[7]), Err(error) if error.kind() != ErrorKind::WouldBlock)
    }
}

fn pair(plane: &Plane, backend: &Backend) -> (TcpStream, TcpStream) {
    let hello = hello("a.test");
    let client = open(plane.address(), &hello);
    (client, backend.accept_with(&hello))
}

#[test]
fn a_client_that_takes_next_to_nothing_is_ended_and_one_that_is_slow_is_not() {
    let (backend, served) = (Backend::narrow(), innocent::backend());
    let targets = vec![target("a.test", &[backend.address()]), target("b.test", &[served])];
    let plane = Plane::with(targets, |config| config.timeouts.stall = Some(STALL));
    let innocent = Innocent::start(plane.address(), hello("b.test"), served);
    // What is silent, and what waits to be taken by the server.
    let mut idle = pair(&plane, &backend);
    let (mut client, server) = pair(&plane, &backend);
    client.set_nonblocking(true).unwrap();
    while client.write(&[7; 16 * 1024]).is_ok() {}

    let mut stalled = [0, 1].map(|pace| Download::new(&plane, &backend, pace));
    let mut slow = Download::new(&plane, &backend, 2048);
    wait_until("the end of those that stall", || {
        stalled.iter_mut().chain([&mut slow]).for_each(Download::go_on);
        plane.count("a.test", Outcome::Stalled) == 2
    });
    assert!(slow.is_open());
    exchange(&mut idle.0, &mut idle.1);
    let more = client.write(&[7]).map_err(|error| error.kind());
    assert!(matches!(more, Ok(1) | Err(ErrorKind::WouldBlock)), "{more:?}");
    for Download { client, .. } in stalled {
        client.set_nonblocking(false).unwrap();
        expect_reset(client);
    }
    assert_eq!(plane.count("a.test", Outcome::Stalled), 2);
    innocent.finish();
    drop(server);
}

/// What the kernel has taken for a client is for the client as well.
#[test]
fn a_client_that_leaves_the_end_of_an_answer_stalls_too() {
    let backend = Backend::new();
    let plane = Plane::with(vec![target("a.test", &[backend.address()])], |config| {
        config.timeouts.stall = Some(millis(400));
    });
    let hello = hello("a.test");
    let client = open_narrow(plane.address(), &hello);
    let mut server = backend.accept_with(&hello);
    server.write_all(&[7; 300 * 1024]).unwrap();
    drop(server);
    plane.assert_ended(&[("a.test", Outcome::Stalled, 1)]);
    expect_reset(client);
}

/// It may say as much as it likes, and still takes nothing.
#[test]
fn a_client_that_sends_and_takes_nothing_stalls_too() {
    let backend = Backend::new();
    let plane = Plane::with(vec![target("a.test", &[backend.address()])], |config| {
        config.timeouts.stall = Some(millis(400));
    });
    let hello = hello("a.test");
    let mut client = open_narrow(plane.address(), &hello);
    let mut server = backend.accept_with(&hello);
    server.write_all(&[7; 300 * 1024]).unwrap();
    wait_until("its end", || {
        // Once it was ended, this fails.
        let _ = client.write(&[7]);
        plane.count("a.test", Outcome::Stalled) == 1
    });
}
