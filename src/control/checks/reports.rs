//! What is said of the certificates of endpoints. Pure.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap as HashMap;
use k8s_openapi::jiff::Timestamp;

use super::certificates::{CertificateView, ServerCertificate, Trust};
use super::plan::CheckKey;
use super::problems::{AffectedEndpoints, ProblemKind, Problems};
use super::shared_wildcards::SharedWildcards;
use crate::control::status::Condition;
use crate::policy::VerifyMode;
use crate::routing::{Backend, CheckParams, ObjectRef, Route, RouteKey, Table, TlsCheck};

/// The most different things that are told of the endpoints of a backend: with a certificate for each of them, a report
/// would take the number of endpoints times that of routes.
const MOST_SHOWN: usize = 32;
/// What is said of a route to which `verify: Enforce` of the installation does not apply.
const NO_NAME: &str = "verify: Enforce decides nothing, because the check has no name to ask for: no hostname of the \
                       route is an exact one; write health.active with serverName on the route";
/// A certificate expires soon if less is left, or less than a tenth of its time: whatever renews it does that earlier.
const SOON: i64 = 7 * 24 * 3600;

/// What the checks have seen of the certificates of routes. Routes of which nothing was seen are left out.
#[derive(Debug, Default)]
pub(super) struct CertificateReport {
    /// The condition of each route.
    pub(super) conditions: BTreeMap<ObjectRef, Condition>,
    /// When the first of a route's certificates expires, in seconds since 1970.
    pub(super) expiries: HashMap<RouteKey, u64>,
    /// How many routes have each kind of problem, in the order of [`ProblemKind::ALL`].
    pub(super) problems: [usize; ProblemKind::ALL.len()],
}

impl CertificateReport {
    /// What there is to say at `now`, in seconds since 1970, of what was `seen`.
    pub(super) fn of<'s>(
        table: &'s Table,
        now: i64,
        seen: impl Fn(&CheckKey) -> Option<&'s CertificateView>,
    ) -> Self {
        let mut known = HashMap::new();
        let views = table.routes().filter_map(|route| RouteView::of(route, &mut known, &seen));
        let mut views: Vec<RouteView<'_>> = views.collect();
        views.sort_by(|one, other| one.route.spec.key.cmp(&other.route.spec.key));
        let shared = SharedWildcards::of(&views);
        let mut objects: BTreeMap<&ObjectRef, Problems> = BTreeMap::new();
        let mut report = CertificateReport::default();
        for view in &views {
            let object = view.route.spec.key.object();
            view.tell(now, &shared, objects.entry(object).or_default());
            let first = view.views.iter().filter_map(|view| view.expiry).min();
            let first = first.and_then(|first| u64::try_from(first).ok());
            report.expiries.extend(first.map(|first| (view.route.spec.key.clone(), first)));
        }
        for (object, problems) in objects {
            problems.kinds().for_each(|kind| {
                // In bounds: every kind is its own index in `ProblemKind::ALL`.
                report.problems[kind as usize] += 1;
            });
            report.conditions.insert(object.clone(), problems.condition());
        }
        report
    }
}

/// What the endpoints of a backend show to one kind of checks. All routes that check it alike share it.
struct BackendView<'t> {
    /// Each once, what is wrong first.
    shown: Vec<ShownView<'t>>,
    /// When the first of the certificates expires.
    expiry: Option<i64>,
}

struct ShownView<'t> {
    view: &'t CertificateView,
    endpoints: AffectedEndpoints,
}

impl<'t> BackendView<'t> {
    fn of(
        backend: &Backend,
        params: &Arc<CheckParams>,
        seen: &impl Fn(&CheckKey) -> Option<&'t CertificateView>,
    ) -> Self {
        let mut shown: HashMap<_, ShownView<'_>> = HashMap::new();
        for endpoint in backend.endpoints().iter() {
            let key = CheckKey { address: endpoint.address, params: Arc::clone(params) };
            let Some(view) = seen(&key) else { continue };
            let own = AffectedEndpoints::one(endpoint.address);
            let id = view.certificate.as_ref().map(|certificate| certificate.id);
            match shown.entry((id, &view.trust, view.h2)) {
                Entry::Occupied(known) => known.into_mut().endpoints.add(own),
                Entry::Vacant(new) => {
                    new.insert(ShownView { view, endpoints: own });
                }
            }
        }
        let expires = |view: &CertificateView| Some(view.certificate.as_ref()?.not_after);
        let expiry = shown.values().filter_map(|one| expires(one.view)).min();
        let mut shown: Vec<_> = shown.into_values().collect();
        shown.sort_by_key(|one| {
            let is_right = matches!(one.view.trust, Trust::NotAsked | Trust::Vouched);
            (is_right, expires(one.view), one.endpoints.first)
        });
        shown.truncate(MOST_SHOWN);
        BackendView { shown, expiry }
    }
}

/// What was seen of the endpoints of a route.
pub(super) struct RouteView<'t> {
    pub(super) route: &'t Route,
    /// The backends of which each client gets one, always in the same order.
    pub(super) backends: Vec<*const Backend>,
    /// The certificates, each once.
    pub(super) certificates: BTreeMap<[u64; 2], RouteCertificate<'t>>,
    views: Vec<Rc<BackendView<'t>>>,
}

/// A certificate that endpoints of a route show.
pub(super) struct RouteCertificate<'t> {
    pub(super) certificate: &'t ServerCertificate,
    endpoints: AffectedEndpoints,
    /// Whether clients may speak h2 with one of them.
    pub(super) h2: bool,
}

impl<'t> RouteView<'t> {
    fn of(
        route: &'t Route,
        known: &mut HashMap<(*const Backend, *const CheckParams), Rc<BackendView<'t>>>,
        seen: &impl Fn(&CheckKey) -> Option<&'t CertificateView>,
    ) -> Option<Self> {
        let params = route.check.as_ref().filter(|check| check.verify() != VerifyMode::None)?;
        let used = route.backends.iter().filter(|share| share.weight > 0);
        let used: BTreeMap<_, _> =
            used.map(|share| (Arc::as_ptr(&share.backend), &*share.backend)).collect();
        let views = used.iter().map(|(id, backend)| {
            let view = known.entry((*id, Arc::as_ptr(params)));
            Rc::clone(view.or_insert_with(|| Rc::new(BackendView::of(backend, params, seen))))
        });
        let views: Vec<_> = views.filter(|view| !view.shown.is_empty()).collect();
        let (backends, certificates) = (used.into_keys().collect(), certificates(route, &views));
        (!views.is_empty()).then_some(RouteView { route, backends, certificates, views })
    }

    fn tell(&self, now: i64, shared: &SharedWildcards<'_>, problems: &mut Problems) {
        self.tell_of_trust(problems);
        for (id, RouteCertificate { certificate, endpoints, .. }) in &self.certificates {
            let missing = self.checked_name().filter(|name| !certificate.covers(name));
            let of_name =
                missing.map(|name| (ProblemKind::Name, format!("it does not have {name}")));
            let of_others = shared.other(self, *id).map(|other| {
                let what = format!(
                    "{other} has the same wildcard certificate and other backends, and both may speak h2: \
                     browsers send requests for either over one connection"
                );
                (ProblemKind::SharedWildcard, what)
            });
            for (kind, what) in dates(certificate, now).into_iter().chain(of_name).chain(of_others)
            {
                problems.add(kind, what, Some(*endpoints));
            }
        }
    }

    fn tell_of_trust(&self, problems: &mut Problems) {
        if self.verifies_no_name() {
            problems.add(ProblemKind::NoName, NO_NAME.to_owned(), None);
        }
        for ShownView { view, endpoints } in self.views.iter().flat_map(|view| &view.shown) {
            match &view.trust {
                Trust::NotAsked | Trust::Vouched => {}
                Trust::NotVouched(cause) => {
                    problems.add(ProblemKind::NotTrusted, (*cause).to_owned(), Some(*endpoints));
                }
                Trust::NoAuthority(fault) => {
                    let what = format!("ConfigMap {} of ca: {fault}", self.config_map());
                    problems.add(ProblemKind::of_authority(fault), what, None);
                }
            }
        }
    }

    /// Whether the installation's `Enforce` decides nothing here.
    fn verifies_no_name(&self) -> bool {
        self.tls().is_some_and(|tls| tls.verify == VerifyMode::Enforce && !tls.enforces())
    }

    /// The name that the check asks for. Only for this one it is known which certificate a client gets.
    pub(super) fn checked_name(&self) -> Option<&'t str> {
        self.tls()?.server_name.as_deref()
    }

    fn tls(&self) -> Option<&'t TlsCheck> {
        self.route.check.as_ref()?.tls()
    }

    fn config_map(&self) -> String {
        let ca = self.tls().and_then(|tls| tls.ca.as_ref());
        ca.map(ToString::to_string).unwrap_or_default()
    }
}

/// The certificates that are shown, each once.
fn certificates<'t>(
    route: &Route,
    views: &[Rc<BackendView<'t>>],
) -> BTreeMap<[u64; 2], RouteCertificate<'t>> {
    let alpn = &route.spec.alpn;
    let mut certificates: BTreeMap<_, RouteCertificate<'t>> = BTreeMap::new();
    for ShownView { view, endpoints } in views.iter().flat_map(|view| &view.shown) {
        let Some(certificate) = &view.certificate else { continue };
        let h2 = match alpn.is_empty() {
            true => view.h2,
            false => alpn.iter().any(|protocol| &**protocol == "h2"),
        };
        let endpoints = *endpoints;
        certificates
            .entry(certificate.id)
            .and_modify(|known| {
                known.endpoints.add(endpoints);
                known.h2 |= h2;
            })
            .or_insert(RouteCertificate { certificate, endpoints, h2 });
    }
    certificates
}

/// A problem with the dates of a certificate.
fn dates(certificate: &ServerCertificate, now: i64) -> Option<(ProblemKind, String)> {
    let ServerCertificate { not_before, not_after, .. } = *certificate;
    let time = |seconds: i64| {
        Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
    };
    let left = not_after.saturating_sub(now);
    let soon = SOON.min(not_after.saturating_sub(not_before) / 10);
    if left < 0 {
        Some((ProblemKind::Expired, format!("it expired at {}", time(not_after))))
    } else if now < not_before {
        Some((ProblemKind::NotYetValid, format!("it is not valid before {}", time(not_before))))
    } else {
        let what = || format!("it expires at {}", time(not_after));
        (left < soon).then(|| (ProblemKind::ExpiresSoon, what()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
