//! Reads certificates from PEM (RFC 7468).

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

/// What is wrong with a text in PEM. It never contains anything of the text, which may be a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum InvalidPem {
    /// A section has no end.
    #[error("a section has no line -----END …-----")]
    NoEnd,
    /// The line that begins a section is not valid.
    #[error("a line -----BEGIN …----- is not complete")]
    Begin,
    /// The content of a section is not valid.
    #[error("the content of a section is not base64")]
    Base64,
    /// A section is too large.
    #[error("a section is too large")]
    TooLarge,
}

impl From<pem::Error> for InvalidPem {
    fn from(error: pem::Error) -> Self {
        match error {
            pem::Error::MissingSectionEnd { .. } => InvalidPem::NoEnd,
            pem::Error::IllegalSectionStart { .. } => InvalidPem::Begin,
            pem::Error::SectionTooLarge => InvalidPem::TooLarge,
            _ => InvalidPem::Base64,
        }
    }
}

/// The certificates in a text, in their order. Other sections are ignored.
pub(super) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, InvalidPem> {
    CertificateDer::pem_slice_iter(text).map(|one| one.map_err(InvalidPem::from)).collect()
}
