//! The TLS of a stream: records in and out of its socket.
//!
//! All bytes go through a buffer that the worker's streams share. A stream has memory of its own only for a
//! record that has not arrived completely, and for ciphertext that the socket did not take.

mod handshake;

use std::io;
use std::rc::Rc;
use std::task::{Poll, ready};

use rustls::{CommonState, Error};

use super::cipher_buffer::{CipherBuffer, MOST_KEPT, MOST_PLAINTEXT};
use super::engine::{
    LONGEST_RECORD, OVERHEAD_13, Plaintext, TlsEngine, record_length, spoil_other_version,
};
use super::stream_fault::StreamFault;
use crate::proxy::socket::Socket;

/// What a full read has besides its data, if it is of full records: then none is cut.
const READ_OVERHEAD: usize = MOST_PLAINTEXT / (16 * 1024) * OVERHEAD_13;
/// What a record counts besides its data: a small one costs as much as so many bytes. One without data may change
/// keys.
const RECORD_WORK: u64 = 1024;
const BARREN_WORK: u64 = 16 * 1024;
/// The work of one read.
const READ_WORK: u64 = 256 * 1024;
/// The most records without data in a row: changes of keys, tickets, parts of them, empty records. rustls limits some of
/// these, but lets one kind end the row of another.
const MOST_BARREN: u8 = 64;

/// The TLS of one stream.
pub(in crate::proxy) struct TlsLayer {
    engine: TlsEngine,
    buffer: Rc<CipherBuffer>,
    /// What was received and is needed still.
    input: Vec<u8>,
    /// How many of the first bytes of it the engine has seen.
    seen: usize,
    /// Ciphertext; bytes before `flushed` are sent.
    output: Vec<u8>,
    flushed: usize,
    /// Whether a step of the handshake was made.
    has_begun: bool,
    reading: Reading,
    /// Why it has failed, if that is because of TLS.
    failure: Option<Box<StreamFault>>,
    /// Whether a `close_notify` was sent, or is in the output.
    said_end: bool,
    /// Whether the last read ended because it was too much work.
    yielded: bool,
    /// The work of reads, besides their data, that nobody has taken into account yet.
    work: u64,
    /// How many records without data have come in a row since the handshake.
    barren: u8,
    /// The bytes that the socket has taken.
    sent: u64,
}

/// The state of the peer's direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Open,
    /// It has ended by a `close_notify`.
    Closed,
    /// It has ended without. That is a failure if bytes may be missing.
    Cut,
    /// The peer broke the rules, or its bytes are not its own; or nothing more can be sent to it.
    Failed,
}

impl TlsLayer {
    /// TLS from the start: `input` was received already, and `prefix` is to be sent before any record.
    pub(in crate::proxy) fn new(
        mut engine: TlsEngine,
        buffer: &Rc<CipherBuffer>,
        input: Vec<u8>,
        prefix: Vec<u8>,
    ) -> Self {
        // A client of TLS has said its hello.
        let has_begun = matches!(engine, TlsEngine::Client(_));
        let mut output = prefix;
        engine.take_queued(&mut output);
        TlsLayer {
            engine,
            buffer: Rc::clone(buffer),
            input,
            seen: 0,
            output,
            flushed: 0,
            has_begun,
            reading: Reading::Open,
            failure: None,
            said_end: false,
            yielded: false,
            work: 0,
            barren: 0,
            sent: 0,
        }
    }

    /// What was negotiated.
    pub(in crate::proxy) fn state(&self) -> &CommonState {
        self.engine.state()
    }

    /// Reads data into `buffer`; 0 is the end.
    ///
    /// # Errors
    /// When the connection is broken, or the peer breaks the rules of TLS. An end without `close_notify` is none, because
    /// what has arrived before it is intact: see [`TlsLayer::is_cut`].
    pub(in crate::proxy) fn poll_recv(
        &mut self,
        socket: &Socket,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut plaintext = Plaintext::new(buffer);
        self.yielded = false;
        let mut budget = READ_WORK;
        loop {
            match self.reading {
                Reading::Open => {}
                Reading::Closed | Reading::Cut => return Poll::Ready(Ok(0)),
                Reading::Failed => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            }
            let worked = ready!(self.poll_read(socket, &mut plaintext, budget))?;
            if plaintext.len() > 0 {
                return Poll::Ready(Ok(plaintext.len()));
            }
            budget = budget.saturating_sub(worked);
            if worked == 0 && self.has_record() {
                // A record for which `buffer` is too small.
                self.failed(StreamFault::TooLarge);
            } else if budget == 0 {
                self.yielded = true;
                return Poll::Pending;
            }
        }
    }

    /// Processes records, after a read if there is no complete one. Returns the work.
    fn poll_read(
        &mut self,
        socket: &Socket,
        plaintext: &mut Plaintext<'_>,
        budget: u64,
    ) -> Poll<io::Result<u64>> {
        let shared = Rc::clone(&self.buffer);
        let mut buffer = shared.0.borrow_mut();
        let mut length = self.input.len();
        if !self.has_record() {
            if length > MOST_KEPT + LONGEST_RECORD {
                self.failed(StreamFault::TooLarge);
                return Poll::Ready(Ok(0));
            }
            // So much that the plaintext fits.
            let most = plaintext.room() + READ_OVERHEAD;
            let most = most.saturating_sub(length).max(LONGEST_RECORD);
            let end = (length + most).min(buffer.len());
            let room = buffer.get_mut(length..end).unwrap_or_default();
            match ready!(socket.poll_recv(room))? {
                0 => {
                    self.cut();
                    return Poll::Ready(Ok(0));
                }
                read => length += read,
            }
        }
        let Some((kept, _)) = buffer.split_at_mut_checked(length) else {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        };
        if let Some(start) = kept.get_mut(..self.input.len()) {
            start.copy_from_slice(&self.input);
        }
        let worked = self.process(kept, plaintext, budget);
        drop(buffer);
        // Whether it fits or not: what was read before an error counts.
        let _ = self.poll_flush(socket);
        Poll::Ready(Ok(worked.unwrap_or_default()))
    }

    /// Handles an end of the connection without `close_notify`: bytes may be missing, unless the peer needs to send
    /// none, because it has got our end.
    fn cut(&mut self) {
        self.reading = Reading::Cut;
        if !self.said_end || self.has_output() {
            self.failure = Some(Box::new(StreamFault::Cut));
        }
    }

    /// Processes the complete records in `received`, or as many as are about `budget` of work, and keeps the rest.
    /// During a handshake, stops at its end.
    pub(super) fn process(
        &mut self,
        received: &mut [u8],
        plaintext: &mut Plaintext<'_>,
        budget: u64,
    ) -> Result<u64, Error> {
        let handshaking = self.engine.state().is_handshaking();
        let (mut start, mut worked, mut fault) = (0, 0, None);
        while worked < budget && handshaking == self.engine.state().is_handshaking() {
            let rest = received.get_mut(start..).unwrap_or_default();
            let Some(record) = rest.get(self.seen..).and_then(record_length) else { break };
            if !handshaking && plaintext.room() < self.engine.data_of(record) {
                break;
            }
            let Some(given) = rest.get_mut(..self.seen + record) else { break };
            given.get_mut(self.seen..).into_iter().for_each(spoil_other_version);
            let before = plaintext.len();
            match self.engine.process(given, plaintext, &mut self.output) {
                Ok(processed) => {
                    self.seen = given.len().saturating_sub(processed.discarded);
                    start += processed.discarded;
                    let data = (plaintext.len() - before) as u64;
                    worked += self.work_of(data) + data;
                    if processed.closed {
                        self.reading = Reading::Closed;
                    } else if !handshaking {
                        self.bear(data);
                    }
                    if self.reading != Reading::Open {
                        break;
                    }
                }
                Err(error) => {
                    self.failed(StreamFault::Tls(error.clone()));
                    fault = Some(error);
                    break;
                }
            }
        }
        // What follows a `close_notify` or a fault is nobody's.
        let rest = match self.reading {
            Reading::Open => received.get(start..).unwrap_or_default(),
            _ => &[],
        };
        self.input = rest.to_vec();
        self.seen = self.seen.min(rest.len());
        fault.map_or(Ok(worked), Err)
    }

    /// Counts the work of a record with so much data, besides the data.
    fn work_of(&mut self, data: u64) -> u64 {
        let work = if data > 0 { RECORD_WORK } else { BARREN_WORK };
        self.work += work;
        work
    }

    /// Puts up with a record that has so much data, unless too many before it had none.
    fn bear(&mut self, data: u64) {
        self.barren = if data > 0 { 0 } else { self.barren + 1 };
        if self.barren > MOST_BARREN {
            self.failed(StreamFault::Barren);
        }
    }

    /// Ends reading because of a fault of TLS. A cut stays a cut, because it must not look like an end to the other side.
    fn failed(&mut self, fault: StreamFault) {
        if self.reading != Reading::Cut {
            self.reading = Reading::Failed;
            self.failure = Some(Box::new(fault));
        }
    }

    /// Encrypts and sends the first of `bytes`, if everything before them is sent. What the socket does not take is
    /// kept, and counts as sent.
    ///
    /// # Errors
    /// When the connection is broken, or has no keys left that may encrypt. Then the next read fails, too.
    pub(in crate::proxy) fn poll_send(
        &mut self,
        socket: &Socket,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(socket))?;
        if self.reading == Reading::Failed {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if !socket.may_write() {
            return Poll::Pending;
        }
        let bytes = bytes.get(..MOST_PLAINTEXT).unwrap_or(bytes);
        let shared = Rc::clone(&self.buffer);
        let mut buffer = shared.0.borrow_mut();
        let kept = self.input.get_mut(..self.seen).unwrap_or_default();
        let Ok(length) = self.engine.encrypt(kept, bytes, &mut buffer) else {
            // Nothing else would ever end the connection: its peer may wait for the bytes that it does not get.
            self.failed(StreamFault::Exhausted);
            socket.wake();
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        };
        let ciphertext = buffer.get(..length).unwrap_or_default();
        let sent = match socket.poll_send(ciphertext) {
            Poll::Ready(sent) => sent?,
            Poll::Pending => 0,
        };
        self.sent += sent as u64;
        self.output.extend_from_slice(ciphertext.get(sent..).unwrap_or_default());
        Poll::Ready(Ok(bytes.len()))
    }

    /// Sends ciphertext that is kept.
    pub(in crate::proxy) fn poll_flush(&mut self, socket: &Socket) -> Poll<io::Result<()>> {
        while let Some(rest) = self.output.get(self.flushed..).filter(|rest| !rest.is_empty()) {
            let sent = ready!(socket.poll_send(rest))?;
            self.flushed += sent;
            self.sent += sent as u64;
        }
        (self.output, self.flushed) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Sends a `close_notify`, once.
    ///
    /// # Errors
    /// When the connection is broken, or TLS has failed: nothing may follow an alert, and the engine is not to be called.
    pub(in crate::proxy) fn poll_close(&mut self, socket: &Socket) -> Poll<io::Result<()>> {
        if self.reading == Reading::Failed {
            ready!(self.poll_flush(socket))?;
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if !std::mem::replace(&mut self.said_end, true) {
            let kept = self.input.get_mut(..self.seen).unwrap_or_default();
            self.engine.close(kept, &mut self.output);
        }
        self.poll_flush(socket)
    }

    /// Whether ciphertext is kept that is not sent.
    pub(in crate::proxy) fn has_output(&self) -> bool {
        self.output.len() > self.flushed
    }

    /// The ciphertext that is kept and not sent.
    pub(in crate::proxy) fn unsent(&self) -> &[u8] {
        self.output.get(self.flushed..).unwrap_or_default()
    }

    /// Whether something was received that the engine has not processed.
    pub(in crate::proxy) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Whether a read goes on without more bytes of the peer.
    pub(in crate::proxy) fn may_go_on(&self) -> bool {
        self.yielded || self.reading != Reading::Open || self.has_record()
    }

    /// Whether the peer broke the rules, so that it was sent an alert, or it has sent one itself.
    pub(in crate::proxy) fn has_failed(&self) -> bool {
        self.reading == Reading::Failed
    }

    /// Why it has failed, if that is because of TLS.
    pub(in crate::proxy) fn failure(&self) -> Option<&StreamFault> {
        self.failure.as_deref()
    }

    /// Whether the peer has ended without `close_notify`.
    pub(in crate::proxy) fn is_cut(&self) -> bool {
        self.reading == Reading::Cut
    }

    /// Whether the peer has ended so before it needed to, so that bytes may be missing.
    pub(in crate::proxy) fn is_truncated(&self) -> bool {
        self.is_cut() && self.failure.is_some()
    }

    /// The bytes that the socket has taken.
    pub(in crate::proxy) fn sent(&self) -> u64 {
        self.sent
    }

    /// Takes the work of reads into account, besides their data, as a number of bytes.
    pub(in crate::proxy) fn take_work(&mut self) -> u64 {
        std::mem::take(&mut self.work)
    }

    /// Whether a complete record was received that the engine has not seen.
    fn has_record(&self) -> bool {
        let unseen = self.input.get(self.seen..).unwrap_or_default();
        record_length(unseen).is_some_and(|length| unseen.len() >= length)
    }
}

#[cfg(test)]
impl TlsLayer {
    /// Takes what is to be sent.
    pub(super) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Takes what was received and is needed still.
    pub(super) fn take_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }
}
