//! A sluice that follows an API server, and what it leads to.

use std::env;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use rustix::process::Signal;
use serde_json::Value;
use testkit::{echo_at, eventually, hello, wait_until};

use crate::support::{ApiServer, Kubeconfig, PATIENCE, succeeded};

/// A server that reads a hello, says its name and closes.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
}

impl Backend {
    pub(crate) fn start(name: &'static str) -> Self {
        Self::start_at(name, "198.18.1.1")
    }

    pub(crate) fn start_at(name: &'static str, ip: &str) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut hello = [0; 4096];
                if stream.read(&mut hello).is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(name.as_bytes());
                }
            }
        });
        Backend { address }
    }
}

/// An SniRoute of a class, with more lines of its spec.
pub(crate) fn manifest(namespace: &str, name: &str, class: &str, spec: &str) -> String {
    format!(
        "apiVersion: sluice.dev/v1alpha1
kind: SniRoute
metadata: {{ name: {name}, namespace: {namespace} }}
spec:
  className: {class}
  {spec}
"
    )
}

/// What the server behind a name says; nothing if there is none.
pub(crate) fn ask(address: SocketAddr, name: &str) -> String {
    answer(address, &hello(name))
}

/// What the server says to which this hello leads; nothing if there is none.
pub(crate) fn answer(address: SocketAddr, hello: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(hello).unwrap();
    // So that a server that waits for more ends it too; a refused connection may be gone by now.
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = String::new();
    // A refused connection may end in a reset.
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// A connection that stays open, to a server that sends back what it receives.
pub(crate) struct Held(TcpStream);

impl Held {
    /// The route of `held.test` to such a server.
    pub(crate) fn apply(api: &ApiServer, namespace: &str, class: &str) {
        let address = echo_at("198.18.1.2:0");
        let spec = format!("hostnames: [held.test]\n  backends: [{{ address: '{address}' }}]");
        succeeded(api.admin().apply(&manifest(namespace, "held", class, &spec)));
    }

    /// A connection by the name `held.test`.
    pub(crate) fn connect(sluice: &Sluice) -> Self {
        Held::by_name(sluice.address, "held.test").expect("the hello comes back")
    }

    /// A connection by a name; nothing if that leads elsewhere.
    pub(crate) fn by_name(sluice: SocketAddr, name: &str) -> Option<Self> {
        let mut stream = TcpStream::connect(sluice).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let hello = hello(name);
        stream.write_all(&hello).unwrap();
        let mut back = vec![0; hello.len()];
        (stream.read_exact(&mut back).is_ok() && back == hello).then_some(Held(stream))
    }

    /// It still carries what is sent.
    pub(crate) fn assert_open(&mut self) {
        self.0.write_all(b"still here").unwrap();
        let mut back = [0; 10];
        self.0.read_exact(&mut back).expect("an open connection");
        assert_eq!(&back, b"still here");
    }
}

/// The real binary.
pub(crate) struct Sluice(testkit::Sluice);

impl Sluice {
    pub(crate) fn start(account: &Kubeconfig, class: &str, arguments: &[&str]) -> Self {
        Sluice::start_in(&[], account, class, arguments)
    }

    /// With more variables in its environment.
    pub(crate) fn start_in(
        environment: &[(&str, &str)],
        account: &Kubeconfig,
        class: &str,
        arguments: &[&str],
    ) -> Self {
        let mut command = Command::new(binary());
        command
            .args(["run", "--source", "kubernetes", "--class", class, "--log-format", "json"])
            .args(["--listen", "198.18.0.1:0", "--access-log", "off"])
            .args(["--kubeconfig", account.path().to_str().unwrap()])
            // Of the account's namespace, whatever the class is: the name that the role has.
            .args(["--lease", "sluice-sluice"])
            .args(arguments)
            .env("SLUICE_ADMIN", "127.0.0.1:0")
            .envs(environment.iter().copied());
        Sluice(testkit::Sluice::start(&mut command))
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for the first line of the log with this message. What it tells of may be seen before
    /// the line has been read.
    pub(crate) fn await_logged(&self, message: &str) -> Value {
        eventually(message, || self.logged(message))
    }

    /// Waits until a metric has this value. What it counts may be seen before it is counted.
    pub(crate) fn await_metric(&self, name: &str, value: f64) {
        wait_until(&format!("{name} is {value}"), || self.metric(name) == value);
    }

    /// Waits until it is ready and has nothing to say about that.
    pub(crate) fn await_plain_ready(&self) {
        wait_until("it is ready without a notice", || {
            self.get("/readyz") == (200, "ok\n".to_owned())
        });
    }

    /// The routes that `/routes` tells of.
    pub(crate) fn routes(&self) -> Vec<Value> {
        self.report()["routes"].as_array().unwrap().clone()
    }

    /// The first line of the log with this message.
    pub(crate) fn logged(&self, message: &str) -> Option<Value> {
        self.log().into_iter().find(|line| line["message"] == message)
    }

    /// All lines of the log with this message.
    pub(crate) fn all_logged(&self, message: &str) -> Vec<Value> {
        self.log().into_iter().filter(|line| line["message"] == message).collect()
    }

    /// Ends it by SIGTERM, as it should end.
    pub(crate) fn end(mut self) {
        self.terminate();
        assert!(self.ended().success());
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.metrics().get(name).unwrap()
    }
}

testkit::deref_to_sluice!(Sluice, 0);

/// What `SLUICE_BINARY` names, or else what Cargo has built for the tests.
pub(crate) fn binary() -> OsString {
    env::var_os("SLUICE_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_sluice").into())
}
