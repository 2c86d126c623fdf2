//! Admit: the limits on connections, before the first read and after the route is known.

use super::connection::Connection;
use super::context::Context;
use super::hellos::ServedHello;
use super::listener::PeerRole;
use super::refuse::Refusal;
use crate::routing::Route;

/// The permits that a connection holds until it ends.
#[derive(Debug)]
pub(super) struct Admission<'a> {
    _hello: Option<ServedHello<'a>>,
}

/// Admits a client that has just been accepted. The number of open connections already includes it.
///
/// # Errors
/// When the process has no descriptors left for it, or the listener does not admit it. The client of a proxy
/// is not known yet.
pub(super) fn admit_newcomer(context: &Context, connection: &Connection) -> Result<(), Refusal> {
    if context.is_full() {
        context.refused_for_want_of_descriptors();
        return Err(Refusal::LimitExceeded);
    }
    let (listener, peer) = (&connection.listener, connection.source.ip());
    let is_admitted = match listener.role_of(peer) {
        PeerRole::Client => listener.access.admits(peer),
        PeerRole::Proxy | PeerRole::ProxyOrClient => true,
        PeerRole::Refused => false,
    };
    if is_admitted { Ok(()) } else { Err(Refusal::AccessDenied) }
}

/// Admits a connection to its route.
///
/// # Errors
/// When the route is suspended or does not admit the client, or when the connection is part of a loop: too
/// many connections with the same hello are being served.
pub(super) fn admit<'a>(
    context: &'a Context,
    connection: &Connection,
    route: &Route,
) -> Result<Admission<'a>, Refusal> {
    if route.spec.policy.is_suspended() {
        return Err(Refusal::Suspended);
    }
    if !route.spec.policy.access().admits(connection.source.ip()) {
        return Err(Refusal::AccessDenied);
    }
    let enter = |key| context.hellos().enter(key).ok_or(Refusal::Loop);
    Ok(Admission { _hello: connection.hello_key.map(enter).transpose()? })
}
