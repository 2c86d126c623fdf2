//! The status of an object as the API server has it.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition as ApiCondition;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::body::StatusBody;
use super::{RouteStatus, SHARED_DOMAIN};
use crate::control::api::Definition;
use crate::control::objects::ObjectText;
use crate::routing::{Kind, ObjectRef};

/// What is known to be written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WrittenStatus {
    /// To which object.
    pub(super) uid: Arc<str>,
    pub(super) body: StatusBody,
}

impl WrittenStatus {
    /// What an object of this kind has that was read.
    pub(super) fn of(kind: Kind, object: &ObjectText) -> Option<(ObjectRef, WrittenStatus)> {
        let head = object.head();
        let uid = head.uid.as_deref()?.into();
        let body = StatusBody::read(kind, object)?;
        Some((ObjectRef::new(kind, head.key()), WrittenStatus { uid, body }))
    }

    /// What is to be written `now` instead of `before`.
    pub(super) fn next(
        said: &RouteStatus,
        before: Option<&WrittenStatus>,
        now: Timestamp,
    ) -> Option<Self> {
        let uid = Arc::clone(said.uid.as_ref()?);
        let before = before.filter(|before| before.uid == uid);
        let body = StatusBody::next(said, before.map(|before| &before.body), now)?;
        Some(WrittenStatus { uid, body })
    }

    /// The patch for server-side apply. It is refused if the object is another one by now, or not
    /// as it was when `said` was worked out: it may have come to belong to another installation.
    pub(super) fn patch(&self, said: &RouteStatus) -> Value {
        let definition = Definition::of(said.object.kind).newest();
        json!({
            "apiVersion": definition.api_version,
            "kind": definition.kind,
            "metadata": {
                "name": said.object.name(),
                "namespace": said.object.namespace(),
                "uid": &*self.uid,
                "resourceVersion": said.resource_version.as_deref(),
            },
            "status": self.body,
        })
    }

    /// The conditions that are to be warned of, since they were not there before.
    pub(super) fn warnings(&self, before: Option<&WrittenStatus>) -> Vec<&ApiCondition> {
        let before = before.filter(|before| before.uid == self.uid);
        let conditions = self.body.conditions().iter();
        conditions
            .filter(|condition| {
                let former = before.and_then(|before| before.condition(&condition.type_));
                is_warning(condition) && !former.is_some_and(|former| same(former, condition))
            })
            .collect()
    }

    fn condition(&self, kind: &str) -> Option<&ApiCondition> {
        self.body.conditions().iter().find(|condition| condition.type_ == kind)
    }
}

/// Whether something is wrong: a condition does not hold, or holds only in part. What only follows
/// from another condition is not told twice.
fn is_warning(condition: &ApiCondition) -> bool {
    let wrong = condition.status == "False" || !condition.message.is_empty();
    wrong && condition.reason != "NotAccepted" && condition.reason != SHARED_DOMAIN
}

fn same(one: &ApiCondition, other: &ApiCondition) -> bool {
    (&one.status, &one.reason, &one.message) == (&other.status, &other.reason, &other.message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{key, status};
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millisecond(second * 1000 + 321).unwrap()
    }

    fn next(said: &RouteStatus, before: Option<&WrittenStatus>, second: i64) -> WrittenStatus {
        WrittenStatus::next(said, before, at(second)).unwrap()
    }

    fn transitions(written: &WrittenStatus) -> Vec<i64> {
        let conditions = written.body.conditions().iter();
        conditions.map(|one| one.last_transition_time.0.as_second()).collect()
    }

    #[test]
    fn the_time_of_a_transition_stays_until_the_status_changes() {
        let first = next(&status("r", None), None, 10);
        assert_eq!(transitions(&first), [10, 10, 10]);
        assert_eq!(next(&status("r", None), Some(&first), 20), first, "nothing to write");
        let newer = RouteStatus { observed_generation: Some(2), ..status("r", None) };
        let second = next(&newer, Some(&first), 20);
        assert_ne!(second, first, "another generation is written");
        assert_eq!(transitions(&second), [10, 10, 10]);
        let third = next(&status("r", Some("bad")), Some(&second), 30);
        assert_eq!(transitions(&third), [30, 10, 10]);
        let fourth = next(&status("r", Some("worse")), Some(&third), 40);
        assert_ne!(fourth, third, "another message is written");
        assert_eq!(transitions(&fourth), [30, 10, 10]);
        assert_eq!(transitions(&next(&status("r", None), Some(&fourth), 50)), [50, 10, 10]);
        let recreated = RouteStatus { uid: Some("other".into()), ..status("r", None) };
        assert_eq!(transitions(&next(&recreated, Some(&first), 60)), [60, 60, 60]);
        let of_a_file = RouteStatus { uid: None, ..status("r", None) };
        assert_eq!(WrittenStatus::next(&of_a_file, None, at(70)), None);
    }

    #[test]
    fn what_was_written_is_read_back_and_found_the_same() {
        let said = status("r", Some("bad"));
        let written = next(&said, None, 10);
        let patch = written.patch(&said);
        assert_eq!(
            patch["metadata"],
            json!({ "name": "r", "namespace": "ns", "uid": "uid", "resourceVersion": "1" })
        );
        let read = |patch: &Value| {
            WrittenStatus::of(Kind::SniRoute, &ObjectText::new(patch.to_string().as_bytes()))
        };
        assert_eq!(read(&patch), Some((key("r"), written.clone())));
        // Others may add conditions, and the server may have its own order.
        let mut changed = patch.clone();
        let conditions = changed["status"]["conditions"].as_array_mut().unwrap();
        conditions.reverse();
        let mut foreign = conditions[0].clone();
        foreign["type"] = "Foreign".into();
        conditions.insert(1, foreign);
        changed["status"]["later"] = true.into();
        assert_eq!(read(&changed), Some((key("r"), written)));
        for (field, odd) in [("status", json!(null)), ("status", json!({ "conditions": [7] }))] {
            let mut changed = patch.clone();
            changed[field] = odd;
            assert_eq!(read(&changed), None);
        }
    }

    #[test]
    fn warnings_are_of_what_is_wrong_and_new() {
        let warned = |said: &RouteStatus, before: Option<&WrittenStatus>| {
            let written = next(said, before, 10);
            let warnings = written.warnings(before).into_iter();
            let warnings: Vec<String> = warnings.map(|one| one.message.clone()).collect();
            (written, warnings)
        };
        let mut bad = status("r", Some("bad"));
        bad.conditions[2].status = false;
        bad.conditions[2].reason = "NotAccepted";
        let (first, warnings) = warned(&bad, None);
        assert_eq!(warnings, ["bad"], "and not what only follows from it");
        let again = RouteStatus { observed_generation: Some(2), ..bad.clone() };
        assert!(warned(&again, Some(&first)).1.is_empty());
        assert_eq!(warned(&status("r", Some("worse")), Some(&first)).1, ["worse"]);
        let (good, warnings) = warned(&status("r", None), Some(&first));
        assert!(warnings.is_empty());
        let mut partial = status("r", None);
        partial.conditions[0].message = "one hostname is another's".to_owned();
        assert_eq!(warned(&partial, Some(&good)).1.len(), 1);
        let recreated = RouteStatus { uid: Some("other".into()), ..bad };
        assert_eq!(warned(&recreated, Some(&first)).1, ["bad"]);
    }
}
