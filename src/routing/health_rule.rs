//! How one route judges the health of endpoints.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::checks::{CheckParams, CheckVerdict};
use super::{Availability, EjectionRule, Endpoint, Moment};

/// How a route judges the health of endpoints. Routes with equal rules see the same.
#[derive(Clone, Copy, Debug)]
pub struct HealthRule<'r> {
    /// When endpoints are ejected.
    pub ejection: &'r EjectionRule,
    /// The active checks that count.
    pub check: Option<&'r Arc<CheckParams>>,
}

impl HealthRule<'_> {
    /// The availability of an endpoint, in one word: one that fails its checks is unhealthy, whatever attempts to
    /// connect have shown.
    pub fn judge(self, endpoint: &Endpoint, now: Moment) -> Availability {
        match self.fails_checks(endpoint) {
            true => Availability::Unhealthy,
            false => endpoint.availability(now, self.ejection),
        }
    }

    /// Whether the active checks have failed.
    pub fn fails_checks(self, endpoint: &Endpoint) -> bool {
        let verdict = self.check.map(|check| endpoint.check_verdict(check));
        verdict == Some(CheckVerdict::Unhealthy)
    }
}

/// Equal active checks are the same, so their addresses stand for them.
impl HealthRule<'_> {
    fn identity(&self) -> (&EjectionRule, Option<*const CheckParams>) {
        (self.ejection, self.check.map(Arc::as_ptr))
    }
}

impl PartialEq for HealthRule<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for HealthRule<'_> {}

impl Hash for HealthRule<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}
