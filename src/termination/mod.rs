//! TLS that sluice serves itself: from the texts in Secrets to the settings of a handshake. Pure: no I/O.
//!
//! * An [`Identity`] is a certificate chain with its private key, and [`Roots`] are the certificates of
//!   authorities. Both are read from PEM.
//! * [`Termination`] is how a route serves TLS. It has a [`TerminationText`], which names Secrets and
//!   ConfigMaps and contains no key, and, once these could be read, a [`ServerTls`] and an [`UpstreamTls`].
//! * [`TicketKeys`] are the keys of session tickets. All routes use them, and replicas may share them.

mod authorities;
mod digest;
mod identity;
mod pem;
mod preference;
mod provider;
mod resolver;
mod server;
mod session_end;
#[cfg(test)]
mod tests;
mod text;
mod ticket_keys;
mod ticketer;
mod upstream;
mod verifier;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use authorities::{Roots, RootsFault};
pub use identity::{CertificateFacts, Identity, IdentityFault, KeyKind};
pub use preference::{NameMatch, Preference, is_wildcard_for};
pub use provider::provider;
pub use server::{ClientCertificates, ServerParts, ServerTls};
pub use text::{
    CaText, CertificateText, ClientCertificatesText, MinVersion, TerminationText, UpstreamText,
};
pub use ticket_keys::{InvalidTicketKeys, TicketKey, TicketKeySet, TicketKeys};
pub use upstream::{UpstreamParts, UpstreamTls};

/// How a route serves TLS.
#[derive(Debug, PartialEq, Eq)]
pub struct Termination {
    text: TerminationText,
    ready: Result<ReadyTermination, NotReady>,
    /// Whether a part of it is older than what its Secret or ConfigMap has now, because that cannot be used.
    stale: bool,
}

/// What the data plane needs to serve TLS.
#[derive(Debug, PartialEq, Eq)]
struct ReadyTermination {
    server: Arc<ServerTls>,
    upstream: Option<Arc<UpstreamTls>>,
}

/// Why a route that terminates TLS cannot serve it. Its connections are refused, and never passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// The installation does not terminate TLS.
    #[error("this installation does not terminate TLS (the setting terminate)")]
    Disabled,
    /// A certificate, or the certificates of an authority, could not be read so far.
    #[error("a certificate or authority of the route was not read yet, or is not usable")]
    NoCertificate,
}

/// Whether a route serves TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TlsState {
    /// It does.
    Served,
    /// It does, with a certificate or authorities that are older than what the Secret or ConfigMap has now, because that
    /// cannot be used.
    Stale,
    /// It does not, and its connections are refused: its conditions have the reason.
    Refused,
}

impl Termination {
    /// A termination that is ready.
    ///
    /// # Errors
    /// When rustls refuses the settings. The text is the cause, for people.
    pub fn new(
        text: TerminationText,
        server: ServerParts,
        upstream: Option<UpstreamParts>,
    ) -> Result<Self, String> {
        let server = ServerTls::new(server).map_err(|error| error.to_string())?;
        let upstream = upstream.map(UpstreamTls::new).transpose();
        let upstream = upstream.map_err(|error| error.to_string())?;
        let (server, upstream) = (Arc::new(server), upstream.map(Arc::new));
        let ready = Ok(ReadyTermination { server, upstream });
        Ok(Termination { text, ready, stale: false })
    }

    /// A termination that is not ready.
    pub fn not_ready(text: TerminationText, why: NotReady) -> Self {
        Termination { text, ready: Err(why), stale: false }
    }

    /// The same, of which a part is older than what its Secret or ConfigMap has now.
    #[must_use]
    pub fn with_stale(self, stale: bool) -> Self {
        Termination { stale, ..self }
    }

    /// Whether it serves TLS.
    pub fn state(&self) -> TlsState {
        match self.ready {
            Ok(_) if self.stale => TlsState::Stale,
            Ok(_) => TlsState::Served,
            Err(_) => TlsState::Refused,
        }
    }

    /// What the route asks for.
    pub fn text(&self) -> &TerminationText {
        &self.text
    }

    /// The client's side.
    ///
    /// # Errors
    /// Why it cannot be served now.
    pub fn server(&self) -> Result<&Arc<ServerTls>, NotReady> {
        self.ready.as_ref().map(|ready| &ready.server).map_err(|why| *why)
    }

    /// The endpoint's side, if endpoints get TLS.
    pub fn upstream(&self) -> Option<&Arc<UpstreamTls>> {
        self.ready.as_ref().ok()?.upstream.as_ref()
    }

    /// The certificates that it serves to clients, each with the text that names it.
    pub fn certificates(&self) -> impl Iterator<Item = (&CertificateText, &Arc<CertificateFacts>)> {
        let ready = self.ready.as_ref().ok();
        ready.into_iter().flat_map(|ready| ready.server.certificates())
    }

    /// The certificate that endpoints get on request, with the text that names it.
    pub fn upstream_certificate(&self) -> Option<(&CertificateText, &Arc<CertificateFacts>)> {
        self.upstream()?.certificate()
    }
}
