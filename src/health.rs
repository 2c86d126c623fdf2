//! Whether this process works, and whether it wants connections.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What the probes report. Shared by all parts; each sets what it alone knows.
#[derive(Debug, Default)]
pub struct Health {
    table_complete: AtomicBool,
    listeners_bound: AtomicBool,
    draining: AtomicBool,
    worker_lost: AtomicBool,
    notices: Mutex<Notices>,
}

/// What an operator should know and no load balancer has to act on.
#[derive(Debug, Default)]
struct Notices {
    /// What cannot be watched and why, and since when.
    source_down: Option<(String, Instant)>,
    /// When the table that is served was saved, if it is a saved one.
    saved_table: Option<String>,
}

impl Health {
    /// A process that has just started: alive, not ready.
    pub fn new() -> Self {
        Health::default()
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
    /// there is one of this process.
    pub fn set_saved_table(&self, saved: Option<String>) {
        self.lock_notices().saved_table = saved;
    }

    /// What is out of the ordinary, each in one line. It makes nothing unready: other replicas are
    /// no better off.
    pub fn notices(&self) -> Vec<String> {
        let complete = self.table_complete.load(Ordering::Acquire);
        let notices = self.lock_notices();
        let served = match &notices.saved_table {
            Some(saved) => format!("serving the table that was saved at {saved}"),
            None => "serving the table of before".to_owned(),
        };
        match &notices.source_down {
            Some((what, since)) => {
                let seconds = since.elapsed().as_secs();
                let failing = format!("the source of routes has failed for {seconds}s ({what})");
                vec![if complete { format!("{failing}; {served}") } else { failing }]
            }
            None if notices.saved_table.is_some() => {
                vec![format!("{served} until the source of routes has been listed")]
            }
            None => Vec::new(),
        }
    }

    fn lock_notices(&self) -> MutexGuard<'_, Notices> {
        // Every change of them is whole.
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the process works.
    ///
    /// # Errors
    /// The reasons why it must be restarted, in plain words.
    pub fn live(&self) -> Result<(), Vec<&'static str>> {
        verdict(&[(self.worker_lost(), "a thread of the data plane has ended")])
    }

    /// Whether new connections are welcome.
    ///
    /// # Errors
    /// The reasons why not, in plain words.
    pub fn ready(&self) -> Result<(), Vec<&'static str>> {
        let bound = self.listeners_bound.load(Ordering::Acquire);
        let complete = self.table_complete.load(Ordering::Acquire);
        let draining = self.draining.load(Ordering::Acquire);
        verdict(&[
            (!bound, "the listeners are not bound yet"),
            (!complete, "the first complete table is not built yet"),
            (draining, "draining"),
            (self.worker_lost(), "a thread of the data plane has ended"),
        ])
    }

    fn worker_lost(&self) -> bool {
        self.worker_lost.load(Ordering::Acquire)
    }
}

/// The reasons that hold, if any does.
fn verdict(faults: &[(bool, &'static str)]) -> Result<(), Vec<&'static str>> {
    let reasons: Vec<_> =
        faults.iter().filter(|(holds, _)| *holds).map(|(_, reason)| *reason).collect();
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_bound_with_a_table_and_not_draining() {
        let health = Health::new();
        assert_eq!(
            health.ready(),
            Err(vec![
                "the listeners are not bound yet",
                "the first complete table is not built yet"
            ])
        );
        health.set_listeners_bound();
        assert_eq!(health.ready(), Err(vec!["the first complete table is not built yet"]));
        health.set_table_complete();
        assert_eq!(health.ready(), Ok(()));
        health.set_draining();
        assert_eq!(health.ready(), Err(vec!["draining"]));
        assert_eq!(health.live(), Ok(()), "what drains is alive");
    }

    #[test]
    fn a_lost_worker_ends_both() {
        let health = Health::new();
        health.set_table_complete();
        health.set_listeners_bound();
        health.set_worker_lost();
        assert_eq!(health.live(), Err(vec!["a thread of the data plane has ended"]));
        assert_eq!(health.ready(), health.live());
    }
    #[test]
    fn notices_say_what_is_served_and_change_no_verdict() {
        let health = Health::new();
        health.set_listeners_bound();
        assert_eq!(health.notices(), [""; 0]);
        health.set_source_down("services: 403 Forbidden".into());
        let failing = "the source of routes has failed for 0s (services: 403 Forbidden)";
        assert_eq!(health.notices(), [failing]);
        health.set_saved_table(Some("2026-11-22T19:00:00Z".into()));
        health.set_table_complete();
        let saved = "serving the table that was saved at 2026-11-22T19:00:00Z";
        assert_eq!(health.notices(), [format!("{failing}; {saved}")]);
        health.set_source_up();
        let until = "until the source of routes has been listed";
        assert_eq!(health.notices(), [format!("{saved} {until}")]);
        health.set_saved_table(None);
        assert_eq!(health.notices(), [""; 0]);
        health.set_source_down("services: 403 Forbidden".into());
        assert_eq!(health.notices(), [format!("{failing}; serving the table of before")]);
        assert_eq!(health.ready(), Ok(()));
    }

    #[test]
    fn another_cause_is_the_same_outage() {
        let health = Health::new();
        health.set_source_down("one".into());
        let since = health.lock_notices().source_down.as_ref().expect("down").1;
        health.set_source_down("two".into());
        assert_eq!(health.lock_notices().source_down, Some(("two".to_owned(), since)));
    }
}
