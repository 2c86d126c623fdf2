//! The thread of the active health checks.
//!
//! It has its own runtime, so that checks of thousands of endpoints never delay the control plane or the probes. After
//! a panic, all checks start anew, and endpoints count as healthy until their first result.

use std::io;

use super::SharedParts;
use super::part_thread::PartThread;
use crate::config::Config;
use crate::control::checks::{self, CheckMeters, CheckOutcome, ChecksArgs, ProblemKind};
use crate::control::supervise::supervise;
use crate::machine::Machine;

const NAME: &str = "checks";
/// The stack of a thread, unless it needs more.
const STACK: usize = 2 << 20;

/// Starts the thread. Its checks have at most so many descriptors at a time.
///
/// # Errors
/// When the system has no thread or descriptors left.
pub(super) fn start(
    config: &Config,
    parts: &SharedParts,
    descriptors: usize,
) -> io::Result<PartThread> {
    let (parts, per_second) = (parts.clone(), config.checks_per_second);
    PartThread::start(NAME, STACK, move |part| {
        let machine = Machine::new();
        let statuses = parts.statuses.clone();
        let (reach, own) = (parts.reach.clone(), parts.own_endpoints.clone());
        let args = ChecksArgs {
            table: parts.table.clone(),
            per_second,
            descriptors,
            judge: Box::new(move |endpoint| {
                reach.judge(endpoint, &own.get(), |ip| machine.has(ip))
            }),
            authorities: parts.authorities.clone(),
            report: Box::new(move |seen| statuses.hold().set_certificates(seen)),
            meters: meters(&parts),
        };
        part.run(&parts, || supervise(NAME, parts.supervised(), || checks::run(&args)));
    })
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
