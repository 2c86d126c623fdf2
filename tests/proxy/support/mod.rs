//! What the tests are made of: sluice in this process or in one of its own, clients, backends.

mod bulk;
pub(crate) mod innocent;
mod network;
mod peer;
mod plane;
mod process;
mod trace;

use std::time::Duration;

pub(crate) use bulk::{Bulk, Flow, flow, receive_bulk, send_bulk, settle, stall};
pub(crate) use innocent::{Innocent, fresh};
pub(crate) use network::{FarMachine, LongPath, in_own_network, run};
pub(crate) use peer::{
    Backend, Blackhole, End, answering, ask, connect, exchange, expect, expect_reset,
    is_listened_on, is_over, open, open_from, open_narrow, refusing, reset, rest,
};
pub(crate) use plane::{Plane, Target, listener, target};
pub(crate) use process::{Process, manifest};
pub(crate) use testkit::{
    PATIENCE, hello, hello_with_alpn, hello_with_any_name, hello_without_name, in_records,
    malformed_hello, wait_until,
};
pub(crate) use trace::{Calls, Injection, Traced, since};

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
