//! The thread of the active health checks.
//!
//! It has its own runtime, so that checks of thousands of endpoints never delay the control plane or the probes. After
//! a panic, all checks start anew, and endpoints count as healthy until their first result.

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
use crate::config::Config;
use crate::control::checks::{self, CheckMeters, CheckOutcome, ChecksArgs, ProblemKind};
use crate::control::supervise::{failed, supervise};
use crate::heartbeat::{Duty, Pulse};
use crate::machine::Machine;

const NAME: &str = "checks";

/// The pause between a failure of the runtime and its restart.
const PAUSE: Duration = Duration::from_secs(1);

/// The handle of the thread. The thread ends soon after this is dropped; nobody waits for it.
pub(super) struct Checks {
    beat: Arc<Beat>,
    _stop: oneshot::Sender<Infallible>,
}

impl Checks {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread or descriptors left.
    pub(super) fn start(config: &Config, parts: &SharedParts) -> io::Result<Self> {
        let runtime = single_threaded()?;
        let (stop, stopped) = oneshot::channel();
        let beat = Arc::<Beat>::default();
        let (answering, parts, per_second) =
            (Arc::clone(&beat), parts.clone(), config.checks_per_second);
        thread::Builder::new().name(NAME.into()).spawn(move || {
            let machine = Machine::new();
            let statuses = parts.statuses.clone();
            let (reach, own) = (parts.reach.clone(), parts.own_endpoints.clone());
            let args = ChecksArgs {
                table: parts.table.clone(),
                per_second,
                judge: Box::new(move |endpoint| {
                    reach.judge(endpoint, &own.get(), |ip| machine.has(ip))
                }),
                authorities: parts.authorities.clone(),
                report: Box::new(move |seen| statuses.hold().set_certificates(seen)),
                meters: meters(&parts),
            };
            run(runtime, &args, &parts, &answering, stopped);
        })?;
        Ok(Checks { beat, _stop: stop })
    }

    /// The pulse by which the watchdog checks the thread.
    pub(super) fn pulse(&self) -> Box<dyn Pulse> {
        self.beat.pulse(NAME, Duty::Checks)
    }
}

fn meters(parts: &SharedParts) -> CheckMeters {
    let metrics = &parts.metrics;
    CheckMeters {
        made: CheckOutcome::ALL.map(|outcome| metrics.health_checks(outcome.as_str())),
        checked: metrics.checks.checked.clone(),
        unchecked: metrics.checks.unchecked.clone(),
        delay: metrics.checks.delay.clone(),
        failed: metrics.checks.failed.clone(),
        problems: ProblemKind::ALL.map(|kind| metrics.certificate_problems(kind.as_str())),
    }
}

/// Makes checks until it is stopped. If a runtime fails, continues on a new one.
fn run(
    runtime: Runtime,
    args: &ChecksArgs,
    parts: &SharedParts,
    beat: &Beat,
    mut stopped: oneshot::Receiver<Infallible>,
) {
    let told = parts.supervised();
    let mut made = Some(runtime);
    loop {
        let runtime = match made.take().map_or_else(single_threaded, Ok) {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "no runtime for health checks; trying again");
                thread::sleep(PAUSE);
                continue;
            }
        };
        let serve = async {
            tokio::select! {
                never = supervise(NAME, &told, || checks::run(args)) => match never {},
                never = beat.run() => match never {},
                _ = &mut stopped => {}
            }
        };
        let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(serve)));
        let _ = catch_unwind(AssertUnwindSafe(|| runtime.shutdown_background()));
        match ended {
            Ok(()) => return,
            Err(panic) => told(failed(NAME, &*panic, PAUSE)),
        }
        thread::sleep(PAUSE);
    }
}
