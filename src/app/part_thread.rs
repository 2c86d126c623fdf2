//! Threads that run a part of the process on a runtime of their own.

use std::convert::Infallible;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::beat::Beat;
use super::{SharedParts, single_threaded};
use crate::control::supervise::{failed, steady};
use crate::heartbeat::{Duty, Pulse};

/// The pause between a failure of the runtime and its restart. The thread does not answer meanwhile.
const PAUSE: Duration = Duration::from_secs(1);

/// The handle of such a thread. The thread ends soon after this is dropped; nobody waits for it.
pub(super) struct PartThread {
    name: &'static str,
    beat: Arc<Beat>,
    _stop: oneshot::Sender<Infallible>,
}

/// A part that has its thread, and does not run yet.
pub(super) struct StartedPart {
    name: &'static str,
    runtime: Runtime,
    beat: Arc<Beat>,
    stopped: oneshot::Receiver<Infallible>,
}

impl PartThread {
    /// Starts the thread of this name with a stack of `stack` bytes. It runs `part`, which ends with
    /// [`StartedPart::run`].
    ///
    /// # Errors
    /// When the system has no thread or descriptors left.
    pub(super) fn start(
        name: &'static str,
        stack: usize,
        part: impl FnOnce(StartedPart) + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = single_threaded()?;
        let (stop, stopped) = oneshot::channel();
        let beat = Arc::<Beat>::default();
        let started = StartedPart { name, runtime, beat: Arc::clone(&beat), stopped };
        thread::Builder::new().name(name.into()).stack_size(stack).spawn(move || part(started))?;
        Ok(PartThread { name, beat, _stop: stop })
    }

    /// The pulse by which the watchdog checks the thread.
    pub(super) fn pulse(&self, duty: Duty) -> Box<dyn Pulse> {
        self.beat.pulse(self.name, duty)
    }
}

impl StartedPart {
    /// Runs `work` until the thread is stopped. If the runtime fails, begins again on a new one.
    pub(super) fn run<F: Future<Output = Infallible>>(
        self,
        parts: &SharedParts,
        work: impl Fn() -> F,
    ) {
        let StartedPart { name, runtime, beat, mut stopped } = self;
        let told = parts.supervised();
        let mut made = Some(runtime);
        loop {
            let runtime = match made.take().map_or_else(single_threaded, Ok) {
                Ok(runtime) => runtime,
                Err(error) => {
                    tracing::error!(part = name, %error, "no runtime for a part; trying again");
                    thread::sleep(PAUSE);
                    continue;
                }
            };
            let serve = async {
                tokio::select! {
                    never = work() => match never {},
                    never = beat.run() => match never {},
                    never = steady(name, &told) => match never {},
                    _ = &mut stopped => {}
                }
            };
            let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(serve)));
            // A file system that does not answer must not keep the thread from ending.
            let _ = catch_unwind(AssertUnwindSafe(|| runtime.shutdown_background()));
            match ended {
                Ok(()) => return,
                Err(panic) => told(failed(name, &*panic, PAUSE)),
            }
            thread::sleep(PAUSE);
        }
    }
}
