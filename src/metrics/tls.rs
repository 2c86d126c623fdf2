//! Metrics of the TLS that routes serve, read from the routing table for each scrape.

use std::collections::BTreeMap;

use prometheus::core::Desc;
use prometheus::proto::{MetricFamily, MetricType};

use super::table::{family, gauge};
use crate::routing::Table;
use crate::termination::{CertificateFacts, Termination};

/// What the metrics are called.
#[derive(Debug)]
pub(super) struct TlsDescs {
    routes: Desc,
    not_before: Desc,
    not_after: Desc,
}

/// The values of `state`: it is served; it is, with something that is older than what the Secret or ConfigMap has
/// now; its connections are refused.
const STATES: [&str; 3] = ["served", "stale", "refused"];

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
                "From when on a certificate is valid that routes serve, by its Secret, in seconds since 1970.",
                &["namespace", "secret"],
            )?,
            not_after: desc(
                "certificate_not_after_seconds",
                "When a certificate expires that routes serve, by its Secret, in seconds since 1970.",
                &["namespace", "secret"],
            )?,
        })
    }

    pub(super) fn all(&self) -> [&Desc; 3] {
        [&self.routes, &self.not_before, &self.not_after]
    }

    pub(super) fn collect(&self, table: &Table) -> [MetricFamily; 3] {
        let mut states = [0; STATES.len()];
        let mut certificates: BTreeMap<&str, &CertificateFacts> = BTreeMap::new();
        for route in table.routes() {
            let Some(termination) = route.spec.termination.as_deref() else { continue };
            let index = state(termination);
            states.iter_mut().skip(index).take(1).for_each(|count| *count += 1);
            for (text, facts) in termination.certificates() {
                // Of several versions of a Secret, the one that expires first.
                let known = certificates.entry(&text.secret).or_insert(facts);
                if facts.not_after < known.not_after {
                    *known = facts;
                }
            }
        }
        let states = STATES.into_iter().zip(states);
        let states = states.map(|(state, count)| gauge(&[("state", state)], count)).collect();
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

/// The index of its state in [`STATES`].
fn state(termination: &Termination) -> usize {
    match termination.server() {
        Ok(_) if termination.is_stale() => 1,
        Ok(_) => 0,
        Err(_) => 2,
    }
}
