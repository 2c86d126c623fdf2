//! What is told of a route: faults, and the conditions of its status.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::control::status::{Condition, RouteStatus};
use crate::routing::RouteKey;

/// The most faults that a condition lists.
const MOST_SAID: usize = 16;

/// Something that keeps a route from being wholly in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) struct Finding {
    /// The route.
    pub(in crate::control) key: RouteKey,
    /// Where in the route, such as `spec.backends[0].service.port`.
    pub(in crate::control) field: String,
    /// One CamelCase word.
    pub(super) reason: &'static str,
    /// For people.
    pub(in crate::control) message: String,
}

/// Which object a status speaks of, and which state of it.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) uid: Option<Arc<str>>,
    pub(super) resource_version: Option<Arc<str>>,
    pub(super) generation: Option<i64>,
}

impl Object {
    pub(super) fn of(metadata: &ObjectMeta) -> Self {
        Object {
            uid: metadata.uid.as_deref().map(Arc::from),
            resource_version: metadata.resource_version.as_deref().map(Arc::from),
            generation: metadata.generation,
        }
    }
}

/// The status of a route that cannot be read.
pub(super) fn invalid_status(key: RouteKey, metadata: &ObjectMeta, why: &str) -> RouteStatus {
    let object = Object::of(metadata);
    let not_accepted = "the route is not accepted, so it gets no connection".to_owned();
    RouteStatus {
        key,
        uid: object.uid,
        resource_version: object.resource_version,
        observed_generation: object.generation,
        conditions: [
            condition("Accepted", false, "Invalid", why.to_owned()),
            condition("ResolvedRefs", false, "NotAccepted", not_accepted.clone()),
            condition("Programmed", false, "NotAccepted", not_accepted),
        ],
        endpoints: 0,
    }
}

pub(super) fn condition(
    kind: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
) -> Condition {
    Condition { kind, status, reason, message }
}

pub(super) fn said<'f>(findings: impl Iterator<Item = &'f Finding>) -> Vec<String> {
    findings.map(|finding| finding.message.clone()).collect()
}

/// A message of as many of these as fit the status of a route, however many there are.
pub(super) fn bounded(mut messages: Vec<String>) -> String {
    let more = messages.len().saturating_sub(MOST_SAID);
    messages.truncate(MOST_SAID);
    let mut message = messages.join("; ");
    if more > 0 {
        message.push_str(&format!("; and {more} more"));
    }
    message
}
