//! What of an object's status is sluice's, and how it is made of what there is to say.
//!
//! Each kind has a status of its own: a new one has a line in [`REPORTED`] and an arm in [`StatusBody`] and
//! its functions. Nothing else of the writing knows kinds apart.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as ApiCondition, Time};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BACKEND_CERTIFICATE, CertificateStatus, Condition, KINDS, RouteStatus};
use crate::control::api::SniRouteStatus;
use crate::control::objects::ObjectText;
use crate::routing::Kind;

/// The kinds of objects whose status is written.
pub(super) const REPORTED: [Kind; 1] = [Kind::SniRoute];

/// The status of an object, as far as it is sluice's.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum StatusBody {
    SniRoute(SniRouteStatus),
}

impl StatusBody {
    /// What an object of a kind has. A status that cannot be read is as good as none.
    pub(super) fn read(kind: Kind, object: &ObjectText) -> Option<Self> {
        match kind {
            Kind::SniRoute => read_sni_route(object).map(StatusBody::SniRoute),
            _ => None,
        }
    }

    /// What is to be written `now` instead of `before`. A condition keeps the time of its last
    /// transition unless its status changes.
    pub(super) fn next(
        said: &RouteStatus,
        before: Option<&StatusBody>,
        now: Timestamp,
    ) -> Option<Self> {
        let before = before.map(StatusBody::conditions).unwrap_or_default();
        match said.object.kind {
            Kind::SniRoute => Some(StatusBody::SniRoute(sni_route(said, before, now))),
            _ => None,
        }
    }

    /// All conditions in it.
    pub(super) fn conditions(&self) -> &[ApiCondition] {
        match self {
            StatusBody::SniRoute(status) => &status.conditions,
        }
    }
}

/// Of its conditions those that are ours, in our order.
fn read_sni_route(object: &ObjectText) -> Option<SniRouteStatus> {
    #[derive(Deserialize)]
    struct UsedRoute {
        status: SniRouteStatus,
    }

    let UsedRoute { mut status } = object.parse().ok()?;
    let place = |condition: &ApiCondition| KINDS.iter().position(|k| *k == condition.type_);
    status.conditions.retain(|condition| place(condition).is_some());
    status.conditions.sort_by_key(place);
    Some(status)
}

fn sni_route(said: &RouteStatus, before: &[ApiCondition], now: Timestamp) -> SniRouteStatus {
    let made = |condition: &Condition| {
        let former = before.iter().find(|former| former.type_ == condition.kind);
        made(condition, said.observed_generation, former, now)
    };
    let is_certificate = |former: &&ApiCondition| former.type_ == BACKEND_CERTIFICATE;
    let kept = match &said.certificate {
        CertificateStatus::Unknown => before.iter().find(is_certificate).cloned(),
        CertificateStatus::NotAsked | CertificateStatus::Known(_) => None,
    };
    SniRouteStatus {
        conditions: said.known_conditions().map(made).chain(kept).collect(),
        hostnames: said.hostnames.clone(),
        endpoints: Some(i32::try_from(said.endpoints).unwrap_or(i32::MAX)),
    }
}

fn made(
    condition: &Condition,
    observed_generation: Option<i64>,
    former: Option<&ApiCondition>,
    now: Timestamp,
) -> ApiCondition {
    let status = if condition.status { "True" } else { "False" };
    let former = former.filter(|former| former.status == status);
    // Written in whole seconds, and so kept in whole seconds.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    ApiCondition {
        last_transition_time: former
            .map_or(Time(now), |former| former.last_transition_time.clone()),
        message: condition.message.clone(),
        observed_generation,
        reason: condition.reason.to_owned(),
        status: status.to_owned(),
        type_: condition.kind.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::status;
    use super::*;
    use crate::routing::ObjectRef;

    #[test]
    fn a_condition_about_certificates_stays_until_something_else_is_known() {
        let with = |certificate| RouteStatus { certificate, ..status("r", None) };
        let next = |said: &RouteStatus, before: Option<&StatusBody>| {
            StatusBody::next(said, before, Timestamp::UNIX_EPOCH).unwrap()
        };
        let kinds = |body: &StatusBody| body.conditions().len();
        let condition = Condition {
            kind: BACKEND_CERTIFICATE,
            status: false,
            reason: "Bad",
            message: "bad".to_owned(),
        };
        let first = next(&with(CertificateStatus::Unknown), None);
        assert_eq!(kinds(&first), 3);
        let known = next(&with(CertificateStatus::Known(condition)), Some(&first));
        assert_eq!(kinds(&known), 4);
        assert_eq!(next(&with(CertificateStatus::Unknown), Some(&known)), known);
        assert_eq!(kinds(&next(&with(CertificateStatus::NotAsked), Some(&known))), 3);
    }

    #[test]
    fn each_kind_that_is_reported_has_a_body_and_no_other() {
        for kind in Kind::ALL {
            let object = ObjectRef::new(kind, status("r", None).object.key);
            let said = RouteStatus { object, ..status("r", None) };
            let body = StatusBody::next(&said, None, Timestamp::UNIX_EPOCH);
            assert_eq!(body.is_some(), REPORTED.contains(&kind), "{kind}");
            let Some(body) = body else { continue };
            let object = serde_json::json!({ "metadata": {}, "status": body }).to_string();
            assert_eq!(StatusBody::read(kind, &ObjectText::new(object.as_bytes())), Some(body));
        }
    }
}
