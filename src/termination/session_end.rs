//! How long the certificate that a client has shown is good for the sessions that follow.
//!
//! A session that is resumed needs no certificate, and gets a new ticket. So the end is in each ticket of a route that
//! asks for certificates, and passes from one to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ProducesTickets;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long after the client has shown it, in seconds.
const MOST_SECONDS: i64 = 2 * 60 * 60;
/// The bytes of a ticket's session that say when it ends.
const END: usize = size_of::<i64>();

/// When the sessions of one connection's client end, in seconds since 1970.
#[derive(Debug)]
pub(super) struct SessionEnd(AtomicI64);

/// Tickets that have the end. The one that a session is resumed from sets it for those that follow.
#[derive(Debug)]
pub(super) struct EndingTicketer {
    tickets: Arc<dyn ProducesTickets>,
    end: Arc<SessionEnd>,
}

impl EndingTicketer {
    /// The ticketer of one connection, and the end that its tickets have.
    pub(super) fn of_connection(
        tickets: &Arc<dyn ProducesTickets>,
    ) -> (Arc<Self>, Arc<SessionEnd>) {
        // A client without a certificate has nothing that ends.
        let end = Arc::new(SessionEnd(AtomicI64::new(i64::MAX)));
        let (tickets, its_end) = (Arc::clone(tickets), Arc::clone(&end));
        (Arc::new(EndingTicketer { tickets, end: its_end }), end)
    }
}

impl SessionEnd {
    /// Sets the end for a client that shows these certificates now.
    pub(super) fn set_by<'a>(
        &self,
        certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>,
        now: UnixTime,
    ) {
        self.set(end_of(certificates, seconds(now)));
    }

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

impl ProducesTickets for EndingTicketer {
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
