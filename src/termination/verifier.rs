//! The verifiers of peers' certificates, with a bound on what these cost.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::session_end::SessionEnd;

/// The most certificates that a peer may show besides its own. The search for a path tries all orders of those that
/// have the same name: of 200, it takes seconds.
const MOST_OTHERS: usize = 5;

/// Verifies the certificates of clients. Refuses long chains.
#[derive(Clone, Debug)]
pub(super) struct ClientVerifier {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Of one connection: when its client's sessions end, by the certificates that were accepted.
    end: Option<Arc<SessionEnd>>,
}

/// Verifies the certificates of endpoints. Refuses long chains.
#[derive(Debug)]
pub(super) struct EndpointVerifier(pub(super) Arc<dyn ServerCertVerifier>);

impl ClientVerifier {
    /// One that accepts what `verifier` does.
    pub(super) fn new(verifier: Arc<dyn ClientCertVerifier>) -> Self {
        ClientVerifier { verifier, end: None }
    }

    /// The verifier of one connection, which sets `end`.
    pub(super) fn of_connection(&self, end: &Arc<SessionEnd>) -> Self {
        ClientVerifier { verifier: Arc::clone(&self.verifier), end: Some(Arc::clone(end)) }
    }
}

fn check_length(others: &[CertificateDer<'_>]) -> Result<(), Error> {
    match others.len() <= MOST_OTHERS {
        true => Ok(()),
        false => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check_length(others)?;
        let verified = self.verifier.verify_client_cert(own, others, now)?;
        if let Some(end) = &self.end {
            end.set_by(std::iter::once(own).chain(others), now);
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

impl ServerCertVerifier for EndpointVerifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check_length(others)?;
        self.0.verify_server_cert(own, others, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
