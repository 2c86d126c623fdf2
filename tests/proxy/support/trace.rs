//! The system calls of a process's workers, as strace sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{Process, wait_until};

/// How many workers the fixture's processes have.
const WORKERS: usize = 2;

/// A sluice whose every system call is written down. It ends with this.
pub(crate) struct Traced {
    pub(crate) process: Process,
    folder: TempDir,
}

/// How often each system call was made.
pub(crate) type Calls = BTreeMap<String, usize>;

impl Traced {
    pub(crate) fn start(manifests: &str) -> Self {
        Self::start_with(manifests, "")
    }

    /// Of no calls but `name`, so that the trace does not slow the others.
    pub(crate) fn start_only(manifests: &str, name: &str) -> Self {
        Self::start_with(manifests, &format!("--seccomp-bpf -e trace=execve,prctl,{name}"))
    }

    /// One whose calls fail as strace's `inject` has it.
    pub(crate) fn start_failing(manifests: &str, name: &str, inject: &str) -> Self {
        let options = format!("-e trace=execve,prctl,{name} -e inject={name}:{inject}");
        Self::start_with(manifests, &options)
    }

    /// One with these flags.
    pub(crate) fn start_of(manifests: &str, arguments: &[&str]) -> Self {
        Self::start_as(manifests, "", arguments)
    }

    fn start_with(manifests: &str, options: &str) -> Self {
        Self::start_as(manifests, options, &[])
    }

    fn start_as(manifests: &str, options: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("trace");
        let file = trace.display();
        let strace = format!("exec strace -f -qq -s 64 {options} -o '{file}' \"$0\" \"$@\"");
        // A log would be calls of its own.
        let arguments = [&["--access-log", "off"], arguments].concat();
        let process = Process::start_unread(&strace, manifests, &arguments);
        let traced = Traced { process, folder };
        wait_until("the workers", || workers(&traced.lines()).len() == WORKERS);
        traced
    }

    /// The calls of all workers so far. One that is still waiting counts.
    pub(crate) fn calls(&self) -> Calls {
        let lines = self.lines();
        let workers = workers(&lines);
        let mut calls = Calls::new();
        for Line { thread, call } in &lines {
            // What is left are signals, ends, and the rest of calls that began before.
            if let Some((name, _)) = call.split_once('(').filter(|(name, _)| is_name(name))
                && workers.contains(thread.as_str())
                && !is_check(call)
            {
                *calls.entry(name.to_owned()).or_default() += 1;
            }
        }
        calls
    }

    /// How many of its waits have a time at which they end, and so a timer of their own.
    pub(crate) fn timed_waits(&self) -> usize {
        self.waits(|millis| millis > 0)
    }

    /// How many of its waits only look what is there.
    pub(crate) fn looks(&self) -> usize {
        self.waits(|millis| millis == 0)
    }

    fn waits(&self, wanted: impl Fn(i64) -> bool) -> usize {
        // The events that there may be, the milliseconds, and no mask of signals.
        let timeout = |line: &Line| {
            let (before, _) = line.call.rsplit_once(", NULL, ")?;
            before.rsplit_once(", ")?.1.parse::<i64>().ok()
        };
        let waits = self.lines().into_iter().filter(|line| line.call.contains("epoll_pwait"));
        waits.filter_map(|line| timeout(&line)).filter(|millis| wanted(*millis)).count()
    }

    /// The lines of the trace that are whole.
    fn lines(&self) -> Vec<Line> {
        let text = fs::read_to_string(self.path()).expect("strace is missing: make tools");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().filter_map(|line| line.split_once(' '));
        let owned = |(thread, call): (&str, &str)| Line {
            thread: thread.to_owned(),
            call: call.trim_start().to_owned(),
        };
        lines.map(owned).collect()
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("trace")
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // The process that the fixture knows is strace, which would leave sluice behind.
        let first = self.lines().first().and_then(|line| line.thread.parse().ok());
        if let Some(sluice) = first.and_then(Pid::from_raw) {
            let _ = kill_process(sluice, Signal::KILL);
        }
    }
}

/// What was called since `before`.
pub(crate) fn since(before: &Calls, now: Calls) -> Calls {
    let new = now.into_iter().map(|(name, count)| {
        let old = before.get(&name).copied().unwrap_or_default();
        (name, count - old)
    });
    new.filter(|(_, count)| *count > 0).collect()
}

/// What strace does to the system calls of one thread, until this is dropped.
pub(crate) struct Injection {
    strace: Child,
    folder: TempDir,
}

impl Injection {
    /// `what` is as strace(1) has it after `inject=`. It takes the right to trace a process that is
    /// no child: root, or `kernel.yama.ptrace_scope` 0.
    #[track_caller]
    pub(crate) fn start(process: &Process, thread: &str, what: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let thread = process.thread(thread).as_raw_nonzero().to_string();
        let inject = format!("inject={what}");
        let strace = Command::new("strace")
            .args(["-qq", "-p", &thread, "-e", &inject, "-o"])
            .arg(folder.path().join("trace"))
            .stdin(Stdio::null())
            .spawn()
            .expect("strace is missing: make tools");
        Injection { strace, folder }
    }

    /// Waits until it has done something.
    #[track_caller]
    pub(crate) fn wait(&mut self) {
        let trace = self.folder.path().join("trace");
        wait_until("an injection", || {
            assert!(self.strace.try_wait().unwrap().is_none(), "strace may not trace here");
            fs::read_to_string(&trace)
                .is_ok_and(|text| text.contains("_pwait(") || text.contains("_wait("))
        });
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        // Not killed: it has to let the thread go first.
        let _ = kill_process(Pid::from_child(&self.strace), Signal::TERM);
        let _ = self.strace.wait();
    }
}

struct Line {
    thread: String,
    call: String,
}

/// The threads that have said that they are workers.
fn workers(lines: &[Line]) -> BTreeSet<&str> {
    let named = |line: &&Line| line.call.starts_with("prctl(PR_SET_NAME, \"worker-");
    lines.iter().filter(named).map(|line| line.thread.as_str()).collect()
}

/// Whether it is the standard library that looks, before a close, if the descriptor is open. A
/// release does not.
fn is_check(call: &str) -> bool {
    cfg!(debug_assertions) && call.starts_with("fcntl(") && call.contains("F_GETFD")
}

fn is_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
