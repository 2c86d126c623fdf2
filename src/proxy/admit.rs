//! Admit: who may come in, and how many, before the first read and after the route is known.

use std::sync::Arc;

use super::connection::Connection;
use super::context::Context;
use super::hellos::ServedHello;
use super::listener::PeerRole;
use super::refuse::Refusal;
use crate::config::WhenFull;
use crate::limiter::{ExceededLimit, LimitSet, Limiter, Tick};
use crate::outcome::Limit;
use crate::policy::LimitMode;
use crate::routing::Route;

/// What a connection holds while it is being served.
#[derive(Debug)]
pub(super) struct Admission<'a> {
    _hello: Option<ServedHello<'a>>,
}

/// Admits a client that has just been accepted. The number of open connections already includes it.
///
/// # Errors
/// When the listener does not admit it, or the process has no descriptors left for it and nobody gives way. The
/// client of a proxy is not known yet.
pub(super) fn admit_newcomer(
    context: &Context,
    connection: &mut Connection,
) -> Result<(), Refusal> {
    let peer = connection.source.ip();
    let client = match connection.listener.role_of(peer) {
        PeerRole::Client => {
            admit_client(connection)?;
            Some(peer)
        }
        PeerRole::Proxy | PeerRole::ProxyOrClient => None,
        PeerRole::Refused => return Err(Refusal::AccessDenied),
    };
    // Last: nobody gives way to a client that is not admitted.
    let has_room = || context.settings.when_full == WhenFull::Fair && context.room.make_for(client);
    if context.is_full() && !has_room() {
        context.refused_for_want_of_descriptors();
        return Err(Refusal::LimitExceeded(Limit::Process));
    }
    Ok(())
}

/// Admits a client to its listener, once it is known who the client is.
///
/// # Errors
/// When the listener does not admit it.
pub(super) fn admit_client(connection: &mut Connection) -> Result<(), Refusal> {
    connection.is_admitted = true;
    let (listener, source) = (&connection.listener, connection.source.ip());
    if !listener.access.admits(source) {
        return Err(Refusal::AccessDenied);
    }
    if let (Some(limits), Some(limiter)) = (listener.limits, listener.limiter.clone()) {
        limit(connection, &limits, &limiter, Limit::Listener, Tick::now())?;
    }
    Ok(())
}

/// Admits a connection to its route.
///
/// # Errors
/// When the listener or the route does not admit the client, the route is suspended, a limit is exceeded, or the
/// connection is part of a loop: too many connections with the same hello are being served, or sluice has sent it, and would
/// send another one.
pub(super) fn admit<'a>(
    context: &'a Context,
    connection: &mut Connection,
    route: &Route,
) -> Result<Admission<'a>, Refusal> {
    if !connection.is_admitted {
        // The client of a proxy that does not name it is the proxy.
        admit_client(connection)?;
    }
    let policy = &route.spec.policy;
    if !policy.access().admits(connection.source.ip()) {
        return Err(Refusal::AccessDenied);
    }
    if policy.is_suspended() {
        return Err(Refusal::Suspended);
    }
    let termination = route.spec.termination.as_ref();
    let sends_its_own = termination.is_some_and(|one| one.upstream().is_some());
    let enter = |key| context.hellos().enter(key, sends_its_own).ok_or(Refusal::Loop);
    let hello = connection.hello_key.map(enter).transpose()?;
    if let Some(limits) = policy.limits() {
        let (sources, namespace) = (&context.workers.sources, route.spec.key.namespace());
        let (limiters, now) = (route.stats.limiters(sources, namespace), Tick::now());
        for (limits, limiter) in limits.iter().zip(limiters) {
            let Some(limits) = limits else { continue };
            limit(connection, limits, limiter, Limit::Route, now)?;
        }
    }
    Ok(Admission { _hello: hello })
}

/// Counts a connection that exceeds no limit. `place` is what has the limits.
///
/// # Errors
/// The limit that it exceeds, unless that is only reported.
fn limit(
    connection: &mut Connection,
    limits: &LimitSet,
    limiter: &Arc<Limiter>,
    place: Limit,
    now: Tick,
) -> Result<(), Refusal> {
    match limiter.admit(limits, connection.source.ip(), now) {
        Ok(permit) => {
            connection.permits.push(permit);
            Ok(())
        }
        Err(exceeded) => {
            let limit = match exceeded {
                ExceededLimit::Source => Limit::Source,
                ExceededLimit::Connections => place,
                ExceededLimit::Rate => Limit::Rate,
            };
            match limits.mode {
                LimitMode::Enforce => Err(Refusal::LimitExceeded(limit)),
                LimitMode::Report => {
                    connection.is_over(limit);
                    Ok(())
                }
            }
        }
    }
}
