//! The statuses of routes.
//!
//! [`Statuses`] has the statuses of all routes, in every replica. A [`Reporter`] writes them to the API
//! server while this replica is the leader:
//!
//! * `queue` says when a status may be written;
//! * `object` says what is written, and what has been, with a `body` for each kind;
//! * `warning` is an Event that says what is wrong, `events` writes them, and `moves` has those of
//!   hostnames that changed their owner, until they are written; `ejections` finds those of endpoints;
//! * `writer` does it, for as long as this replica leads, and `failure_log` logs what fails.

mod body;
mod ejections;
mod events;
mod failure;
mod failure_log;
mod moves;
mod object;
mod queue;
mod reporter;
mod statuses;
mod warning;
mod writer;

use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::Arc;

use tracing::{info, warn};

use crate::routing::{Hostname, ObjectRef};

pub use self::ejections::EjectionSource;
pub(crate) use self::reporter::LEAVE_TIMEOUT;
pub use self::reporter::{Meters, Reporter, ReporterArgs};
pub use self::statuses::Statuses;

/// Who says so: the field manager of statuses, the reporting controller of Events.
const REPORTER: &str = "sluice";
/// The kinds of a route's conditions, in their order.
const KINDS: [&str; 4] = ["Accepted", "ResolvedRefs", "Programmed", BACKEND_CERTIFICATE];
/// The condition about the certificates that active health checks see.
pub(in crate::control) const BACKEND_CERTIFICATE: &str = "BackendCertificate";

/// The reason of `Accepted` for a route that has all it claims, some of it next to another
/// namespace's. Nobody needs to do anything, so nobody is warned.
pub(super) const SHARED_DOMAIN: &str = "SharedDomain";

/// The reason of an Event for hostnames that belong to another namespace than before.
const HOSTNAME_MOVED: &str = "HostnameMoved";

/// The reason of an Event for endpoints that are tried last, because several attempts have failed in a row.
const ENDPOINT_EJECTED: &str = "EndpointEjected";

/// The reason of an Event for endpoints that are tried last, because their active health checks have failed.
const ENDPOINT_UNHEALTHY: &str = "EndpointUnhealthy";

/// Hostnames that belong to another namespace than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostnameMove {
    /// Which, sorted.
    pub hostnames: Vec<Hostname>,
    /// The route that had them for its namespace, which may be gone.
    pub from: MovedRoute,
    /// The route that has them now.
    pub to: MovedRoute,
}

/// A route that lost or got hostnames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedRoute {
    /// The route.
    pub object: ObjectRef,
    /// `metadata.uid` of its object, if it comes from an API server.
    pub uid: Option<Arc<str>>,
}

/// The conditions of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteStatus {
    /// The object.
    pub object: ObjectRef,
    /// `metadata.uid` of the object that they speak of, if it comes from an API server.
    pub uid: Option<Arc<str>>,
    /// `metadata.resourceVersion` of that object.
    pub resource_version: Option<Arc<str>>,
    /// `metadata.generation` of the object that they speak of.
    pub observed_generation: Option<i64>,
    /// `Accepted`, `ResolvedRefs` and `Programmed`, in this order.
    pub conditions: [Condition; 3],
    /// `BackendCertificate`.
    pub certificate: CertificateStatus,
    /// The hostnames that the route claims, in one line. Of an object that cannot be read, these are the
    /// claims of the last version that could be read. If there is none, these are its own claims, or
    /// nothing if the claims cannot be read either.
    pub hostnames: String,
    /// How many endpoints its backends have.
    pub endpoints: usize,
}

/// What is said of the certificates of a route's endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CertificateStatus {
    /// The route does not ask for it.
    #[default]
    NotAsked,
    /// The route asks for it, and no check has seen anything yet. What was written before stays.
    Unknown,
    /// What the checks have seen.
    Known(Condition),
}

impl RouteStatus {
    /// All conditions that are known, in their order.
    pub fn known_conditions(&self) -> impl Iterator<Item = &Condition> {
        let certificate = match &self.certificate {
            CertificateStatus::Known(condition) => Some(condition),
            CertificateStatus::NotAsked | CertificateStatus::Unknown => None,
        };
        self.conditions.iter().chain(certificate)
    }

    /// Whether it is the same status of the same object, in any version of the object.
    pub fn agrees_with(&self, other: &RouteStatus) -> bool {
        let resource_version = self.resource_version.clone();
        *self == RouteStatus { resource_version, ..other.clone() }
    }
}

/// A condition of a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs`, `Programmed` or `BackendCertificate`.
    pub kind: &'static str,
    /// Whether it holds.
    pub status: bool,
    /// One CamelCase word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// Logs the hostnames that belong to another namespace now.
pub fn log_moves(moves: &[HostnameMove]) {
    for HostnameMove { hostnames, from, to } in moves {
        let hostnames: Vec<String> = hostnames.iter().map(ToString::to_string).collect();
        let hostnames = hostnames.join(", ");
        warn!(
            hostnames,
            from_kind = from.object.kind.as_str(),
            from = %from.object,
            to_kind = to.object.kind.as_str(),
            to = %to.object,
            "hostnames belong to another namespace now"
        );
    }
}

/// Logs what is wrong now and was not wrong in the same way `before`, and what is wrong no longer.
pub fn log_changes(before: &[impl Borrow<RouteStatus>], now: &[impl Borrow<RouteStatus>]) {
    let before: HashMap<&ObjectRef, &RouteStatus> =
        before.iter().map(Borrow::borrow).map(|status| (&status.object, status)).collect();
    for status in now.iter().map(Borrow::borrow) {
        let former = before.get(&status.object);
        for (index, condition) in status.conditions.iter().enumerate() {
            let former = former.and_then(|status| status.conditions.get(index));
            if former == Some(condition) {
                continue;
            }
            log_change(&status.object, condition, former);
        }
    }
}

/// Logs a condition of a route that was another one before.
pub(in crate::control) fn log_change(
    route: &ObjectRef,
    condition: &Condition,
    former: Option<&Condition>,
) {
    // `message` is the log line's own.
    let Condition { kind: condition_kind, reason, message: detail, .. } = condition;
    let kind = route.kind.as_str();
    if !condition.status {
        warn!(kind, %route, condition = condition_kind, reason, detail, "a route is not in order");
    } else if *reason == SHARED_DOMAIN {
        info!(kind, %route, condition = condition_kind, reason, detail, "a route shares a domain");
    } else if !detail.is_empty() {
        warn!(
            kind,
            %route,
            condition = condition_kind,
            reason,
            detail,
            "a route is only partly in force"
        );
    } else if former.is_some_and(|former| !former.status) {
        info!(kind, %route, condition = condition_kind, "a route is in order again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::log_capture::LogCapture;
    use crate::routing::{Kind, ObjectKey};

    pub(super) fn key(name: &str) -> ObjectRef {
        ObjectRef::sni_route("ns", name)
    }

    /// A status of the first generation: all good, or not accepted for the reason `Bad` with a
    /// message.
    pub(super) fn status(name: &str, bad: Option<&str>) -> RouteStatus {
        let good = |kind| Condition { kind, status: true, reason: kind, message: String::new() };
        let mut conditions = ["Accepted", "ResolvedRefs", "Programmed"].map(good);
        if let Some(message) = bad {
            let message = message.to_owned();
            conditions[0] = Condition { kind: "Accepted", status: false, reason: "Bad", message };
        }
        RouteStatus {
            object: key(name),
            uid: Some("uid".into()),
            resource_version: Some("1".into()),
            observed_generation: Some(1),
            conditions,
            certificate: CertificateStatus::NotAsked,
            hostnames: "a.test".to_owned(),
            endpoints: 0,
        }
    }

    #[test]
    fn a_move_is_logged_with_the_kinds_of_both_routes() {
        let route = |kind, namespace: &str| MovedRoute {
            object: ObjectRef::new(kind, ObjectKey::new(namespace, "r")),
            uid: None,
        };
        let (from, to) = (route(Kind::SniRoute, "a"), route(Kind::TlsRoute, "b"));
        let log = LogCapture::default();
        let _listening = log.listen();
        log_moves(&[HostnameMove { hostnames: vec![Hostname::Exact("a.test".into())], from, to }]);
        let lines = log.take();
        let fields = ["hostnames", "from_kind", "from", "to_kind", "to"];
        assert_eq!(
            fields.map(|field| lines[0]["fields"][field].as_str()),
            ["a.test", "SniRoute", "a/r", "TLSRoute", "b/r"].map(Some)
        );
    }
}
