//! The problems with certificates, and the condition that they come to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::authorities::AuthorityFault;
use crate::control::status::{BACKEND_CERTIFICATE, Condition};

/// The most problems that a condition names.
const MOST_TOLD: usize = 8;
/// The reason of the condition if there is no problem.
const VALID: &str = "Valid";

/// A kind of problems with certificates, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemKind {
    /// The ConfigMap with the authorities does not exist.
    CaMissing,
    /// It has no certificates.
    CaInvalid,
    /// It was not read.
    CaNotRead,
    /// There are too many of them.
    TooManyCas,
    /// The check has no name, which `verify: Enforce` needs.
    NoName,
    /// A certificate has expired.
    Expired,
    /// It is not valid yet.
    NotYetValid,
    /// No authority vouches for it.
    NotTrusted,
    /// It does not have the checked name.
    Name,
    /// It expires soon.
    ExpiresSoon,
    /// Its wildcard is that of another route as well.
    SharedWildcard,
}

impl ProblemKind {
    /// All kinds.
    pub const ALL: [ProblemKind; 11] = [
        ProblemKind::CaMissing,
        ProblemKind::CaInvalid,
        ProblemKind::CaNotRead,
        ProblemKind::TooManyCas,
        ProblemKind::NoName,
        ProblemKind::Expired,
        ProblemKind::NotYetValid,
        ProblemKind::NotTrusted,
        ProblemKind::Name,
        ProblemKind::ExpiresSoon,
        ProblemKind::SharedWildcard,
    ];

    /// The label of the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            ProblemKind::CaMissing => "ca_not_found",
            ProblemKind::CaInvalid => "ca_invalid",
            ProblemKind::CaNotRead => "ca_not_read",
            ProblemKind::TooManyCas => "too_many_cas",
            ProblemKind::NoName => "no_name",
            ProblemKind::Expired => "expired",
            ProblemKind::NotYetValid => "not_yet_valid",
            ProblemKind::NotTrusted => "not_trusted",
            ProblemKind::Name => "name",
            ProblemKind::ExpiresSoon => "expires_soon",
            ProblemKind::SharedWildcard => "shared_wildcard",
        }
    }

    /// The reason of the condition, one CamelCase word.
    fn reason(self) -> &'static str {
        match self {
            ProblemKind::CaMissing => "CaNotFound",
            ProblemKind::CaInvalid => "CaInvalid",
            ProblemKind::CaNotRead => "CaNotRead",
            ProblemKind::TooManyCas => "TooManyCas",
            ProblemKind::NoName => "NoCheckedName",
            ProblemKind::Expired => "CertificateExpired",
            ProblemKind::NotYetValid => "CertificateNotYetValid",
            ProblemKind::NotTrusted => "CertificateNotTrusted",
            ProblemKind::Name => "NameNotInCertificate",
            ProblemKind::ExpiresSoon => "CertificateExpiresSoon",
            ProblemKind::SharedWildcard => "SharedWildcardCertificate",
        }
    }

    /// The kind of problem that authorities are missing for this fault.
    pub(super) fn of_authority(fault: &AuthorityFault) -> Self {
        match fault {
            AuthorityFault::Missing => ProblemKind::CaMissing,
            AuthorityFault::NoKey | AuthorityFault::Invalid(_) => ProblemKind::CaInvalid,
            AuthorityFault::NotRead(_) => ProblemKind::CaNotRead,
            AuthorityFault::TooMany => ProblemKind::TooManyCas,
        }
    }
}

/// The endpoints that have something in common: how many, and the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AffectedEndpoints {
    pub(super) first: SocketAddr,
    pub(super) others: usize,
}

impl AffectedEndpoints {
    /// One endpoint.
    pub(super) fn one(first: SocketAddr) -> Self {
        AffectedEndpoints { first, others: 0 }
    }

    /// Adds others.
    pub(super) fn add(&mut self, more: AffectedEndpoints) {
        self.first = self.first.min(more.first);
        self.others = self.others.saturating_add(more.others).saturating_add(1);
    }
}

/// The problems of a route, each with the endpoints that have it.
#[derive(Default)]
pub(super) struct Problems(BTreeMap<(ProblemKind, String), Option<AffectedEndpoints>>);

impl Problems {
    /// Adds a problem, of endpoints if it is not of the whole route.
    pub(super) fn add(
        &mut self,
        kind: ProblemKind,
        what: String,
        endpoints: Option<AffectedEndpoints>,
    ) {
        let known = self.0.entry((kind, what)).or_default();
        match (known, endpoints) {
            (Some(known), Some(more)) => known.add(more),
            (known, more) => *known = known.or(more),
        }
    }

    /// The kinds, each once.
    pub(super) fn kinds(&self) -> impl Iterator<Item = ProblemKind> {
        let kinds: BTreeSet<_> = self.0.keys().map(|(kind, _)| *kind).collect();
        kinds.into_iter()
    }

    /// The condition of the route.
    pub(super) fn condition(self) -> Condition {
        let reason = self.0.keys().next().map_or(VALID, |(kind, _)| kind.reason());
        let more = self.0.len().saturating_sub(MOST_TOLD);
        let told = self.0.iter().take(MOST_TOLD);
        let told = told.map(|((_, what), endpoints)| match endpoints {
            None => what.clone(),
            Some(AffectedEndpoints { first, others: 0 }) => {
                format!("the certificate of {first}: {what}")
            }
            Some(AffectedEndpoints { first, others }) => {
                format!("the certificates of {first} and {others} more: {what}")
            }
        });
        let mut message = told.collect::<Vec<_>>().join("; ");
        if more > 0 {
            message.push_str(&format!("; and {more} more"));
        }
        Condition { kind: BACKEND_CERTIFICATE, status: self.0.is_empty(), reason, message }
    }
}
