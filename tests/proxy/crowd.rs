//! Clients that say nothing delay nobody.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use sluice::outcome::Outcome;

use crate::support::{Plane, answering, ask, hello, open, reset, target, wait_until};

const SILENT: usize = 3000;
/// Far more than a connection takes, also on a busy machine, and far less than any deadline.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn of_silent_clients_does_not_hold_others_up() {
    let plane = Plane::with(vec![target("a.test", &[answering("served")])], |config| {
        config.timeouts.hello = Duration::from_secs(600);
    });
    let hello = hello("a.test");
    let silent: Vec<TcpStream> = (0..SILENT)
        // Half of them stop in the middle.
        .map(|n| open(plane.address(), if n % 2 == 0 { b"" } else { &hello[..hello.len() / 2] }))
        .collect();
    wait_until("all to be there", || plane.metrics.connections_active.get() == SILENT as i64);
    for _ in 0..50 {
        let begun = Instant::now();
        assert_eq!(ask(plane.address(), "a.test"), "served");
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    }
    wait_until("the ends", || plane.metrics.connections_active.get() == SILENT as i64);
    silent.into_iter().for_each(reset);
    plane.assert_ended(&[
        ("a.test", Outcome::Completed, 50),
        ("", Outcome::DownstreamReset, SILENT as u64),
    ]);
}
