//! TLS with an endpoint, for routes that ask for it. There is no way back to plain TCP.

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use super::announce::header;
use super::connection::Connection;
use super::context::Context;
use super::crowd::prefix_of;
use super::hellos::SentHello;
use super::reactor::{StepOf, StepOwner};
use super::stream::{HandshakeFault, Stream, TlsEngine, TlsLayer};
use crate::routing::Route;
use crate::termination::UpstreamTls;
use crate::tls::{HelloReader, Progress};

/// The TLS that an attempt to connect begins as soon as the connection is open.
pub(super) struct EndpointTls {
    tls: Arc<UpstreamTls>,
    /// The protocol that was negotiated with the client.
    alpn: Option<Box<[u8]>>,
    /// The PROXY header, which comes before TLS.
    header: Vec<u8>,
    /// What tells the client from others.
    client: u128,
    /// The hello, so that it is recognised if it comes back.
    hello: OnceCell<SentHello>,
    waits: StepWaits,
    fault: RefCell<Option<HandshakeFault>>,
}

/// The time that the steps of a handshake have waited for their turns. It is the time of other handshakes, and says
/// nothing about an endpoint.
#[derive(Debug, Default)]
struct StepWaits {
    /// Since when one waits.
    since: Cell<Option<Instant>>,
    /// How long those before it have waited.
    before: Cell<Duration>,
}

impl StepWaits {
    /// Records whether a step may be made now.
    fn asked(&self, may_step: bool, now: Instant) {
        if may_step {
            self.before.set(self.total(now));
            self.since.set(None);
        } else if self.since.get().is_none() {
            self.since.set(Some(now));
        }
    }

    fn total(&self, now: Instant) -> Duration {
        let current = self.since.get().map(|since| now.saturating_duration_since(since));
        self.before.get() + current.unwrap_or_default()
    }
}

impl EndpointTls {
    /// What `route` asks for; `None` is plain TCP.
    pub(super) fn of(
        connection: &Connection,
        route: &Route,
        downstream: &Stream,
    ) -> Option<Box<Self>> {
        let tls = route.spec.termination.as_ref()?.upstream()?;
        let alpn = connection.terminated.as_ref().and_then(|terminated| terminated.alpn.clone());
        let mut bytes = Vec::new();
        header(&mut bytes, connection, route, downstream);
        let (waits, fault) = (StepWaits::default(), RefCell::default());
        Some(Box::new(EndpointTls {
            tls: Arc::clone(tls),
            alpn,
            header: bytes,
            client: prefix_of(connection.source.ip()),
            hello: OnceCell::new(),
            waits,
            fault,
        }))
    }

    /// Whether the handshake over `stream`, which is open, is complete (`true`) or has failed (`false`).
    pub(super) fn poll(&self, context: &Context, route: &Route, stream: &Stream) -> Poll<bool> {
        let fault = match ready!(self.poll_handshake(context, route, stream)) {
            Ok(()) => return Poll::Ready(true),
            Err(fault) => fault,
        };
        let key = &route.spec.key;
        tracing::debug!(route = %key, error = %fault, "TLS with an endpoint has failed");
        *self.fault.borrow_mut() = Some(fault);
        Poll::Ready(false)
    }

    fn poll_handshake(
        &self,
        context: &Context,
        route: &Route,
        stream: &Stream,
    ) -> Poll<Result<(), HandshakeFault>> {
        let owner = StepOwner { tenant: route.spec.key.namespace(), client: self.client };
        let may_step = |of| {
            let may_step = context.reactor.may_step(owner, of);
            self.waits.asked(may_step, Instant::now());
            may_step
        };
        if stream.tls().is_none() {
            // The handshake with its client is complete.
            if !may_step(StepOf::Begun) {
                return Poll::Pending;
            }
            let engine = TlsEngine::Client(self.tls.connect(self.alpn.as_deref())?);
            let header = self.header.clone();
            let layer = TlsLayer::new(engine, &context.ciphertext, Vec::new(), header);
            if let Some(sent) = self.enter_hello(context, &layer) {
                let _ = self.hello.set(sent);
            }
            stream.begin_tls(layer);
        }
        let Some(tls) = stream.tls() else { return Poll::Pending };
        tls.borrow_mut().poll_handshake(stream.socket(), may_step)
    }

    /// Records the hello that is to be sent, before the endpoint can see it.
    fn enter_hello(&self, context: &Context, layer: &TlsLayer) -> Option<SentHello> {
        let records = layer.unsent().get(self.header.len()..)?;
        // As a listener reads it.
        let mut reader = HelloReader::new(records.len());
        let Progress::Hello(_) = reader.read(records) else { return None };
        let hellos = context.hellos();
        hellos.send(hellos.key(reader.random()))
    }

    /// How long it has waited for its turns so far.
    pub(super) fn waited(&self) -> Duration {
        self.waits.total(Instant::now())
    }

    /// Why it has failed, once.
    pub(super) fn take_fault(&self) -> Option<HandshakeFault> {
        self.fault.borrow_mut().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_until_a_step_is_allowed_counts_as_waiting() {
        let (waits, begun) = (StepWaits::default(), Instant::now());
        let at = |millis: u64| begun + Duration::from_millis(millis);
        let total = |millis: u64| waits.total(at(millis)).as_millis();
        waits.asked(true, at(0));
        assert_eq!(total(100), 0);
        waits.asked(false, at(100));
        waits.asked(false, at(120));
        assert_eq!(total(150), 50);
        waits.asked(true, at(160));
        assert_eq!(total(1000), 60);
        waits.asked(false, at(1000));
        assert_eq!(total(1005), 65);
    }
}
