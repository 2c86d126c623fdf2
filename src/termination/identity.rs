//! A certificate chain with its private key.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustls::pki_types::pem::{self as pki_pem, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_NIST_EC_P521;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::pem::{self, InvalidPem};
use super::preference::{NameMatch, Preference};
use super::provider;

/// The longest texts of a certificate chain and of a private key.
const LONGEST_CHAIN: usize = 64 << 10;
const LONGEST_KEY: usize = 16 << 10;
/// The most certificates of a chain. Each handshake sends all of them.
const MOST_CERTIFICATES: usize = 10;
/// The most names of a certificate. Each handshake compares the server name with them.
const MOST_NAMES: usize = 256;
/// The bytes of a DNS name, and of a serial number with the zero that may come first (RFC 5280 §4.1.2.2). What is longer
/// would fill reports and logs.
const LONGEST_NAME: usize = 253;
const LONGEST_SERIAL: usize = 21;
/// The largest RSA key, in bits. A signature by one with twice as many takes about six times as long, in which a worker
/// does nothing else.
const LARGEST_RSA: usize = 4096;

/// A certificate chain with its private key.
pub struct Identity {
    key: Arc<CertifiedKey>,
    facts: Arc<CertificateFacts>,
}

/// What is known of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFacts {
    /// Its serial number, in hexadecimal digits: of a longer one than there may be (RFC 5280 §4.1.2.2), the beginning.
    pub serial: Box<str>,
    /// From when on it is valid, in seconds since 1970.
    pub not_before: i64,
    /// Until when, in seconds since 1970.
    pub not_after: i64,
    /// Its DNS names, in lower case.
    pub names: Box<[Box<str>]>,
    /// The type of its key.
    pub key: KeyKind,
}

/// The type of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// RSA, with the length of the modulus in bits.
    Rsa(usize),
    /// ECDSA, with the length of the curve's field in bits.
    Ecdsa(usize),
    /// Something else, such as Ed25519.
    Other,
}

/// Why two texts are no certificate chain with its private key. Never contains anything of the key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum IdentityFault {
    /// The text of the chain is too long.
    #[error("tls.crt is longer than 64 KiB")]
    LongChain,
    /// The chain is no PEM.
    #[error("tls.crt is no PEM: {0}")]
    ChainPem(InvalidPem),
    /// The chain has no certificate.
    #[error("tls.crt has no certificate")]
    NoCertificate,
    /// The chain has too many certificates.
    #[error(
        "tls.crt has more than {MOST_CERTIFICATES} certificates: give the server's own and those between it and the \
         authority"
    )]
    ManyCertificates,
    /// The server's own certificate cannot be read.
    #[error("the first certificate of tls.crt cannot be read")]
    Unreadable,
    /// The certificate has too many names.
    #[error("the certificate has more than {MOST_NAMES} names")]
    ManyNames,
    /// The RSA key is too large.
    #[error(
        "its RSA key has {0} bits: more than {LARGEST_RSA} make handshakes too slow; ECDSA with P-256 is the best"
    )]
    LargeKey(usize),
    /// The text of the key is too long.
    #[error("tls.key is longer than 16 KiB")]
    LongKey,
    /// The text of the key has no private key that can be read.
    #[error("tls.key has no private key (PKCS #8, PKCS #1 or SEC 1, in PEM, without a password)")]
    NoKey,
    /// The key's type is not supported.
    #[error(
        "the private key is of no supported type: use ECDSA with P-256 or P-384, RSA with 2048 to 4096 bits, or Ed25519"
    )]
    UnsupportedKey,
    /// The key belongs to another certificate.
    #[error("tls.key is not the private key of the first certificate in tls.crt")]
    OtherKey,
}

impl Identity {
    /// Reads a chain, the server's own certificate first, and its private key.
    ///
    /// # Errors
    /// When they are not usable together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Arc<Self>, IdentityFault> {
        if chain.len() > LONGEST_CHAIN {
            return Err(IdentityFault::LongChain);
        }
        let chain = pem::certificates(chain).map_err(IdentityFault::ChainPem)?;
        let own = chain.first().ok_or(IdentityFault::NoCertificate)?;
        if chain.len() > MOST_CERTIFICATES {
            return Err(IdentityFault::ManyCertificates);
        }
        let facts = CertificateFacts::read(own)?;
        if let KeyKind::Rsa(bits) = facts.key
            && bits > LARGEST_RSA
        {
            return Err(IdentityFault::LargeKey(bits));
        }
        let key = private_key(key)?;
        let key = CertifiedKey::from_der(chain, key, provider()).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => IdentityFault::OtherKey,
            Error::InvalidCertificate(_) => IdentityFault::Unreadable,
            _ => IdentityFault::UnsupportedKey,
        })?;
        Ok(Arc::new(Identity { key: Arc::new(key), facts: Arc::new(facts) }))
    }

    /// What is known of the server's own certificate.
    pub fn facts(&self) -> &Arc<CertificateFacts> {
        &self.facts
    }

    /// In the form of rustls.
    pub(super) fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

/// Two identities are the same if their certificates are: these have the public keys.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.key, &other.key) || self.key.cert == other.key.cert
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.cert.hash(state);
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl CertificateFacts {
    fn read(certificate: &CertificateDer<'_>) -> Result<Self, IdentityFault> {
        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|_| IdentityFault::Unreadable)?;
        let validity = certificate.validity();
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let names = alternative.into_iter().flat_map(|names| &names.value.general_names);
        let names: Box<[_]> = names
            .filter_map(|name| match name {
                GeneralName::DNSName(name) if name.len() <= LONGEST_NAME => {
                    Some(name.to_ascii_lowercase().into())
                }
                _ => None,
            })
            .collect();
        if names.len() > MOST_NAMES {
            return Err(IdentityFault::ManyNames);
        }
        // Each line of the access log has it.
        let serial = certificate.raw_serial().iter().take(LONGEST_SERIAL);
        Ok(CertificateFacts {
            serial: serial.map(|byte| format!("{byte:02x}")).collect(),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            names,
            key: KeyKind::of(certificate.public_key()),
        })
    }

    /// Whether it is valid at this time, in seconds since 1970.
    pub fn is_valid_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whether it is for a name, in lower case.
    pub fn covers(&self, name: &str) -> bool {
        self.name_match(name) > NameMatch::No
    }

    /// How much it is preferred for a client that asks for this name, in lower case. `now` is in seconds since 1970.
    pub fn preference(&self, name: Option<&str>, now: i64) -> Preference {
        Preference {
            is_valid: self.is_valid_at(now),
            name: name.map_or(NameMatch::No, |name| self.name_match(name)),
            is_cheap: !matches!(self.key, KeyKind::Rsa(_)),
        }
    }

    fn name_match(&self, name: &str) -> NameMatch {
        NameMatch::of(self.names.iter().map(|own| &**own), name)
    }
}

impl KeyKind {
    fn of(key: &SubjectPublicKeyInfo<'_>) -> Self {
        match key.parsed() {
            Ok(PublicKey::RSA(key)) => KeyKind::Rsa(bits(key.modulus)),
            Ok(PublicKey::EC(point)) => {
                let curve = key.algorithm.parameters.as_ref();
                let curve = curve.and_then(|curve| curve.as_oid().ok());
                // The field has 521 bits, and a point 528 for each of its numbers.
                let is_p521 = curve.is_some_and(|curve| curve == OID_NIST_EC_P521);
                KeyKind::Ecdsa(if is_p521 { 521 } else { point.key_size() })
            }
            _ => KeyKind::Other,
        }
    }
}

/// The length of a number in bits, without leading zeros.
fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let first = number.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
    (number.len() - zeros) * 8 - first
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyKind::Rsa(bits) => write!(f, "RSA {bits}"),
            KeyKind::Ecdsa(bits) => write!(f, "ECDSA {bits}"),
            KeyKind::Other => f.write_str("other"),
        }
    }
}

/// The first private key in a text.
fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, IdentityFault> {
    if text.len() > LONGEST_KEY {
        return Err(IdentityFault::LongKey);
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|_: pki_pem::Error| IdentityFault::NoKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_zeros_are_no_bits() {
        assert_eq!(bits(&[0, 0xff, 0]), 16);
        assert_eq!(bits(&[&[0x0f][..], &[0; 512]].concat()), 4100);
        assert_eq!(bits(&[1, 0]), 9);
        assert_eq!(bits(&[0, 0]), 0);
        assert_eq!(bits(&[]), 0);
    }
}
