//! The handshake of a stream's TLS.

use std::task::{Poll, ready};

use super::{READ_WORK, Reading, TlsLayer};
use crate::proxy::reactor::StepOf;
use crate::proxy::socket::Socket;
use crate::proxy::stream::cipher_buffer::MOST_KEPT;
use crate::proxy::stream::engine::{LONGEST_RECORD, Plaintext};
use crate::proxy::stream::handshake_fault::HandshakeFault;
use crate::tls::{AlertDescription, alert};

impl TlsLayer {
    /// Ends TLS with an alert instead of a handshake. A flush sends it.
    pub(in crate::proxy) fn fail(&mut self, why: AlertDescription) {
        self.output.extend_from_slice(&alert(why));
        self.reading = Reading::Failed;
    }

    /// Goes on with the handshake, whose steps are expensive: each waits until `may_step`, which is told what it
    /// belongs to.
    pub(in crate::proxy) fn poll_handshake(
        &mut self,
        socket: &Socket,
        may_step: impl Fn(StepOf) -> bool,
    ) -> Poll<Result<(), HandshakeFault>> {
        loop {
            if socket.is_broken() {
                // Not worth a step.
                return Poll::Ready(Err(HandshakeFault::Closed));
            }
            let flushed = self.poll_flush(socket);
            if !self.engine.state().is_handshaking() {
                // What is not sent yet, such as tickets, is sent before any data. Its work had turns of its own.
                self.work = 0;
                return Poll::Ready(Ok(()));
            }
            ready!(flushed).map_err(HandshakeFault::Broken)?;
            if !self.has_record() {
                ready!(self.poll_fill(socket))?;
                continue;
            }
            // Only a client's first flight finds nothing that has come before.
            let of = if self.has_begun { StepOf::Begun } else { StepOf::New };
            if !may_step(of) {
                return Poll::Pending;
            }
            self.has_begun = true;
            let mut input = std::mem::take(&mut self.input);
            let stepped = self.process(&mut input, &mut Plaintext::none(), READ_WORK);
            if let Err(error) = stepped {
                // It is tried once. If the alert does not fit, the connection just ends.
                let _ = self.poll_flush(socket);
                return Poll::Ready(Err(error.into()));
            }
        }
    }

    /// Reads more of an incomplete record.
    fn poll_fill(&mut self, socket: &Socket) -> Poll<Result<(), HandshakeFault>> {
        if self.input.len() > MOST_KEPT + LONGEST_RECORD {
            return Poll::Ready(Err(HandshakeFault::TooLarge));
        }
        let mut buffer = self.buffer.0.borrow_mut();
        let room = buffer.get_mut(..LONGEST_RECORD).unwrap_or_default();
        Poll::Ready(match ready!(socket.poll_recv(room)) {
            Ok(0) => Err(HandshakeFault::Closed),
            Ok(read) => {
                self.input.extend_from_slice(room.get(..read).unwrap_or_default());
                Ok(())
            }
            Err(error) => Err(HandshakeFault::Broken(error)),
        })
    }
}
