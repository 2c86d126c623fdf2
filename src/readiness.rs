//! The state behind the probes: whether this process works, and whether it is ready for connections.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::heartbeat::Duty;

/// What the probes report. All parts share it, and each part sets its own fields.
#[derive(Debug, Default)]
pub struct Readiness {
    table_complete: AtomicBool,
    listeners_bound: AtomicBool,
    draining: AtomicBool,
    worker_lost: AtomicBool,
    /// The threads that do not answer, and what for.
    stalled: Mutex<Vec<(String, Duty)>>,
    notices: Mutex<Notices>,
}

/// Problems that an operator should know of and that do not make the process unready.
#[derive(Debug, Default)]
struct Notices {
    /// What cannot be watched and why, and since when.
    source_down: Option<(String, Instant)>,
    /// When the table that is served was saved, if it is a saved one, and how many of its routes have no keys.
    saved_table: Option<(String, usize)>,
    /// The parts of the control plane that a fault has ended lately, why, and how often.
    failed_parts: BTreeMap<&'static str, (String, u64)>,
    /// Why clients cannot be accepted where they are to be.
    bind_faults: Vec<String>,
}

impl Readiness {
    /// A process that has just started: alive, not ready.
    pub fn new() -> Self {
        Readiness::default()
    }

    /// The table has been built from a complete first list.
    pub fn set_table_complete(&self) {
        self.table_complete.store(true, Ordering::Release);
    }

    /// Every listener is bound and its workers accept.
    pub fn set_listeners_bound(&self) {
        self.listeners_bound.store(true, Ordering::Release);
    }

    /// The process is about to end: load balancers are to send nothing more here. For good.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// A thread of the data plane is gone, which only a restart puts right.
    pub fn set_worker_lost(&self) {
        self.worker_lost.store(true, Ordering::Release);
    }

    /// These threads do not answer, and no others; each with its duty.
    pub fn set_stalled(&self, threads: Vec<(String, Duty)>) {
        *self.lock_stalled() = threads;
    }

    /// A fault has ended a part of the control plane, which starts anew.
    pub fn set_part_failed(&self, part: &'static str, detail: String) {
        let mut notices = self.lock_notices();
        let times = notices.failed_parts.get(part).map_or(0, |(_, times)| *times);
        notices.failed_parts.insert(part, (detail, times.saturating_add(1)));
    }

    /// A part of the control plane has run for a while without a fault.
    pub fn set_part_steady(&self, part: &'static str) {
        self.lock_notices().failed_parts.remove(part);
    }

    /// Clients cannot be accepted at these addresses, and at no others; each as a sentence.
    pub fn set_bind_faults(&self, faults: Vec<String>) {
        self.lock_notices().bind_faults = faults;
    }

    /// The source of routes cannot be followed. `what` says what fails; told again, with another
    /// cause, it is still the same outage.
    pub fn set_source_down(&self, what: String) {
        let mut notices = self.lock_notices();
        let since = notices.source_down.take().map_or_else(Instant::now, |(_, since)| since);
        notices.source_down = Some((what, since));
    }

    /// The source of routes is followed.
    pub fn set_source_up(&self) {
        self.lock_notices().source_down = None;
    }

    /// The table that is served was saved by an earlier process, at the time `saved`; `None` once
    /// there is one of this process. So many of its routes terminate TLS, and wait for their keys, which are not
    /// saved.
    pub fn set_saved_table(&self, saved: Option<String>, without_keys: usize) {
        self.lock_notices().saved_table = saved.map(|saved| (saved, without_keys));
    }

    /// What is out of the ordinary, each in one line. It makes nothing unready: other replicas are
    /// no better off.
    pub fn notices(&self) -> Vec<String> {
        let complete = self.table_complete.load(Ordering::Acquire);
        let notices = self.lock_notices();
        let served = match &notices.saved_table {
            Some((saved, 0)) => format!("serving the table that was saved at {saved}"),
            Some((saved, without_keys)) => format!(
                "serving the table that was saved at {saved}, but for {without_keys} routes that terminate TLS \
                 and wait for their keys"
            ),
            None => "still serving the last known routes".to_owned(),
        };
        let mut lines = match &notices.source_down {
            Some((what, since)) => {
                let seconds = since.elapsed().as_secs();
                let failing = format!("the source of routes has failed for {seconds}s ({what})");
                vec![if complete { format!("{failing}; {served}") } else { failing }]
            }
            None if notices.saved_table.is_some() => {
                vec![format!("{served} until the source of routes has been listed")]
            }
            None => Vec::new(),
        };
        lines.extend(notices.failed_parts.iter().map(|(part, (detail, times))| {
            let detail = detail.escape_debug();
            format!("a fault of sluice has ended a part of the control plane, which starts anew: {part}, {times} times, last: {detail}")
        }));
        lines.extend(notices.bind_faults.iter().map(|fault| format!("{fault}; trying again")));
        lines
    }

    fn lock_notices(&self) -> MutexGuard<'_, Notices> {
        // Every change of them is whole.
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the process works.
    ///
    /// # Errors
    /// The reasons why it must be restarted, in plain words.
    pub fn live(&self) -> Result<(), Vec<String>> {
        verdict(self.lost().into_iter().chain(self.stalled(|duty| duty != Duty::Checks)))
    }

    /// Whether new connections are welcome. They are while the control plane does not answer: they
    /// are served as before, and other replicas may be no better off.
    ///
    /// # Errors
    /// The reasons why not, in plain words.
    pub fn ready(&self) -> Result<(), Vec<String>> {
        let reason = |holds: bool, reason: &str| holds.then(|| reason.to_owned());
        let reasons = [
            reason(
                !self.listeners_bound.load(Ordering::Acquire),
                "the listeners are not bound yet",
            ),
            reason(
                !self.table_complete.load(Ordering::Acquire),
                "the first complete table is not built yet",
            ),
            reason(self.draining.load(Ordering::Acquire), "draining"),
            self.lost(),
        ];
        let stalled = self.stalled(|duty| duty == Duty::Clients);
        verdict(reasons.into_iter().flatten().chain(stalled))
    }

    fn lost(&self) -> Option<String> {
        let lost = self.worker_lost.load(Ordering::Acquire);
        lost.then(|| "a thread of the data plane has ended".to_owned())
    }

    fn stalled(&self, counts: impl Fn(Duty) -> bool) -> Vec<String> {
        let stalled = self.lock_stalled();
        let stalled = stalled.iter().filter(|(_, duty)| counts(*duty));
        stalled.map(|(name, _)| format!("the thread {name} does not answer")).collect()
    }

    fn lock_stalled(&self) -> MutexGuard<'_, Vec<(String, Duty)>> {
        // It is only ever replaced.
        self.stalled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reasons, if there are any.
fn verdict(reasons: impl Iterator<Item = String>) -> Result<(), Vec<String>> {
    let reasons: Vec<_> = reasons.collect();
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn because(reasons: &[&str]) -> Result<(), Vec<String>> {
        Err(reasons.iter().map(|reason| (*reason).to_owned()).collect())
    }

    #[test]
    fn ready_is_bound_with_a_table_and_not_draining() {
        let readiness = Readiness::new();
        assert_eq!(
            readiness.ready(),
            because(&[
                "the listeners are not bound yet",
                "the first complete table is not built yet"
            ])
        );
        readiness.set_listeners_bound();
        assert_eq!(readiness.ready(), because(&["the first complete table is not built yet"]));
        readiness.set_table_complete();
        assert_eq!(readiness.ready(), Ok(()));
        readiness.set_draining();
        assert_eq!(readiness.ready(), because(&["draining"]));
        assert_eq!(readiness.live(), Ok(()), "what drains is alive");
    }

    #[test]
    fn a_lost_worker_ends_both() {
        let readiness = Readiness::new();
        readiness.set_table_complete();
        readiness.set_listeners_bound();
        readiness.set_worker_lost();
        assert_eq!(readiness.live(), because(&["a thread of the data plane has ended"]));
        assert_eq!(readiness.ready(), readiness.live());
    }

    #[test]
    fn a_part_that_failed_is_a_notice_until_it_is_steady() {
        let readiness = Readiness::new();
        readiness.set_part_failed("files", "no\nluck".into());
        readiness.set_part_failed("files", "out of luck".into());
        readiness.set_part_failed("statuses", "no\nluck".into());
        let failed = "a fault of sluice has ended a part of the control plane, which starts anew:";
        let files = format!("{failed} files, 2 times, last: out of luck");
        let statuses = format!("{failed} statuses, 1 times, last: no\\nluck");
        assert_eq!(readiness.notices(), [files, statuses.clone()]);
        readiness.set_part_steady("files");
        assert_eq!(readiness.notices(), [statuses]);
        assert_eq!(readiness.live(), Ok(()));
    }

    #[test]
    fn notices_say_what_is_served_and_change_no_verdict() {
        let readiness = Readiness::new();
        readiness.set_listeners_bound();
        assert_eq!(readiness.notices(), [""; 0]);
        readiness.set_source_down("services: 403 Forbidden".into());
        let failing = "the source of routes has failed for 0s (services: 403 Forbidden)";
        assert_eq!(readiness.notices(), [failing]);
        readiness.set_saved_table(Some("2026-11-22T19:00:00Z".into()), 0);
        readiness.set_table_complete();
        let saved = "serving the table that was saved at 2026-11-22T19:00:00Z";
        assert_eq!(readiness.notices(), [format!("{failing}; {saved}")]);
        readiness.set_source_up();
        let until = "until the source of routes has been listed";
        assert_eq!(readiness.notices(), [format!("{saved} {until}")]);
        readiness.set_saved_table(Some("2026-11-22T19:00:00Z".into()), 3);
        assert_eq!(
            readiness.notices(),
            [
                "serving the table that was saved at 2026-11-22T19:00:00Z, but for 3 routes that terminate \
              TLS and wait for their keys until the source of routes has been listed"
            ]
        );
        readiness.set_saved_table(None, 0);
        assert_eq!(readiness.notices(), [""; 0]);
        readiness.set_source_down("services: 403 Forbidden".into());
        assert_eq!(
            readiness.notices(),
            [format!("{failing}; still serving the last known routes")]
        );
        assert_eq!(readiness.ready(), Ok(()));
    }

    #[test]
    fn another_cause_is_the_same_outage() {
        let readiness = Readiness::new();
        readiness.set_source_down("one".into());
        let since = readiness.lock_notices().source_down.as_ref().expect("down").1;
        readiness.set_source_down("two".into());
        assert_eq!(readiness.lock_notices().source_down, Some(("two".to_owned(), since)));
    }
}
