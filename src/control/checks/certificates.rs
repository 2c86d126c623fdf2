//! What the certificate of a server is worth. Pure.

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

use super::authorities::AuthorityFault;

/// The certificates of a server, its own first.
pub(super) type Chain = Vec<CertificateDer<'static>>;

/// What a check has seen of the certificate of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CertificateView {
    pub(super) trust: Trust,
}

/// What the authorities that the route names say.
#[derive(Clone, Debug, PartialEq, Eq)]
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
