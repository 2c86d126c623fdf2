//! What the results of a check come to.

use crate::routing::{CheckParams, CheckVerdict};

/// The last results of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ResultRun {
    verdict: CheckVerdict,
    /// How many results in a row differ from the verdict.
    contrary: u32,
}

impl ResultRun {
    /// Takes a result. Returns the new verdict, if it changes.
    pub(super) fn take(&mut self, passed: bool, params: &CheckParams) -> Option<CheckVerdict> {
        let (needed, next) = match (self.verdict, passed) {
            (CheckVerdict::Healthy, true) | (CheckVerdict::Unhealthy, false) => {
                self.contrary = 0;
                return None;
            }
            (CheckVerdict::Unknown, true) => (1, CheckVerdict::Healthy),
            (CheckVerdict::Unknown, false) => (1, CheckVerdict::Unhealthy),
            (CheckVerdict::Healthy, false) => (params.unhealthy, CheckVerdict::Unhealthy),
            (CheckVerdict::Unhealthy, true) => (params.healthy, CheckVerdict::Healthy),
        };
        self.contrary = self.contrary.saturating_add(1);
        if self.contrary < needed {
            return None;
        }
        *self = ResultRun { verdict: next, contrary: 0 };
        Some(next)
    }

    /// The verdict.
    pub(super) fn verdict(self) -> CheckVerdict {
        self.verdict
    }

    /// Whether the last result differs from the verdict.
    pub(super) fn in_transition(self) -> bool {
        self.contrary > 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::params;
    use super::*;

    #[test]
    fn the_first_result_counts_at_once_and_later_ones_in_a_row() {
        let (mut run, params) = (ResultRun::default(), params());
        assert_eq!((params.unhealthy, params.healthy), (3, 2));
        assert_eq!(run.take(false, &params), Some(CheckVerdict::Unhealthy));
        for (passed, verdict, in_transition) in [
            (true, None, true),
            (false, None, false),
            (true, None, true),
            (true, Some(CheckVerdict::Healthy), false),
            (false, None, true),
            (false, None, true),
            (true, None, false),
            (false, None, true),
            (false, None, true),
            (false, Some(CheckVerdict::Unhealthy), false),
        ] {
            assert_eq!((run.take(passed, &params), run.in_transition()), (verdict, in_transition));
        }
        assert_eq!(ResultRun::default().take(true, &params), Some(CheckVerdict::Healthy));
    }
}
