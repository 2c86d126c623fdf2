//! sluice and its custom resource with a real kube-apiserver, etcd and kubectl.
//!
//! `support` has the environment and says how a test is written. Each module has a function `tests`
//! that lists its tests, because this binary has a `main` of its own.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agreement;
mod cert_manager;
mod changes;
mod checks;
mod controlled;
mod controller;
mod dry_run;
mod elsewhere;
mod environment;
mod leader;
mod load;
mod memory;
mod near;
mod objects;
mod outage;
mod ownership;
mod place;
mod poison;
mod proxied;
mod reach;
mod removal;
mod rules;
mod saved;
mod status;
mod support;
mod terminate;
mod weird;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The longest tests come first, for the others to run beside them.
    support::run([
        load::tests(),
        memory::tests(),
        terminate::tests(),
        outage::tests(),
        saved::tests(),
        cert_manager::tests(),
        leader::tests(),
        status::tests(),
        checks::tests(),
        ownership::tests(),
        environment::tests(),
        controller::tests(),
        elsewhere::tests(),
        reach::tests(),
        near::tests(),
        removal::tests(),
        weird::tests(),
        proxied::tests(),
        poison::tests(),
        rules::tests(),
        agreement::tests(),
    ])
}
