//! How long the certificate that a client has shown is good for the sessions that follow.
//!
//! A session that is resumed needs no certificate, and gets a new ticket. So the end is in each ticket of a route that
//! asks for certificates, and passes from one to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ProducesTickets;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long after the client has shown it, in seconds.
const MOST_SECONDS: i64 = 2 * 60 * 60;
/// The bytes of a ticket's session that say when it ends.
const END: usize = size_of::<i64>();

/// When the sessions of one connection's client end, in seconds since 1970.
#[derive(Debug)]
pub(super) struct SessionEnd(AtomicI64);

/// A verifier that sets the end by the certificates that it accepts.
#[derive(Debug)]
pub(super) struct ShownVerifier {
    verifier: Arc<dyn ClientCertVerifier>,
    end: Arc<SessionEnd>,
}

/// Tickets that have the end. The one that a session is resumed from sets it for those that follow.
#[derive(Debug)]
pub(super) struct ShownTicketer {
    tickets: Arc<dyn ProducesTickets>,
    end: Arc<SessionEnd>,
}

/// A verifier and a ticketer for one connection.
pub(super) fn of_connection(
    verifier: &Arc<dyn ClientCertVerifier>,
    tickets: &Arc<dyn ProducesTickets>,
) -> (Arc<ShownVerifier>, Arc<ShownTicketer>) {
    // A client without a certificate has nothing that ends.
    let end = Arc::new(SessionEnd(AtomicI64::new(i64::MAX)));
    let (verifier, tickets) = (Arc::clone(verifier), Arc::clone(tickets));
    (
        Arc::new(ShownVerifier { verifier, end: Arc::clone(&end) }),
        Arc::new(ShownTicketer { tickets, end }),
    )
}

impl SessionEnd {
    fn set(&self, end: i64) {
        self.0.store(end, Ordering::Relaxed);
    }

    fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// When the sessions end of a client that shows these certificates now.
pub(super) fn end_of<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>,
    now: i64,
) -> i64 {
    let ends = certificates.into_iter().map(|certificate| {
        // One that cannot be read was not needed to accept the others.
        X509Certificate::from_der(certificate)
            .map_or(i64::MAX, |(_, read)| read.validity().not_after.timestamp())
    });
    ends.min().unwrap_or(i64::MAX).min(now.saturating_add(MOST_SECONDS))
}

fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

impl ProducesTickets for ShownTicketer {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.encrypt(&[&self.end.get().to_be_bytes(), plain].concat())
    }

    /// Nothing if the session has ended: a full handshake follows, for which the client may have a new certificate.
    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let mut session = self.tickets.decrypt(ticket)?;
        let end = i64::from_be_bytes(*session.first_chunk::<END>()?);
        if end < seconds(UnixTime::now()) {
            return None;
        }
        self.end.set(end);
        session.drain(..END);
        Some(session)
    }
}

impl ClientCertVerifier for ShownVerifier {
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
        let verified = self.verifier.verify_client_cert(own, others, now)?;
        self.end.set(end_of(std::iter::once(own).chain(others), seconds(now)));
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
