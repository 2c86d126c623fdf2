//! The client's side of TLS, for proxies that serve it.

use std::io::{self, BufReader, IoSlice, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use anyhow::Context;
use clap::ValueEnum;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme,
    StreamOwned,
};

use crate::Target;

/// What a blocking stream takes from the kernel at once. rustls itself asks for 4 KiB.
const READ: usize = 256 * 1024;

/// The key exchange that clients want.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum KeyExchange {
    /// The hybrid X25519MLKEM768; clients offer X25519 too, as browsers do
    Mlkem,
    /// X25519, which is all that clients offer
    X25519,
}

impl KeyExchange {
    fn offered(self) -> Vec<&'static dyn SupportedKxGroup> {
        match self {
            KeyExchange::Mlkem => vec![kx_group::X25519MLKEM768, kx_group::X25519],
            KeyExchange::X25519 => vec![kx_group::X25519],
        }
    }
}

/// What the clients of one target have in common.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
    wanted: KeyExchange,
}

impl Tls {
    /// TLS 1.3 with one cipher suite, so that every proxy encrypts with the same. `resumes`: each
    /// session but the first continues an earlier one; by default none does.
    pub(crate) fn new(target: &Target, wanted: KeyExchange, resumes: bool) -> anyhow::Result<Tls> {
        let provider = CryptoProvider {
            cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: wanted.offered(),
            ..default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified))
            .with_no_client_auth();
        if !resumes {
            config.resumption = Resumption::disabled();
        }
        let name = format!("{}.example.com", target.server);
        let name = ServerName::try_from(name).context("the server has no valid name")?;
        Ok(Tls { config: Arc::new(config), name, wanted })
    }

    pub(crate) fn outcome(&self, connection: &ClientConnection) -> Handshake {
        let wanted = self.wanted.offered().first().map(|group| group.name());
        let chosen = connection.negotiated_key_exchange_group().map(|group| group.name());
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        Handshake { resumed, as_wanted: chosen == wanted }
    }

    /// A connection for a thread of its own.
    pub(crate) fn blocking(&self, stream: TcpStream) -> anyhow::Result<Blocking> {
        let connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone())?;
        Ok(StreamOwned::new(connection, Buffered(BufReader::with_capacity(READ, stream))))
    }
}

/// How a handshake went.
#[derive(Clone, Copy)]
pub(crate) struct Handshake {
    pub(crate) resumed: bool,
    /// Whether the key exchange is the one that was wanted.
    pub(crate) as_wanted: bool,
}

pub(crate) type Blocking = StreamOwned<ClientConnection, Buffered>;

/// A socket that is read in large pieces.
pub(crate) struct Buffered(BufReader<TcpStream>);

impl Read for Buffered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Buffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.get_mut().write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes every certificate and signature, which spares the clients' core the work of checking them.
/// The proxy signs all the same.
#[derive(Debug)]
struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256]
    }
}
