//! Much data both ways, and how it is moved: bulk through pipes, all else by copying.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;

use sluice::outcome::Outcome;

use crate::support::{
    Backend, Bulk, End, Flow, Plane, expect, flow, hello, open_narrow, receive_bulk, reset, rest,
    send_bulk, settle, stall, target, wait_until,
};

const MIB: usize = 1 << 20;

/// Both ends of a connection through `plane`. They take little, so that what one says at once does
/// not disappear in the kernel.
fn pair(plane: &Plane, backend: &Backend) -> (TcpStream, TcpStream) {
    let hello = hello("a.test");
    let client = open_narrow(plane.address(), &hello);
    (client, backend.accept_with(&hello))
}

fn started() -> (Plane, Backend) {
    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    (plane, backend)
}

fn pipes(plane: &Plane) -> i64 {
    plane.metrics.pipes.idle.get() + plane.metrics.pipes.busy.get()
}

/// Sends `total` bytes each way at once, and compares what arrives.
fn both_ways(mut client: TcpStream, mut server: TcpStream, seed: u64, total: usize) {
    let (up, down) = (Bulk::new(seed), Bulk::new(seed + 1));
    let (mut client_out, mut server_out) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::scope(|scope| {
        scope.spawn(|| {
            send_bulk(&mut client_out, &up, total);
            client_out.shutdown(Shutdown::Write).unwrap();
        });
        scope.spawn(|| {
            send_bulk(&mut server_out, &down, total);
            server_out.shutdown(Shutdown::Write).unwrap();
        });
        scope.spawn(|| {
            receive_bulk(&mut server, &up, total);
            assert_eq!(rest(&mut server), (vec![], End::Eof));
        });
        receive_bulk(&mut client, &down, total);
        assert_eq!(rest(&mut client), (vec![], End::Eof));
    });
}

#[test]
fn of_64_mib_both_ways_arrives() {
    let (plane, backend) = started();
    let (client, server) = pair(&plane, &backend);
    both_ways(client, server, 10, 64 * MIB);
    plane.assert_ended(&[("a.test", Outcome::Completed, 1)]);
    let replayed = hello("a.test").len();
    assert_eq!(plane.bytes("a.test"), ((64 * MIB + replayed) as u64, 64 * MIB as u64));
    assert!(plane.metrics.pipes.idle.get() > 0, "pipes are kept for the next");
    assert_eq!(plane.metrics.pipes.busy.get(), 0);
}

#[test]
fn of_one_way_goes_through_a_pipe() {
    for upward in [true, false] {
        let (plane, backend) = started();
        let (client, server) = pair(&plane, &backend);
        let (mut from, mut to) = if upward { (client, server) } else { (server, client) };
        thread::scope(|scope| {
            scope.spawn(|| send_bulk(&mut from, &Bulk::new(1), 16 * MIB));
            receive_bulk(&mut to, &Bulk::new(1), 16 * MIB);
        });
        wait_until("the one pipe", || pipes(&plane) == 1);
    }
}

#[test]
fn of_many_connections_does_not_mix() {
    let (plane, backend) = started();
    let pairs: Vec<_> = (0..8).map(|_| pair(&plane, &backend)).collect();
    thread::scope(|scope| {
        for (number, (client, server)) in pairs.into_iter().enumerate() {
            scope.spawn(move || both_ways(client, server, 100 * number as u64, 4 * MIB));
        }
    });
    plane.assert_ended(&[("a.test", Outcome::Completed, 8)]);
}

#[test]
fn of_small_messages_never_goes_through_a_pipe() {
    let (plane, backend) = started();
    let (mut client, mut server) = pair(&plane, &backend);
    let message = Bulk::new(1);
    for turn in 0..10_000 {
        let size = if turn % 10 == 0 { 16 * 1024 } else { 64 };
        client.write_all(message.at(turn, size)).unwrap();
        expect(&mut server, message.at(turn, size));
        server.write_all(message.at(turn + 1, size)).unwrap();
        expect(&mut client, message.at(turn + 1, size));
    }
    assert_eq!(pipes(&plane), 0);
}

#[test]
fn that_turns_to_small_messages_and_back_stays_in_order() {
    let (plane, backend) = started();
    let (mut client, mut server) = pair(&plane, &backend);
    let (up, down) = (Bulk::new(20), Bulk::new(30));
    for _ in 0..5 {
        thread::scope(|scope| {
            let mut sender = server.try_clone().unwrap();
            let down = &down;
            scope.spawn(move || send_bulk(&mut sender, down, 4 * MIB));
            receive_bulk(&mut client, down, 4 * MIB);
        });
        for turn in 0..200 {
            client.write_all(up.at(turn, 100)).unwrap();
            expect(&mut server, up.at(turn, 100));
            server.write_all(down.at(turn, 100)).unwrap();
            expect(&mut client, down.at(turn, 100));
        }
    }
    wait_until("the pipe of bulk", || pipes(&plane) > 0);
}

/// What a connection leaves behind in its pipe is another's, and must reach no third.
#[test]
fn that_is_cut_off_leaves_nothing_in_a_pipe() {
    let backend = Backend::narrow();
    let plane = Plane::with(vec![target("a.test", &[backend.address()])], |config| {
        config.workers = 1.try_into().unwrap();
    });
    let (client, server) = pair(&plane, &backend);
    let bulk = Arc::new(Bulk::new(60));
    let mut flows = [Flow::new(&server, &client, &bulk, 0, MIB)];
    flow(&mut flows, MIB, 2 * MIB);
    assert_eq!(stall(&mut flows, 64 * MIB), 1);
    wait_until("bytes in a pipe", || plane.metrics.pipes.busy.get() == 1);
    drop(flows);
    reset(client);
    plane.assert_ended(&[("a.test", Outcome::DownstreamReset, 1)]);
    assert_eq!(pipes(&plane), 0);

    let (client, server) = pair(&plane, &backend);
    both_ways(client, server, 70, 4 * MIB);
}

/// A receiver that takes its time keeps its pipe as long as there are enough.
#[test]
fn stalled_bulk_leaves_pipes_to_the_rest() {
    let backend = Backend::narrow();
    let plane = Plane::with(vec![target("a.test", &[backend.address()])], |config| {
        config.workers = 1.try_into().unwrap();
    });
    let bulk = Arc::new(Bulk::new(50));
    let pairs: Vec<_> = (0..pool() / 2 + 5).map(|_| pair(&plane, &backend)).collect();
    let mut flows: Vec<_> = pairs
        .iter()
        .flat_map(|(client, server)| {
            [Flow::new(client, server, &bulk, 0, MIB), Flow::new(server, client, &bulk, 7, MIB)]
        })
        .collect();
    flow(&mut flows, MIB, 2 * MIB);
    stall(&mut flows, 16 * MIB);
    let all = pool() as i64;
    let busy = || plane.metrics.pipes.busy.get();
    wait_until("most pipes to be held", || busy() >= all / 2);
    assert!(busy() <= all * 3 / 4 + 1, "{} of {all}", busy());
    let (client, server) = pair(&plane, &backend);
    both_ways(client, server, 40, 16 * MIB);
    wait_until("what that took to be idle", || plane.metrics.pipes.idle.get() > 0);
    assert!(busy() <= all * 3 / 4 + 1, "{} of {all}", busy());
    // What was moved out of pipes is whole.
    settle(&mut flows);
}

/// How many pipes one worker has at most: three quarters of what the kernel allows a user, at 1 MiB
/// each.
fn pool() -> usize {
    let limit = std::fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft").unwrap();
    let pages = match limit.trim().parse().unwrap() {
        0 => 16 * 1024,
        pages => pages,
    };
    pages * 3 / 4 / 256
}
