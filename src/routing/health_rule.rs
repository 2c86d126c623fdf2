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
    /// The availability of an endpoint.
    pub fn judge(self, endpoint: &Endpoint, now: Moment) -> Availability {
        let availability = endpoint.availability(now, self.ejection);
        match self.check.map(|check| endpoint.check_verdict(check)) {
            Some(CheckVerdict::Unhealthy) => availability.max(Availability::Unhealthy),
            Some(CheckVerdict::Unknown | CheckVerdict::Healthy) | None => availability,
        }
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
