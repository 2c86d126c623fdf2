//! What is kept for a connection whose receiver does not read, in sluice and in the kernel.

use std::net::TcpStream;
use std::sync::Arc;

use socket2::SockRef;

use crate::support::{Backend, Bulk, Flow, Process, flow, hello, manifest, open, settle, stall};

const CLIENTS: usize = 8;
/// For each, in bytes.
const MOST: usize = 1 << 20;
/// What each side would like to send: more than the kernel would take on the way.
const MUCH: usize = 64 << 20;
/// Bytes that the sender hands to the kernel at once.
const CHUNK: usize = 256 * 1024;
/// What a receiver's own kernel takes is bounded. Otherwise it takes tens of MiB on a busy machine, and
/// a direction that passes on 32 MiB within a second is fast and has no bounds.
const RECEIVED_UNREAD: usize = 128 * 1024;
/// What a pipe of a direction that is stuck holds at most.
const PIPED: usize = 320 * 1024;

#[test]
fn a_client_that_reads_nothing_of_a_download_costs_less_than_a_mib() {
    assert_bounded(0, |client, server| (server, client));
}

#[test]
fn so_does_one_that_stops_in_the_middle() {
    assert_bounded(16 << 20, |client, server| (server, client));
}

#[test]
fn so_does_a_server_that_reads_nothing_of_an_upload() {
    assert_bounded(0, |client, server| (client, server));
}

/// Has the receivers of some streams take so many bytes, and no more. `ends` says who sends, and who
/// receives.
#[track_caller]
fn assert_bounded(
    first: usize,
    ends: impl for<'a> Fn(&'a TcpStream, &'a TcpStream) -> (&'a TcpStream, &'a TcpStream),
) {
    let backend = Backend::new();
    let process = Process::start(&manifest("a.test", backend.address(), ""), &[]);
    let bulk = Arc::new(Bulk::new(1));
    let mut flows: Vec<_> = (0..CLIENTS)
        .map(|number| {
            // Each client has a random of its own: the same again would be taken for a loop.
            let hello = hello("a.test");
            let client = open(process.address, &hello);
            let server = backend.accept_with(&hello);
            let (from, to) = ends(&client, &server);
            SockRef::from(to).set_recv_buffer_size(RECEIVED_UNREAD).unwrap();
            Flow::new(from, to, &bulk, number * 1000, CHUNK)
        })
        .collect();
    let before = process.memory();
    flow(&mut flows, first, MUCH);

    assert_eq!(stall(&mut flows, MUCH), CLIENTS);
    let own = usize::try_from(process.memory() - before).unwrap_or_default() * 1024;
    let piped = process.metric("sluice_splice_pipes{state=\"busy\"}") as usize * PIPED;
    let kernel = process.kernel_memory();
    let each = (own + piped + kernel) / CLIENTS;
    assert!(each <= MOST, "{each} bytes: {own} its own, {piped} in pipes, {kernel} in sockets");

    settle(&mut flows);
}
