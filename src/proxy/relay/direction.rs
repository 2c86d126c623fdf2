//! One direction of a relay: from one stream to the other, in order, within bounded memory.

use std::io;
use std::task::{Poll, ready};

use rustix::io::Errno;

use super::bounds::Bounds;
use super::io_context::IoContext;
use super::mode::Mode;
use crate::proxy::pipes::{Pipe, Pipes};
use crate::proxy::socket::{Socket, UNSUPPORTED};
use crate::proxy::stream::Stream;

/// After this many bytes, the unsent bytes in the kernel are limited. Waiting for the first bulk, or until
/// the receiver first blocks, would be too late.
const MUCH: u64 = 256 * 1024;

/// One direction of a relay.
pub(super) struct Direction {
    unsent: Unsent,
    mode: Mode,
    stage: Stage,
    /// Allocated only when needed; few directions have bounds.
    bounds: Option<Box<Bounds>>,
    /// Whether the sender was cut off: its TLS must not look ended to the receiver.
    pub(super) is_cut_off: bool,
    /// Whether the sender has sent a byte.
    pub(super) has_read: bool,
    /// Bytes that were relayed.
    pub(super) bytes: u64,
}

/// Bytes that were read and that the receiver has not taken yet.
enum Unsent {
    Nothing,
    /// In memory; bytes before the index are sent. At most as many as the worker's buffer holds.
    Bytes(Vec<u8>, usize),
    /// In a borrowed pipe, with their number.
    Piped(Pipe, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Open,
    /// The sender has sent everything; unsent bytes remain.
    Ended,
    /// The receiver has got all bytes and the end.
    Done,
    /// The receiver accepts no more bytes.
    Refused,
}

/// How a receiver learns that no more bytes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// By a half-close: the other direction goes on. In TLS, it is a `close_notify`.
    HalfClose,
    /// By the close of the sockets, which follows at once; in TLS, by a `close_notify` before that.
    Close,
    /// As by a half-close, and in TLS by the end of the connection below as well: the peer is to close, too.
    Parting,
}

/// Why a direction stopped moving bytes.
pub(super) enum StopReason {
    /// It waits for a socket, or is done.
    Blocked,
    /// It could continue: its share is used up, or it waits for bulk's turn.
    Yielded,
}

impl Direction {
    /// A direction that sends `first` before anything else.
    pub(super) fn new(first: Vec<u8>) -> Self {
        let unsent = if first.is_empty() { Unsent::Nothing } else { Unsent::Bytes(first, 0) };
        let mode = Mode::Copy { large: 0 };
        Direction {
            unsent,
            mode,
            stage: Stage::Open,
            bounds: None,
            is_cut_off: false,
            has_read: false,
            bytes: 0,
        }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// How the receiver of the other direction learns of its end.
    pub(super) fn farewell_of_other(&self) -> Farewell {
        if self.stage == Stage::Done { Farewell::Close } else { Farewell::HalfClose }
    }

    /// Moves up to about `share` bytes, or does as much work; bulk only in bulk's turn. The receiver learns of the
    /// end by `farewell`.
    ///
    /// # Errors
    /// When the sender has reset the connection. An error of the receiver only sets the stage to
    /// [`Stage::Refused`], because bytes that it sent before may still be read.
    pub(super) fn poll(
        &mut self,
        from: &Stream,
        to: &Stream,
        io: &mut IoContext<'_>,
        share: u64,
        farewell: Farewell,
    ) -> io::Result<StopReason> {
        let (begin, mut work) = (self.bytes, 0);
        loop {
            if matches!(self.mode, Mode::Bulk { .. }) && !io.bulk {
                let goes_on = self.may_go_on(from, to);
                return Ok(if goes_on { StopReason::Yielded } else { StopReason::Blocked });
            }
            match self.flush(from, to, io) {
                Poll::Pending => {
                    self.block(from, to, io.pipes)?;
                    return Ok(StopReason::Blocked);
                }
                Poll::Ready(Ok(())) => from.socket().watch_reads(true)?,
                Poll::Ready(Err(_)) => {
                    self.discard(io.pipes);
                    self.stage = Stage::Refused;
                }
            }
            if self.stage != Stage::Open {
                self.pass_on_end(from, to, farewell);
                return Ok(StopReason::Blocked);
            }
            if (self.bytes - begin).saturating_add(work) >= share {
                return Ok(StopReason::Yielded);
            }
            let read = self.read(from, to, io);
            let worked = from.take_work();
            work += worked;
            match read {
                Poll::Pending if from.has_received() => {
                    self.adapt(from, to, worked);
                    return Ok(StopReason::Yielded);
                }
                Poll::Pending => return Ok(StopReason::Blocked),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(0)) => self.stage = Stage::Ended,
                Poll::Ready(Ok(read)) => {
                    self.has_read = true;
                    self.adapt(from, to, worked.saturating_add(read as u64));
                }
            }
        }
    }

    /// Reads no more. In a `pause`, it is as if the sender had ended here; else more was to come.
    pub(super) fn finish(&mut self, pause: bool) {
        if self.stage == Stage::Open {
            self.stage = Stage::Ended;
            self.is_cut_off = !pause;
        }
        // What is in a pipe must not wait for bulk's turn.
        self.mode = Mode::Copy { large: 0 };
    }

    /// After the sender's end, signals the end to the receiver. One without `close_notify` is passed on without; and
    /// to a receiver without TLS by a reset, because a FIN would tell it that it has everything.
    fn pass_on_end(&mut self, from: &Stream, to: &Stream, farewell: Farewell) {
        if self.stage != Stage::Ended {
            return;
        }
        let is_cut = from.is_cut() || self.is_cut_off;
        let notified = if is_cut { Poll::Ready(Ok(())) } else { to.poll_close_notify() };
        let Poll::Ready(notified) = notified else { return };
        if from.is_cut() && to.as_plain().is_some() {
            to.socket().reset_on_close();
            self.stage = Stage::Done;
            return;
        }
        let is_told = match farewell {
            Farewell::Close => true,
            Farewell::HalfClose => to.as_plain().is_none() && !from.is_cut(),
            Farewell::Parting => false,
        };
        let passed = notified.is_ok() && (is_told || to.socket().shutdown_write().is_ok());
        self.stage = if passed { Stage::Done } else { Stage::Refused };
    }

    /// Adapts the mode and the bounds to a read of this size. Work counts as bytes: small records of TLS are bulk, too.
    fn adapt(&mut self, from: &Stream, to: &Stream, size: u64) {
        self.mode = self.mode.after(usize::try_from(size).unwrap_or(usize::MAX));
        if let Mode::Bulk { .. } = self.mode {
            let bytes = self.bytes;
            self.bounds().carry_bulk(from.socket(), to.socket(), bytes);
        } else if self.bytes >= MUCH {
            self.bounds().bound_unsent(to.socket());
        }
    }

    /// Handles a receiver that accepts no more bytes for now.
    fn block(&mut self, from: &Stream, to: &Stream, pipes: &Pipes) -> io::Result<()> {
        let bytes = self.bytes;
        self.bounds().block(from.socket(), to.socket(), bytes);
        let is_piped = matches!(self.unsent, Unsent::Piped(..));
        if is_piped || matches!(self.mode, Mode::Bulk { .. }) {
            // Without this, each arriving segment would wake the worker.
            from.socket().watch_reads(false)?;
        }
        if is_piped && pipes.are_scarce() {
            self.leave_pipe(pipes)?;
        }
        Ok(())
    }

    /// Moves the bytes in a pipe to memory, so that a slow receiver does not occupy the pipe.
    fn leave_pipe(&mut self, pipes: &Pipes) -> io::Result<()> {
        self.unsent = match std::mem::replace(&mut self.unsent, Unsent::Nothing) {
            Unsent::Piped(pipe, size) => {
                let bytes = pipe.take(size);
                match &bytes {
                    Ok(bytes) if bytes.len() == size => pipes.give_back(pipe),
                    _ => pipes.close(pipe),
                }
                Unsent::Bytes(bytes?, 0)
            }
            unsent => unsent,
        };
        Ok(())
    }

    /// Updates the bounds of a direction that has moved `moved` bytes since the last check. If the receiver
    /// has taken nothing, its pipe is returned.
    pub(super) fn maintain(
        &mut self,
        from: &Stream,
        to: &Stream,
        pipes: &Pipes,
        moved: u64,
    ) -> io::Result<()> {
        let stuck = self.has_unsent(to);
        if let Some(bounds) = &mut self.bounds {
            bounds.maintain(from.socket(), to.socket(), moved, stuck);
        }
        if stuck && moved == 0 { self.leave_pipe(pipes) } else { Ok(()) }
    }

    fn bounds(&mut self) -> &mut Bounds {
        self.bounds.get_or_insert_default()
    }

    /// Whether [`Direction::poll`] may make progress.
    fn may_go_on(&self, from: &Stream, to: &Stream) -> bool {
        match (self.stage, self.has_unsent(to)) {
            (Stage::Done | Stage::Refused, _) => false,
            (Stage::Open, false) => from.may_read(),
            (Stage::Ended, false) => true,
            (Stage::Open | Stage::Ended, true) => to.socket().may_write(),
        }
    }

    /// Whether there are unsent bytes, here or in the receiver's stream.
    pub(super) fn has_unsent(&self, to: &Stream) -> bool {
        self.holds_bytes() || to.has_unsent()
    }

    /// Whether bytes were read that the receiver's stream has not taken.
    pub(super) fn holds_bytes(&self) -> bool {
        !matches!(self.unsent, Unsent::Nothing)
    }

    /// Discards unsent bytes.
    pub(super) fn discard(&mut self, pipes: &Pipes) {
        if let Unsent::Piped(pipe, _) = std::mem::replace(&mut self.unsent, Unsent::Nothing) {
            pipes.close(pipe);
        }
    }

    /// Sends unsent bytes.
    fn flush(&mut self, from: &Stream, to: &Stream, io: &IoContext<'_>) -> Poll<io::Result<()>> {
        let pipes = io.pipes;
        loop {
            let (sent, left) = match &mut self.unsent {
                Unsent::Nothing => return to.poll_flush(),
                Unsent::Bytes(bytes, start) => {
                    let rest = bytes.get(*start..).unwrap_or_default();
                    let sent = ready!(to.poll_send(rest))?;
                    *start += sent;
                    (sent, rest.len() - sent)
                }
                Unsent::Piped(pipe, size) => match to.socket().poll_splice_from(pipe.read(), *size)
                {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(sent)) => {
                        *size = size.saturating_sub(sent);
                        (sent, *size)
                    }
                    Poll::Ready(Err(error)) if unsupported(&error) => {
                        let bytes = pipe.take(*size)?;
                        self.discard(pipes);
                        pipes.disable();
                        self.unsent = Unsent::Bytes(bytes, 0);
                        continue;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                },
            };
            self.bytes += sent as u64;
            if left == 0
                && let Unsent::Piped(pipe, _) = std::mem::replace(&mut self.unsent, Unsent::Nothing)
            {
                pipes.give_back(pipe);
                let bytes = self.bytes;
                self.bounds().flush((from.socket(), to.socket()), bytes, io.now, io.fast);
            }
        }
    }

    /// Reads once; 0 is the end.
    fn read(
        &mut self,
        from: &Stream,
        to: &Stream,
        io: &mut IoContext<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Mode::Bulk { .. } = self.mode
            && let (Some(sender), Some(_)) = (from.as_plain(), to.as_plain())
            && !sender.has_urgent()
            && let Some(pipe) = io.pipes.borrow()
        {
            match self.splice(sender, pipe, io.pipes) {
                Poll::Ready(Err(error)) if unsupported(&error) => io.pipes.disable(),
                // Only a read confirms the end: a splice also returns 0 before an urgent byte, which may not
                // have been reported yet.
                Poll::Ready(Ok(0)) => sender.keep_urgent_in_line(),
                read => return read,
            }
        }
        self.copy(from, to, io)
    }

    /// Reads once and sends at once; keeps the bytes that do not fit.
    fn copy(
        &mut self,
        from: &Stream,
        to: &Stream,
        io: &mut IoContext<'_>,
    ) -> Poll<io::Result<usize>> {
        let read = ready!(from.poll_recv(io.buffer))?;
        if read == 0 {
            return Poll::Ready(Ok(0));
        }
        let bytes = io.buffer.get(..read).unwrap_or_default();
        let sent = match to.poll_send(bytes) {
            Poll::Ready(Ok(sent)) => sent,
            // The next flush gets the same error and handles it.
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        self.bytes += sent as u64;
        if let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            self.unsent = Unsent::Bytes(rest.to_vec(), 0);
        }
        if matches!(self.mode, Mode::Bulk { .. }) && !self.has_unsent(to) {
            let bytes = self.bytes;
            self.bounds().flush((from.socket(), to.socket()), bytes, io.now, io.fast);
        }
        Poll::Ready(Ok(read))
    }

    /// Fills a pipe, which the next flush empties.
    fn splice(&mut self, from: &Socket, pipe: Pipe, pipes: &Pipes) -> Poll<io::Result<usize>> {
        let read = from.poll_splice_to(pipe.write(), self.bounds().chunk().min(pipe.size));
        match read {
            Poll::Ready(Ok(read)) if read > 0 => self.unsent = Unsent::Piped(pipe, read),
            _ => pipes.give_back(pipe),
        }
        read
    }
}

/// Whether the kernel or a sandbox does not support splicing here. Copying may still work.
fn unsupported(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| UNSUPPORTED.contains(&errno))
}
