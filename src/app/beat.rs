//! Signs of life of the threads that run a runtime.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::heartbeat::{Duty, Heartbeat, Pulse};

/// The answers of a thread with a runtime, on which clients do not wait.
#[derive(Default)]
pub(super) struct Beat {
    heartbeat: Heartbeat,
    asked: Notify,
}

impl Beat {
    /// Answers, for ever. Runs beside all else on the thread.
    pub(super) async fn run(&self) -> Infallible {
        loop {
            self.asked.notified().await;
            self.heartbeat.answer();
        }
    }

    /// The pulse by which the watchdog checks the thread of this name and duty.
    pub(super) fn pulse(self: &Arc<Self>, name: &'static str, duty: Duty) -> Box<dyn Pulse> {
        Box::new(BeatPulse { name, duty, beat: Arc::clone(self) })
    }
}

struct BeatPulse {
    name: &'static str,
    duty: Duty,
    beat: Arc<Beat>,
}

impl Pulse for BeatPulse {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn duty(&self) -> Duty {
        self.duty
    }

    fn ask(&self) {
        self.beat.heartbeat.ask();
        self.beat.asked.notify_one();
    }

    fn is_answered(&self) -> bool {
        self.beat.heartbeat.is_answered()
    }
}
