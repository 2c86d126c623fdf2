//! What several test binaries of sluice need: waiting with a deadline, other programs and what they
//! write, a running sluice, hellos, servers, certificates, load.
//!
//! It has nothing of sluice's own code. What a single binary needs is in that binary's folder.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod authority;
mod greeter;
mod hello;
mod http;
mod metrics;
mod program;
mod random;
mod sluice;
mod traffic;
mod trial;
mod wait;

pub use authority::{Authority, Identity};
pub use greeter::{Greeted, echo_at, greeter, greeter_at, raw_hello};
pub use hello::{
    hello, hello_with_alpn, hello_with_any_name, hello_without_name, in_records, malformed_hello,
};
pub use http::get;
pub use metrics::Metrics;
pub use program::{Finished, Output, Program, tool};
pub use random::Random;
pub use sluice::Sluice;
pub use traffic::{StopAtEnd, Traffic};
pub use trial::trial;
pub use wait::{PATIENCE, eventually, wait_until, within};
