//! The environment of tests on a real cluster: `tests/e2e/run.sh` makes it around this binary.
//!
//! A test is a function that panics if it fails, listed in its module's `tests()`. It has a
//! [`Namespace`] of its own, which shows what went on in it if the test fails, and is deleted at
//! its end. Tests run at the same time; one that disturbs the cluster itself holds it [`alone`].

mod backend;
mod client;
mod kubectl;
mod load;
mod namespace;
pub(crate) mod prometheus;
mod sluice;

use std::process::{Command, Output};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use testkit::within;

pub(crate) use backend::{Backend, authorities, container, secret};
pub(crate) use client::{Held, Resumer, Served, Target, authority};
pub(crate) use kubectl::{kubectl, kubectl_fails};
pub(crate) use load::Load;
pub(crate) use namespace::Namespace;
pub(crate) use sluice::{CHART, CRD, RELEASE, Sluice};

/// How long things may take that take seconds, on a machine with other work to do. Only a test that
/// fails waits for so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// The node, and what routes to the pods and to the addresses of load balancers.
pub(crate) const NODE: &str = "198.18.0.1";

static CLUSTER: RwLock<()> = RwLock::new(());

/// Held by a test that wants a cluster in order.
pub(crate) fn shared() -> RwLockReadGuard<'static, ()> {
    // A test that failed has not broken the lock.
    CLUSTER.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Held by a test that takes parts of the cluster down.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    CLUSTER.write().unwrap_or_else(|poisoned| poisoned.into_inner())
}

macro_rules! test {
    ($test:ident) => {
        testkit::trial(module_path!(), stringify!($test), $test)
    };
}

pub(crate) use test;

/// Asks until there is an answer, for [`PATIENCE`]. `what` says what is waited for.
pub(crate) fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, ask)
}

/// Runs a command to its end, and gives what it wrote to stdout; panics if it fails.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = output(program, arguments);
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(status.success(), "{program} {}: {status}\n{stdout}{stderr}", arguments.join(" "));
    stdout
}

/// Runs a command to its end.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Starts, or kills, a part of the node.
pub(crate) fn node(action: &str, part: &str) {
    run(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/node.sh"), &[action, part]);
}
