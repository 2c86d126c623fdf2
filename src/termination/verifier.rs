//! The verifiers of peers' certificates, with a bound on what these cost.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::asn1_rs::{Any, FromDer};

use super::session_end::SessionEnd;

/// The most certificates that a peer may show besides its own, and their bytes.
const MOST_OTHERS: usize = 5;
const MOST_BYTES: usize = 16 * 1024;
/// The most of them that have the same name: one authority has two certificates when others have both signed it.
const MOST_OF_ONE_NAME: usize = 2;
/// The elements of a certificate before its subject: version, serial number, signature algorithm, issuer and validity
/// (RFC 5280 §4.1).
const BEFORE_SUBJECT: usize = 5;

/// Verifies the certificates of clients. Refuses those whose verification could take long.
#[derive(Clone, Debug)]
pub(super) struct ClientVerifier {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Of one connection: when its client's sessions end, by the certificates that were accepted.
    end: Option<Arc<SessionEnd>>,
}

/// Verifies the certificates of endpoints. Refuses those whose verification could take long.
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

/// Bounds what the search for a path through `others` costs, before the peer has proved anything. The search tries all
/// orders of certificates that have the same name, and reads all certificates again at each step: five of one name are
/// 326 steps, and within these bounds there are at most 19.
fn check_cost(others: &[CertificateDer<'_>]) -> Result<(), Error> {
    let is_small = || others.iter().map(|other| other.len()).sum::<usize>() <= MOST_BYTES;
    match others.len() <= MOST_OTHERS && is_small() && !is_ambiguous(others) {
        true => Ok(()),
        false => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
    }
}

/// Whether too many have the same name. Those that cannot be read count as if they had one.
fn is_ambiguous(others: &[CertificateDer<'_>]) -> bool {
    let names: Vec<_> = others.iter().map(|other| subject(other)).collect();
    let of_name = |name| names.iter().filter(|other| **other == name).count();
    names.iter().any(|name| of_name(*name) > MOST_OF_ONE_NAME)
}

/// The subject in the bytes of a certificate, without reading the rest.
fn subject(certificate: &[u8]) -> Option<&[u8]> {
    let (_, certificate) = Any::from_der(certificate).ok()?;
    let (_, signed) = Any::from_der(certificate.data).ok()?;
    let mut rest = signed.data;
    for _ in 0..BEFORE_SUBJECT {
        (rest, _) = Any::from_der(rest).ok()?;
    }
    Any::from_der(rest).ok().map(|(_, subject)| subject.data)
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
        check_cost(others)?;
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
        check_cost(others)?;
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName,
        DnType, IsCa, KeyPair,
    };
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::server::WebPkiClientVerifier;

    use super::*;
    use crate::termination::provider;

    /// The parameters of an authority, with so many bytes more.
    fn params(name: &str, more: usize) -> CertificateParams {
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2], vec![0; more])];
        params
    }

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        CertifiedIssuer::self_signed(params(name, 0), KeyPair::generate().unwrap()).unwrap()
    }

    fn accepts(others: &[CertificateDer<'_>]) -> bool {
        check_cost(others).is_ok()
    }

    #[test]
    fn certificates_that_are_expensive_to_search_are_refused() {
        let of = |names: &[&str], more| -> Vec<_> {
            let key = KeyPair::generate().unwrap();
            let certificate = |name: &&str| params(name, more).self_signed(&key).unwrap();
            names.iter().map(|name| certificate(name).der().clone()).collect()
        };
        assert!(accepts(&[]));
        assert!(accepts(&of(&["a", "b", "c", "d", "e"], 0)));
        assert!(!accepts(&of(&["a", "b", "c", "d", "e", "f"], 0)));
        assert!(accepts(&of(&["a", "b", "a", "b", "c"], 0)));
        assert!(!accepts(&of(&["a", "b", "a", "c", "a"], 0)));
        assert!(accepts(&of(&["a", "b", "c"], 4 << 10)));
        assert!(!accepts(&of(&["a", "b", "c"], 6 << 10)));
        let unreadable = CertificateDer::from_slice(&[0x30, 0x01]);
        assert!(accepts(&vec![unreadable.clone(); 2]));
        assert!(!accepts(&vec![unreadable; 3]));
    }

    #[test]
    fn a_subject_is_found_in_every_certificate_and_in_no_part_of_one() {
        let own = authority("name");
        let (_, read) = x509_parser::certificate::X509Certificate::from_der(own.der()).unwrap();
        let found = subject(own.der()).unwrap();
        assert!(read.subject().as_raw().ends_with(found) && found.ends_with(b"name"));
        for length in 0..own.der().len() {
            assert_eq!(subject(&own.der()[..length]), None, "{length}");
        }
    }

    /// An authority whose name two others have signed: only one of them is known.
    #[test]
    fn a_path_is_found_by_either_certificate_of_an_authority() {
        let (known, unknown, key) =
            (authority("known"), authority("unknown"), KeyPair::generate().unwrap());
        let by = |issuer| params("between", 0).signed_by(&key, issuer).unwrap().der().clone();
        let others = [by(&unknown), unknown.der().clone(), by(&known), known.der().clone()];
        let between = rcgen::Issuer::new(params("between", 0), &key);
        let mut own = params("own", 0);
        own.is_ca = IsCa::NoCa;
        let own = own.signed_by(&KeyPair::generate().unwrap(), &between).unwrap().der().clone();
        let mut store = RootCertStore::empty();
        store.add(known.der().clone()).unwrap();
        let (store, provider) = (Arc::new(store), Arc::clone(provider()));
        let of_clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&store), Arc::clone(&provider));
        let of_clients = ClientVerifier::new(of_clients.build().unwrap());
        let of_endpoints = WebPkiServerVerifier::builder_with_provider(store, provider);
        let of_endpoints = EndpointVerifier(of_endpoints.build().unwrap());
        let now = UnixTime::now();
        assert!(of_clients.verify_client_cert(&own, &others, now).is_ok());
        let name = ServerName::try_from("a.test").unwrap();
        assert!(of_endpoints.verify_server_cert(&own, &others, &name, &[], now).is_ok());
        // Both refuse before they search.
        let ambiguous = [by(&known), by(&known), by(&known)];
        assert!(of_clients.verify_client_cert(&own, &ambiguous, now).is_err());
        assert!(of_endpoints.verify_server_cert(&own, &ambiguous, &name, &[], now).is_err());
    }
}
