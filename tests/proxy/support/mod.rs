//! What the tests are made of: sluice in this process or in one of its own, clients, backends.

mod bulk;
mod hello;
pub(crate) mod innocent;
mod network;
mod peer;
mod plane;
mod process;
mod trace;

use std::thread;
use std::time::{Duration, Instant};

pub(crate) use bulk::{Bulk, Flow, flow, receive_bulk, send_bulk, settle, stall};
pub(crate) use hello::{
    hello, hello_with_alpn, hello_with_any_name, hello_without_name, in_records, malformed_hello,
};
pub(crate) use innocent::{Innocent, fresh};
pub(crate) use network::{FarMachine, LongPath, in_own_network, run};
pub(crate) use peer::{
    Backend, Blackhole, End, answering, ask, connect, exchange, expect, expect_reset,
    is_listened_on, is_over, open, open_from, open_narrow, refusing, reset, rest,
};
pub(crate) use plane::{Plane, Target, listener, target};
pub(crate) use process::{Process, manifest};
pub(crate) use trace::{Calls, Injection, Traced, since};

/// Longer than anything may take on a busy machine. Only a test that fails waits for so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Returns as soon as `condition` holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
