//! Sockets that a service manager passes on, and what it is told.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use rustix::process::Signal;
use tempfile::tempdir;

use crate::support::{
    Backend, PATIENCE, Process, answering, ask, exchange, hello, manifest, open, wait_until,
};

/// What a service manager does: the socket becomes descriptor 3. A shell keeps its process for the
/// program that it becomes.
const PASS: &str = "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=https; exec 3<&0 </dev/null";

const QUICK: [&str; 4] = ["--drain-delay", "0s", "--drain-timeout", "600s"];

fn socket_of(listener: &TcpListener) -> Stdio {
    OwnedFd::from(listener.try_clone().unwrap()).into()
}

/// A sluice that was passed `listener` for `https`.
fn activated(listener: &TcpListener, manifests: &str) -> Process {
    let process = Process::start_from(socket_of(listener), PASS, manifests, &QUICK);
    assert_eq!(process.address, listener.local_addr().unwrap());
    process
}

#[test]
fn a_socket_of_its_name_takes_the_place_of_a_listeners_addresses() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let process = activated(&listener, &manifest("a.test", answering("served"), ""));
    for _ in 0..50 {
        assert_eq!(ask(process.address, "a.test"), "served");
    }
    assert_eq!(process.get("/livez").0, 200);
}

#[test]
fn an_ipv4_client_of_a_socket_of_both_families_keeps_its_address() {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let process = activated(&listener, &manifest("a.test", answering("served"), ""));
    let client = SocketAddr::from(([127, 0, 0, 1], process.address.port()));
    assert_eq!(ask(client, "a.test"), "served");
    let line = process.access_line();
    assert!(line["source"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
}

/// Each restart ends the process before the next one starts.
#[test]
fn nobody_is_refused_while_it_is_restarted() {
    restart(3);
}

#[test]
#[ignore = "slow: 20 restarts"]
fn nobody_is_refused_while_it_is_restarted_many_times() {
    restart(20);
}

fn restart(times: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let manifests = manifest("a.test", answering("served"), "");
    let load = Load::start(listener.local_addr().unwrap());
    for _ in 0..times {
        let mut process = activated(&listener, &manifests);
        load.goes_on();
        process.signal(Signal::TERM);
        assert_eq!(process.wait().code(), Some(0));
    }
    let _last = activated(&listener, &manifests);
    load.goes_on();
    load.end();
}

/// As with two services that share one socket.
#[test]
fn the_next_process_serves_while_the_one_before_it_drains() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let backend = Backend::new();
    let manifests =
        manifest("a.test", answering("served"), "") + &manifest("held.test", backend.address(), "");
    let mut old = activated(&listener, &manifests);
    let hello = hello("held.test");
    let mut client = open(old.address, &hello);
    let mut server = backend.accept_with(&hello);
    let load = Load::start(old.address);
    let new = activated(&listener, &manifests);
    old.signal(Signal::TERM);
    wait_until("the end of accepting", || old.has_logged("no longer accepting"));
    load.goes_on();
    load.end();
    // Of those who wait for the socket, none is woken that does not take from it.
    for _ in 0..200 {
        assert_eq!(ask(new.address, "a.test"), "served");
    }
    exchange(&mut client, &mut server);
    drop((client, server));
    assert_eq!(old.wait().code(), Some(0));
}

/// Clients, one after another in each of some threads.
struct Load {
    served: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let (served, over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let client = |_| {
            let (served, over) = (Arc::clone(&served), Arc::clone(&over));
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(ask(address, "a.test"), "served");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads = (0..4).map(client).collect();
        Load { served, over, threads }
    }

    /// Waits until clients that came after now have been served.
    fn goes_on(&self) {
        let enough = self.served.load(Ordering::Relaxed) + 50;
        wait_until("clients are served", || {
            assert!(!self.threads.iter().any(JoinHandle::is_finished), "a client was not served");
            self.served.load(Ordering::Relaxed) >= enough
        });
    }

    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("all were served"));
    }
}

#[test]
fn a_socket_that_is_for_nobody_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for (before, expected) in [
        (
            PASS.replace("=https", "=sluice.socket"),
            format!(
                "socket 1 of LISTEN_FDS, named \"sluice.socket\", listens on {address}, which is the \
                 address of no listener; name it after one of https (FileDescriptorName="
            ),
        ),
        (
            PASS.replace("3<&0", "3<.").replace(" </dev/null", ""),
            "socket 1 of LISTEN_FDS, named \"https\", is no TCP socket that listens".to_owned(),
        ),
        (
            PASS.replace("FDS=1", "FDS=7"),
            "LISTEN_FDS is 7, but descriptor 4 is not open".to_owned(),
        ),
        (PASS.replace("FDS=1", "FDS=-1"), "LISTEN_FDS is not a number of sockets".to_owned()),
    ] {
        let error = Process::fails(socket_of(&listener), &before, &[]);
        assert!(error.contains(&expected), "{before}: {error}");
    }
}

#[test]
fn what_was_passed_to_another_process_is_left_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let before = PASS.replace("$$", "1");
    let manifests = manifest("a.test", answering("served"), "");
    let process = Process::start_from(socket_of(&listener), &before, &manifests, &[]);
    assert_ne!(process.address, listener.local_addr().unwrap());
    assert_eq!(ask(process.address, "a.test"), "served");
}

#[test]
fn the_service_manager_is_told_of_start_life_and_end() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut text = [0; 256];
        let size = manager.recv(&mut text).expect("something is told");
        String::from_utf8(text[..size].to_vec()).unwrap()
    };
    let before =
        format!("export NOTIFY_SOCKET={} WATCHDOG_USEC=40000 WATCHDOG_PID=$$", path.display());
    let manifests = manifest("a.test", answering("served"), "");
    let mut process = Process::start_from(Stdio::null(), &before, &manifests, &QUICK);
    let other = || std::iter::repeat_with(told).find(|text| text != "WATCHDOG=1").unwrap();
    assert_eq!(other(), "READY=1");
    for _ in 0..3 {
        assert_eq!(told(), "WATCHDOG=1");
    }
    process.signal(Signal::TERM);
    assert_eq!(other(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=620000000");
    assert_eq!(process.wait().code(), Some(0));
}

/// One that does not read must keep nobody waiting.
#[test]
fn a_service_manager_that_does_not_read_disturbs_nothing() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("notify");
    let _manager = UnixDatagram::bind(&path).unwrap();
    let before = format!("export NOTIFY_SOCKET={} WATCHDOG_USEC=2000", path.display());
    let manifests = manifest("a.test", answering("served"), "");
    let process = Process::start_from(Stdio::null(), &before, &manifests, &QUICK);
    wait_until("it is full", || process.has_logged("cannot notify the service manager"));
    assert_eq!(ask(process.address, "a.test"), "served");
    assert_eq!(process.get("/livez").0, 200);
}
