//! The TLS handshake of a check: a whole one, so that it shows what a client would get, and so that the server logs
//! no broken one.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::authorities::{Authorities, AuthorityFault};
use super::certificates::{
    CertificateView, Chain, MOST_CERTIFICATES, ServerCertificate, Trust, cause, vouch,
};
use super::verdicts::ChainVerdicts;
use crate::policy::VerifyMode;
use crate::routing::TlsCheck;
use crate::termination::{Roots, provider};

/// Why a handshake shows that the server does not serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckHandshakeFault {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server did not keep to TLS, or refused the handshake.
    #[error(transparent)]
    Tls(Error),
    /// The authorities of `Enforce` are not known, so nothing was shown. Without a fault, they were not read yet.
    #[error("the ConfigMap of ca was not read")]
    NoAuthorities(Option<AuthorityFault>),
}

/// A handshake that has shown what it had to.
#[derive(Debug)]
pub(super) struct Handshake {
    /// The connection, unless the server has ended it.
    pub(super) stream: Option<TlsStream<TcpStream>>,
    /// What it has shown of the certificate, if the route wants to know.
    pub(super) seen: Option<CertificateView>,
}

/// Makes a handshake with the server at `address`.
pub(super) async fn handshake(
    socket: TcpStream,
    address: SocketAddr,
    check: &TlsCheck,
    authorities: &Authorities,
) -> Result<Handshake, CheckHandshakeFault> {
    // Without an answer, the ConfigMap was not read yet.
    let authority = check.ca.as_ref().map(|ca| authorities.get(ca));
    if check.enforces() && !matches!(authority, Some(Some(Ok(_)))) {
        return Err(CheckHandshakeFault::NoAuthorities(authority.flatten().and_then(Result::err)));
    }
    let asked = check.server_name.as_deref().map(str::to_owned);
    let asked = asked.and_then(|name| ServerName::try_from(name).ok());
    // rustls sends no address as a name.
    let name = asked.clone().unwrap_or_else(|| ServerName::IpAddress(address.ip().into()));
    let (witness, credentials) = (Arc::<Witness>::default(), Arc::<NoCredentials>::default());
    let config = config(check, &witness, &credentials).map_err(CheckHandshakeFault::Tls)?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
    let chain = witness.take();
    let stream = match connected {
        Ok(stream) => Some(stream),
        Err(error) => {
            passes_without_certificate(error, &credentials)?;
            None
        }
    };
    // `Report` tells of the name by itself.
    let name = asked.as_ref().filter(|_| check.enforces());
    let trust = match authority {
        None | Some(None) => Trust::NotAsked,
        Some(Some(Err(fault))) => Trust::NoAuthority(fault),
        Some(Some(Ok(roots))) => trust(&chain, &roots, name, authorities.verdicts()),
    };
    let protocol = stream.as_ref().and_then(|stream| stream.get_ref().1.alpn_protocol());
    let h2 = protocol == Some(b"h2");
    let seen = (check.verify != VerifyMode::None).then(|| {
        let certificate = chain.first().and_then(|own| ServerCertificate::read(own));
        CertificateView { certificate: certificate.map(Arc::new), trust, h2 }
    });
    Ok(Handshake { stream, seen })
}

fn trust(
    chain: &Chain,
    roots: &Arc<Roots>,
    name: Option<&ServerName<'_>>,
    verdicts: &ChainVerdicts,
) -> Trust {
    if chain.len() > MOST_CERTIFICATES {
        return Trust::NotVouched("it comes with too many others");
    }
    let (now, algorithms) = (UnixTime::now(), &provider().signature_verification_algorithms);
    verdicts.get(chain, roots, name, now, || {
        match vouch(chain, roots.store(), name, now, algorithms) {
            Ok(()) => Trust::Vouched,
            Err(error) => Trust::NotVouched(cause(&error)),
        }
    })
}

/// A server that has asked for a client certificate and then refuses to go on without one does serve. Up to TLS 1.2,
/// it says so before its own part of the handshake has ended.
fn passes_without_certificate(
    error: io::Error,
    credentials: &NoCredentials,
) -> Result<(), CheckHandshakeFault> {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).cloned();
    match tls {
        Some(Error::AlertReceived(_)) if credentials.were_asked_for() => Ok(()),
        Some(tls) => Err(CheckHandshakeFault::Tls(tls)),
        None => Err(CheckHandshakeFault::Io(error)),
    }
}

/// The settings of one handshake. None is ever resumed: what a check has seen is no matter of another one.
fn config(
    check: &TlsCheck,
    witness: &Arc<Witness>,
    credentials: &Arc<NoCredentials>,
) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Witness>::clone(witness))
        .with_client_cert_resolver(Arc::<NoCredentials>::clone(credentials));
    config.resumption = Resumption::disabled();
    config.alpn_protocols =
        check.alpn.iter().map(|protocol| protocol.as_str().as_bytes().to_vec()).collect();
    Ok(config)
}

/// Keeps the certificates that the server has shown, and accepts all of them: they are judged after the handshake,
/// which the server then does not see fail.
#[derive(Debug, Default)]
struct Witness(Mutex<Chain>);

impl Witness {
    fn take(&self) -> Chain {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(own).chain(others).map(|one| one.clone().into_owned());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = chain.collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        readable(verify_tls12_signature(message, certificate, signature, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        readable(verify_tls13_signature(message, certificate, signature, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A wrong signature is a fault of the server. A certificate of a form that only this verifier does not read, such as
/// one of version 1, is none.
fn readable(
    verified: Result<HandshakeSignatureValid, Error>,
) -> Result<HandshakeSignatureValid, Error> {
    match verified {
        Err(Error::InvalidCertificate(fault)) if fault != CertificateError::BadSignature => {
            Ok(HandshakeSignatureValid::assertion())
        }
        verified => verified,
    }
}

/// Has no certificate for the server, and remembers whether it was asked for one.
#[derive(Debug, Default)]
struct NoCredentials(AtomicBool);

impl NoCredentials {
    fn were_asked_for(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl ResolvesClientCert for NoCredentials {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
