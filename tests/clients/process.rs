//! Other programs: started, listened to, and ended with the test.

use std::io::{ErrorKind, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// For whatever has to happen and takes far less time on an idle machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Asks until there is an answer; fails with `what` at the deadline.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A program that a test needs, or a failure that says what to install.
pub(crate) fn tool(program: &str) -> Command {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    assert!(found, "{program} is missing; install the Debian package {}", package(program));
    Command::new(program)
}

fn package(program: &str) -> &str {
    match program {
        "go" => "golang",
        "promtool" => "prometheus",
        other => other,
    }
}

/// A running program. It is killed when this is dropped.
pub(crate) struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
}

/// What a program has written so far.
#[derive(Clone, Default)]
pub(crate) struct Output(Arc<Mutex<Collected>>);

#[derive(Default)]
struct Collected {
    bytes: Vec<u8>,
    ended: bool,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Program {
            stdin: child.stdin.take(),
            stdout: Output::of(child.stdout.take().unwrap()),
            stderr: Output::of(child.stderr.take().unwrap()),
            child,
        }
    }

    /// Runs a program to its end.
    pub(crate) fn run(command: &mut Command) -> Finished {
        let mut program = Program::start(command);
        program.close_stdin();
        program.finish()
    }

    pub(crate) fn say(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        match stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()) {
            // It has ended; its output says why.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            result => result.unwrap(),
        }
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, and for the end of what it writes.
    pub(crate) fn finish(mut self) -> Finished {
        let status = eventually("the program ends", || self.child.try_wait().unwrap());
        eventually("its outputs end", || {
            (self.stdout.ended() && self.stderr.ended()).then_some(())
        });
        Finished { status, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that has ended, and all that it wrote.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    pub(crate) fn code(&self) -> i32 {
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

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().bytes.clone()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap().bytes).into_owned()
    }

    /// The lines that are whole.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = self.text();
        text.split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .map(str::to_owned)
            .collect()
    }

    fn ended(&self) -> bool {
        self.0.lock().unwrap().ended
    }
}
