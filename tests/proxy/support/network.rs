//! A network of a test's own, where it may break what it likes.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Set inside, to the test's name.
const MARK: &str = "SLUICE_TEST_NETWORK";

/// Runs `story`, which is all of the test `name`, in a process whose network has nothing but a
/// loopback device. It takes root, or user namespaces that any user may make.
///
/// The test runs this binary again for itself alone. Whoever kills it kills that too
/// (`--pdeathsig`).
#[track_caller]
pub(crate) fn in_own_network(name: &str, story: impl FnOnce()) {
    if env::var_os(MARK).is_some_and(|mark| mark == name) {
        run("ip link set lo up");
        return story();
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "--net"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--").arg(env::current_exe().unwrap());
    // Which may be one of those that are not run by default.
    command.args(["--exact", name, "--include-ignored"]).env(MARK, name);
    let output = command.output().expect("setpriv, of util-linux, runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs a command, with its arguments.
#[track_caller]
pub(crate) fn run(command: &str) {
    let (program, arguments) = command.split_once(' ').unwrap();
    let output = Command::new(program).args(arguments.split(' ')).output().expect(program);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said}");
}

/// A program that reads commands from its input and answers each with a line, and that is killed when
/// this is dropped.
struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Program { child, input, output: BufReader::new(output) }
    }

    #[track_caller]
    fn expect(&mut self, answer: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), answer);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A path that is long and slow, in both directions (`delay.py`): whoever connects to a port of `peer`
/// gets to that port of `address` over it.
pub(crate) struct LongPath(#[expect(dead_code, reason = "it lasts as long as this")] Program);

impl LongPath {
    #[track_caller]
    pub(crate) fn start(address: &str, peer: &str, mbit: u32, millis: u32) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proxy/support/delay.py");
        let mut command = Command::new("python3");
        command.args([script, address, peer, &mbit.to_string(), &millis.to_string()]);
        let mut program = Program::start(&mut command);
        program.expect("ready");
        LongPath(program)
    }
}

/// Another machine, in a network of its own, at the other end of a wire (`far.py`). The ends of the
/// wire are `near` and `far`.
pub(crate) struct FarMachine(Program);

impl FarMachine {
    /// One that has an address of the same /24 as `here`, which this machine gets.
    #[track_caller]
    pub(crate) fn start(here: &str, there: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proxy/support/far.py");
        let mut command = Command::new("unshare");
        let mut machine = FarMachine(Program::start(command.args(["--net", "python3", script])));
        // It answers once it is in its own network.
        machine.ask("wait");
        let pid = machine.0.child.id();
        run("ip link add near type veth peer name far");
        run(&format!("ip link set far netns {pid}"));
        run(&format!("ip addr add {here}/24 dev near"));
        run("ip link set near up");
        machine.run(&format!("ip addr add {there}/24 dev far"));
        machine.run("ip link set far up");
        machine
    }

    /// Runs a command in its network.
    #[track_caller]
    pub(crate) fn run(&self, command: &str) {
        run(&format!("nsenter -t {} -n {command}", self.0.child.id()));
    }

    /// Has it do something.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: &str) {
        writeln!(self.0.input, "{command}").unwrap();
        self.0.expect("done");
    }
}
