//! The real binary, as a process of its own.

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, pipe};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use testkit::{Metrics, get};

use super::{PATIENCE, wait_until};

/// A running `sluice run`; killed when dropped.
pub(crate) struct Process {
    child: Child,
    manifests: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    access_log: Option<Receiver<Value>>,
    /// The access log, where it is not read.
    pub(crate) stdout: Option<ChildStdout>,
    /// Its log so far, as far as it is read here.
    log: Arc<Mutex<String>>,
}

/// A route for `hostname` that is named like its first label, with more lines of its spec.
pub(crate) fn manifest(hostname: &str, endpoint: SocketAddr, more: &str) -> String {
    let name = hostname.split('.').next().unwrap();
    format!(
        "---\napiVersion: sluice.dev/v1alpha1\nkind: SniRoute\n\
         metadata: {{ name: {name}, namespace: test }}\n\
         spec:\n  hostnames: [\"{hostname}\"]\n  backends: [{{ address: \"{endpoint}\" }}]\n{more}"
    )
}

impl Process {
    pub(crate) fn start(manifests: &str, arguments: &[&str]) -> Self {
        Process::start_from(Stdio::null(), "", manifests, arguments)
    }

    /// One that a shell starts, from `stdin`, that does `before` first.
    pub(crate) fn start_from(
        stdin: Stdio,
        before: &str,
        manifests: &str,
        arguments: &[&str],
    ) -> Self {
        let mut process = Process::spawn(stdin, before, manifests, arguments).reading();
        let stdout = process.stdout.take().unwrap();
        let (send, access_log) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = send.send(serde_json::from_str(&line).expect("a line of JSON"));
            }
        });
        process.access_log = Some(access_log);
        process
    }

    /// One whose access log nobody reads, started by a shell that does `before` first.
    pub(crate) fn start_unread(before: &str, manifests: &str, arguments: &[&str]) -> Self {
        Process::spawn(Stdio::null(), before, manifests, arguments).reading()
    }

    /// One whose access log nobody reads; and its log, from where it serves.
    pub(crate) fn start_with(
        before: &str,
        manifests: &str,
        arguments: &[&str],
    ) -> (Self, PipeReader) {
        let Spawned { process, log } = Process::spawn(Stdio::null(), before, manifests, arguments);
        (process, log)
    }

    fn spawn(stdin: Stdio, before: &str, manifests: &str, arguments: &[&str]) -> Spawned {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("routes.yaml"), manifests).unwrap();
        let (log, stderr) = pipe().unwrap();
        let mut command = command(before, folder.path(), arguments);
        let mut child = command.stdin(stdin).stderr(stderr).spawn().unwrap();
        // It has the other end of the log's pipe, too.
        drop(command);
        let mut text = String::new();
        let (address, admin) = addresses(&log, &mut text);
        let stdout = child.stdout.take();
        let log_so_far = Arc::new(Mutex::new(text));
        let process = Process {
            child,
            manifests: folder,
            address,
            admin,
            access_log: None,
            stdout,
            log: log_so_far,
        };
        Spawned { process, log }
    }

    /// What it wrote to stderr, if it ends by itself with a failure.
    #[track_caller]
    pub(crate) fn fails(stdin: Stdio, before: &str, arguments: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(before, folder.path(), arguments);
        let output = command.stdin(stdin).stderr(Stdio::piped()).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        error
    }

    /// Whether its log has this in it.
    pub(crate) fn has_logged(&self, text: &str) -> bool {
        self.log.lock().unwrap().contains(text)
    }

    /// Has it serve these manifests instead.
    pub(crate) fn serve(&self, manifests: &str) {
        fs::write(self.manifests.path().join("routes.yaml"), manifests).unwrap();
    }

    /// The next line of the access log.
    #[track_caller]
    pub(crate) fn access_line(&self) -> Value {
        self.access_log.as_ref().unwrap().recv_timeout(PATIENCE).expect("no line")
    }

    /// The lines of the access log up to its end, once the process has ended.
    #[track_caller]
    pub(crate) fn last_access_lines(&self) -> Vec<Value> {
        self.access_log.as_ref().unwrap().iter().collect()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// How it ended.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the end of the process", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Status and body of a page of the admin port.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        get(self.admin, path)
    }

    /// The value of a series; 0 if it is not there.
    #[track_caller]
    pub(crate) fn metric(&self, series: &str) -> f64 {
        self.metrics().get(series).unwrap_or_default()
    }

    /// The page `/metrics`.
    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics(self.get("/metrics").1)
    }

    /// The number of its thread of this name.
    #[track_caller]
    pub(crate) fn thread(&self, name: &str) -> Pid {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let is_it = |task: &PathBuf| {
            fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let task = tasks.map(|task| task.unwrap().path()).find(is_it).expect(name);
        let number = task.file_name().unwrap().to_str().unwrap().parse().unwrap();
        Pid::from_raw(number).unwrap()
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// The CPU time that it has used.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        // Linux shows times in hundredths of a second, whatever its clock does.
        Duration::from_millis(ticks * 10)
    }

    /// What the kernel keeps in its TCP sockets, in bytes.
    pub(crate) fn kernel_memory(&self) -> usize {
        let output = Command::new("ss").arg("-tmnpOH").output().expect("ss, of iproute2, runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let whose = format!("pid={},", self.child.id());
        let own = text.lines().filter(|line| line.contains(&whose));
        // Received and not read, and written and not acknowledged: `r` and `w` of `skmem:(r0,..`.
        let part = |line: &str, name: &str| -> usize {
            let (_, fields) = line.split_once("skmem:(").expect("memory");
            let mut fields = fields.split([',', ')']);
            let value = fields.find_map(|field| field.strip_prefix(name)?.parse().ok());
            value.expect("a number of bytes")
        };
        own.map(|line| part(line, "r") + part(line, "w")).sum()
    }

    /// Its resident memory, in KiB.
    pub(crate) fn memory(&self) -> i64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that serves, and its log from there on.
struct Spawned {
    process: Process,
    log: PipeReader,
}

impl Spawned {
    /// Reads the log in the background.
    fn reading(self) -> Process {
        let Spawned { process, log } = self;
        let kept = Arc::clone(&process.log);
        thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                kept.lock().unwrap().extend([&line, "\n"]);
            }
        });
        process
    }
}

/// The command over a folder of manifests, which a shell starts that does `before` first.
fn command(before: &str, routes: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{before}\nexec \"$0\" \"$@\"")])
        .args([env!("CARGO_BIN_EXE_sluice"), "run", "--admin", "127.0.0.1:0"])
        .args(["--listen", "127.0.0.1:0", "--routes", routes.to_str().unwrap()])
        .args(arguments)
        .env_clear()
        // An argument says otherwise.
        .env("SLUICE_WORKERS", "2")
        .stdout(Stdio::piped());
    command
}

/// Reads the log into `text` until routes are served.
fn addresses(log: &PipeReader, text: &mut String) -> (SocketAddr, SocketAddr) {
    let mut log = BufReader::new(log);
    let (mut listener, mut admin) = (None, None);
    loop {
        let start = text.len();
        assert!(log.read_line(text).unwrap() > 0, "it ended:\n{text}");
        let Ok(line) = serde_json::from_str::<Value>(&text[start..]) else { continue };
        let address = || line["address"].as_str()?.parse().ok();
        match line["message"].as_str() {
            Some("listening") => listener = listener.or(address()),
            Some("admin port") => admin = address(),
            Some("routes are live") => break,
            _ => {}
        }
    }
    text.push_str(&String::from_utf8_lossy(log.buffer()));
    (listener.unwrap(), admin.unwrap())
}
