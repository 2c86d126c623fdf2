//! The answer of the endpoint: its first byte, or that it closes without one.

use super::direction::{Direction, Stage};
use crate::proxy::stream::Stream;

/// What the endpoint did first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Answer {
    /// It sent a byte.
    Byte,
    /// It closed or reset the connection while the client waited for a byte, and had sent some.
    EarlyClose,
}

/// Watches for the answer. There is at most one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AnswerWatch {
    #[default]
    Waiting,
    /// It has come, and nobody has taken it yet.
    Come(Answer),
    /// It was taken, or none is to come: the client left first.
    Over,
}

impl AnswerWatch {
    /// Looks at both directions after they were polled. `is_reset` is whether the endpoint has reset the
    /// connection.
    pub(super) fn look(
        &mut self,
        up: &Direction,
        down: &Direction,
        is_reset: bool,
        downstream: &Stream,
    ) {
        if *self != AnswerWatch::Waiting {
            return;
        }
        // A client that accepts no more bytes discards those that the endpoint had for it.
        let has_bytes = down.bytes > 0 || down.holds_bytes() || down.stage() == Stage::Refused;
        let is_closed = is_reset || down.stage() != Stage::Open;
        // A client that has sent its end, or is gone, may be why the endpoint closes.
        let client_left =
            matches!(up.stage(), Stage::Ended | Stage::Done) || downstream.socket().is_broken();
        // One that was not asked may have closed because of that. A client whose TLS ends here may be silent.
        let is_unasked = !up.has_read;
        *self = match (has_bytes, is_closed) {
            (true, _) => AnswerWatch::Come(Answer::Byte),
            (false, true) if client_left || is_unasked => AnswerWatch::Over,
            (false, true) => AnswerWatch::Come(Answer::EarlyClose),
            (false, false) => AnswerWatch::Waiting,
        };
    }

    /// Takes the answer, once.
    pub(super) fn take(&mut self) -> Option<Answer> {
        let AnswerWatch::Come(answer) = *self else { return None };
        *self = AnswerWatch::Over;
        Some(answer)
    }
}
