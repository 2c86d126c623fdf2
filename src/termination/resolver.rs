//! The choice among the certificates of a route.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::pki_types::UnixTime;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::text::CertificateText;
use super::{CertificateFacts, Identity};

thread_local! {
    /// The certificate that was chosen last. rustls tells nobody which one a connection got, and calls the resolver on
    /// the thread that processes the hello.
    static CHOSEN: RefCell<Option<Arc<CertificateFacts>>> = const { RefCell::new(None) };
}

/// Takes the facts of the certificate that was chosen last on this thread.
pub(super) fn take_chosen() -> Option<Arc<CertificateFacts>> {
    CHOSEN.take()
}

/// The certificates of a route.
#[derive(Debug)]
pub(super) struct Resolver(pub(super) Box<[(CertificateText, Arc<Identity>)]>);

impl Resolver {
    /// The certificate for a client: of those whose signature it knows, the one with the greatest [`Preference`](super::Preference).
    ///
    /// One is also returned if the client knows the signature of none: rustls refuses such a client then for that reason
    /// and with the alert for it (RFC 8446 §6.2, handshake_failure), and without a certificate as if its access were
    /// denied.
    fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
        now: i64,
    ) -> Option<&Arc<Identity>> {
        let rank = |identity: &&Arc<Identity>| {
            (is_usable(identity, schemes), identity.facts().preference(name, now))
        };
        // Of equal ones, `max_by_key` returns the last.
        self.0.iter().rev().map(|(_, identity)| identity).max_by_key(rank)
    }
}

/// Whether a client that knows these signatures can use the certificate.
fn is_usable(identity: &Identity, schemes: &[SignatureScheme]) -> bool {
    identity.certified_key().key.choose_scheme(schemes).is_some()
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let schemes = hello.signature_schemes();
        let chosen = self.choose(name.as_deref(), schemes, now);
        let served = chosen.filter(|identity| is_usable(identity, schemes));
        CHOSEN.set(served.map(|identity| Arc::clone(identity.facts())));
        chosen.map(|identity| Arc::clone(identity.certified_key()))
    }
}
