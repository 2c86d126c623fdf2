//! sluice as people install it: its image and its chart, on a real cluster of one node, with
//! traffic from outside the pods.
//!
//! `support` has the environment and says how a test is written. Each module has a function `tests`
//! that lists its tests.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod faults;
mod image;
mod namespaced;
mod release;
mod rollout;
mod route;
mod scrape;
mod sidecar;
mod support;
mod terminate;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most of a test's time is waiting for pods.
    arguments.test_threads = arguments.test_threads.or(Some(4));
    // The longest come first, for the others to run beside them.
    let tests = [
        scrape::tests(),
        rollout::tests(),
        sidecar::tests(),
        route::tests(),
        terminate::tests(),
        image::tests(),
        namespaced::tests(),
        release::tests(),
        faults::tests(),
    ];
    libtest_mimic::run(&arguments, tests.into_iter().flatten().collect()).exit_code()
}
