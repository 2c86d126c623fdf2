//! Reads the ClientHello from the bytes of a connection: from records, and from the handshake message that
//! they contain (RFC 8446 §5.1).

use super::hello::{Random, name_in_broken, random};
use super::{ClientHello, InvalidHello, MalformedHello, SentName};

const RECORD_HEADER: usize = 5;
const HANDSHAKE_RECORD: u8 = 22;
/// The longest record of plaintext (RFC 8446 §5.1).
const MAX_RECORD: usize = 1 << 14;

const HANDSHAKE_HEADER: usize = 4;
const CLIENT_HELLO: u8 = 1;

/// The records of a hello may have twice the bytes of the largest hello, plus this. Splitting a hello into
/// pieces of a few bytes would otherwise be an expensive request.
const SPARE: usize = 512;

/// Reads the ClientHello of one connection as it arrives.
///
/// A hello in a single record, as nearly all are, is parsed in place. A hello in several records is gathered
/// record by record: this takes at most twice the memory of the received bytes, and gathered bytes are not
/// read again until the hello is complete.
#[derive(Debug)]
pub struct HelloReader {
    max_hello: usize,
    /// The number of bytes of the complete records that were processed.
    taken: usize,
    /// The handshake bytes in these records.
    gathered: Vec<u8>,
    /// The length of the hello including its header, once it is known.
    length: Option<usize>,
    /// The name in a hello that was complete and refused.
    named: Option<SentName>,
    /// The random value of a valid hello.
    random: Random,
}

/// The result of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The hello is valid so far, and not complete.
    Incomplete,
    /// The hello is complete and valid. If its `server_name` is `None`, the client sent no usable name.
    Hello(ClientHello),
    /// The bytes are no valid hello, whatever follows.
    Refused(InvalidHello),
}

impl HelloReader {
    /// A reader that refuses hellos of more than `max_hello` bytes, according to the header of the handshake
    /// message. Allocates nothing.
    pub fn new(max_hello: usize) -> Self {
        let (gathered, random) = (Vec::new(), [0; 32]);
        HelloReader { max_hello, taken: 0, gathered, length: None, named: None, random }
    }

    /// Continues to read. `received` are all bytes of the connection from its start: those of the last call,
    /// and further ones.
    ///
    /// The result depends only on the bytes, not on the number of calls. It is [`Progress::Incomplete`] only
    /// while at most `2 * max_hello + 512` bytes were received. Any other result is final; the result of a
    /// later call is unspecified.
    pub fn read(&mut self, received: &[u8]) -> Progress {
        // Bytes beyond this are ignored, so that their number does not matter.
        let most = self.max_hello.saturating_mul(2).saturating_add(SPARE);
        match self.advance(received.get(..most).unwrap_or(received)) {
            Ok(None) if received.len() > most => Progress::Refused(InvalidHello::TooManyRecords),
            Ok(None) => Progress::Incomplete,
            Ok(Some(hello)) => Progress::Hello(hello),
            Err(refusal) => Progress::Refused(refusal),
        }
    }

    /// The random value of the complete hello, which identifies it if it is received again: every client
    /// chooses a new one for each hello (RFC 8446 §4.1.2). Zeros before that.
    pub fn random(&self) -> &[u8; 32] {
        &self.random
    }

    /// The name in a hello that was complete and refused as malformed, if it can be read.
    pub fn name_in_refused(&mut self) -> Option<SentName> {
        self.named.take()
    }

    /// Processes records. Each check is made as soon as its bytes are received, in the order of the bytes;
    /// this makes the result independent of how the bytes are split into calls.
    fn advance(&mut self, received: &[u8]) -> Result<Option<ClientHello>, InvalidHello> {
        while let Some(record) = Record::at(self.taken, received)? {
            if self.length.is_none() {
                self.length = self.declared_length(record.body)?;
            }
            // The hello must end its record. Keys change after it, and a message must not span a key change
            // (RFC 8446 §5.1). Further bytes in its record could also be a second hello, for a less strict
            // server.
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

    /// The length of the hello according to its header, including the header; `None` while the header is
    /// incomplete. `body` is the part of the current record that was not gathered.
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

/// A handshake record, which may be incomplete.
struct Record<'a> {
    /// The length in its header.
    length: usize,
    /// The received bytes of it, at most `length`.
    body: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record at `start`; `None` while its header is incomplete.
    fn at(start: usize, received: &'a [u8]) -> Result<Option<Self>, InvalidHello> {
        let bytes = received.get(start..).unwrap_or_default();
        // If the very first bytes are not TLS, this is another protocol; later, it is a malformed hello.
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
