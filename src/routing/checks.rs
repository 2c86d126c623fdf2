//! Active health checks: what a check does, and the state that its results lead to.
//!
//! A route has at most one [`CheckParams`], shared by all routes that check in the same way. An endpoint keeps a
//! [`CheckState`] for each of those that it is checked by. The control plane makes the checks and changes the
//! states; the data plane only reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::slow_start::{Arrival, WeightPart};
use super::{Moment, ObjectKey};
use crate::policy::{AlpnProtocol, ProxyVersion, VerifyMode};

/// What a check of an endpoint does, and how its results are judged. In a table, equal ones are the same [`Arc`],
/// so the pointer is the identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CheckParams {
    /// How the endpoint is checked.
    pub method: CheckMethod,
    /// The PROXY header that the endpoint expects before anything else.
    pub proxy_header: Option<ProxyVersion>,
    /// The time between two checks.
    pub interval: Duration,
    /// How long one check may take.
    pub timeout: Duration,
    /// How many failures in a row make an endpoint unhealthy.
    pub unhealthy: u32,
    /// How many successes in a row make it healthy again.
    pub healthy: u32,
}

impl CheckParams {
    /// What is made of the certificate of an endpoint.
    pub fn verify(&self) -> VerifyMode {
        match &self.method {
            CheckMethod::Tcp => VerifyMode::None,
            CheckMethod::Tls(tls) => tls.verify,
        }
    }

    /// The TLS part of a check, if it has one.
    pub fn tls(&self) -> Option<&TlsCheck> {
        match &self.method {
            CheckMethod::Tcp => None,
            CheckMethod::Tls(tls) => Some(tls),
        }
    }
}

/// How an endpoint is checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CheckMethod {
    /// By a TCP connection.
    Tcp,
    /// By a TLS handshake.
    Tls(TlsCheck),
}

/// The handshake of a check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsCheck {
    /// The name that it asks for, if any.
    pub server_name: Option<Box<str>>,
    /// The protocols that it offers.
    pub alpn: Vec<AlpnProtocol>,
    /// What is made of the certificate.
    pub verify: VerifyMode,
    /// The ConfigMap with the certificates of the authorities.
    pub ca: Option<ObjectKey>,
}

impl TlsCheck {
    /// Whether a server fails with a certificate that no authority vouches for. They vouch for a name, so without one,
    /// no certificate is a failure.
    pub fn enforces(&self) -> bool {
        self.verify == VerifyMode::Enforce && self.server_name.is_some()
    }
}

/// The state of an endpoint, according to one kind of checks.
#[derive(Debug, Default)]
pub struct CheckState {
    verdict: AtomicU8,
    /// When it was last found healthy again.
    arrival: Arrival,
}

/// What a [`CheckState`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CheckVerdict {
    /// There is no result yet. It counts as healthy.
    #[default]
    Unknown,
    /// It has passed.
    Healthy,
    /// It has failed.
    Unhealthy,
}

impl CheckState {
    /// The current verdict.
    pub fn get(&self) -> CheckVerdict {
        match self.verdict.load(Ordering::Relaxed) {
            1 => CheckVerdict::Healthy,
            2 => CheckVerdict::Unhealthy,
            _ => CheckVerdict::Unknown,
        }
    }

    /// Sets the verdict.
    pub fn set(&self, verdict: CheckVerdict) {
        self.verdict.store(verdict as u8, Ordering::Relaxed);
    }

    /// Records that the endpoint was found healthy again: for routes with these checks, it starts slowly.
    pub fn recovered(&self, now: Moment) {
        self.arrival.begin(now);
    }
}

/// A kind of checks that an endpoint undergoes, with their state.
pub type CheckEntry = (Arc<CheckParams>, Arc<CheckState>);

/// The checks of one endpoint, in the order of the addresses of their parameters. Nearly all endpoints have none or one,
/// but one that a thousand routes check by their own hostnames has a thousand, and every connection looks for its own.
#[derive(Debug, Default)]
pub(super) struct EndpointChecks(ArcSwapOption<Vec<CheckEntry>>);

impl EndpointChecks {
    /// The state by these checks.
    pub(super) fn verdict(&self, params: &Arc<CheckParams>) -> CheckVerdict {
        self.of(params, CheckState::get).unwrap_or_default()
    }

    /// The part of the weight that the endpoint has since these checks found it healthy again.
    pub(super) fn part(
        &self,
        params: &Arc<CheckParams>,
        now: Moment,
        over: Duration,
    ) -> WeightPart {
        let part = self.of(params, |state| state.arrival.part(now, over));
        part.unwrap_or(WeightPart::WHOLE)
    }

    fn of<T>(&self, params: &Arc<CheckParams>, get: impl FnOnce(&CheckState) -> T) -> Option<T> {
        let entries = self.0.load();
        let entries = entries.as_ref().map_or(&[][..], |entries| entries.as_slice());
        entry(entries, params, identity).map(|(_, state)| get(state))
    }

    /// Replaces all entries, unless they are the same.
    pub(super) fn set(&self, entries: &[CheckEntry]) {
        let mut entries = entries.to_vec();
        entries.sort_unstable_by_key(identity);
        let same = |(one, other): (&CheckEntry, &CheckEntry)| {
            Arc::ptr_eq(&one.0, &other.0) && Arc::ptr_eq(&one.1, &other.1)
        };
        let before = self.0.load();
        let before = before.as_ref().map_or(&[][..], |before| before.as_slice());
        if before.len() == entries.len() && before.iter().zip(&entries).all(same) {
            return;
        }
        self.0.store((!entries.is_empty()).then(|| Arc::new(entries)));
    }
}

fn identity((params, _): &CheckEntry) -> *const CheckParams {
    Arc::as_ptr(params)
}

/// The entry of these parameters, among entries in the order of their identities.
fn entry<'e>(
    entries: &'e [CheckEntry],
    params: &Arc<CheckParams>,
    identity: impl FnMut(&CheckEntry) -> *const CheckParams,
) -> Option<&'e CheckEntry> {
    entries.get(entries.binary_search_by_key(&Arc::as_ptr(params), identity).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(seconds: u64) -> CheckParams {
        CheckParams {
            method: CheckMethod::Tcp,
            proxy_header: None,
            interval: Duration::from_secs(seconds),
            timeout: Duration::from_secs(3),
            unhealthy: 3,
            healthy: 2,
        }
    }

    #[test]
    fn an_endpoint_is_unknown_to_checks_that_it_does_not_have() {
        let (one, other) = (Arc::new(params(1)), Arc::new(params(2)));
        let (checks, state) = (EndpointChecks::default(), Arc::<CheckState>::default());
        checks.set(&[(Arc::clone(&one), Arc::clone(&state))]);
        for verdict in [CheckVerdict::Unhealthy, CheckVerdict::Healthy, CheckVerdict::Unknown] {
            state.set(verdict);
            assert_eq!(checks.verdict(&one), verdict);
            assert_eq!(checks.verdict(&other), CheckVerdict::Unknown);
        }
        state.set(CheckVerdict::Unhealthy);
        checks.set(&[]);
        assert_eq!(checks.verdict(&one), CheckVerdict::Unknown);
    }

    #[test]
    fn the_state_of_one_among_a_thousand_kinds_is_found_with_a_few_looks() {
        let mut entries: Vec<CheckEntry> =
            (0..1_000).map(|seconds| (Arc::new(params(seconds)), Arc::default())).collect();
        let checks = EndpointChecks::default();
        // In either order: whoever sets them need not know it.
        for _ in 0..2 {
            entries.reverse();
            checks.set(&entries);
            let kept = checks.0.load_full().unwrap_or_default();
            for (params, state) in &entries {
                let mut looks = 0;
                let found = entry(&kept, params, |entry| {
                    looks += 1;
                    identity(entry)
                });
                assert!(found.is_some_and(|(_, found)| Arc::ptr_eq(found, state)));
                assert!(looks <= 12, "{looks}");
                state.set(CheckVerdict::Unhealthy);
                assert_eq!(checks.verdict(params), CheckVerdict::Unhealthy);
                state.set(CheckVerdict::Healthy);
                assert_eq!(checks.verdict(params), CheckVerdict::Healthy);
            }
        }
    }
}
