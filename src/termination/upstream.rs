//! The endpoint's side of a termination: TLS with the endpoints.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{
    ResolvesClientCert, Resumption, UnbufferedClientConnection, WebPkiServerVerifier,
};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, Error, SignatureScheme};

use super::verifier::EndpointVerifier;
use super::{CertificateFacts, CertificateText, Identity, Roots, provider};

/// How many sessions with endpoints are kept for resumption.
const MOST_SESSIONS: usize = 8;

/// What the endpoint's side of a termination is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamParts {
    /// The name that the endpoints' certificate must have, and that they are asked for.
    pub server_name: Box<str>,
    /// The authorities whose certificates are accepted.
    pub roots: Arc<Roots>,
    /// The certificate that endpoints get on request, with the text that names it.
    pub certificate: Option<(CertificateText, Arc<Identity>)>,
}

/// The endpoint's side of a termination, ready for handshakes.
pub struct UpstreamTls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    parts: UpstreamParts,
}

impl UpstreamTls {
    /// # Errors
    /// When rustls refuses the parts.
    pub(super) fn new(parts: UpstreamParts) -> Result<Self, Error> {
        let name = ServerName::try_from(parts.server_name.to_string());
        let name = name.map_err(|error| Error::General(error.to_string()))?;
        let verifier = WebPkiServerVerifier::builder_with_provider(
            Arc::clone(parts.roots.store()),
            Arc::clone(provider()),
        );
        let verifier: Arc<dyn ServerCertVerifier> =
            verifier.build().map_err(|error| Error::General(error.to_string()))?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(EndpointVerifier(verifier)));
        let mut config = match &parts.certificate {
            None => builder.with_no_client_auth(),
            Some((_, identity)) => {
                builder.with_client_cert_resolver(Arc::new(OnRequest(Arc::clone(identity))))
            }
        };
        config.resumption = Resumption::in_memory_sessions(MOST_SESSIONS);
        Ok(UpstreamTls { config: Arc::new(config), name, parts })
    }

    /// A connection with an endpoint, which is offered the protocol (ALPN, RFC 7301) that the client and sluice agreed
    /// on.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn connect(&self, alpn: Option<&[u8]>) -> Result<UnbufferedClientConnection, Error> {
        let alpn = alpn.into_iter().map(<[u8]>::to_vec).collect();
        UnbufferedClientConnection::new_with_alpn(Arc::clone(&self.config), self.name.clone(), alpn)
    }

    /// The certificate that endpoints get on request, with the text that names it.
    pub fn certificate(&self) -> Option<(&CertificateText, &Arc<CertificateFacts>)> {
        let (text, identity) = self.parts.certificate.as_ref()?;
        Some((text, identity.facts()))
    }
}

impl PartialEq for UpstreamTls {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl Eq for UpstreamTls {}

impl fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamTls").field("parts", &self.parts).finish_non_exhaustive()
    }
}

/// Shows a certificate to servers that ask for one.
#[derive(Debug)]
struct OnRequest(Arc<Identity>);

impl ResolvesClientCert for OnRequest {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let key = self.0.certified_key();
        key.key.choose_scheme(schemes).map(|_| Arc::clone(key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
