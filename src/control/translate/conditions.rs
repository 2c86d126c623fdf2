//! The problems of a route, and the conditions of its status.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::conflict;
use super::notes::Note;
use super::resolved_route::ResolvedRoute;
use crate::control::status::{CertificateStatus, Condition, RouteStatus, SHARED_DOMAIN};
use crate::policy::VerifyMode;
use crate::routing::{Hostname, Hostnames, RouteKey};

/// The maximum number of messages in a condition.
const MOST_SAID: usize = 16;
/// The maximum number of hostnames in the column that `kubectl get` shows.
const MOST_SHOWN: usize = 3;

/// A problem that keeps a route from being fully served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) struct Problem {
    /// The route.
    pub(in crate::control) key: RouteKey,
    /// The field of the route, such as `spec.backends[0].service.port`.
    pub(in crate::control) field: String,
    /// The reason, one CamelCase word.
    pub(super) reason: &'static str,
    /// The message, for people.
    pub(in crate::control) message: String,
}

/// The object of a status, and its version.
#[derive(Debug)]
pub(super) struct ObjectVersion {
    pub(super) uid: Option<Arc<str>>,
    pub(super) resource_version: Option<Arc<str>>,
    pub(super) generation: Option<i64>,
}

impl ObjectVersion {
    pub(super) fn of(metadata: &ObjectMeta) -> Self {
        ObjectVersion {
            uid: metadata.uid.as_deref().map(Arc::from),
            resource_version: metadata.resource_version.as_deref().map(Arc::from),
            generation: metadata.generation,
        }
    }
}

impl ResolvedRoute {
    /// All problems: first of listeners, then conflicts, then of references, then of TLS.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let without_tls = self.tls.as_ref().and_then(|tls| tls.without_tls());
        let without_tls = without_tls.map(|(reason, message)| Problem {
            key: self.spec.key.clone(),
            field: "spec.tls".to_owned(),
            reason,
            message: message.to_owned(),
        });
        let others = [self.listeners.clone(), self.conflict_problems(), self.refs.clone()];
        others.into_iter().flatten().chain(without_tls).collect()
    }

    fn conflict_problems(&self) -> Vec<Problem> {
        if self.conflicts.is_empty() {
            return Vec::new();
        }
        let hostnames = self.claimed.iter().enumerate();
        hostnames
            .filter_map(|(index, hostname)| {
                let hostname = hostname.owned();
                let conflict = &**self.conflicts.get(&hostname)?;
                Some(Problem {
                    key: self.spec.key.clone(),
                    field: format!("spec.hostnames[{index}]"),
                    reason: conflict::reason([conflict]),
                    message: conflict::message(&hostname, conflict),
                })
            })
            .collect()
    }

    /// The messages about wildcards of other namespaces, and about names below the route's own wildcards.
    /// Each hostname has at most one.
    fn note_messages(&self) -> Vec<String> {
        let told: BTreeMap<&Hostname, &Note> =
            self.notes.iter().map(|((hostname, _), note)| (hostname, note)).collect();
        told.into_iter().map(|(hostname, note)| note.message(hostname)).collect()
    }

    pub(super) fn status(&self) -> RouteStatus {
        let conditions = match &self.read_failure {
            Some(ReadFailure::Always(why)) => [
                condition("Accepted", false, INVALID, why.clone()),
                not_accepted("ResolvedRefs"),
                not_accepted("Programmed"),
            ],
            _ => [self.accepted(), self.resolved_refs(), self.programmed()],
        };
        RouteStatus {
            object: self.spec.key.object().clone(),
            uid: self.object.uid.clone(),
            resource_version: self.object.resource_version.clone(),
            observed_generation: self.object.generation,
            conditions,
            certificate: self.certificate(),
            hostnames: in_one_line(&self.claimed),
            endpoints: self.endpoints,
        }
    }

    /// The checks of the route's endpoints see their certificates, not the translation.
    fn certificate(&self) -> CertificateStatus {
        let is_seen = || self.spec.check().is_some_and(|check| check.verify() != VerifyMode::None);
        match self.served().is_some() && is_seen() {
            true => CertificateStatus::Unknown,
            false => CertificateStatus::NotAsked,
        }
    }

    fn accepted(&self) -> Condition {
        let conflicts = self.conflict_problems();
        let (mut messages, notes) =
            (said(self.listeners.iter().chain(&conflicts)), self.note_messages());
        messages.extend(notes.iter().cloned());
        let message = bounded(messages);
        if let Some(ReadFailure::Latest(why)) = &self.read_failure {
            let message = match self.rejected() {
                None => format!("{why}; the route is served as it was when it was read last"),
                Some(_) => format!("{why}; as it was when it was read last: {message}"),
            };
            return condition("Accepted", false, INVALID, message);
        }
        match self.rejected() {
            Some(reason) => condition("Accepted", false, reason, message),
            None if !conflicts.is_empty() => {
                condition("Accepted", true, "PartiallyConflicted", message)
            }
            None if self.listeners.is_empty() && !notes.is_empty() => {
                condition("Accepted", true, SHARED_DOMAIN, message)
            }
            None => condition("Accepted", true, "Accepted", message),
        }
    }

    fn resolved_refs(&self) -> Condition {
        match self.refs.first() {
            Some(first) => {
                condition("ResolvedRefs", false, first.reason, bounded(said(self.refs.iter())))
            }
            None => condition("ResolvedRefs", true, "ResolvedRefs", String::new()),
        }
    }

    fn programmed(&self) -> Condition {
        if self.rejected().is_some() {
            return not_accepted("Programmed");
        }
        let tls = self.tls.as_ref();
        if let Some((reason, message)) = tls.and_then(|tls| tls.unserved.as_ref()) {
            return condition("Programmed", false, reason, message.clone());
        }
        let mut messages: Vec<String> = match &self.read_failure {
            None if self.exceeded.is_empty() => Vec::new(),
            None => vec![self.exceeded.to_string()],
            Some(_) => vec!["the route is in the table as it was when it was read last".to_owned()],
        };
        messages.extend(tls.into_iter().flat_map(|tls| tls.notes.iter().cloned()));
        let message = bounded(messages);
        condition("Programmed", true, "Programmed", message)
    }
}

/// The reason for a route that cannot be read.
const INVALID: &str = "Invalid";

/// A failure to read an object.
#[derive(Debug)]
pub(super) enum ReadFailure {
    /// The latest version cannot be read, and an earlier one is served. The text is the cause, for people.
    Latest(String),
    /// No version could be read so far. The text is the cause, for people.
    Always(String),
}

/// A condition of a route that is not served.
fn not_accepted(kind: &'static str) -> Condition {
    let message = "the route is not accepted, so it gets no connection".to_owned();
    condition(kind, false, "NotAccepted", message)
}

fn condition(kind: &'static str, status: bool, reason: &'static str, message: String) -> Condition {
    Condition { kind, status, reason, message }
}

fn said<'f>(problems: impl Iterator<Item = &'f Problem>) -> Vec<String> {
    problems.map(|problem| problem.message.clone()).collect()
}

/// The first hostnames and the number of further ones, in the format of kubectl.
fn in_one_line(hostnames: &Hostnames) -> String {
    let first = hostnames.iter().take(MOST_SHOWN).map(|hostname| hostname.to_string());
    let line = first.collect::<Vec<_>>().join(",");
    match hostnames.len().saturating_sub(MOST_SHOWN) {
        0 => line,
        more => format!("{line} + {more} more"),
    }
}

/// Joins as many messages as fit into the status of a route.
fn bounded(mut messages: Vec<String>) -> String {
    let more = messages.len().saturating_sub(MOST_SAID);
    messages.truncate(MOST_SAID);
    let mut message = messages.join("; ");
    if more > 0 {
        message.push_str(&format!("; and {more} more"));
    }
    message
}
