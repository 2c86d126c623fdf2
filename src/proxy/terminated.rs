//! What is known of the TLS that sluice serves to a client, for the access log and for the endpoint.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::{CipherSuite, CommonState, HandshakeKind, ProtocolVersion};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::termination::{CertificateFacts, KeyKind};

/// The bytes of a text that a peer decides that are kept.
const MOST_TEXT: usize = 256;
/// The longest common name that is kept (X.520 allows 64 characters).
const MOST_COMMON_NAME: usize = 255;

/// The TLS with a client, as far as it has come.
#[derive(Default)]
pub(super) struct Terminated {
    /// The negotiated version: `TLSv1.2` or `TLSv1.3`.
    pub(super) version: Option<&'static str>,
    /// The negotiated cipher suite, by the name that OpenSSL has for it.
    pub(super) cipher: Option<&'static str>,
    /// The negotiated protocol.
    pub(super) alpn: Option<Box<[u8]>>,
    /// Whether the session of an earlier connection was resumed.
    pub(super) resumed: Option<bool>,
    /// The certificate that was served.
    pub(super) served: Option<Arc<CertificateFacts>>,
    /// The certificate of the client.
    pub(super) client: Option<ClientCertificate>,
    /// How long the handshake took.
    pub(super) took: Option<Duration>,
    /// Why TLS failed, with the client or then with an endpoint.
    pub(super) fault: Option<Box<str>>,
}

/// The certificate that a client has shown, and that was accepted.
pub(super) struct ClientCertificate {
    /// Its subject, escaped and shortened.
    pub(super) subject: Box<str>,
    /// The common name of its subject.
    pub(super) common_name: Option<Box<str>>,
}

impl Terminated {
    /// Records a complete handshake.
    pub(super) fn complete(&mut self, state: &CommonState, took: Duration) {
        self.version = state.protocol_version().and_then(version_name);
        self.cipher = state.negotiated_cipher_suite().and_then(|suite| cipher_name(suite.suite()));
        self.alpn = state.alpn_protocol().map(Box::from);
        self.resumed = state.handshake_kind().map(|kind| kind == HandshakeKind::Resumed);
        if self.resumed == Some(true) {
            // One was chosen, but not needed.
            self.served = None;
        }
        let shown = state.peer_certificates().and_then(<[_]>::first);
        self.client = shown.and_then(|certificate| ClientCertificate::read(certificate));
        self.took = Some(took);
    }

    /// Records why TLS failed.
    pub(super) fn failed(&mut self, fault: &dyn fmt::Display) {
        self.fault = Some(escaped(fault.to_string().as_bytes()));
    }

    /// The key of the certificate that was served, as `RSA2048` or `EC256`.
    pub(super) fn key(&self) -> Option<String> {
        Some(match self.served.as_ref()?.key {
            KeyKind::Rsa(bits) => format!("RSA{bits}"),
            KeyKind::Ecdsa(bits) => format!("EC{bits}"),
            KeyKind::Other => return None,
        })
    }
}

impl ClientCertificate {
    fn read(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let subject = certificate.subject();
        let common_name = common_name(subject).filter(|name| name.len() <= MOST_COMMON_NAME);
        Some(ClientCertificate {
            subject: escaped(subject.to_string().as_bytes()),
            common_name: common_name.map(Box::from),
        })
    }
}

fn common_name<'a>(subject: &'a X509Name<'_>) -> Option<&'a str> {
    subject.iter_common_name().next()?.as_str().ok()
}

/// A text that a peer may have decided: its first bytes, escaped.
fn escaped(text: &[u8]) -> Box<str> {
    text.get(..MOST_TEXT).unwrap_or(text).escape_ascii().to_string().into()
}

fn version_name(version: ProtocolVersion) -> Option<&'static str> {
    match version {
        ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
        ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
        _ => None,
    }
}

fn cipher_name(suite: CipherSuite) -> Option<&'static str> {
    Some(match suite {
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            "ECDHE-ECDSA-CHACHA20-POLY1305"
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cipher_suite_of_the_provider_has_a_name() {
        for suite in &crate::termination::provider().cipher_suites {
            assert!(cipher_name(suite.suite()).is_some(), "{:?}", suite.suite());
        }
    }

    #[test]
    fn a_text_of_a_peer_is_escaped_and_short() {
        let text = format!("CN=\"evil\"\n\u{1b}[31m{}", "x".repeat(1000));
        let kept = escaped(text.as_bytes());
        assert!(kept.starts_with(r#"CN=\"evil\"\n\x1b[31mxxx"#), "{kept}");
        assert!(kept.len() < MOST_TEXT * 4 && kept.is_ascii());
    }
}
