//! From the bytes of a connection to the whole ClientHello: records and the handshake message that
//! they carry (RFC 8446 §5.1).

use super::hello::{Random, name_in_broken, random};
use super::{ClientHello, InvalidHello, MalformedHello, SentName};

const RECORD_HEADER: usize = 5;
const HANDSHAKE_RECORD: u8 = 22;
/// The longest record of plaintext (RFC 8446 §5.1).
const MAX_RECORD: usize = 1 << 14;

const HANDSHAKE_HEADER: usize = 4;
const CLIENT_HELLO: u8 = 1;

/// What records may add to a hello: as much as the longest hello has, and this. A client that cuts
/// its hello into pieces of a few bytes costs more than it asks for.
const SPARE: usize = 512;

/// Reads the ClientHello of one connection as it arrives.
///
/// A hello that lies whole in its first record, as nearly all do, is parsed where it was received.
/// Only one that is cut over records is gathered, record by record: its memory is at most twice
/// what was received of it, and what was gathered is never looked at again before the hello is
/// whole.
#[derive(Debug)]
pub struct HelloReader {
    max_hello: usize,
    /// The length in bytes of the whole records that were taken so far.
    taken: usize,
    /// The handshake bytes that these records hold.
    gathered: Vec<u8>,
    /// The length of the hello with its header, once it is known.
    length: Option<usize>,
    /// The name in a hello that was refused when it was whole.
    named: Option<SentName>,
    /// Of a hello that was taken.
    random: Random,
}

/// How far a [`HelloReader`] got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All is well so far, and the hello is not whole yet.
    Incomplete,
    /// The hello is whole and legal. If its `server_name` is `None`, the client named no server.
    Hello(ClientHello),
    /// No hello can come of this.
    Refused(InvalidHello),
}

impl HelloReader {
    /// A reader that refuses hellos of more than `max_hello` bytes, counted as the handshake
    /// message's header declares them. Allocates nothing.
    pub fn new(max_hello: usize) -> Self {
        let (gathered, random) = (Vec::new(), [0; 32]);
        HelloReader { max_hello, taken: 0, gathered, length: None, named: None, random }
    }

    /// Reads on. `received` is all that the connection has received from its start: what it was at
    /// the last call, and more.
    ///
    /// The answer depends on the bytes alone, not on how many calls they took. It is
    /// [`Progress::Incomplete`] only as long as no more than `2 * max_hello + 512` bytes were
    /// received. Any other answer is the last: what a call after it returns means nothing.
    pub fn read(&mut self, received: &[u8]) -> Progress {
        // What is beyond does not count, so that it makes no difference how much of it is there.
        let most = self.max_hello.saturating_mul(2).saturating_add(SPARE);
        match self.advance(received.get(..most).unwrap_or(received)) {
            Ok(None) if received.len() > most => Progress::Refused(InvalidHello::TooManyRecords),
            Ok(None) => Progress::Incomplete,
            Ok(Some(hello)) => Progress::Hello(hello),
            Err(refusal) => Progress::Refused(refusal),
        }
    }

    /// The random value of the hello that was whole, by which it is known when it comes again: every
    /// client chooses it anew (RFC 8446 §4.1.2). Zeros before that.
    pub fn random(&self) -> &[u8; 32] {
        &self.random
    }

    /// The name in a hello that was whole and refused as malformed, if it can still be read.
    pub fn name_in_refused(&mut self) -> Option<SentName> {
        self.named.take()
    }

    /// Takes record after record. Every check comes as soon as its bytes are there, in the order of
    /// these bytes: that is what makes the answer independent of the cuts between calls.
    fn advance(&mut self, received: &[u8]) -> Result<Option<ClientHello>, InvalidHello> {
        while let Some(record) = Record::at(self.taken, received)? {
            if self.length.is_none() {
                self.length = self.declared_length(record.body)?;
            }
            // The hello ends its record. Keys change after it, and a message must not span such a
            // change (RFC 8446 §5.1); and what shares its record could be a second hello, read by
            // a server that is not as strict as this.
            let whole = self.gathered.len() + record.length;
            if self.length.is_some_and(|length| whole > length) {
                return Err(MalformedHello::TrailingHandshake.into());
            }
            if record.body.len() < record.length {
                return Ok(None);
            }
            self.taken += RECORD_HEADER + record.length;
            let complete = self.length == Some(whole);
            if complete && self.gathered.is_empty() {
                return self.parse(record.body).map(Some);
            }
            self.gathered.extend_from_slice(record.body);
            if complete {
                let message = std::mem::take(&mut self.gathered);
                return self.parse(&message).map(Some);
            }
        }
        Ok(None)
    }

    /// The length of the hello by its header, the header included; `None` as long as the header is
    /// not whole. `body` is what there is of the record after those that were gathered.
    fn declared_length(&self, body: &[u8]) -> Result<Option<usize>, InvalidHello> {
        let mut bytes = self.gathered.iter().chain(body).copied();
        match bytes.next() {
            Some(CLIENT_HELLO) | None => {}
            Some(_) => return Err(MalformedHello::NotClientHello.into()),
        }
        let (Some(high), Some(middle), Some(low)) = (bytes.next(), bytes.next(), bytes.next())
        else {
            return Ok(None);
        };
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if length > self.max_hello {
            return Err(InvalidHello::TooLarge);
        }
        Ok(Some(HANDSHAKE_HEADER + length))
    }

    fn parse(&mut self, message: &[u8]) -> Result<ClientHello, InvalidHello> {
        let body = message.get(HANDSHAKE_HEADER..).unwrap_or_default();
        let parsed = ClientHello::parse(body, self.taken);
        match (&parsed, random(body)) {
            (Err(_), _) => self.named = name_in_broken(body),
            (Ok(_), random) => self.random = random.copied().unwrap_or_default(),
        }
        Ok(parsed?)
    }
}

/// A handshake record, perhaps not all of it.
struct Record<'a> {
    /// By its header.
    length: usize,
    /// What was received of it, never more than `length`.
    body: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record that begins at `start`; `None` as long as its header is not whole.
    fn at(start: usize, received: &'a [u8]) -> Result<Option<Self>, InvalidHello> {
        let bytes = received.get(start..).unwrap_or_default();
        // What does not even begin like TLS is another protocol. Later it is a broken hello.
        let foreign = |malformed: MalformedHello| match start {
            0 => InvalidHello::NotTls,
            _ => malformed.into(),
        };
        if bytes.first().is_some_and(|&kind| kind != HANDSHAKE_RECORD) {
            return Err(foreign(MalformedHello::ForeignRecord));
        }
        if bytes.get(1).is_some_and(|&major| major != 3) {
            return Err(foreign(MalformedHello::RecordVersion));
        }
        if bytes.get(2).is_some_and(|&minor| minor > 3) {
            return Err(MalformedHello::RecordVersion.into());
        }
        let Some(([_, _, _, high, low], rest)) = bytes.split_first_chunk::<RECORD_HEADER>() else {
            return Ok(None);
        };
        match usize::from(u16::from_be_bytes([*high, *low])) {
            0 => Err(MalformedHello::EmptyRecord.into()),
            length if length > MAX_RECORD => Err(MalformedHello::RecordTooLong.into()),
            length => Ok(Some(Record { length, body: rest.get(..length).unwrap_or(rest) })),
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests;
