//! Metrics of the TLS that routes serve, read from the routing table for each scrape.

use std::collections::BTreeMap;

use prometheus::core::Desc;
use prometheus::proto::{MetricFamily, MetricType};

use super::table::{family, gauge};
use crate::routing::Table;
use crate::termination::{CertificateFacts, TlsState};

/// What the metrics are called.
#[derive(Debug)]
pub(super) struct TlsDescs {
    routes: Desc,
    not_before: Desc,
    not_after: Desc,
}

/// The states, each with its value of `state`.
const STATES: [(TlsState, &str); 3] =
    [(TlsState::Served, "served"), (TlsState::Stale, "stale"), (TlsState::Refused, "refused")];

impl TlsDescs {
    pub(super) fn new(
        desc: impl Fn(&str, &str, &[&str]) -> prometheus::Result<Desc>,
    ) -> prometheus::Result<Self> {
        Ok(TlsDescs {
            routes: desc(
                "tls_routes",
                "Routes that terminate TLS, by state: served, stale (with a certificate or authorities that \
                 are older than those in the Secret or ConfigMap, which cannot be used), or refused (for want \
                 of a certificate or authorities).",
                &["state"],
            )?,
            not_before: desc(
                "certificate_not_before_seconds",
                "From when on a certificate is valid that routes show to clients or backends, by its Secret, in \
                 seconds since 1970.",
                &["namespace", "secret"],
            )?,
            not_after: desc(
                "certificate_not_after_seconds",
                "When a certificate expires that routes show to clients or backends, by its Secret, in seconds \
                 since 1970.",
                &["namespace", "secret"],
            )?,
        })
    }

    pub(super) fn all(&self) -> [&Desc; 3] {
        [&self.routes, &self.not_before, &self.not_after]
    }

    pub(super) fn collect(&self, table: &Table) -> [MetricFamily; 3] {
        let mut counts = STATES.map(|(state, label)| (state, label, 0));
        let mut certificates: BTreeMap<&str, &CertificateFacts> = BTreeMap::new();
        for route in table.routes() {
            let Some(termination) = route.spec.termination.as_deref() else { continue };
            let state = termination.state();
            counts.iter_mut().filter(|(one, ..)| *one == state).for_each(|(.., count)| *count += 1);
            let certificates_of_route =
                termination.certificates().chain(termination.upstream_certificate());
            for (text, facts) in certificates_of_route {
                // Of several versions of a Secret, the one that expires first.
                let known = certificates.entry(&text.secret).or_insert(facts);
                if facts.not_after < known.not_after {
                    *known = facts;
                }
            }
        }
        let states = counts.map(|(_, label, count)| gauge(&[("state", label)], count)).into();
        let times = |time: fn(&CertificateFacts) -> i64| {
            let times = certificates.iter().map(|(secret, facts)| {
                let (namespace, name) = secret.split_once('/').unwrap_or(("", secret));
                let time = u64::try_from(time(facts)).unwrap_or_default();
                gauge(&[("namespace", namespace), ("secret", name)], time)
            });
            times.collect()
        };
        [
            family(&self.routes, MetricType::GAUGE, states),
            family(&self.not_before, MetricType::GAUGE, times(|facts| facts.not_before)),
            family(&self.not_after, MetricType::GAUGE, times(|facts| facts.not_after)),
        ]
    }
}
