//! A certificate authority of the test's own.

use std::fs;
use std::path::{Path, PathBuf};

use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Signs the certificates of a test's servers and clients. Its files go with it.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// A certificate and its key.
pub struct Identity {
    /// The certificate, as PEM; the key is in a file beside it.
    pub certificate_file: PathBuf,
    /// The key.
    pub key_file: PathBuf,
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Default for Authority {
    fn default() -> Self {
        Authority::new()
    }
}

impl Authority {
    /// One with a new key.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "the authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { issuer, folder }
    }

    /// The file that clients trust.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Its own certificate.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// The folder of its files, where a test may put more.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A certificate for host names, wildcards and IP addresses.
    pub fn issue(&self, names: &[&str]) -> Identity {
        let params = params(names, ExtendedKeyUsagePurpose::ServerAuth);
        self.sign(params, KeyPair::generate().unwrap())
    }

    /// The same with an RSA key of 2048 bits, instead of one of P-256.
    pub fn issue_rsa(&self, names: &[&str]) -> Identity {
        let mut params = params(names, ExtendedKeyUsagePurpose::ServerAuth);
        params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        self.sign(params, key)
    }

    /// A certificate with which a client shows who it is.
    pub fn issue_client(&self, name: &str) -> Identity {
        let params = params(&[name], ExtendedKeyUsagePurpose::ClientAuth);
        self.sign(params, KeyPair::generate().unwrap())
    }

    /// The same, good until then.
    pub fn issue_client_until(&self, name: &str, end: SystemTime) -> Identity {
        let mut params = params(&[name], ExtendedKeyUsagePurpose::ClientAuth);
        params.not_after = end.into();
        self.sign(params, KeyPair::generate().unwrap())
    }

    fn sign(&self, params: CertificateParams, key: KeyPair) -> Identity {
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let folder = tempfile::tempdir_in(self.folder()).unwrap().keep();
        let identity = Identity {
            certificate_file: folder.join("certificate.pem"),
            key_file: folder.join("key.pem"),
            certificate: certificate.der().clone(),
            key: key.serialize_der(),
        };
        fs::write(&identity.certificate_file, certificate.pem()).unwrap();
        fs::write(&identity.key_file, key.serialize_pem()).unwrap();
        identity
    }
}

fn params(names: &[&str], purpose: ExtendedKeyUsagePurpose) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names.clone()).unwrap();
    params.distinguished_name.push(DnType::CommonName, names[0].clone());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params
}

impl Identity {
    /// The certificate, as a server presents it.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }

    /// The key.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone().into())
    }
}
