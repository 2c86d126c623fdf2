//! System calls that fail: each call of a worker once in the ordinary run, with the error that is the
//! most likely; with each error that it may plausibly have, and at later times, among the slow tests.
//! What is lost is the connection that it was about, at most; and nothing, where the kernel has no
//! memory for a moment.
//!
//! Left out are
//! * EAGAIN of what is read, written and accepted: there it is the answer "not now", and the kernel
//!   tells when that changes;
//! * the end of memory (`mmap`, `brk`), which ends any Rust program;
//! * `close`, which lets go of the descriptor whatever it returns;
//! * `epoll_wait` but for EINTR: without its epoll, a worker can do nothing.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{
    Backend, End, Process, answering, connect, exchange, hello, manifest, millis, open,
    open_narrow, refusing, reset, rest, wait_until,
};

/// Each call with its errors, the most likely one first.
const CASES: &[(&str, &[&str])] = &[
    ("accept4", &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ECONNABORTED", "EPERM", "EINTR"]),
    ("recvfrom", &["ECONNRESET", "EINTR", "ENOMEM", "ETIMEDOUT", "EHOSTUNREACH"]),
    ("sendto", &["ENOBUFS", "EINTR", "ENOMEM", "EPIPE", "ECONNRESET", "EPERM", "ETIMEDOUT"]),
    ("socket", &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EAFNOSUPPORT", "EACCES"]),
    ("setsockopt", &["ENOBUFS", "ENOMEM", "EINVAL", "ENOPROTOOPT"]),
    ("connect", &["EADDRNOTAVAIL", "EAGAIN", "ECONNREFUSED", "ENETUNREACH", "EPERM", "ETIMEDOUT"]),
    ("getsockopt", &["ENOBUFS", "ENOMEM", "EINVAL"]),
    ("epoll_ctl", &["ENOSPC", "ENOMEM", "EPERM"]),
    ("epoll_pwait", &["EINTR"]),
    ("splice", &["ENOMEM", "EINVAL", "EINTR", "ENOSYS", "EPERM", "ECONNRESET"]),
    ("pipe2", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("fcntl", &["EPERM", "ENOMEM", "EBUSY"]),
    ("shutdown", &["ENOTCONN", "ENOBUFS"]),
    ("timerfd_settime", &["EINVAL", "ENOMEM"]),
    // Of a pipe whose receiver takes its time.
    ("read", &["EIO", "EINTR"]),
    // The events by which workers are woken.
    ("write", &["ENOMEM", "EINTR"]),
];

/// What is called once in the life of a worker, or now and then.
const SELDOM: &[&str] = &["pipe2", "fcntl", "timerfd_settime", "read", "write"];

/// What the kernel may have no memory for at one moment, and have at the next.
const PASSING: &[(&str, &[&str])] =
    &[("recvfrom", &["ENOMEM"]), ("sendto", &["ENOBUFS", "ENOMEM"]), ("splice", &["ENOMEM"])];

#[test]
fn a_call_that_fails_costs_one_connection_at_most() {
    for (call, errors) in CASES {
        Scene::start().survives(call, errors[0], 1);
    }
}

#[test]
#[ignore = "slow: each error of each call, at its first and at later times"]
fn each_error_of_a_call_costs_one_connection_at_most() {
    for (call, errors) in CASES {
        for error in *errors {
            for time in if SELDOM.contains(call) { 1..=1 } else { 1..=3 } {
                Scene::start().survives(call, error, time);
            }
        }
    }
}

/// A process, with connections that nothing is to happen to. Each fault has one of its own: a pipe is
/// made once and kept, and a call that the kernel does not know is not tried again.
struct Scene {
    process: Process,
    held: Vec<(TcpStream, TcpStream)>,
    _refusing: socket2::Socket,
}

/// How many bytes go each way in bulk: far more than what is copied before a pipe is taken.
const BULK: usize = 3 << 20;

/// How many are held.
const HELD: usize = 6;

impl Scene {
    fn start() -> Self {
        let held = Backend::new();
        let (refused, refusing) = refusing();
        let manifests = [
            manifest("small.test", answering("served"), ""),
            manifest("held.test", held.address(), ""),
            manifest("bulk.test", exchanging(), ""),
            manifest("refused.test", refused, ""),
        ];
        // A receiver that stalls is looked after four times as often.
        let timeouts = ["--timeouts-idle", "600s", "--timeouts-stall", "4s"];
        let process = Process::start(&manifests.concat(), &timeouts);
        let pair = |_| {
            let hello = hello("held.test");
            let client = open(process.address, &hello);
            (client, held.accept_with(&hello))
        };
        let held = (0..HELD).map(pair).collect();
        Scene { process, held, _refusing: refusing }
    }

    /// In each worker, the call fails with `error` at that time.
    #[track_caller]
    fn survives(mut self, call: &str, error: &str, time: usize) {
        let case = format!("{call} fails with {error} at {time}");
        let fault = Fault::inject(&self.process, call, error, time);
        let mut lost = 0;
        wait_until(&case, || {
            lost += self.clients(&case);
            lost += usize::from(call == "read" && !pauses(&self.process, &case));
            fault.times() > 0
        });
        let times = fault.end();
        let passing = PASSING.iter().any(|(name, errors)| *name == call && errors.contains(&error));
        let most = if passing { 0 } else { times };
        assert!(lost <= most, "{case}: {lost} lost for {times} failures");
        for (client, server) in &mut self.held {
            exchange(client, server);
        }
        assert_eq!(self.clients(&case), 0, "{case}: afterwards");
        assert_eq!(self.process.get("/livez").0, 200, "{case}");
        assert_eq!(self.process.metric("sluice_panics_total"), 0.0, "{case}");
        wait_until(&format!("{case}: all ends are noticed"), || {
            self.process.metric("sluice_connections_active") == HELD as f64
        });
    }

    /// One after another of all kinds, and some at once. Returns how many were not served.
    fn clients(&self, case: &str) -> usize {
        let address = self.process.address;
        let served = |client: &mut TcpStream| whole(client, b"served", case);
        let mut at_once: Vec<_> = (0..8).map(|_| open(address, &hello("small.test"))).collect();
        let small = at_once.iter_mut().filter_map(|client| (!served(client)).then_some(())).count();
        reset(open(address, &hello("small.test")));
        drop(connect(address));
        rest_of(&mut open(address, &hello("refused.test")), case);
        small + usize::from(!bulk(address, case))
    }
}

/// Whether all that was to come has come; a part of it must not look like the whole.
fn whole(client: &mut TcpStream, expected: &[u8], case: &str) -> bool {
    let (bytes, end) = rest_of(client, case);
    let whole = bytes == expected;
    assert!(
        whole || end == End::Reset || bytes.is_empty(),
        "{case}: {} bytes of {} and an end in good order",
        bytes.len(),
        expected.len()
    );
    whole
}

/// What comes, and how it ends; fails where neither more nor an end comes.
fn rest_of(client: &mut TcpStream, case: &str) -> (Vec<u8>, End) {
    client.set_read_timeout(Some(millis(20_000))).unwrap();
    let taken = client.peek(&mut [0]);
    let waits = taken.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
    assert!(!waits, "{case}: a client waits for ever");
    rest(client)
}

/// A client that sends and receives bulk.
fn bulk(address: SocketAddr, case: &str) -> bool {
    let mut client = open(address, &hello("bulk.test"));
    let mut sending = client.try_clone().unwrap();
    let sender = thread::spawn(move || {
        let sent = sending.write_all(&vec![b'u'; BULK]);
        sent.and_then(|()| sending.shutdown(Shutdown::Write))
    });
    let served = whole(&mut client, &vec![b'd'; BULK], case);
    let _ = sender.join().unwrap();
    served
}

/// A client that sends bulk, and takes what it is sent only when that has been moved out of its pipe.
fn pauses(process: &Process, case: &str) -> bool {
    let mut client = open_narrow(process.address, &hello("bulk.test"));
    client.write_all(&vec![b'u'; BULK]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let piped = || process.metric("sluice_splice_pipes{state=\"busy\"}") > 0.0;
    wait_until("a pipe", piped);
    wait_until("the pipe to be emptied", || !piped());
    whole(&mut client, &vec![b'd'; BULK], case)
}

/// A backend that sends bulk when it has received bulk, after a hello, and nothing else.
fn exchanging() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = |mut client: TcpStream| -> io::Result<()> {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes)?;
        // Nothing but a reset may come after a part.
        match bytes.len() == hello("bulk.test").len() + BULK {
            true => client.write_all(&vec![b'd'; BULK]),
            false => client.write_all(b"short"),
        }
    };
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || serve(client));
        }
    });
    address
}

/// A fault that strace makes in the workers of a process.
struct Fault {
    strace: Child,
    folder: TempDir,
}

impl Fault {
    #[track_caller]
    fn inject(process: &Process, call: &str, error: &str, time: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let workers = workers(process.pid());
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-o"]).arg(folder.path().join("trace"));
        strace.args(["-e", &format!("trace={call}")]);
        strace.args(["-e", &format!("inject={call}:error={error}:when={time}")]);
        for worker in &workers {
            strace.args(["-p", worker]);
        }
        let strace = strace.stdin(Stdio::null()).spawn().expect("strace is missing: make tools");
        let fault = Fault { strace, folder };
        wait_until("strace is there", || workers.iter().all(|worker| is_traced(worker)));
        fault
    }

    /// How often it has come about.
    fn times(&self) -> usize {
        let trace = fs::read_to_string(self.path()).unwrap_or_default();
        trace.matches("(INJECTED)").count()
    }

    /// Lets the process go on alone.
    fn end(mut self) -> usize {
        let pid = Pid::from_child(&self.strace);
        kill_process(pid, Signal::INT).unwrap();
        self.strace.wait().unwrap();
        self.times()
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("trace")
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// The threads of the workers.
fn workers(process: Pid) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero())).unwrap();
    let tasks = tasks.map(|task| task.unwrap().path());
    let named = tasks.filter(|task| {
        fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("worker-"))
    });
    named.map(|task| task.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

fn is_traced(thread: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap();
    !status.contains("TracerPid:\t0\n")
}
