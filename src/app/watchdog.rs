//! Checks that threads still run: each must answer once a second, even if it is idle.

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use tokio::time::{MissedTickBehavior, interval};

use crate::heartbeat::Pulse;
use crate::readiness::Readiness;

/// The interval of the checks.
const EVERY: Duration = Duration::from_secs(1);
/// A thread that misses this number of consecutive checks, which is five seconds, counts as stopped. Checks
/// are counted, not timed, because while the whole process is stopped, there are none.
const MOST_MISSED: u32 = 5;

/// Watches other threads from the thread that answers the probes. If that thread stops, the probes fail.
pub(super) struct Watchdog {
    readiness: Arc<Readiness>,
    stalled: IntGauge,
    watched: RefCell<Vec<Watched>>,
}

struct Watched {
    pulse: Box<dyn Pulse>,
    missed: u32,
}

impl Watchdog {
    /// A watchdog without threads. `stalled` shows the number of stopped threads.
    pub(super) fn new(readiness: Arc<Readiness>, stalled: IntGauge) -> Self {
        Watchdog { readiness, stalled, watched: RefCell::default() }
    }

    /// Adds a thread.
    pub(super) fn add(&self, pulse: Box<dyn Pulse>) {
        self.watched.borrow_mut().push(Watched { pulse, missed: 0 });
    }

    /// Checks the threads, for ever.
    pub(super) async fn run(&self) -> Infallible {
        let mut ticks = interval(EVERY);
        // After a pause of this thread, the others have time to answer before the next check.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.ask();
        }
    }

    /// Checks which threads have answered, and requests the next answers.
    fn ask(&self) {
        let mut watched = self.watched.borrow_mut();
        watched.iter_mut().for_each(Watched::ask);
        let stalled = watched.iter().filter(|watched| watched.is_stalled());
        let stalled: Vec<_> = stalled.map(|one| (one.pulse.name(), one.pulse.duty())).collect();
        self.stalled.set(stalled.len() as i64);
        self.readiness.set_stalled(stalled);
    }
}

impl Watched {
    fn is_stalled(&self) -> bool {
        self.missed >= MOST_MISSED
    }

    fn ask(&mut self) {
        if self.pulse.is_answered() {
            if self.is_stalled() {
                tracing::warn!(thread = self.pulse.name(), "a thread answers again");
            }
            self.missed = 0;
        } else {
            self.missed = self.missed.saturating_add(1);
            if self.missed == MOST_MISSED {
                let seconds = EVERY.as_secs() * u64::from(MOST_MISSED);
                tracing::error!(thread = self.pulse.name(), seconds, "a thread does not answer");
            }
        }
        self.pulse.ask();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::heartbeat::{Duty, Heartbeat};

    struct Fake(&'static str, Arc<Heartbeat>);

    impl Pulse for Fake {
        fn name(&self) -> String {
            self.0.to_owned()
        }

        fn duty(&self) -> Duty {
            match self.0 {
                "control" => Duty::Changes,
                "checks" => Duty::Checks,
                _ => Duty::Clients,
            }
        }

        fn ask(&self) {
            self.1.ask();
        }

        fn is_answered(&self) -> bool {
            self.1.is_answered()
        }
    }

    #[test]
    fn a_thread_that_misses_five_checks_counts_as_stopped_until_it_answers() {
        let readiness = Arc::new(Readiness::new());
        readiness.set_listeners_bound();
        readiness.set_table_complete();
        let gauge = IntGauge::new("stalled", "Stopped threads.").unwrap();
        let watchdog = Watchdog::new(Arc::clone(&readiness), gauge.clone());
        let beats = ["worker-0", "control"].map(|name| (name, Arc::<Heartbeat>::default()));
        for (name, beat) in &beats {
            watchdog.add(Box::new(Fake(name, Arc::clone(beat))));
        }
        let [worker, control] = beats.map(|(_, beat)| beat);

        assert_eq!(EVERY * MOST_MISSED, Duration::from_secs(5));
        // The first request, then one miss less than the limit; an answer starts the count again.
        for _ in 0..MOST_MISSED {
            watchdog.ask();
            control.answer();
        }
        assert_eq!((readiness.live(), gauge.get()), (Ok(()), 0));
        worker.answer();
        for _ in 0..MOST_MISSED {
            watchdog.ask();
            control.answer();
        }
        assert_eq!(readiness.live(), Ok(()));
        watchdog.ask();
        let reason = Err(vec!["the thread worker-0 does not answer".to_owned()]);
        assert_eq!((readiness.live(), readiness.ready(), gauge.get()), (reason.clone(), reason, 1));
        worker.answer();
        watchdog.ask();
        assert_eq!((readiness.live(), readiness.ready(), gauge.get()), (Ok(()), Ok(()), 0));

        // Clients are served without the control plane, so the process stays ready.
        for _ in 0..MOST_MISSED {
            worker.answer();
            watchdog.ask();
        }
        assert_eq!(readiness.live(), Err(vec!["the thread control does not answer".to_owned()]));
        assert_eq!(readiness.ready(), Ok(()));
    }

    #[test]
    fn a_stopped_thread_of_checks_is_counted_and_no_reason_for_a_restart() {
        let readiness = Arc::new(Readiness::new());
        readiness.set_listeners_bound();
        readiness.set_table_complete();
        let gauge = IntGauge::new("stalled", "Stopped threads.").unwrap();
        let watchdog = Watchdog::new(Arc::clone(&readiness), gauge.clone());
        watchdog.add(Box::new(Fake("checks", Arc::default())));
        for _ in 0..=MOST_MISSED {
            watchdog.ask();
        }
        assert_eq!((readiness.live(), readiness.ready(), gauge.get()), (Ok(()), Ok(()), 1));
    }
}
