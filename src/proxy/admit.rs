//! Admit: the limits on connections, before the first read and after the route is known.

use super::connection::Connection;
use super::context::Context;
use super::hellos::ServedHello;
use super::refuse::Refusal;

/// The permits that a connection holds until it ends.
#[derive(Debug)]
pub(super) struct Admission<'a> {
    _hello: Option<ServedHello<'a>>,
}

/// Admits a client that has just been accepted. The number of open connections already includes it.
///
/// # Errors
/// When the process has no descriptors left for it.
pub(super) fn admit_newcomer(context: &Context) -> Result<(), Refusal> {
    if context.is_full() {
        context.refused_for_want_of_descriptors();
        return Err(Refusal::LimitExceeded);
    }
    Ok(())
}

/// Admits a connection to its route.
///
/// # Errors
/// When the connection is part of a loop: too many connections with the same hello are being served.
pub(super) fn admit<'a>(
    context: &'a Context,
    connection: &Connection,
) -> Result<Admission<'a>, Refusal> {
    let enter = |key| context.hellos().enter(key).ok_or(Refusal::Loop);
    Ok(Admission { _hello: connection.hello_key.map(enter).transpose()? })
}
