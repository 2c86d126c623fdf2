//! Handshake: serves TLS to the client of a route that asks for it.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Instant;

use rustls::HandshakeKind;

use super::connection::Connection;
use super::context::Context;
use super::crowd::prefix_of;
use super::reactor::{Interrupted, StepOwner};
use super::refuse::Refusal;
use super::stream::{HandshakeFault, Stream, TlsEngine, TlsLayer};
use super::terminated::Terminated;
use crate::routing::Route;
use crate::termination::ServerTls;
use crate::tls::{AlertDescription, TlsVersion};

/// Why a client of a listener of protocol `tcp` is refused.
const NO_HELLO: &str = "the route serves TLS, and the listener is not of protocol tls";

/// Serves TLS to the client, if the route asks for that: `received` is the beginning of the handshake. Returns the
/// bytes that are the endpoint's: what was received from another client, and nothing of TLS.
///
/// # Errors
/// When the route cannot serve TLS now, or the handshake is not completed in time.
pub(super) async fn handshake(
    context: &Context,
    connection: &mut Connection,
    route: &Route,
    downstream: &Stream,
    received: Vec<u8>,
) -> Result<Vec<u8>, Refusal> {
    let Some(termination) = &route.spec.termination else { return Ok(received) };
    let terminated = connection.terminated.insert(Box::default());
    if connection.hello.is_none() {
        terminated.failed(&NO_HELLO);
        return Err(Refusal::NoCertificate);
    }
    match termination.server() {
        Err(why) => {
            terminated.failed(&why);
            Err(Refusal::NoCertificate)
        }
        // Boxed, so that the tasks of other connections reserve no space for it.
        Ok(server) => {
            Box::pin(serve_tls(context, connection, route, server, downstream, received)).await
        }
    }
}

async fn serve_tls(
    context: &Context,
    connection: &mut Connection,
    route: &Route,
    server: &ServerTls,
    downstream: &Stream,
    received: Vec<u8>,
) -> Result<Vec<u8>, Refusal> {
    let begun = Instant::now();
    let waiting = context.room.enter_handshake(connection.source.ip(), context.most_hellos());
    let mut terminated = Box::<Terminated>::default();
    let ended = match begin(context, connection, server, downstream, received) {
        Ok(()) => {
            let client = prefix_of(connection.source.ip());
            let owner = StepOwner { tenant: route.spec.key.namespace(), client };
            let handshake = poll_fn(|_| poll(context, owner, downstream, &mut terminated));
            context.reactor.within(context.settings.timeouts.handshake, handshake).await
        }
        Err(fault) => Ok(Err(fault)),
    };
    let checked = match ended {
        Ok(ended) => ended.and_then(|()| check(route, server, downstream)),
        Err(Interrupted::Elapsed) => Err(HandshakeFault::TooSlow),
        Err(Interrupted::Cancelled) => {
            connection.terminated = Some(terminated);
            return Err(Refusal::Drained);
        }
    };
    context.room.has_handshake(waiting);
    let served = checked.map_err(|fault| {
        terminated.failed(&fault);
        context.metrics.handshakes.failed.inc();
        Refusal::HandshakeFailed
    });
    if let (Ok(()), Some(tls)) = (&served, downstream.tls()) {
        terminated.complete(tls.borrow().state(), begun.elapsed());
        context.metrics.handshakes.completed(terminated.resumed == Some(true), begun.elapsed());
    }
    connection.terminated = Some(terminated);
    served.map(|()| Vec::new())
}

fn begin(
    context: &Context,
    connection: &Connection,
    server: &ServerTls,
    downstream: &Stream,
    received: Vec<u8>,
) -> Result<(), HandshakeFault> {
    let offers = connection.hello.iter().flat_map(|hello| hello.alpn.iter());
    let engine = TlsEngine::Server(server.accept(offers)?);
    let mut layer = TlsLayer::new(engine, &context.ciphertext, received, Vec::new());
    let offered = connection.hello.as_ref().map(|hello| hello.versions.highest());
    // rustls misses an extension first that older clients do not send, and would tell them of that.
    let is_too_old = offered.is_some_and(|highest| highest < Some(TlsVersion::Tls12));
    if is_too_old {
        layer.fail(AlertDescription::ProtocolVersion);
    }
    downstream.begin_tls(layer);
    if is_too_old { Err(HandshakeFault::TooOld) } else { Ok(()) }
}

fn poll(
    context: &Context,
    owner: StepOwner<'_>,
    downstream: &Stream,
    terminated: &mut Terminated,
) -> Poll<Result<(), HandshakeFault>> {
    let Some(tls) = downstream.tls() else { return Poll::Ready(Err(HandshakeFault::Closed)) };
    let may_step = |of| context.reactor.may_step(owner, of);
    let polled = tls.borrow_mut().poll_handshake(downstream.socket(), may_step);
    if let Some(served) = ServerTls::take_served() {
        terminated.served = Some(served);
    }
    polled
}

/// Checks what rustls does not: a client that resumes a session may have shown its certificate long ago, and the route
/// was chosen by the first hello. The second one (RFC 8446 §4.1.2), which must offer the same protocols, may offer none;
/// whatever is selected of others is of the route's `alpn`.
fn check(route: &Route, server: &ServerTls, downstream: &Stream) -> Result<(), HandshakeFault> {
    let Some(tls) = downstream.tls() else { return Ok(()) };
    let tls = tls.borrow();
    let state = tls.state();
    if !route.spec.alpn.is_empty() && state.alpn_protocol().is_none() {
        return Err(HandshakeFault::NoProtocol);
    }
    match (state.handshake_kind(), state.peer_certificates()) {
        (Some(HandshakeKind::Resumed), Some(chain)) => Ok(server.check_resumed(chain)?),
        _ => Ok(()),
    }
}
