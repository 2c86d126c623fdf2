//! sluice and its custom resource with a real kube-apiserver, etcd and kubectl.
//!
//! `support` has the environment and says how a test is written. Each module has a function `tests`
//! that lists its tests, because this binary has a `main` of its own.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod controlled;
mod controller;
mod environment;
#[path = "../proxy/support/hello.rs"]
#[allow(dead_code)]
mod hello;
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    support::run([environment::tests(), controller::tests()])
}
