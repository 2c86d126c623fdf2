//! The certificates that routes serve, in the report of `/routes`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::routing::Table;
use crate::termination::{CertificateFacts, Termination, TerminationText};

/// A certificate that routes serve. Each is in the report once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServedCertificate {
    /// The Secret that it is from, as `namespace/name`.
    pub secret: String,
    /// Its serial number, in hexadecimal digits.
    pub serial: String,
    /// From when on it is valid, in RFC 3339.
    pub not_before: String,
    /// Until when.
    pub not_after: String,
    /// The type of its key.
    pub key: String,
    /// Its DNS names.
    pub names: Vec<String>,
}

/// Whether a route serves TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TlsState {
    /// It does.
    Served,
    /// It does, with a certificate or authorities that are older than what the Secret or ConfigMap has now.
    Stale,
    /// It does not, and its connections are refused: its conditions have the reason.
    Refused,
}

impl TlsState {
    /// Of a route.
    pub fn of(termination: &Termination) -> Self {
        match termination.server() {
            Ok(_) if termination.is_stale() => TlsState::Stale,
            Ok(_) => TlsState::Served,
            Err(_) => TlsState::Refused,
        }
    }
}

impl ServedCertificate {
    /// The certificates that the routes of a table serve, by Secret.
    pub(super) fn all(table: &Table) -> Vec<Self> {
        let routes = table.routes().filter_map(|route| route.spec.termination.as_deref());
        let mut all: Vec<(&str, &CertificateFacts)> = routes
            .flat_map(Termination::certificates)
            .map(|(text, facts)| (&*text.secret, &**facts))
            .collect();
        let id = |(secret, facts): &(&str, &CertificateFacts)| {
            (secret.to_string(), facts.serial.clone(), facts.not_after)
        };
        all.sort_by_cached_key(id);
        all.dedup_by(|one, other| one == other);
        all.into_iter().map(|(secret, facts)| ServedCertificate::of(secret, facts)).collect()
    }

    /// One certificate.
    pub fn of(secret: &str, facts: &CertificateFacts) -> Self {
        let time = |seconds: i64| {
            let time = Timestamp::from_second(seconds).unwrap_or_default();
            time.to_string()
        };
        ServedCertificate {
            secret: secret.to_owned(),
            serial: facts.serial.to_string(),
            not_before: time(facts.not_before),
            not_after: time(facts.not_after),
            key: facts.key.to_string(),
            names: facts.names.iter().map(|name| name.to_string()).collect(),
        }
    }

    /// Whether a route names its Secret.
    pub fn is_of(&self, text: &TerminationText) -> bool {
        text.certificates.iter().any(|one| *one.secret == *self.secret)
    }

    /// Whether it is valid at a time.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        let time = |text: &str| text.parse::<Timestamp>().ok();
        time(&self.not_before).is_none_or(|time| time <= now)
            && time(&self.not_after).is_none_or(|time| now <= time)
    }

    /// How well it fits a name: an exact name is greater than a wildcard, and that than nothing.
    pub fn rank_for(&self, name: Option<&str>) -> u8 {
        let Some(name) = name else { return 0 };
        let suffix = name.split_once('.').map(|(_, suffix)| suffix);
        let is_wildcard = |own: &String| suffix.is_some() && own.strip_prefix("*.") == suffix;
        if self.names.iter().any(|own| own == name) {
            2
        } else {
            u8::from(self.names.iter().any(is_wildcard))
        }
    }
}
