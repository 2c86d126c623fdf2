//! The certificates that routes serve, in the report of `/routes`.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::routing::Table;
use crate::termination::{CertificateFacts, CertificateText, NameMatch, Preference, Termination};

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

/// Which certificate of the report it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateId {
    /// The Secret that it is from, as `namespace/name`.
    pub secret: String,
    /// Its serial number, in hexadecimal digits.
    pub serial: String,
}

impl CertificateId {
    pub(super) fn of((text, facts): (&CertificateText, &Arc<CertificateFacts>)) -> Self {
        CertificateId { secret: text.secret.to_string(), serial: facts.serial.to_string() }
    }

    /// Whether it is that certificate.
    pub(super) fn is_of(&self, certificate: &ServedCertificate) -> bool {
        self.secret == certificate.secret && self.serial == certificate.serial
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

    fn is_valid_at(&self, now: Timestamp) -> bool {
        let time = |text: &str| text.parse::<Timestamp>().ok();
        time(&self.not_before).is_none_or(|time| time <= now)
            && time(&self.not_after).is_none_or(|time| now <= time)
    }

    /// How much it is preferred for a client that asks for this name, in lower case.
    pub fn preference(&self, name: Option<&str>, now: Timestamp) -> Preference {
        let of = |name| NameMatch::of(self.names.iter().map(String::as_str), name);
        Preference {
            is_valid: self.is_valid_at(now),
            name: name.map_or(NameMatch::No, of),
            is_cheap: !self.is_rsa(),
        }
    }

    /// Whether its key is of RSA.
    pub fn is_rsa(&self) -> bool {
        self.key.starts_with("RSA")
    }
}
