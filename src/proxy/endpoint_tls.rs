//! TLS with an endpoint, for routes that ask for it. There is no way back to plain TCP.

use std::cell::RefCell;
use std::sync::Arc;
use std::task::{Poll, ready};

use super::announce::header;
use super::connection::Connection;
use super::context::Context;
use super::stream::{HandshakeFault, Stream, TlsEngine, TlsLayer};
use crate::routing::Route;
use crate::termination::UpstreamTls;

/// The TLS that an attempt to connect begins as soon as the connection is open.
pub(super) struct EndpointTls {
    tls: Arc<UpstreamTls>,
    /// The protocol that was negotiated with the client.
    alpn: Option<Box<[u8]>>,
    /// The PROXY header, which comes before TLS.
    header: Vec<u8>,
    fault: RefCell<Option<HandshakeFault>>,
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
        let fault = RefCell::default();
        Some(Box::new(EndpointTls { tls: Arc::clone(tls), alpn, header: bytes, fault }))
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
        let may_step = || context.reactor.may_step(route.spec.key.namespace());
        if stream.tls().is_none() {
            if !may_step() {
                return Poll::Pending;
            }
            let engine = TlsEngine::Client(self.tls.connect(self.alpn.as_deref())?);
            let header = self.header.clone();
            stream.begin_tls(TlsLayer::new(engine, &context.ciphertext, Vec::new(), header));
        }
        let Some(tls) = stream.tls() else { return Poll::Pending };
        tls.borrow_mut().poll_handshake(stream.socket(), may_step)
    }

    /// Why it has failed, once.
    pub(super) fn take_fault(&self) -> Option<HandshakeFault> {
        self.fault.borrow_mut().take()
    }
}
