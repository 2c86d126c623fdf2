//! Whether this process works, and whether it wants connections.

use std::sync::atomic::{AtomicBool, Ordering};

/// What the probes report. Shared by all parts; each sets what it alone knows.
#[derive(Debug, Default)]
pub struct Health {
    table_complete: AtomicBool,
    listeners_bound: AtomicBool,
    draining: AtomicBool,
    worker_lost: AtomicBool,
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
}
