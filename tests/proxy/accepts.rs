//! Accepts that fail: each is counted, none is the end of a listener, and nothing spins.

use std::time::{Duration, Instant};

use crate::support::{Traced, answering, ask, manifest, wait_until};

/// The workers and the admin port.
const THREADS: f64 = 3.0;
/// How many clients in a row may fail by themselves, for each of the rests in a second, and workers.
const MOST_A_SECOND: usize = 16 * 10 * 2;

fn failing(error: &str, when: &str) -> Traced {
    let manifests = manifest("a.test", answering("served"), "");
    Traced::start_failing(&manifests, "accept4", &format!("error={error}{when}"))
}

#[test]
fn that_fail_are_counted_and_pass() {
    for (error, label) in [("EIO", "other"), ("ENOBUFS", "other"), ("ECONNABORTED", "client")] {
        // The first three of each thread.
        let sluice = failing(error, ":when=1..3");
        assert_eq!(ask(sluice.process.address, "a.test"), "served");
        let series = format!("sluice_accept_errors_total{{error=\"{label}\"}}");
        assert_eq!(sluice.process.metric(&series), 3.0 * THREADS, "{error}");
    }
}

#[test]
fn that_go_on_failing_do_not_spin() {
    for error in ["EIO", "EPROTO", "EPERM"] {
        let sluice = failing(error, "");
        let accepts = || sluice.calls().get("accept4").copied().unwrap_or_default();
        let (before, begun) = (accepts(), Instant::now());
        wait_until("half a second", || begun.elapsed() > Duration::from_millis(500));
        let calls = accepts() - before;
        let most = MOST_A_SECOND as f64 * begun.elapsed().as_secs_f64() + 32.0;
        assert!((calls as f64) < most, "{calls} after {error}, of at most {most}");
    }
}
