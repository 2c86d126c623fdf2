//! Warnings: Kubernetes Events on the routes that are not in order.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    Condition as ApiCondition, MicroTime, ObjectMeta,
};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Error};
use serde_json::json;

use super::failure::{RequestFailure, answered};
use super::{
    ENDPOINT_EJECTED, ENDPOINT_UNHEALTHY, HOSTNAME_MOVED, HostnameMove, MovedRoute, REPORTER,
};
use crate::control::api::Definition;
use crate::control::fnv::fnv;
use crate::routing::ObjectRef;

/// How long the API server may take for one Event.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest note, in bytes, that the API server takes.
const MAX_NOTE: usize = 1024;
/// The longest `reportingInstance`.
const MAX_INSTANCE: usize = 128;
/// How much of a route's name goes into the name of its Events, of which 253 bytes are the most.
const MAX_NAME: usize = 200;
/// Of how many different warnings it is known how often there was one.
const MOST_COUNTED: usize = 10_000;

/// The most hostnames that are named.
const MOST_NAMED: usize = 8;

/// What an Event says.
#[derive(Clone, Debug)]
pub(super) struct Warning {
    /// What it is about: the type of a condition, or the hostnames or endpoints of a route.
    about: String,
    reason: String,
    note: String,
}

impl Warning {
    /// Of a condition that does not hold, or only in part.
    pub(super) fn of(condition: &ApiCondition) -> Self {
        Warning {
            about: condition.type_.clone(),
            reason: condition.reason.clone(),
            note: condition.message.clone(),
        }
    }

    /// Of hostnames that belong to another namespace now: one for each side.
    pub(super) fn of_move(moved: &HostnameMove) -> [(&MovedRoute, Self); 2] {
        let HostnameMove { hostnames, from, to } = moved;
        let named: Vec<String> =
            hostnames.iter().take(MOST_NAMED).map(|hostname| hostname.to_string()).collect();
        let more = match hostnames.len().saturating_sub(named.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = named.join(", ") + &more;
        let warning = |note: String| Warning {
            about: "Hostnames".to_owned(),
            reason: HOSTNAME_MOVED.to_owned(),
            note,
        };
        let (before, now) = (from.object.namespace(), to.object.namespace());
        let lost = format!(
            "{named}: no longer of namespace {before}; now of namespace {now}, whose route {} is \
             the oldest",
            to.object
        );
        let got = format!(
            "{named}: now of namespace {now}; before of namespace {before}, route {}",
            from.object
        );
        [(from, warning(lost)), (to, warning(got))]
    }

    /// Of ejected endpoints.
    pub(super) fn of_ejected(note: String) -> Self {
        let (about, reason) = ("Endpoints".to_owned(), ENDPOINT_EJECTED.to_owned());
        Warning { about, reason, note }
    }

    /// Of endpoints that fail their active health checks.
    pub(super) fn of_unhealthy(note: String) -> Self {
        let (about, reason) = ("Endpoints".to_owned(), ENDPOINT_UNHEALTHY.to_owned());
        Warning { about, reason, note }
    }
}

/// What is warned of, and how often.
#[derive(Debug)]
pub(super) struct Warnings {
    instance: String,
    /// By the name of the Event, as a hash.
    counts: HashMap<u64, i32>,
}

impl Warnings {
    /// `instance`: which replica says so.
    pub(super) fn new(instance: &str) -> Self {
        Warnings { instance: bounded(instance, MAX_INSTANCE), counts: HashMap::new() }
    }

    /// Writes an Event. The same warning about the same object has the same name:
    /// if it is still there, it becomes a series instead of one more object.
    ///
    /// kube's own recorder keeps the note of the first Event when the next one says something else,
    /// and makes names that are too long of those that just fit.
    pub(super) fn publish(
        &mut self,
        client: Client,
        route: &ObjectRef,
        uid: &str,
        warning: &Warning,
    ) -> impl Future<Output = Result<(), RequestFailure>> + Send + use<> {
        let event = event(&self.instance, route, uid, warning, Timestamp::now());
        let name = event.metadata.name.clone().unwrap_or_default();
        if self.counts.len() >= MOST_COUNTED {
            self.counts.clear();
        }
        let count = self.counts.entry(fnv(format!("{}/{name}", route.namespace()).as_bytes()));
        let count = count.and_modify(|count| *count = count.saturating_add(1)).or_insert(1);
        let series =
            EventSeries { count: (*count).max(2), last_observed_time: MicroTime(Timestamp::now()) };
        let events: Api<Event> = Api::namespaced(client, route.namespace());
        async move {
            let write = async {
                match events.create(&PostParams::default(), &event).await {
                    Err(Error::Api(status)) if status.is_already_exists() => {}
                    result => return result.map(drop),
                }
                let params = PatchParams {
                    field_manager: Some(REPORTER.to_owned()),
                    ..PatchParams::default()
                };
                let patch = Patch::Merge(json!({ "series": series }));
                events.patch(&name, &params, &patch).await.map(drop)
            };
            answered(TIMEOUT, write).await
        }
    }
}

fn event(instance: &str, route: &ObjectRef, uid: &str, warning: &Warning, now: Timestamp) -> Event {
    let note = bounded(&warning.note, MAX_NOTE);
    let told = format!("{uid} {} {} {note}", warning.about, warning.reason);
    // A label of a name ends with a letter or a digit.
    let start = bounded(route.name(), MAX_NAME);
    let start = start.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{start}.{:016x}", fnv(told.as_bytes()))),
            namespace: Some(route.namespace().to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some("Warning".to_owned()),
        reason: Some(warning.reason.clone()),
        action: Some("Reconcile".to_owned()),
        note: Some(note),
        regarding: Some(ObjectReference {
            api_version: Some(Definition::of(route.kind).newest().api_version),
            kind: Some(route.kind.to_string()),
            namespace: Some(route.namespace().to_owned()),
            name: Some(route.name().to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(REPORTER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

/// A text of at most so many bytes: if it is longer, its beginning and an ellipsis.
fn bounded(text: &str, most: usize) -> String {
    const ELLIPSIS: &str = "...";
    match text.len() <= most {
        true => text.to_owned(),
        false => {
            let end = text.floor_char_boundary(most.saturating_sub(ELLIPSIS.len()));
            text.get(..end).unwrap_or_default().to_owned() + ELLIPSIS
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::super::tests::key;
    use super::*;

    fn made(route: &ObjectRef, uid: &str, message: &str) -> Event {
        let condition = ApiCondition {
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            message: message.to_owned(),
            observed_generation: None,
            reason: "Bad".to_owned(),
            status: "False".to_owned(),
            type_: "Accepted".to_owned(),
        };
        event("me", route, uid, &Warning::of(&condition), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_same_warning_has_the_same_name_and_any_other_another() {
        let name = |event: Event| event.metadata.name.unwrap();
        let one = name(made(&key("r"), "uid", "bad"));
        assert!(one.starts_with("r."), "{one}");
        assert_eq!(name(made(&key("r"), "uid", "bad")), one);
        for other in [made(&key("r"), "uid", "worse"), made(&key("r"), "other", "bad")] {
            assert_ne!(name(other), one);
        }
    }

    #[test]
    fn both_sides_hear_of_hostnames_that_changed_their_owner() {
        let route = |namespace: &str, name: &str| MovedRoute {
            object: ObjectRef::sni_route(namespace, name),
            uid: Some("uid".into()),
        };
        let hostnames = (0..10).map(|n| format!("n{n}.test").parse().unwrap()).collect();
        let moved = HostnameMove { hostnames, from: route("a", "old"), to: route("b", "new") };
        let told = Warning::of_move(&moved).map(|(route, warning)| {
            assert_eq!(warning.reason, "HostnameMoved");
            format!("{}: {}", route.object, warning.note)
        });
        let named =
            "n0.test, n1.test, n2.test, n3.test, n4.test, n5.test, n6.test, n7.test and 2 more";
        assert_eq!(
            told,
            [
                format!(
                    "a/old: {named}: no longer of namespace a; now of namespace b, whose route b/new \
                 is the oldest"
                ),
                format!("b/new: {named}: now of namespace b; before of namespace a, route a/old"),
            ]
        );
    }

    #[test]
    fn names_and_notes_stay_within_what_is_taken() {
        let long = format!("{}.{}", "a".repeat(199), "b".repeat(53));
        let event = made(&key(&long), "uid", &"é".repeat(2000));
        let name = event.metadata.name.unwrap();
        assert!(name.len() <= 253 && !name.contains("..") && !name.contains("-."), "{name}");
        let note = event.note.unwrap();
        assert!(note.len() <= 1024 && note.len() > 1000 && note.ends_with("é..."), "{note}");
        assert_eq!(bounded("short", 5), "short");
        assert_eq!(bounded("longer", 5), "lo...");
    }
}
