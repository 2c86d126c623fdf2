//! What is said of the certificates of endpoints. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use ahash::AHashMap as HashMap;
use k8s_openapi::jiff::Timestamp;

use super::certificates::{CertificateView, ServerCertificate, Trust};
use super::plan::CheckKey;
use super::problems::{ProblemKind, Problems};
use crate::control::status::Condition;
use crate::policy::VerifyMode;
use crate::routing::{BackendKey, CheckMethod, ObjectRef, Route, RouteKey, Table};

/// The most hostnames that a message names.
const MOST_NAMED: usize = 4;
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
        let views = table.routes().filter_map(|route| RouteView::of(route, &seen));
        let views: Vec<RouteView<'_>> = views.collect();
        let shared = SharedWildcards::of(&views);
        let mut objects: BTreeMap<&ObjectRef, Problems> = BTreeMap::new();
        let mut report = CertificateReport::default();
        for view in &views {
            let object = view.route.spec.key.object();
            view.tell(now, &shared, objects.entry(object).or_default());
            let expiries = view.certificates().map(|(_, certificate)| certificate.not_after);
            let first = expiries.min().and_then(|first| u64::try_from(first).ok());
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

    fn certificates(&self) -> impl Iterator<Item = (SocketAddr, &'t Arc<ServerCertificate>)> {
        let seen = self.endpoints.iter();
        seen.filter_map(|(address, view)| Some((*address, view.certificate.as_ref()?)))
    }

    fn tell(&self, now: i64, shared: &SharedWildcards<'_>, problems: &mut Problems) {
        for (address, view) in &self.endpoints {
            match &view.trust {
                Trust::NotAsked | Trust::Vouched => {}
                Trust::NotVouched(cause) => {
                    problems.add(ProblemKind::NotTrusted, (*cause).to_owned(), Some(*address));
                }
                Trust::NoAuthority(fault) => {
                    let what = format!("ConfigMap {} of ca: {fault}", self.config_map());
                    problems.add(ProblemKind::of_authority(fault), what, None);
                }
            }
        }
        for (address, certificate) in self.certificates() {
            let of_names = self.names_missing(certificate).map(|what| (ProblemKind::Name, what));
            let of_others = shared.other(self.route, certificate).map(|other| {
                let what = format!(
                    "{other} has the same wildcard certificate and other backends, and both may speak h2: \
                     browsers send requests for either over one connection"
                );
                (ProblemKind::SharedWildcard, what)
            });
            for (kind, what) in dates(certificate, now).into_iter().chain(of_names).chain(of_others)
            {
                problems.add(kind, what, Some(address));
            }
        }
    }

    /// Which hostnames of the route a certificate does not have.
    fn names_missing(&self, certificate: &ServerCertificate) -> Option<String> {
        let missing = self.route.spec.hostnames().filter(|hostname| !certificate.covers(hostname));
        let missing: BTreeSet<String> = missing.map(|hostname| hostname.to_string()).collect();
        let named: Vec<&str> = missing.iter().take(MOST_NAMED).map(String::as_str).collect();
        let more = match missing.len().saturating_sub(named.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!named.is_empty()).then(|| format!("it does not have {}{more}", named.join(", ")))
    }

    fn config_map(&self) -> String {
        match self.route.check.as_ref().map(|check| &check.method) {
            Some(CheckMethod::Tls(tls)) => {
                tls.ca.as_ref().map(ToString::to_string).unwrap_or_default()
            }
            Some(CheckMethod::Tcp) | None => String::new(),
        }
    }

    /// Whether clients may speak h2 with it.
    fn speaks_h2(&self, address: SocketAddr) -> bool {
        let alpn = &self.route.spec.alpn;
        match alpn.is_empty() {
            true => self.endpoints.get(&address).is_some_and(|view| view.h2),
            false => alpn.iter().any(|protocol| &**protocol == "h2"),
        }
    }
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

/// The certificates whose wildcards stand for hostnames of several routes with different backends. A browser that
/// speaks h2 with one of them may send the requests for the others over the same connection (RFC 9113 §9.1.1).
struct SharedWildcards<'t>(HashMap<[u64; 2], Vec<(&'t Route, BTreeSet<&'t BackendKey>)>>);

impl<'t> SharedWildcards<'t> {
    fn of(views: &[RouteView<'t>]) -> Self {
        let mut routes: HashMap<[u64; 2], Vec<(&Route, BTreeSet<&BackendKey>)>> = HashMap::new();
        for view in views {
            let mut known = BTreeSet::new();
            for (address, certificate) in view.certificates() {
                let mut hostnames = view.route.spec.hostnames();
                let shares = view.speaks_h2(address)
                    && hostnames.any(|hostname| certificate.has_wildcard_for(&hostname));
                if shares && known.insert(certificate.id) {
                    let sharing = routes.entry(certificate.id).or_default();
                    sharing.push((view.route, backends(view.route)));
                }
            }
        }
        routes.retain(|_, sharing| {
            let mut backends = sharing.iter().map(|(_, backends)| backends);
            let first = backends.next();
            backends.any(|other| Some(other) != first)
        });
        SharedWildcards(routes)
    }

    /// The first other route, with other backends, that has a certificate as well. Of another namespace, nothing is
    /// told.
    fn other(&self, route: &Route, certificate: &ServerCertificate) -> Option<String> {
        let sharing = self.0.get(&certificate.id)?;
        let is_own = |other: &Route| other.spec.key == route.spec.key;
        let (_, own) = sharing.iter().find(|(other, _)| is_own(other))?;
        let others = sharing.iter().filter(|(other, backends)| !is_own(other) && backends != own);
        let same = |key: &RouteKey| key.namespace() == route.spec.key.namespace();
        let first =
            others.map(|(other, _)| &other.spec.key).min_by_key(|key| (!same(key), *key))?;
        Some(match same(first) {
            true => format!("route {}", first.object()),
            false => "a route of another namespace".to_owned(),
        })
    }
}

fn backends(route: &Route) -> BTreeSet<&BackendKey> {
    let used = route.backends.iter().filter(|share| share.weight > 0);
    used.map(|share| share.backend.key()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
