//! TLS without I/O: a connection of rustls, of either side.
//!
//! rustls decrypts records where they lie, and keeps the start of an incomplete handshake message there: it
//! must be given the same bytes again, with more behind them.

use std::ops::RangeInclusive;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{CommonState, Error, ProtocolVersion};

/// The header of a record (RFC 8446 §5.1), and the longest payload of one: that of TLS 1.2 (RFC 5246 §6.2.3).
const HEADER: usize = 5;
const LONGEST_PAYLOAD: usize = (1 << 14) + 2048;
/// The kinds of records, and the major version of all of them.
const KINDS: RangeInclusive<u8> = 20..=24;
const MAJOR: u8 = 3;
/// What a record has besides its data at least: the header and a tag of 16 bytes; in TLS 1.3, a byte for its kind.
const LEAST_OVERHEAD: usize = HEADER + 16;
pub(super) const OVERHEAD_13: usize = LEAST_OVERHEAD + 1;
/// The longest record.
pub(super) const LONGEST_RECORD: usize = HEADER + LONGEST_PAYLOAD;

/// The TLS state of a connection.
pub(in crate::proxy) enum TlsEngine {
    /// With a client, for which sluice is the server.
    Server(UnbufferedServerConnection),
    /// With an endpoint, for which sluice is the client.
    Client(UnbufferedClientConnection),
}

/// Plaintext in a buffer of the caller.
pub(super) struct Plaintext<'a> {
    buffer: &'a mut [u8],
    filled: usize,
}

/// What became of received bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Processed {
    /// How many of the first bytes are done with.
    pub(super) discarded: usize,
    /// Whether the peer has sent its `close_notify`.
    pub(super) closed: bool,
}

/// What to do after a status of rustls was handled.
enum Next {
    /// It may have another status.
    Again,
    /// Data were read.
    Data,
    /// It waits for bytes of the peer.
    Wait,
    /// The peer has sent its `close_notify`.
    Closed,
}

impl TlsEngine {
    /// What both sides have in common.
    pub(super) fn state(&self) -> &CommonState {
        match self {
            TlsEngine::Server(connection) => connection,
            TlsEngine::Client(connection) => connection,
        }
    }

    /// The most data that a record of this length may have.
    pub(super) fn data_of(&self, record: usize) -> usize {
        let is_13 = self.state().protocol_version() == Some(ProtocolVersion::TLSv1_3);
        record.saturating_sub(if is_13 { OVERHEAD_13 } else { LEAST_OVERHEAD })
    }

    /// Processes `received`: what earlier calls have not discarded, and the next record. Adds what the peer is to
    /// get to `out`, also after an error: then it is an alert.
    ///
    /// # Errors
    /// When the peer breaks the rules of TLS, or has sent a fatal alert. No further call may follow.
    pub(super) fn process(
        &mut self,
        received: &mut [u8],
        plaintext: &mut Plaintext<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Processed, Error> {
        let mut processed = Processed::default();
        loop {
            let rest = received.get_mut(processed.discarded..).unwrap_or_default();
            let (discard, next) = self.step(rest, plaintext, out);
            processed.discarded += discard;
            match next {
                Ok(Next::Again) => {}
                // Nearly always, so that data take one call.
                Ok(Next::Data)
                    if processed.discarded >= received.len() && !self.state().wants_write() =>
                {
                    return Ok(processed);
                }
                Ok(Next::Data) => {}
                Ok(Next::Wait) => return Ok(processed),
                Ok(Next::Closed) => return Ok(Processed { closed: true, ..processed }),
                Err(error) => {
                    self.take_queued(out);
                    return Err(error);
                }
            }
        }
    }

    /// Encrypts `plaintext` into `out`, which must have room for it and for a little more. `kept` is what
    /// [`TlsEngine::process`] has not discarded of the bytes that it was given. Returns the length of the
    /// ciphertext.
    ///
    /// # Errors
    /// When the keys may encrypt no more (RFC 8446 §5.5), and cannot be changed as in TLS 1.3.
    pub(super) fn encrypt(
        &mut self,
        kept: &mut [u8],
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let mut written = 0;
        loop {
            let room = out.get_mut(written..).unwrap_or_default();
            let encrypted = match self {
                TlsEngine::Server(connection) => {
                    encrypt(connection.process_tls_records(kept), plaintext, room)
                }
                TlsEngine::Client(connection) => {
                    encrypt(connection.process_tls_records(kept), plaintext, room)
                }
            };
            match encrypted? {
                Encrypted::Plaintext(length) => return Ok(written + length),
                Encrypted::Queued(length) => written += length,
            }
        }
    }

    /// Adds a `close_notify` to `out`. `kept` is as for [`TlsEngine::encrypt`].
    pub(super) fn close(&mut self, kept: &mut [u8], out: &mut Vec<u8>) {
        self.take_queued(out);
        while match self {
            TlsEngine::Server(connection) => queue_close(connection.process_tls_records(kept)),
            TlsEngine::Client(connection) => queue_close(connection.process_tls_records(kept)),
        } {}
        self.take_queued(out);
    }

    /// Adds to `out` what is queued for the peer.
    pub(super) fn take_queued(&mut self, out: &mut Vec<u8>) {
        // As long as something is queued, rustls looks at no received bytes.
        while self.state().wants_write() {
            let (_, Ok(Next::Again)) = self.step(&mut [], &mut Plaintext::none(), out) else {
                return;
            };
        }
    }

    fn step(
        &mut self,
        received: &mut [u8],
        plaintext: &mut Plaintext<'_>,
        out: &mut Vec<u8>,
    ) -> (usize, Result<Next, Error>) {
        match self {
            TlsEngine::Server(connection) => {
                handle(connection.process_tls_records(received), plaintext, out)
            }
            TlsEngine::Client(connection) => {
                handle(connection.process_tls_records(received), plaintext, out)
            }
        }
    }
}

/// Handles one status. Returns how many bytes to discard.
fn handle<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plaintext: &mut Plaintext<'_>,
    out: &mut Vec<u8>,
) -> (usize, Result<Next, Error>) {
    let next = match status.state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut read = Ok(Next::Data);
            while let Some(record) = traffic.next_record() {
                if let Err(error) = record.and_then(|record| plaintext.add(record.payload)) {
                    read = Err(error);
                }
            }
            read
        }
        Ok(ConnectionState::EncodeTlsData(queued)) => encode(queued, out),
        Ok(ConnectionState::TransmitTlsData(encoded)) => {
            encoded.done();
            Ok(Next::Again)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Next::Closed),
        // No configuration allows early data, and no state is to come that this version does not know.
        Ok(ConnectionState::ReadEarlyData(_)) => Err(unexpected()),
        Ok(_) => Ok(Next::Wait),
    };
    (status.discard, next)
}

fn encode<Data>(mut queued: EncodeTlsData<'_, Data>, out: &mut Vec<u8>) -> Result<Next, Error> {
    let length = match queued.encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        Ok(_) | Err(EncodeError::AlreadyEncoded) => return Ok(Next::Again),
    };
    let start = out.len();
    out.resize(start + length, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    queued.encode(room).map(|_| Next::Again).map_err(|_| unexpected())
}

/// What was written.
enum Encrypted {
    /// The plaintext, behind what was still queued.
    Plaintext(usize),
    /// Something that was queued.
    Queued(usize),
}

fn encrypt<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plaintext: &[u8],
    room: &mut [u8],
) -> Result<Encrypted, Error> {
    match status.state? {
        ConnectionState::WriteTraffic(mut traffic) => traffic
            .encrypt(plaintext, room)
            .map(Encrypted::Plaintext)
            .map_err(|_| Error::EncryptError),
        ConnectionState::EncodeTlsData(mut queued) => {
            queued.encode(room).map(Encrypted::Queued).map_err(|_| unexpected())
        }
        ConnectionState::TransmitTlsData(encoded) => {
            encoded.done();
            Ok(Encrypted::Queued(0))
        }
        ConnectionState::PeerClosed => Ok(Encrypted::Queued(0)),
        _ => Err(unexpected()),
    }
}

/// Returns whether it is to be called again.
fn queue_close<Data>(status: UnbufferedStatus<'_, '_, Data>) -> bool {
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            // Without room, it stays queued.
            let _ = traffic.queue_close_notify(&mut []);
            false
        }
        Ok(ConnectionState::TransmitTlsData(encoded)) => {
            encoded.done();
            true
        }
        _ => false,
    }
}

fn unexpected() -> Error {
    Error::General("unexpected state".to_owned())
}

impl<'a> Plaintext<'a> {
    /// An empty buffer.
    pub(super) fn new(buffer: &'a mut [u8]) -> Self {
        Plaintext { buffer, filled: 0 }
    }

    /// One that takes nothing.
    pub(super) fn none() -> Self {
        Plaintext { buffer: &mut [], filled: 0 }
    }

    /// The number of bytes in it.
    pub(super) fn len(&self) -> usize {
        self.filled
    }

    /// The number of bytes that fit in.
    pub(super) fn room(&self) -> usize {
        self.buffer.len() - self.filled
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let end = self.filled + bytes.len();
        let room = self.buffer.get_mut(self.filled..end).ok_or_else(unexpected)?;
        room.copy_from_slice(bytes);
        self.filled = end;
        Ok(())
    }
}

/// Has rustls refuse the record at the start of `bytes`, if it is of no version that starts with 3. It knows those of
/// DTLS as well, and would wait for the rest of one.
pub(super) fn spoil_other_version(bytes: &mut [u8]) {
    if let Some(major) = bytes.get_mut(1).filter(|major| **major != MAJOR) {
        *major = 0;
    }
}

/// The length of the record at the start of `bytes`, if its header is there. Of what is no record, or one that is
/// longer than it may be, only the header counts: for that it is refused.
pub(super) fn record_length(bytes: &[u8]) -> Option<usize> {
    let [kind, major, _, high, low] = *bytes.first_chunk::<HEADER>()?;
    let payload = usize::from(u16::from_be_bytes([high, low]));
    let is_record = KINDS.contains(&kind) && major == MAJOR && payload <= LONGEST_PAYLOAD;
    Some(if is_record { HEADER + payload } else { HEADER })
}
