//! Rate-limited warnings. Each cause has its own limit.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use rustix::io::Errno;

use crate::metrics::OF_ONE_CLIENT;
use crate::reach::EndpointRefusal;

/// How often a lasting cause is logged.
pub(super) const WARNING_EVERY: Duration = Duration::from_secs(10);

/// The cause of a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WarningCause {
    /// The process or the machine has no descriptors left for accepting.
    NoDescriptor,
    /// A single client could not be accepted.
    Client,
    /// Clients cannot be accepted for another reason.
    Accept,
    /// The limit on descriptors is reached.
    Full,
    /// The endpoint is forbidden.
    Refused(EndpointRefusal),
}

/// The time from which each cause may be logged again, in milliseconds of the reactor.
#[derive(Debug, Default)]
pub(super) struct WarningLimiter([Cell<u64>; CAUSES]);

/// The number of causes, as [`WarningCause::number`] counts them.
const CAUSES: usize = 4 + EndpointRefusal::KINDS.len();

impl WarningCause {
    /// The cause for an error of `accept`.
    pub(super) fn of_accept(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE) => WarningCause::NoDescriptor,
            Some(errno) if OF_ONE_CLIENT.contains(&errno) => WarningCause::Client,
            _ => WarningCause::Accept,
        }
    }

    fn number(self) -> usize {
        match self {
            WarningCause::NoDescriptor => 0,
            WarningCause::Client => 1,
            WarningCause::Accept => 2,
            WarningCause::Full => 3,
            WarningCause::Refused(refusal) => 4 + refusal.kind() as usize,
        }
    }
}

impl WarningLimiter {
    /// Whether `cause` may be logged at `now`; if so, not again before `next`.
    pub(super) fn are_due(&self, cause: WarningCause, now: u64, next: u64) -> bool {
        let at = self.0.get(cause.number());
        let due = at.is_some_and(|at| now >= at.get());
        at.filter(|_| due).into_iter().for_each(|at| at.set(next));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_own_rate_limit() {
        let warnings = WarningLimiter::default();
        let network = "10.0.0.0/8".parse().expect("a network");
        let causes =
            [24, 71, 12].map(|errno| WarningCause::of_accept(&io::Error::from_raw_os_error(errno)));
        assert_eq!(
            causes,
            [WarningCause::NoDescriptor, WarningCause::Client, WarningCause::Accept]
        );
        let refused = [
            EndpointRefusal::OwnPort,
            EndpointRefusal::OwnService,
            EndpointRefusal::Local,
            EndpointRefusal::Metadata,
            EndpointRefusal::Denied(network),
            EndpointRefusal::NotAllowed,
        ];
        assert_eq!(refused.len(), EndpointRefusal::KINDS.len());
        let causes = causes.into_iter().chain([WarningCause::Full]);
        for cause in causes.chain(refused.map(WarningCause::Refused)) {
            assert!(warnings.are_due(cause, 5, 10), "{cause:?} is silenced by another");
            assert!(!warnings.are_due(cause, 9, 10));
        }
        assert!(warnings.are_due(WarningCause::Full, 10, 20));
        assert!(!warnings.are_due(WarningCause::Full, 10, 20));
    }
}
