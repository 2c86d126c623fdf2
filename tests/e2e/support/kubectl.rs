//! kubectl, as the administrator of the cluster.

use std::io::Write;
use std::process::{Command, Stdio};

use super::{output, run};

/// Runs kubectl; panics with what it wrote if it fails.
pub(crate) fn kubectl(arguments: &[&str]) -> String {
    run("kubectl", arguments)
}

/// Runs kubectl, which has to fail, and gives what it wrote to stderr.
pub(crate) fn kubectl_fails(arguments: &[&str]) -> String {
    let output = output("kubectl", arguments);
    assert!(!output.status.success(), "kubectl {} succeeded", arguments.join(" "));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `kubectl apply` of manifests; panics with what it wrote if it fails.
pub(super) fn apply(namespace: &str, manifests: &str) {
    let mut command = Command::new("kubectl");
    command.args(["apply", "--namespace", namespace, "-f", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("kubectl runs");
    let written = child.stdin.take().expect("a pipe").write_all(manifests.as_bytes());
    let output = child.wait_with_output().expect("kubectl ends");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}\n{manifests}", output.status);
    written.expect("kubectl has read all");
}
