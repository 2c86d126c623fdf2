//! Certificates, routes that serve TLS with them, and the settings of their clients.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, SignatureAlgorithm,
};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use sluice::termination::{
    CertificateText, ClientCertificates, Identity, MinVersion, Roots, ServerParts, Termination,
    TerminationText, TicketKeys, UpstreamParts, provider,
};

use crate::support::Target;

/// An authority that everybody trusts.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate chain with its private key.
pub(super) struct Credentials {
    pub(super) chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// As sluice has it.
    pub(super) fn roots(&self) -> Arc<Roots> {
        Roots::from_pem(self.0.pem().as_bytes()).unwrap()
    }

    /// As rustls has it.
    fn store(&self) -> Arc<RootCertStore> {
        let mut store = RootCertStore::empty();
        store.add(self.0.der().clone()).unwrap();
        Arc::new(store)
    }

    /// A certificate for a name, which is its common name as well.
    pub(super) fn issue(&self, name: &str, of: &'static SignatureAlgorithm) -> Credentials {
        self.issue_until(SystemTime::now() + Duration::from_hours(1), name, of)
    }

    /// One that expires at `end`.
    pub(super) fn issue_until(
        &self,
        end: SystemTime,
        name: &str,
        of: &'static SignatureAlgorithm,
    ) -> Credentials {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = end.into();
        let key = KeyPair::generate_for(of).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Credentials { chain: vec![certificate.der().clone()], key }
    }

    /// The texts of a certificate for a name, and of its key.
    pub(super) fn texts(&self, name: &str, of: &'static SignatureAlgorithm) -> [String; 2] {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate_for(of).unwrap();
        [params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem()]
    }

    /// A certificate for a name, for sluice to serve.
    pub(super) fn identity(&self, name: &str, of: &'static SignatureAlgorithm) -> Arc<Identity> {
        let [chain, key] = self.texts(name, of);
        Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
    }

    /// What a route for `name` needs to serve TLS with a certificate of this kind.
    pub(super) fn parts(&self, name: &str, of: &'static SignatureAlgorithm) -> ServerParts {
        let text = CertificateText { secret: "test/tls".into() };
        ServerParts {
            certificates: vec![(text, self.identity(name, of))],
            alpn: Vec::new(),
            min_version: MinVersion::V12,
            client_certificates: None,
            tickets: TicketKeys::default(),
            route: name.into(),
        }
    }

    /// Settings of a client that trusts this authority.
    pub(super) fn client(&self) -> ClientConfig {
        self.client_of(provider(), &[&rustls::version::TLS13, &rustls::version::TLS12], None)
    }

    /// The same, with a certificate of its own.
    pub(super) fn client_with(&self, own: &Credentials) -> ClientConfig {
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        self.client_of(provider(), &versions, Some(own))
    }

    pub(super) fn client_of(
        &self,
        provider: &Arc<CryptoProvider>,
        versions: &[&'static SupportedProtocolVersion],
        own: Option<&Credentials>,
    ) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.store());
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => builder.with_client_auth_cert(own.chain.clone(), own.key()).unwrap(),
        };
        config.resumption = Resumption::in_memory_sessions(8);
        config
    }

    /// Settings of a server with a certificate for `name`. It asks for certificates of this authority's clients if it
    /// `asks`.
    pub(super) fn server(&self, name: &str, asks: bool) -> ServerConfig {
        let own = self.issue(name, &PKCS_ECDSA_P256_SHA256);
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match asks {
            false => builder.with_no_client_auth(),
            true => {
                let (store, provider) = (self.store(), Arc::clone(provider()));
                let verifier = WebPkiClientVerifier::builder_with_provider(store, provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        builder.with_single_cert(own.chain.clone(), own.key()).unwrap()
    }

    /// What a route needs to speak TLS with endpoints for `name`.
    pub(super) fn upstream(&self, name: &str) -> UpstreamParts {
        UpstreamParts { server_name: name.into(), roots: self.roots(), certificate: None }
    }

    /// Certificates of this authority, which clients have to show if they are `required`.
    pub(super) fn of_clients(&self, required: bool) -> ClientCertificates {
        ClientCertificates { roots: self.roots(), required }
    }
}

impl Credentials {
    /// As rustls has it.
    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        CertifiedKey::from_der(self.chain.clone(), self.key(), provider()).unwrap().into()
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

impl Target {
    /// Whose TLS sluice serves.
    pub(super) fn terminated(self, server: ServerParts, upstream: Option<UpstreamParts>) -> Self {
        let text = TerminationText::default();
        let termination = Termination::new(text, server, upstream).unwrap();
        self.with(|spec| spec.termination = Some(Arc::new(termination)))
    }
}
