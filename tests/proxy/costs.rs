//! What a connection and a message cost: counted, not timed, so that a slip shows on any machine.
//!
//! docs/performance.md says what these counts are worth.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{
    Backend, Bulk, Calls, End, Process, Traced, exchange, expect, fresh, hello, manifest, open,
    receive_bulk, rest, send_bulk, since, wait_until,
};

/// Enough for what happens once to disappear beside it.
const TIMES: usize = 100;
/// What one thing may take, by the name of the call.
pub(crate) type Limits = &'static [(&'static str, usize)];

/// A connection of a hello, its answer, a request, its answer and the end from both sides. A bare
/// event loop takes just as many.
const CONNECTION: Limits = &[
    // One takes it, one learns that there is no other.
    ("accept4", 2),
    ("socket", 1),
    ("setsockopt", 1),
    ("connect", 1),
    ("epoll_ctl", 2),
    // Two messages and the end, from either side.
    ("recvfrom", 6),
    ("sendto", 4),
    // The client's end is told to the server; the other way the close does that.
    ("shutdown", 1),
    ("close", 2),
    // One for each thing that happens, one for the turn in which the connection is begun, and one
    // where the server's kernel is heard of before the server.
    (WAIT, 10),
];
/// A request and its answer on an open connection.
const ROUND_TRIP: Limits = &[("recvfrom", 2), ("sendto", 2), (WAIT, 2)];
pub(crate) const WAIT: &str = "epoll_pwait";
const OFFER: &str = "sched_yield";

#[test]
fn a_connection_takes_no_more_system_calls_than_a_bare_event_loop() {
    let (sluice, backend) = traced();
    connection_costs(&sluice, &backend, 0);
}

/// The header goes with the hello, and the address that the client connected to is that of the listener.
#[test]
fn a_policy_costs_no_system_call() {
    // Version 2 of IPv4, with a name of six bytes and a checksum.
    const HEADER: usize = 16 + 12 + 3 + 6 + 3 + 4;
    let backend = Backend::new();
    let networks: Vec<_> = (0..255).map(|net| format!("10.{net}.0.0/16")).collect();
    let policy = format!(
        "  access: {{ deny: [{}] }}\n  proxyProtocol: {{ send: V2, checksum: true }}\n",
        networks.join(", ")
    );
    let sluice = Traced::start(&manifest("a.test", backend.address(), &policy));
    connection_costs(&sluice, &backend, HEADER);
}

/// The server gets a header of so many bytes before the hello.
#[track_caller]
fn connection_costs(sluice: &Traced, backend: &Backend, header: usize) {
    let hello = hello("a.test");
    let mut connection = || {
        let mut client = open(sluice.process.address, &hello);
        let mut server = backend.accept();
        server.read_exact(&mut vec![0; header]).unwrap();
        expect(&mut server, &hello);
        greet_back(&mut server, &mut client);
        exchange(&mut client, &mut server);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut server), (vec![], End::Eof));
        drop(server);
        assert_eq!(rest(&mut client), (vec![], End::Eof));
    };
    let calls = calls_of(sluice, "close", 2, &mut connection);
    assert_within(CONNECTION, &calls);
}

#[test]
fn a_round_trip_takes_one_read_and_one_write_each_way() {
    let (sluice, backend) = traced();
    let (mut client, mut server) = pair(&sluice.process, &backend, &hello("a.test"));
    let mut round_trip = || exchange(&mut client, &mut server);
    let calls = calls_of(&sluice, "sendto", 2, &mut round_trip);
    assert_within(ROUND_TRIP, &calls);
}

/// The kernel would set it and cancel it at each.
#[test]
fn a_wait_takes_no_timer_of_its_own() {
    let (sluice, backend) = traced();
    let (mut client, mut server) = pair(&sluice.process, &backend, &hello("a.test"));
    (0..TIMES).for_each(|_| exchange(&mut client, &mut server));
    assert_eq!(sluice.timed_waits(), 0);
    let calls = sluice.calls();
    // For the hello's deadline, and what else begins with a connection.
    assert!(calls.get("timerfd_settime").is_some_and(|count| *count <= 5), "{calls:#?}");
}

#[test]
fn bulk_is_moved_by_splice_and_its_pipe_is_used_again() {
    const SIZE: usize = 32 << 20;
    /// Reads and writes until a direction counts as bulk, and whenever it runs dry.
    const COPIES: usize = 20;
    let (sluice, backend) = traced();
    let (mut client, mut server) = pair(&sluice.process, &backend, &hello("a.test"));
    for turn in 0..2 {
        let before = sluice.calls();
        thread::scope(|scope| {
            scope.spawn(|| send_bulk(&mut server, &Bulk::new(1), SIZE));
            receive_bulk(&mut client, &Bulk::new(1), SIZE);
        });
        let calls = since(&before, sluice.calls());
        let count = |name: &str| calls.get(name).copied().unwrap_or_default();
        assert!(count("recvfrom") <= COPIES && count("sendto") <= COPIES, "{calls:#?}");
        assert!(count("splice") > 0, "{calls:#?}");
        assert_eq!(count("pipe2"), 1 - turn, "{calls:#?}");
    }
    let idle = || sluice.process.metric("sluice_splice_pipes{state=\"idle\"}");
    wait_until("the pipe to be in its pool", || idle() == 1.0);
}

#[test]
fn a_worker_that_does_not_sleep_offers_its_core_to_others() {
    const SIZE: usize = 8 << 20;
    let backend = Backend::new();
    let sluice = Traced::start_only(&manifest("a.test", backend.address(), ""), OFFER);
    let (mut client, mut server) = pair(&sluice.process, &backend, &hello("a.test"));
    wait_until("an offer", || {
        thread::scope(|scope| {
            scope.spawn(|| send_bulk(&mut server, &Bulk::new(1), SIZE));
            receive_bulk(&mut client, &Bulk::new(1), SIZE);
        });
        sluice.calls().contains_key(OFFER)
    });
    // But not more often than it says.
    let (before, start) = (sluice.calls(), Instant::now());
    (0..1000).for_each(|_| exchange(&mut client, &mut server));
    let offers = since(&before, sluice.calls()).get(OFFER).copied().unwrap_or_default();
    let took = start.elapsed();
    // The last of the bulk may be told of late.
    assert!(offers as u128 <= took.as_millis() + 10, "{offers} in {took:?}");
}

#[test]
fn bulk_that_nobody_takes_wakes_nobody() {
    const PIECES: usize = 50;
    let (sluice, backend) = traced();
    let (client, mut server) = pair(&sluice.process, &backend, &hello("a.test"));
    let held = || sluice.process.metric("sluice_splice_pipes{state=\"busy\"}") == 1.0;
    // Until the buffers on the way to the client are full, and a pipe too.
    wait_until("the client to hold its server back", || {
        send_bulk(&mut server, &Bulk::new(1), 256 << 10);
        (0..5).all(|_| held())
    });
    let before = sluice.calls();
    for _ in 0..PIECES {
        // The scrape leaves the worker time to be woken by each.
        server.write_all(b"piece").unwrap();
        assert!(held());
    }
    let calls = since(&before, sluice.calls());
    let waits = calls.get(WAIT).copied().unwrap_or_default();
    assert!(waits < PIECES / 5, "{calls:#?}");
    drop(client);
}

/// Of the two sockets only the process's part counts; what the kernel keeps is not the proxy's to
/// save.
#[test]
fn an_idle_connection_keeps_two_descriptors_and_little_memory() {
    const CONNECTIONS: usize = 2000;
    let backend = Backend::new();
    let process = Process::start_unread(
        "",
        &manifest("a.test", backend.address(), ""),
        &["--access-log", "off"],
    );
    raise_descriptors();
    let hello = hello("a.test");
    let used = |process: &Process| {
        let (mut client, mut server) = pair(process, &backend, &fresh(&hello));
        exchange(&mut client, &mut server);
        (client, server)
    };
    // What is there once, and what a worker keeps for the next.
    let warm: Vec<_> = (0..CONNECTIONS / 10).map(|_| used(&process)).collect();
    let before = (process.memory(), descriptors(&process));
    let idle: Vec<_> = (0..CONNECTIONS).map(|_| used(&process)).collect();
    let after = (process.memory(), descriptors(&process));
    let bytes = (after.0 - before.0) * 1024 / CONNECTIONS as i64;
    assert!(bytes <= MOST_BYTES, "{bytes} bytes for each");
    assert_eq!(after.1 - before.1, 2 * CONNECTIONS);
    drop((warm, idle));
}

/// Bytes that an idle connection may keep.
const MOST_BYTES: i64 = 2048;

pub(crate) fn descriptors(process: &Process) -> usize {
    let pid = process.pid().as_raw_nonzero();
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

pub(crate) fn raise_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

fn traced() -> (Traced, Backend) {
    let backend = Backend::new();
    (Traced::start(&manifest("a.test", backend.address(), "")), backend)
}

fn pair(process: &Process, backend: &Backend, hello: &[u8]) -> (TcpStream, TcpStream) {
    let client = open(process.address, hello);
    (client, backend.accept_with(hello))
}

/// The answer to a hello.
#[track_caller]
fn greet_back(server: &mut TcpStream, client: &mut TcpStream) {
    std::io::Write::write_all(server, b"hello too").unwrap();
    expect(client, b"hello too");
}

/// The calls that doing something [`TIMES`] times takes. Each makes `name` so often, and last.
pub(crate) fn calls_of(sluice: &Traced, name: &str, each: usize, act: &mut dyn FnMut()) -> Calls {
    let count = |calls: &Calls| calls.get(name).copied().unwrap_or_default();
    // Every worker gets to what it does once.
    (0..TIMES / 2).for_each(|_| act());
    let mut before = sluice.calls();
    wait_until("the calls to come to rest", || {
        let now = sluice.calls();
        std::mem::replace(&mut before, now.clone()) == now
    });
    (0..TIMES).for_each(|_| act());
    let done = count(&before) + TIMES * each;
    wait_until(&format!("{name}, {done} times"), || count(&sluice.calls()) >= done);
    since(&before, sluice.calls())
}

/// What the allocator calls. How often depends on what was in memory before: where the end of its heap is, another
/// connection may make it grow, and its end shrink.
const ALLOCATOR: [&str; 5] = ["brk", "madvise", "mmap", "mprotect", "munmap"];

/// None was made more often than `limits` says, and none at all that is not there; but for the few
/// that the [`ALLOCATOR`] makes, and that meet the clock; and for [`OFFER`], because the trace is so
/// slow that a worker has worked for a millisecond after a few.
#[track_caller]
pub(crate) fn assert_within(limits: Limits, calls: &Calls) {
    for (name, count) in calls.iter().filter(|(name, _)| *name != OFFER) {
        let limit = limits.iter().find(|(limited, _)| limited == name).map_or(0, |(_, most)| *most);
        let few = if ALLOCATOR.contains(&&**name) { TIMES / 5 } else { TIMES / 20 };
        let most = limit * TIMES + few;
        assert!(*count <= most, "{name}: {count} in {TIMES} times; of all:\n{calls:#?}");
    }
}
