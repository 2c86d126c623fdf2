//! Peers that do not read cost a bounded amount of memory and hold nobody else up.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use crate::support::{
    Backend, Bulk, Flow, Process, answering, ask, hello, manifest, open_narrow, settle, stall,
    wait_until,
};

const CLIENTS: usize = 50;
/// What each side would like to send: more than the kernel takes on the way.
const MUCH: usize = 32 << 20;
/// Too small for sluice to take it for bulk: what stalls is held in its own memory, not in pipes.
const CHUNK: usize = 16 * 1024;
/// What sluice may hold for a direction that stalls: what it read at once, and a little more.
const KIB_PER_CLIENT: i64 = 64 + 8;

#[test]
fn stalled_readers_cost_little_and_lose_nothing() {
    let backend = Backend::narrow();
    let manifests = [
        manifest("stalls.test", backend.address(), ""),
        manifest("flows.test", answering("flows"), ""),
    ];
    let process = Process::start(&manifests.concat(), &[]);
    let pairs: Vec<_> = (0..CLIENTS).map(|_| pair(process.address, &backend)).collect();
    let bulk = Arc::new(Bulk::new(1));
    let mut flows: Vec<_> = pairs
        .iter()
        .enumerate()
        .map(|(number, (client, server))| match number % 2 {
            0 => Flow::new(client, server, &bulk, number * 1000, CHUNK),
            _ => Flow::new(server, client, &bulk, number * 1000, CHUNK),
        })
        .collect();
    let idle = process.memory();

    let stuck = stall(&mut flows, MUCH);
    assert!(stuck > CLIENTS / 2, "the kernel took all but {stuck}");
    at_rest(&process);
    let grown = process.memory() - idle;
    assert!(grown < CLIENTS as i64 * KIB_PER_CLIENT, "{} KiB a client", grown / CLIENTS as i64);
    for _ in 0..20 {
        assert_eq!(ask(process.address, "flows.test"), "flows");
    }

    settle(&mut flows);
}

/// Both ends of a connection; neither takes much before it reads.
fn pair(address: SocketAddr, backend: &Backend) -> (TcpStream, TcpStream) {
    let hello = hello("stalls.test");
    let client = open_narrow(address, &hello);
    (client, backend.accept_with(&hello))
}

/// Waits until sluice has nothing to do.
fn at_rest(process: &Process) {
    let mut before = process.cpu();
    let mut quiet = 0;
    wait_until("rest", || {
        let now = process.cpu();
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
        quiet > 200
    });
}
