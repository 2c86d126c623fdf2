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
    match connection.listener.role_of(connection.source.ip()) {
        PeerRole::Client => admit_client(connection),
        PeerRole::Proxy | PeerRole::ProxyOrClient => Ok(()),
        PeerRole::Refused => Err(Refusal::AccessDenied),
    }
}

/// Admits a client to its listener, once it is known who the client is.
///
/// # Errors
/// When the listener does not admit it.
pub(super) fn admit_client(connection: &Connection) -> Result<(), Refusal> {
    match connection.listener.access.admits(connection.source.ip()) {
        true => Ok(()),
        false => Err(Refusal::AccessDenied),
    }
}

/// Admits a connection to its route.
///
/// # Errors
/// When the listener or the route does not admit the client, the route is suspended, or the connection is part of a loop: too
/// many connections with the same hello are being served.
pub(super) fn admit<'a>(
    context: &'a Context,
    connection: &Connection,
    route: &Route,
) -> Result<Admission<'a>, Refusal> {
    if connection.listener.proxies.is_some() {
        // The client of a proxy that does not name it is the proxy.
        admit_client(connection)?;
    }
    if !route.spec.policy.access().admits(connection.source.ip()) {
        return Err(Refusal::AccessDenied);
    }
    if route.spec.policy.is_suspended() {
        return Err(Refusal::Suspended);
    }
    let enter = |key| context.hellos().enter(key).ok_or(Refusal::Loop);
    Ok(Admission { _hello: connection.hello_key.map(enter).transpose()? })
}
