//! The certificates of authorities, which say whose certificates are accepted.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{Error, RootCertStore};

use super::digest::Digest;
use super::pem::{self, InvalidPem};
use super::provider;

/// The longest text with certificates: some forty. All of them stay in memory.
const LONGEST: usize = 64 << 10;

/// The certificates of authorities, and what is made of them once for all routes that name them.
#[derive(Debug)]
pub struct Roots {
    store: Arc<RootCertStore>,
    /// The verifiers of clients that may have no certificate, and of those that must have one. Each has a copy of all
    /// subjects.
    verifiers: [OnceLock<Arc<dyn ClientCertVerifier>>; 2],
    digest: OnceLock<[u8; 32]>,
}

/// Why a text has no certificates of authorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RootsFault {
    /// It is too long.
    #[error("is longer than 64 KiB: give only the authorities that are needed")]
    TooLong,
    /// It is no PEM.
    #[error("is no PEM: {0}")]
    Pem(#[from] InvalidPem),
    /// It has no certificate.
    #[error("has no certificate")]
    Empty,
    /// None of its certificates can be read.
    #[error("has no certificate of an authority that can be read")]
    Unusable,
}

impl Roots {
    /// Those in a text. Certificates that cannot be read are left out, unless none is left.
    ///
    /// # Errors
    /// When it has none.
    pub fn from_pem(text: &[u8]) -> Result<Arc<Self>, RootsFault> {
        if text.len() > LONGEST {
            return Err(RootsFault::TooLong);
        }
        let certificates = pem::certificates(text)?;
        let mut roots = RootCertStore::empty();
        match roots.add_parsable_certificates(certificates) {
            (0, 0) => Err(RootsFault::Empty),
            (0, _) => Err(RootsFault::Unusable),
            _ => Ok(Arc::new(Roots::from(roots))),
        }
    }

    /// In the form of rustls.
    pub fn store(&self) -> &Arc<RootCertStore> {
        &self.store
    }

    /// The verifier of clients, whose certificate is required or not.
    ///
    /// # Errors
    /// When rustls refuses the certificates.
    pub(super) fn client_verifier(
        &self,
        required: bool,
    ) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        let [optional, mandatory] = &self.verifiers;
        let known = if required { mandatory } else { optional };
        if let Some(verifier) = known.get() {
            return Ok(Arc::clone(verifier));
        }
        let builder = WebPkiClientVerifier::builder_with_provider(
            Arc::clone(&self.store),
            Arc::clone(provider()),
        );
        let builder = if required { builder } else { builder.allow_unauthenticated() };
        let verifier = builder.build().map_err(|error| Error::General(error.to_string()))?;
        Ok(Arc::clone(known.get_or_init(|| verifier)))
    }

    /// What tells them from other ones: their names, keys and constraints.
    pub(super) fn digest(&self) -> &[u8; 32] {
        self.digest.get_or_init(|| {
            let mut digest = Digest::default();
            for root in &self.store.roots {
                digest.add(&root.subject);
                digest.add(&root.subject_public_key_info);
                digest.add(root.name_constraints.as_deref().unwrap_or_default());
            }
            digest.finish()
        })
    }
}

impl From<RootCertStore> for Roots {
    fn from(store: RootCertStore) -> Self {
        let (verifiers, digest) = Default::default();
        Roots { store: Arc::new(store), verifiers, digest }
    }
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.store, &other.store) || self.store.roots == other.store.roots
    }
}

impl Eq for Roots {}

impl Hash for Roots {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.store.roots.hash(state);
    }
}
