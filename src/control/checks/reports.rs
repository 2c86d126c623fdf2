//! The conditions about the certificates of endpoints. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::certificates::{CertificateView, Trust};
use super::plan::CheckKey;
use crate::control::status::{BACKEND_CERTIFICATE, Condition};
use crate::policy::VerifyMode;
use crate::routing::{CheckMethod, ObjectRef, Route, Table};

/// The most problems that a condition names.
const MOST_TOLD: usize = 8;

/// What the checks have seen of the certificates of each route that wants to know. Routes of which nothing was
/// seen are left out.
pub(super) fn conditions<'s>(
    table: &'s Table,
    seen: impl Fn(&CheckKey) -> Option<&'s CertificateView>,
) -> BTreeMap<ObjectRef, Condition> {
    let mut views: BTreeMap<&ObjectRef, Vec<RouteView<'_>>> = BTreeMap::new();
    for route in table.routes() {
        let view = RouteView::of(route, &seen);
        view.into_iter().for_each(|view| {
            views.entry(route.spec.key.object()).or_default().push(view);
        });
    }
    let conditions = views.into_iter().map(|(object, views)| {
        let mut problems = Problems::default();
        views.iter().for_each(|view| view.tell(&mut problems));
        (object.clone(), problems.condition())
    });
    conditions.collect()
}

/// What was seen of the endpoints of a route.
struct RouteView<'t> {
    route: &'t Route,
    endpoints: BTreeMap<SocketAddr, &'t CertificateView>,
}

impl<'t> RouteView<'t> {
    fn of(
        route: &'t Route,
        seen: &impl Fn(&CheckKey) -> Option<&'t CertificateView>,
    ) -> Option<Self> {
        let params = route.check.as_ref().filter(|check| check.verify() != VerifyMode::None)?;
        let mut endpoints = BTreeMap::new();
        for share in route.backends.iter().filter(|share| share.weight > 0) {
            for endpoint in share.backend.endpoints().iter() {
                let key = CheckKey { address: endpoint.address, params: Arc::clone(params) };
                endpoints.extend(seen(&key).map(|view| (endpoint.address, view)));
            }
        }
        (!endpoints.is_empty()).then_some(RouteView { route, endpoints })
    }

    fn tell(&self, problems: &mut Problems) {
        for (address, view) in &self.endpoints {
            match &view.trust {
                Trust::NotAsked | Trust::Vouched => {}
                Trust::NotVouched(cause) => {
                    problems.add(ProblemKind::NotVouched, (*cause).to_owned(), Some(*address));
                }
                Trust::NoAuthority(fault) => {
                    let ca = self.config_map();
                    let kind = ProblemKind::NoAuthority(fault.reason());
                    problems.add(kind, format!("ConfigMap {ca} of ca: {fault}"), None);
                }
            }
        }
    }

    fn config_map(&self) -> String {
        match self.route.check.as_ref().map(|check| &check.method) {
            Some(CheckMethod::Tls(tls)) => {
                tls.ca.as_ref().map(ToString::to_string).unwrap_or_default()
            }
            Some(CheckMethod::Tcp) | None => String::new(),
        }
    }
}

/// A kind of problems, the worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ProblemKind {
    NoAuthority(&'static str),
    NotVouched,
}

impl ProblemKind {
    /// The reason of the condition, one CamelCase word.
    fn reason(self) -> &'static str {
        match self {
            ProblemKind::NoAuthority(reason) => reason,
            ProblemKind::NotVouched => "CertificateNotTrusted",
        }
    }
}

/// The problems of a route, each with the endpoints that have it.
#[derive(Default)]
struct Problems(BTreeMap<(ProblemKind, String), Vec<SocketAddr>>);

impl Problems {
    fn add(&mut self, kind: ProblemKind, what: String, endpoint: Option<SocketAddr>) {
        self.0.entry((kind, what)).or_default().extend(endpoint);
    }

    fn condition(self) -> Condition {
        let reason = self.0.keys().next().map_or(VALID, |(kind, _)| kind.reason());
        let more = self.0.len().saturating_sub(MOST_TOLD);
        let told = self.0.iter().take(MOST_TOLD);
        let told = told.map(|((_, what), endpoints)| match endpoints.as_slice() {
            [] => what.clone(),
            [one] => format!("the certificate of {one}: {what}"),
            [one, others @ ..] => {
                format!("the certificates of {one} and {} more: {what}", others.len())
            }
        });
        let mut message = told.collect::<Vec<_>>().join("; ");
        if more > 0 {
            message.push_str(&format!("; and {more} more"));
        }
        Condition { kind: BACKEND_CERTIFICATE, status: self.0.is_empty(), reason, message }
    }
}

/// The reason of the condition if there is no problem.
const VALID: &str = "Valid";
