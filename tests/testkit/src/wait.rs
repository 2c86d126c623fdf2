//! Waiting for what happens soon.

use std::thread;
use std::time::{Duration, Instant};

/// The longest time for whatever takes a moment on an idle machine. Only a test that fails waits for
/// so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The time between two questions: what the last one took, within these bounds. One that starts a
/// program takes longer, and should not keep the machine busy; others do a part of a test's work.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Asks until there is an answer, for [`PATIENCE`]. `what` says what is waited for.
#[track_caller]
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, ask)
}

/// Returns as soon as `holds` returns true, within [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    within(PATIENCE, what, || holds().then_some(()));
}

/// Asks until there is an answer, and fails when `limit` is over.
#[track_caller]
pub fn within<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        let asked = Instant::now();
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        thread::sleep(asked.elapsed().clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
    }
}
