//! What the certificate of a server is worth. Pure.

use std::sync::Arc;

use ahash::AHashMap as HashMap;
use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;

/// The certificates of a server, its own first.
pub(super) type Chain = Vec<CertificateDer<'static>>;

/// The authorities that routes name, by the namespace and name of their ConfigMap. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Authorities(Arc<ArcSwap<RootsOfConfigMaps>>);

/// The certificates of each ConfigMap, by its namespace and name.
pub type RootsOfConfigMaps = HashMap<(Box<str>, Box<str>), Arc<RootCertStore>>;

impl Authorities {
    /// Those of a ConfigMap, if it was read.
    pub(super) fn get(&self, config_map: &(Box<str>, Box<str>)) -> Option<Arc<RootCertStore>> {
        self.0.load().get(config_map).cloned()
    }

    /// Replaces all of them.
    pub fn set(&self, authorities: RootsOfConfigMaps) {
        self.0.store(Arc::new(authorities));
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
) -> Result<(), rustls::Error> {
    let Some((own, others)) = chain.split_first() else {
        return Err(rustls::Error::NoCertificatesPresented);
    };
    let own = ParsedCertificate::try_from(own)?;
    verify_server_cert_signed_by_trust_anchor(&own, roots, others, now, algorithms.all)?;
    name.map_or(Ok(()), |name| verify_server_name(&own, name))
}
