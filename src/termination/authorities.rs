//! The certificates of authorities, which say whose certificates are accepted.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustls::RootCertStore;

use super::pem::{self, InvalidPem};

/// The longest text with certificates: some forty. All of them stay in memory.
const LONGEST: usize = 64 << 10;

/// The certificates of authorities.
#[derive(Debug)]
pub struct Roots(Arc<RootCertStore>);

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
            _ => Ok(Arc::new(Roots(Arc::new(roots)))),
        }
    }

    /// In the form of rustls.
    pub fn store(&self) -> &Arc<RootCertStore> {
        &self.0
    }
}

impl From<RootCertStore> for Roots {
    fn from(store: RootCertStore) -> Self {
        Roots(Arc::new(store))
    }
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.roots == other.0.roots
    }
}

impl Eq for Roots {}

impl Hash for Roots {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.roots.hash(state);
    }
}
