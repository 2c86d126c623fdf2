//! What the certificate of a server is worth. Pure.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authorities::AuthorityFault;
use crate::termination::{NameMatch, is_wildcard_for};

/// The certificates of a server, its own first.
pub(super) type Chain = Vec<CertificateDer<'static>>;

/// The most certificates of a chain that is judged. The search for a path tries all orders of those that have the same
/// name: of 200, it takes seconds, which the other checks would wait for.
pub(super) const MOST_CERTIFICATES: usize = 6;

/// What a check has seen of the certificate of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CertificateView {
    /// The certificate; `None` if it was not seen, or cannot be read.
    pub(super) certificate: Option<Arc<ServerCertificate>>,
    pub(super) trust: Trust,
    /// Whether the server speaks h2.
    pub(super) h2: bool,
}

/// What is used of a certificate.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ServerCertificate {
    /// Differs from that of any other certificate.
    pub(super) id: [u64; 2],
    /// From when on it is valid, in seconds since 1970.
    pub(super) not_before: i64,
    /// Until when.
    pub(super) not_after: i64,
    /// Its names, in lower case.
    names: Box<[Box<str>]>,
    /// Whether it has more names than these.
    has_more: bool,
}

/// The most names of a certificate that are kept.
const MOST_NAMES: usize = 128;

impl ServerCertificate {
    /// Reads a certificate; `None` if that is not possible.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        /// Nobody can choose a certificate that has the id of another one.
        static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let names = alternative.into_iter().flat_map(|names| &names.value.general_names);
        let mut names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into()),
            _ => None,
        });
        Some(ServerCertificate {
            id: KEYS.each_ref().map(|key| key.hash_one(der)),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            names: names.by_ref().take(MOST_NAMES).collect(),
            has_more: names.next().is_some(),
        })
    }

    /// Whether it has a name.
    pub(super) fn covers(&self, name: &str) -> bool {
        self.has_more || NameMatch::of(self.names.iter().map(|own| &**own), name) > NameMatch::No
    }

    /// Whether one of its wildcards is for a name.
    pub(super) fn has_wildcard_for(&self, name: &str) -> bool {
        self.names.iter().any(|own| is_wildcard_for(own, name))
    }
}

/// What the authorities that the route names say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Trust {
    /// The route names none.
    NotAsked,
    /// They vouch for it.
    Vouched,
    /// They do not. The text is the cause, for people.
    NotVouched(&'static str),
    /// They are not known.
    NoAuthority(AuthorityFault),
}

impl Trust {
    /// Whether they do not vouch for it.
    pub(super) fn is_fault(&self) -> bool {
        matches!(self, Trust::NotVouched(_))
    }
}

/// Checks that an authority vouches for a chain, now and for this name. Without a name, for any name.
///
/// # Errors
/// Why it does not.
pub(super) fn vouch(
    chain: &[CertificateDer<'_>],
    roots: &RootCertStore,
    name: Option<&ServerName<'_>>,
    now: UnixTime,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), Error> {
    let (own, others) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
    let own = ParsedCertificate::try_from(own)?;
    verify_server_cert_signed_by_trust_anchor(&own, roots, others, now, algorithms.all)?;
    name.map_or(Ok(()), |name| verify_server_name(&own, name))
}

/// Why a certificate is not vouched for: always the same text for the same cause.
pub(super) fn cause(error: &Error) -> &'static str {
    let Error::InvalidCertificate(error) = error else { return "it cannot be read" };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it, or one above it, has expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it, or one above it, is not valid yet"
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "no authority of ca has issued it"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it does not have the checked name"
        }
        CertificateError::BadEncoding => "it cannot be read",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for servers"
        }
        _ => "it is not valid",
    }
}
