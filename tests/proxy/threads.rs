//! Threads that stop: nothing stops them that they wait for, and one that stops all the same is
//! seen.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, ErrorKind, PipeReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::{Resource, Rlimit, Signal, prlimit};

use crate::support::{
    Backend, Injection, Process, answering, ask, connect, exchange, hello, is_over, manifest,
    millis, open, wait_until,
};

const EMFILE: &str = "sluice_accept_errors_total{error=\"emfile\"}";
const DROPPED: &str = "sluice_log_dropped_total";
/// Stops a thread that would wait for events, for longer than any test takes.
const STOP_WORKER: &str = "epoll_pwait:delay_enter=600000000";
const STOP_CONTROL: &str = "epoll_wait:delay_enter=600000000";

/// Fills the pipe, so that whoever writes to it waits until somebody reads.
fn fill(pipe: &PipeReader) {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut end = OpenOptions::new().write(true).custom_flags(flags).open(path).unwrap();
    for chunk in [4096, 1] {
        let mut filled = 0;
        let full = loop {
            match end.write(&[b'\n'; 4096][..chunk]) {
                Ok(written) => filled += written,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock, "after {filled} bytes");
    }
}

/// The median of what a probe takes.
fn probe_takes(process: &Process) -> Duration {
    let probe = |_| {
        let begun = Instant::now();
        process.get("/livez");
        begun.elapsed()
    };
    let mut took: Vec<_> = (0..21).map(probe).collect();
    took.sort();
    took[10]
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let (one, two) = (answering("one"), answering("two"));
    let flags = ["--access-log", "off", "--drain-delay", "0s", "--timeouts-hello", "600s"];
    let (mut process, log) = Process::start_with("", &manifest("a.test", one, ""), &flags);
    assert_eq!(ask(process.address, "a.test"), "one");
    fill(&log);

    // The workers warn that they have no descriptors left.
    let few = Rlimit { current: Some(60), maximum: Some(20_000) };
    let before = prlimit(Some(process.pid()), Resource::Nofile, few).unwrap();
    let clients: Vec<TcpStream> = (0..200).map(|_| connect(process.address)).collect();
    wait_until("all descriptors to be taken", || process.descriptors() >= 60);
    prlimit(Some(process.pid()), Resource::Nofile, before).unwrap();
    wait_until("all to be accepted", || process.metric("sluice_connections_active") == 200.0);
    assert!(process.metric(EMFILE) > 0.0);
    drop(clients);

    // The control plane logs each change.
    for (server, name) in [(two, "two"), (one, "one"), (two, "two")] {
        process.serve(&manifest("a.test", server, ""));
        wait_until("the change", || ask(process.address, "a.test") == name);
    }
    assert_eq!(process.get("/livez"), (200, "ok\n".to_owned()));
    assert!(probe_takes(&process) < millis(100));
    // There is room for all that waits.
    assert_eq!(process.metric(DROPPED), 0.0);

    let told = Instant::now();
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
    drop(log);
}

#[test]
fn the_last_lines_of_the_log_are_written() {
    let manifest = manifest("a.test", answering("served"), "");
    let (mut process, mut log) = Process::start_with("", &manifest, &["--drain-delay", "0s"]);
    assert_eq!(ask(process.address, "a.test"), "served");
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    assert!(text.lines().last().is_some_and(|line| line.contains("\"ended\"")), "{text}");
}

#[test]
fn a_control_plane_that_stops_delays_neither_clients_nor_probes_nor_the_end() {
    let manifest = manifest("a.test", answering("served"), "");
    let flags = ["--access-log", "off", "--drain-delay", "0s"];
    let (mut process, log) = Process::start_with("", &manifest, &flags);
    let mut stopped = Injection::start(&process, "control", STOP_CONTROL);
    stopped.wait();
    assert_eq!(ask(process.address, "a.test"), "served");
    assert!(probe_takes(&process) < millis(100));
    process.signal(Signal::TERM);
    // A thread that is traced stays until strace lets it go, and the process with it.
    let mut lines = BufReader::new(log).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"ended\"")));
    drop(stopped);
    assert_eq!(process.wait().code(), Some(0));
}

/// Each thread in a process of its own, all at the same time: it takes seconds to be seen.
#[test]
fn a_stopped_thread_fails_the_liveness_probe_after_five_seconds_until_it_goes_on() {
    thread::scope(|scope| {
        scope.spawn(|| stops("worker-0", STOP_WORKER, 503));
        scope.spawn(|| stops("worker-1", STOP_WORKER, 503));
        scope.spawn(|| stops("control", STOP_CONTROL, 200));
    });
}

/// Meanwhile, `/readyz` answers `ready`.
fn stops(thread: &str, how: &str, ready: u16) {
    const WITHIN: Duration = Duration::from_secs(10);
    let manifest = manifest("a.test", answering("served"), "");
    let process = Process::start_unread("", &manifest, &["--access-log", "off"]);
    let stalled = || process.metric("sluice_stalled_threads");
    assert_eq!((process.get("/livez").0, stalled()), (200, 0.0));
    let mut stopped = Injection::start(&process, thread, how);
    stopped.wait();
    let begun = Instant::now();
    wait_until("the probe to fail", || process.get("/livez").0 == 503);
    // The last answer may be as old as one question.
    let took = begun.elapsed();
    assert!((Duration::from_secs(4)..WITHIN).contains(&took), "{thread}: {took:?}");
    let reason = format!("the thread {thread} does not answer\n");
    assert_eq!(process.get("/livez").1, reason);
    assert_eq!((process.get("/readyz").0, stalled()), (ready, 1.0));
    drop(stopped);
    wait_until("the probe to succeed", || process.get("/livez").0 == 200);
    assert_eq!(process.get("/readyz").0, 200);
}

#[test]
#[ignore = "slow: a process is stopped for as long as would be seen of a thread"]
fn a_process_that_was_stopped_as_a_whole_is_alive_at_once() {
    const STOPPED: Duration = Duration::from_secs(12);
    const AFTER: Duration = Duration::from_secs(8);
    let manifest = manifest("a.test", answering("served"), "");
    let process = Process::start_unread("", &manifest, &["--access-log", "off"]);
    process.signal(Signal::STOP);
    let begun = Instant::now();
    wait_until("a long time", || begun.elapsed() > STOPPED);
    process.signal(Signal::CONT);
    wait_until("some time after", || {
        assert_eq!(process.get("/livez"), (200, "ok\n".to_owned()));
        begun.elapsed() > STOPPED + AFTER
    });
}

/// tokio panics when its epoll fails.
#[test]
fn after_a_panic_the_control_plane_starts_anew_and_what_was_served_is_served_on() {
    let (one, two) = (answering("one"), answering("two"));
    let flags = ["--access-log", "off"];
    let process = Process::start_unread("", &manifest("a.test", one, ""), &flags);
    assert_eq!(ask(process.address, "a.test"), "one");
    let panics = || process.metric("sluice_panics_total");
    let mut failed = Injection::start(&process, "control", "epoll_wait:error=EBADF:when=1");
    failed.wait();
    wait_until("the panic", || panics() == 1.0);
    drop(failed);
    assert_eq!(ask(process.address, "a.test"), "one");
    let (status, text) = process.get("/readyz");
    assert!(status == 200 && text.contains("starts anew: control, 1 times"), "{status} {text}");
    process.serve(&manifest("a.test", two, ""));
    wait_until("the change", || ask(process.address, "a.test") == "two");
    assert_eq!((process.get("/livez").0, panics()), (200, 1.0));
}

/// Connections that are spread over both workers, with their servers.
fn spread(process: &Process, backend: &Backend) -> Vec<(TcpStream, TcpStream)> {
    let pair = |_| {
        let hello = hello("a.test");
        (open(process.address, &hello), backend.accept_with(&hello))
    };
    let pairs: Vec<_> = (0..16).map(pair).collect();
    for worker in ["0", "1"] {
        let series = format!("sluice_worker_connections{{worker=\"{worker}\"}}");
        assert!(process.metric(&series) > 0.0, "{worker}");
    }
    pairs
}

#[test]
fn a_wait_that_fails_once_ends_nothing() {
    for error in ["EBADF", "EINVAL", "EINTR", "ENOMEM"] {
        let backend = Backend::new();
        let manifest = manifest("a.test", backend.address(), "");
        let process = Process::start_unread("", &manifest, &["--access-log", "off"]);
        let mut pairs = spread(&process, &backend);
        let what = format!("epoll_pwait:error={error}:when=1");
        let mut failed = Injection::start(&process, "worker-0", &what);
        failed.wait();
        drop(failed);
        pairs.iter_mut().for_each(|(client, server)| exchange(client, server));
        assert_eq!(process.get("/livez").0, 200);
        assert_eq!(process.metric("sluice_workers_lost_total"), 0.0);
    }
}

#[test]
fn a_worker_that_cannot_wait_any_more_loses_its_own_connections_and_the_process_drains() {
    let backend = Backend::new();
    let manifests =
        manifest("a.test", backend.address(), "") + &manifest("b.test", answering("served"), "");
    let drain = ["--drain-delay", "600s", "--drain-timeout", "600s", "--access-log", "off"];
    let mut process = Process::start_unread("", &manifests, &drain);
    let mut pairs = spread(&process, &backend);
    let on_worker = |process: &Process, worker: u8| {
        process.metric(&format!("sluice_worker_connections{{worker=\"{worker}\"}}")) as usize
    };
    let (lost, kept) = (on_worker(&process, 0), on_worker(&process, 1));
    let failed = Injection::start(&process, "worker-0", "epoll_pwait:error=EBADF");

    wait_until("the probe to fail", || process.get("/livez").0 == 503);
    assert_eq!(process.get("/livez").1, "a thread of the data plane has ended\n");
    assert_eq!(process.get("/readyz").0, 503);
    assert_eq!(process.metric("sluice_workers_lost_total"), 1.0);
    wait_until("its connections to end", || {
        pairs.iter().filter(|(client, _)| is_over(client)).count() == lost
    });
    assert_eq!(on_worker(&process, 0), 0);
    drop(failed);

    // The others go on, and take what comes as long as load balancers send something.
    pairs.retain(|(client, _)| !is_over(client));
    assert_eq!(pairs.len(), kept);
    pairs.iter_mut().for_each(|(client, server)| exchange(client, server));
    (0..20).for_each(|_| assert_eq!(ask(process.address, "b.test"), "served"));

    // The first signal changes nothing: it drains already.
    process.signal(Signal::TERM);
    (0..20).for_each(|_| assert_eq!(ask(process.address, "b.test"), "served"));
    pairs.iter_mut().for_each(|(client, server)| exchange(client, server));
    process.signal(Signal::INT);
    assert_eq!(process.wait().code(), Some(1));
}
