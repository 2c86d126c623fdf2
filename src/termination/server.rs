//! The client's side of a termination.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoClientAuth, NoServerSessionStorage, ProducesTickets, UnbufferedServerConnection,
};
use rustls::version::{TLS12, TLS13};
use rustls::{Error, ServerConfig};

use super::digest::Digest;
use super::resolver::{Resolver, take_chosen};
use super::session_end::EndingTicketer;
use super::text::{CertificateText, MinVersion};
use super::ticketer::Ticketer;
use super::verifier::ClientVerifier;
use super::{CertificateFacts, Identity, Roots, TicketKeys, provider};

/// The protocol of PostgreSQL's direct TLS. Its clients offer it alone, and refuse a server that does not select it.
const POSTGRESQL: &[u8] = b"postgresql";

/// What the client's side of a termination is made of.
#[derive(Debug)]
pub struct ServerParts {
    /// The certificates, at least one, each with the text that names it.
    pub certificates: Vec<(CertificateText, Arc<Identity>)>,
    /// The protocols that the server selects from, the preferred one first. If empty, it selects none, except
    /// `postgresql` if that is offered alone.
    pub alpn: Vec<Box<str>>,
    /// The lowest version of TLS.
    pub min_version: MinVersion,
    /// The certificates that clients have to show.
    pub client_certificates: Option<ClientCertificates>,
    /// The keys of session tickets.
    pub tickets: TicketKeys,
    /// What tells the route from all others. A ticket is good for one route only.
    pub route: Box<str>,
}

/// The certificates that clients have to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The authorities whose certificates are accepted.
    pub roots: Arc<Roots>,
    /// Whether a client without a certificate is refused.
    pub required: bool,
}

/// The client's side of a termination, ready for handshakes.
pub struct ServerTls {
    /// If clients have to show certificates, each connection gets settings of its own, with the same certificates.
    config: Arc<ServerConfig>,
    /// The same for clients that offer `postgresql` alone, if no protocols are selected otherwise.
    postgresql: Option<Arc<ServerConfig>>,
    resolver: Arc<Resolver>,
    /// If clients have to show certificates.
    verifier: Option<ClientVerifier>,
    tickets: Arc<dyn ProducesTickets>,
    /// What distinguishes it from others besides its certificates.
    settings: ServerSettings,
}

#[derive(Debug, PartialEq, Eq)]
struct ServerSettings {
    alpn: Vec<Box<str>>,
    min_version: MinVersion,
    client_certificates: Option<ClientCertificates>,
    tickets: TicketKeys,
    route: Box<str>,
}

impl ServerTls {
    /// # Errors
    /// When rustls refuses the parts.
    pub(super) fn new(parts: ServerParts) -> Result<Self, Error> {
        let ServerParts { certificates, alpn, min_version, client_certificates, tickets, route } =
            parts;
        let verifier = client_certificates
            .as_ref()
            .map(|asked| asked.roots.client_verifier(asked.required).map(ClientVerifier::new));
        let verifier = verifier.transpose()?;
        let resolver = Arc::new(Resolver(certificates.into()));
        let settings = ServerSettings { alpn, min_version, client_certificates, tickets, route };
        let tickets: Arc<dyn ProducesTickets> =
            Arc::new(Ticketer::new(&settings.tickets, settings.ticket_context()));
        let of_all: Arc<dyn ClientCertVerifier> = match &verifier {
            Some(verifier) => Arc::new(verifier.clone()),
            None => Arc::new(NoClientAuth),
        };
        let config = settings.config(&resolver, of_all, Arc::clone(&tickets))?;
        let postgresql = settings.alpn.is_empty().then(|| {
            let mut config = config.clone();
            config.alpn_protocols = vec![POSTGRESQL.to_vec()];
            Arc::new(config)
        });
        let config = Arc::new(config);
        Ok(ServerTls { config, postgresql, resolver, verifier, tickets, settings })
    }

    /// A connection with a client that offers these protocols (ALPN, RFC 7301).
    ///
    /// # Errors
    /// When rustls refuses the settings, which it has accepted before.
    pub fn accept<'o>(
        &self,
        offers: impl IntoIterator<Item = &'o [u8]>,
    ) -> Result<UnbufferedServerConnection, Error> {
        let mut offers = offers.into_iter();
        let alone = offers.next() == Some(POSTGRESQL) && offers.next().is_none();
        let config = self.postgresql.as_ref().filter(|_| alone).unwrap_or(&self.config);
        let Some(verifier) = &self.verifier else {
            return UnbufferedServerConnection::new(Arc::clone(config));
        };
        let (tickets, end) = EndingTicketer::of_connection(&self.tickets);
        let verifier = Arc::new(verifier.of_connection(&end));
        let mut own = self.settings.config(&self.resolver, verifier, tickets)?;
        own.alpn_protocols.clone_from(&config.alpn_protocols);
        UnbufferedServerConnection::new(Arc::new(own))
    }

    /// The certificate that the last processed hello on this thread got, once. A resumed session gets none.
    pub fn take_served() -> Option<Arc<CertificateFacts>> {
        take_chosen()
    }

    /// Checks the certificates that the client of a resumed session has shown in its first handshake. A ticket is not
    /// good for longer than they are; this does not rely on that.
    ///
    /// # Errors
    /// Why they are not accepted now.
    pub fn check_resumed(&self, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        match chain.split_first().zip(self.verifier.as_ref()) {
            None => Ok(()),
            Some(((own, others), verifier)) => {
                verifier.verify_client_cert(own, others, UnixTime::now()).map(|_| ())
            }
        }
    }

    /// Its certificates, each with the text that names it.
    pub fn certificates(&self) -> impl Iterator<Item = (&CertificateText, &Arc<CertificateFacts>)> {
        self.resolver.0.iter().map(|(text, identity)| (text, identity.facts()))
    }
}

impl ServerSettings {
    fn config(
        &self,
        resolver: &Arc<Resolver>,
        verifier: Arc<dyn ClientCertVerifier>,
        tickets: Arc<dyn ProducesTickets>,
    ) -> Result<ServerConfig, Error> {
        let versions: &[_] = match self.min_version {
            MinVersion::V12 => &[&TLS13, &TLS12],
            MinVersion::V13 => &[&TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::<Resolver>::clone(resolver));
        config.alpn_protocols = self.alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
        // Sessions are in tickets alone, so that any replica can resume them.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = tickets;
        config.send_tls13_tickets = 1;
        Ok(config)
    }

    /// What a ticket is bound to. A ticket proves that its client has shown a certificate, so it must not be good for
    /// other authorities than those that have accepted that certificate.
    fn ticket_context(&self) -> [u8; 32] {
        let mut digest = Digest::default();
        digest.add(self.route.as_bytes());
        digest.add(&[self.min_version as u8]);
        if let Some(ClientCertificates { roots, required }) = &self.client_certificates {
            digest.add(&[u8::from(*required)]);
            digest.add(roots.digest());
        }
        digest.finish()
    }
}

impl PartialEq for ServerTls {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings && self.resolver.0 == other.resolver.0
    }
}

impl Eq for ServerTls {}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificates: Vec<_> = self.certificates().collect();
        f.debug_struct("ServerTls")
            .field("certificates", &certificates)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
