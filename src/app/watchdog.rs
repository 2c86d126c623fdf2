//! Whether the threads that serve still do: each is asked every second, idle or not.

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use tokio::time::{MissedTickBehavior, interval};

use crate::heartbeat::Pulse;
use crate::readiness::Readiness;

/// How often each thread is asked.
const EVERY: Duration = Duration::from_secs(1);
/// So many questions in a row without an answer, five seconds, and the thread counts as stopped.
/// They are counted and not timed: while the whole process is stopped, nobody asks.
const MOST_MISSED: u32 = 5;

/// Watches threads, from the one that answers the probes: if that stops itself, the probes fail.
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
    /// One that watches nothing yet. `stalled` shows how many threads have stopped.
    pub(super) fn new(readiness: Arc<Readiness>, stalled: IntGauge) -> Self {
        Watchdog { readiness, stalled, watched: RefCell::default() }
    }

    /// Watches one more thread.
    pub(super) fn add(&self, pulse: Box<dyn Pulse>) {
        self.watched.borrow_mut().push(Watched { pulse, missed: 0 });
    }

    /// Asks for good.
    pub(super) async fn run(&self) -> Infallible {
        let mut ticks = interval(EVERY);
        // What was stopped meanwhile has time to answer before it is asked twice.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.ask();
        }
    }

    /// Looks who has answered, and asks again.
    fn ask(&self) {
        let mut watched = self.watched.borrow_mut();
        watched.iter_mut().for_each(Watched::ask);
        let stalled = watched.iter().filter(|watched| watched.is_stalled());
        let stalled: Vec<_> =
            stalled.map(|one| (one.pulse.name(), one.pulse.serves_clients())).collect();
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
    use crate::heartbeat::Heartbeat;

    struct Fake(&'static str, Arc<Heartbeat>);

    impl Pulse for Fake {
        fn name(&self) -> String {
            self.0.to_owned()
        }

        fn serves_clients(&self) -> bool {
            self.0 != "control"
        }

        fn ask(&self) {
            self.1.ask();
        }

        fn is_answered(&self) -> bool {
            self.1.is_answered()
        }
    }

    #[test]
    fn a_thread_that_misses_five_questions_in_a_row_counts_as_stopped_until_it_answers() {
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
        // Asked first, then missed all but once too often; an answer begins the count anew.
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

        // Clients are served without the control plane.
        for _ in 0..MOST_MISSED {
            worker.answer();
            watchdog.ask();
        }
        assert_eq!(readiness.live(), Err(vec!["the thread control does not answer".to_owned()]));
        assert_eq!(readiness.ready(), Ok(()));
    }
}
