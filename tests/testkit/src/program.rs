//! Other programs: started, listened to, and ended with the test.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Pid;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;

use crate::eventually;

/// A program that a test needs, or a failure that says what to install.
pub fn tool(program: &str) -> Command {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    assert!(found, "{program} is missing; install the Debian package {}", package(program));
    Command::new(program)
}

fn package(program: &str) -> &str {
    match program {
        "gnutls-cli" => "gnutls-bin",
        "go" => "golang",
        "promtool" => "prometheus",
        "testssl" => "testssl.sh",
        "nginx" => "libnginx-mod-stream",
        other => other,
    }
}

/// A running program. It is killed when this is dropped.
pub struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    /// What it has written to stdout.
    pub stdout: Output,
    /// What it has written to stderr.
    pub stderr: Output,
}

/// What a program has written so far.
#[derive(Clone, Default)]
pub struct Output(Arc<Mutex<Collected>>);

#[derive(Default)]
struct Collected {
    bytes: Vec<u8>,
    ended: bool,
}

impl Program {
    /// Starts it with pipes for its input and its outputs.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        Program::start_from(command, Stdio::piped())
    }

    /// The same, with this as its input.
    #[track_caller]
    pub fn start_from(command: &mut Command, stdin: Stdio) -> Self {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Program {
            stdin: child.stdin.take(),
            stdout: Output::of(child.stdout.take().unwrap()),
            stderr: Output::of(child.stderr.take().unwrap()),
            child,
        }
    }

    /// Runs a program to its end.
    pub fn run(command: &mut Command) -> Finished {
        let mut program = Program::start(command);
        program.close_stdin();
        program.finish()
    }

    /// Writes to its stdin.
    pub fn say(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        match stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()) {
            // It has ended; its output says why.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            result => result.unwrap(),
        }
    }

    /// Ends its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Kills it, and waits until it has ended.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the program ends", || self.child.try_wait().unwrap())
    }

    /// Waits for its end, and for the end of what it writes.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let status = self.ended();
        eventually("its outputs end", || {
            (self.stdout.ended() && self.stderr.ended()).then_some(())
        });
        Finished { status, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program that has ended, and all that it wrote.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All that it wrote to stdout.
    pub stdout: String,
    /// All that it wrote to stderr.
    pub stderr: String,
}

impl Finished {
    /// Its exit code.
    #[track_caller]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("{self:?}"))
    }
}

impl Output {
    fn of(mut source: impl Read + Send + 'static) -> Self {
        let output = Output::default();
        let collected = Arc::clone(&output.0);
        thread::spawn(move || {
            let mut chunk = [0; 16 * 1024];
            while let Ok(count @ 1..) = source.read(&mut chunk) {
                collected.lock().unwrap().bytes.extend_from_slice(&chunk[..count]);
            }
            collected.lock().unwrap().ended = true;
        });
        output
    }

    /// All of it.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().bytes.clone()
    }

    /// All of it, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap().bytes).into_owned()
    }

    /// The lines that are whole.
    pub fn lines(&self) -> Vec<String> {
        let text = self.text();
        text.split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .map(str::to_owned)
            .collect()
    }

    /// Its whole lines, each of which is a JSON object that has no key twice.
    #[track_caller]
    pub fn json(&self) -> Vec<Value> {
        let lines = self.lines();
        let parse = |line: &String| match serde_json::from_str(line) {
            Ok(Line(fields)) => Value::Object(fields),
            Err(error) => panic!("{line:?}: {error}"),
        };
        lines.iter().map(parse).collect()
    }

    fn ended(&self) -> bool {
        self.0.lock().unwrap().ended
    }
}

/// `serde_json` alone takes the last of two values.
struct Line(serde_json::Map<String, Value>);

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Line(serde_json::Map::new()))
    }
}

impl<'de> Visitor<'de> for Line {
    type Value = Line;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with no key twice")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Line, A::Error> {
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            if self.0.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format!("{key} is there twice")));
            }
        }
        Ok(self)
    }
}
