//! A network of a test's own, where it may break what it likes.

use std::env;
use std::process::Command;

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
