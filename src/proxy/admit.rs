//! Who is admitted: at the door, and once it is known where to.

use super::connection::Connection;
use super::context::Context;
use super::hellos::ServedHello;
use super::refuse::Refusal;

/// What an admitted connection holds until it ends.
#[derive(Debug)]
pub(super) struct Admission<'a> {
    _hello: Option<ServedHello<'a>>,
}

/// Admits a client of which nothing is known but its address. It is counted already.
///
/// # Errors
/// When the process has no descriptors for it.
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
/// When it goes round: its hello is being served as often as it may be.
pub(super) fn admit<'a>(
    context: &'a Context,
    connection: &Connection,
) -> Result<Admission<'a>, Refusal> {
    let enter = |key| context.hellos().enter(key).ok_or(Refusal::Loop);
    Ok(Admission { _hello: connection.hello_key.map(enter).transpose()? })
}
