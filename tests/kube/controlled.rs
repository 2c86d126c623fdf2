//! A sluice that follows an API server, and what it leads to.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::hello::hello;
use crate::support::{ApiServer, Kubeconfig, PATIENCE, succeeded, within};

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

/// A connection by the name `held.test` that stays open.
pub(crate) struct Held(TcpStream);

impl Held {
    /// The route of `held.test`, to a server that sends back what it gets.
    pub(crate) fn apply(api: &ApiServer, namespace: &str, class: &str) {
        let listener = TcpListener::bind("198.18.1.2:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        succeeded(api.admin().apply(&format!(
            "apiVersion: sluice.dev/v1alpha1
kind: SniRoute
metadata: {{ name: held, namespace: {namespace} }}
spec:
  className: {class}
  hostnames: [held.test]
  backends: [{{ address: \"{address}\" }}]
"
        )));
    }

    pub(crate) fn connect(sluice: &Sluice) -> Self {
        let mut stream = TcpStream::connect(sluice.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let hello = hello("held.test");
        stream.write_all(&hello).unwrap();
        let mut back = vec![0; hello.len()];
        stream.read_exact(&mut back).expect("the hello comes back");
        assert_eq!(back, hello);
        Held(stream)
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
pub(crate) struct Sluice {
    child: Child,
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    log: Arc<Mutex<Vec<Value>>>,
}

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
        let mut child = Command::new(binary())
            .args(["run", "--source", "kubernetes", "--class", class, "--log-format", "json"])
            .args(["--listen", "198.18.0.1:0", "--access-log", "off"])
            .args(["--kubeconfig", account.path().to_str().unwrap()])
            // Of the account's namespace, whatever the class is: the name that the role has.
            .args(["--lease", "sluice-sluice"])
            .args(arguments)
            .env("SLUICE_ADMIN", "127.0.0.1:0")
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                kept.lock().unwrap().push(line);
            }
        });
        let address = |message: &str| {
            within(PATIENCE, message, || {
                let lines = log.lock().unwrap();
                let line = lines.iter().find(|line| line["message"] == message)?;
                line["address"].as_str()?.parse().ok()
            })
        };
        let (address, admin) = (address("listening"), address("admin port"));
        Sluice { child, address, admin, log }
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// How it ends.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        within(PATIENCE, "sluice ends", || self.child.try_wait().unwrap())
    }

    /// Waits for the first line of the log with this message. What it tells of may be seen before
    /// the line has been read.
    pub(crate) fn await_logged(&self, message: &str) -> Value {
        within(PATIENCE, message, || self.logged(message))
    }

    /// Waits until a metric has this value. What it counts may be seen before it is counted.
    pub(crate) fn await_metric(&self, name: &str, value: f64) {
        within(PATIENCE, &format!("{name} is {value}"), || {
            (self.metric(name) == value).then_some(())
        });
    }

    /// Waits until it is ready and has nothing to say about that.
    pub(crate) fn await_plain_ready(&self) {
        within(PATIENCE, "it is ready without a notice", || {
            (self.get("/readyz") == (200, "ok\n".to_owned())).then_some(())
        });
    }

    pub(crate) fn await_ready(&self) {
        within(PATIENCE, "sluice is ready", || (self.get("/readyz").0 == 200).then_some(()));
    }

    /// What was logged above INFO.
    pub(crate) fn warnings(&self) -> Vec<Value> {
        let quiet = |line: &&Value| line["level"] != "INFO";
        self.log.lock().unwrap().iter().filter(quiet).cloned().collect()
    }

    /// Status and body of a page of the admin port.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        get(self.admin, path)
    }

    /// The routes that `/routes` tells of.
    pub(crate) fn routes(&self) -> Vec<Value> {
        let report: Value = serde_json::from_str(&self.get("/routes").1).unwrap();
        report["routes"].as_array().unwrap().clone()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The first line of the log with this message.
    pub(crate) fn logged(&self, message: &str) -> Option<Value> {
        self.log.lock().unwrap().iter().find(|line| line["message"] == message).cloned()
    }

    /// All lines of the log with this message.
    pub(crate) fn all_logged(&self, message: &str) -> Vec<Value> {
        let lines = self.log.lock().unwrap();
        lines.iter().filter(|line| line["message"] == message).cloned().collect()
    }

    /// Ends it by SIGTERM, as it should end.
    pub(crate) fn end(mut self) {
        self.terminate();
        assert!(self.ended().success());
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, metrics) = self.get("/metrics");
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// Status and body of a page of an admin port.
pub(crate) fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// What `SLUICE_BINARY` names, or else what Cargo has built for the tests.
pub(crate) fn binary() -> OsString {
    env::var_os("SLUICE_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_sluice").into())
}

impl Drop for Sluice {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
