//! What is logged of statuses that cannot be read or written.

use tracing::{debug, info, warn};

use super::failure::RequestFailure;
use crate::control::api::Definition;
use crate::control::lease::refusal;
use crate::routing::ObjectRef;

/// After so many refusals in a row of one route's status, somebody should look at it.
const MANY_CONFLICTS: u32 = 8;

/// What has been logged, so that what goes on is not logged again and again.
#[derive(Debug, Default)]
pub(super) struct FailureLog {
    writes: Option<u16>,
}

impl FailureLog {
    /// What is written cannot be read yet.
    pub(super) fn of_reads(definition: Definition, failure: &RequestFailure) {
        match failure {
            RequestFailure::Refused(error) if refusal(error).is_some() => warn!(
                %error,
                hint = format!(
                    "trying again; the service account needs the verb list on {}",
                    definition.resource
                ),
                "cannot read the statuses that are written"
            ),
            // Whoever watches tells of a server in trouble.
            failure => debug!(error = failure.text(), "cannot read the statuses"),
        }
    }

    /// A status is refused for what it is. That concerns its route alone.
    pub(super) fn of_status(&mut self, route: &ObjectRef, failures: u32, failure: &RequestFailure) {
        if failures == 0 {
            let error = failure.text();
            let kind = route.kind.as_str();
            warn!(kind, %route, error, "the status of a route is refused; trying again, ever slower");
        }
    }

    /// A status could not be written, and no other could.
    pub(super) fn of_writes(
        &mut self,
        route: &ObjectRef,
        code: Option<u16>,
        failure: &RequestFailure,
    ) {
        let kind = route.kind.as_str();
        let Some(code) = code else {
            debug!(kind, %route, error = failure.text(), "cannot write the status of a route");
            return;
        };
        if self.writes.replace(code) == Some(code) {
            return;
        }
        let hint = match code {
            403 => format!(
                "the service account needs the verb patch on {}/status in the API group {}, as \
                 deploy/clusterrole.yaml has it",
                Definition::of(route.kind).plural(),
                route.kind.group()
            ),
            _ => "trying again, ever slower; traffic does not depend on it".to_owned(),
        };
        warn!(kind, %route, error = failure.text(), hint, "cannot write the status of a route");
    }

    pub(super) fn writes_work(&mut self) {
        if self.writes.take().is_some() {
            info!("statuses can be written again");
        }
    }

    pub(super) fn of_conflict(&mut self, route: &ObjectRef, failures: u32) {
        let kind = route.kind.as_str();
        match failures {
            MANY_CONFLICTS => {
                warn!(kind, %route, "the status of a route cannot be written: it changes all the time")
            }
            _ => debug!(kind, %route, "a route has changed before its status was written"),
        }
    }
}
