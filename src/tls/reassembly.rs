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
mod tests {
    use super::*;
    use MalformedHello::*;

    const MAX: usize = 16 << 10;

    fn read(received: &[u8]) -> Progress {
        HelloReader::new(MAX).read(received)
    }

    fn malformed(cause: MalformedHello) -> Progress {
        Progress::Refused(InvalidHello::Malformed(cause))
    }

    fn record(body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("a record");
        [&[22, 3, 1][..], &length.to_be_bytes(), body].concat()
    }

    /// The smallest legal hello, with its handshake header: no session id, one cipher suite, no
    /// extensions.
    fn message() -> Vec<u8> {
        let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
        [&[1, 0, 0, body.len() as u8][..], &body].concat()
    }

    fn is_hello(received: &[u8]) -> bool {
        matches!(read(received), Progress::Hello(_))
    }

    #[test]
    fn a_hello_may_come_in_any_records_of_ssl_3_0_to_tls_1_2() {
        let message = message();
        for minor in 0..=3 {
            let mut hello = record(&message);
            hello[2] = minor;
            assert!(is_hello(&hello), "3.{minor}");
        }
        for cut in 1..message.len() {
            let (one, two) = message.split_at(cut);
            let mut hello = [record(one), record(two)].concat();
            hello[RECORD_HEADER + cut + 2] = 3;
            assert!(is_hello(&hello), "cut at {cut}");
        }
    }

    #[test]
    fn what_does_not_begin_like_tls_is_told_at_its_first_byte() {
        for other in [
            &b"G"[..],
            b"GET / HTTP/1.1\r\n",
            b"\x80\x2e\x01\x03\x01", // SSLv2
            b"\x15\x03\x01",         // an alert
            b"\x17",
            b"\x00",
            b"\x16\x02",
            b"\x16\xfe\xfd", // DTLS 1.2
            b"\x16\x00\x00\x00\x00",
        ] {
            assert_eq!(
                read(other),
                Progress::Refused(InvalidHello::NotTls),
                "{}",
                other.escape_ascii()
            );
        }
        assert_eq!(read(b"\x16"), Progress::Incomplete);
        assert_eq!(read(b"\x16\x03"), Progress::Incomplete);
    }

    #[test]
    fn records_that_break_the_rules_are_refused_at_their_headers() {
        for (received, cause) in [
            (&b"\x16\x03\x04"[..], RecordVersion),
            (b"\x16\x03\xff", RecordVersion),
            (b"\x16\x03\x01\0\0", EmptyRecord),
            (b"\x16\x03\x01\x40\x01", RecordTooLong),
            (b"\x16\x03\x01\xff\xff", RecordTooLong),
            (b"\x16\x03\x01\0\x10\x02", NotClientHello),
            (b"\x16\x03\x01\0\x10\0", NotClientHello),
            (b"\x16\x03\x01\0\x01\x01\x15", ForeignRecord),
            (b"\x16\x03\x01\0\x01\x01\x14", ForeignRecord),
            (b"\x16\x03\x01\0\x01\x01\x17", ForeignRecord),
            (b"\x16\x03\x01\0\x01\x01\x16\x02", RecordVersion),
            (b"\x16\x03\x01\0\x01\x01\x16\x03\x04", RecordVersion),
            (b"\x16\x03\x01\0\x01\x01\x16\x03\x01\0\0", EmptyRecord),
            (b"\x16\x03\x01\0\x01\x01\x16\x03\x01\x40\x01", RecordTooLong),
            (b"\x16\x03\x01\0\x06\x01\0\0\x01", TrailingHandshake),
            (b"\x16\x03\x01\0\x04\x01\0\0\x29\x16\x03\x01\0\x2a", TrailingHandshake),
        ] {
            assert_eq!(read(received), malformed(cause), "{}", received.escape_ascii());
            // No byte earlier, and whatever follows.
            let (_, before) = received.split_last().expect("a byte");
            assert_eq!(read(before), Progress::Incomplete, "{}", received.escape_ascii());
            assert_eq!(read(&[received, &[0xff; 99]].concat()), malformed(cause));
        }
        for legal in
            [&b"\x16\x03\x01\x40\0"[..], b"\x16\x03\x01\0\x04\x01\0\0\x29\x16\x03\x01\0\x29"]
        {
            assert_eq!(read(legal), Progress::Incomplete, "{}", legal.escape_ascii());
        }
    }

    #[test]
    fn a_hello_that_is_too_long_is_refused_at_its_header() {
        let header = |length: u32| record(&[&[1][..], &length.to_be_bytes()[1..]].concat());
        for length in [MAX as u32 + 1, 1 << 16, (1 << 24) - 1] {
            assert_eq!(read(&header(length)), Progress::Refused(InvalidHello::TooLarge));
        }
        assert_eq!(read(&header(MAX as u32)), Progress::Incomplete);
        assert_eq!(
            HelloReader::new(64 << 10).read(&header(64 << 10)),
            Progress::Incomplete,
            "the maximum can be set"
        );
        let pieces = header(1 << 20).into_iter().skip(RECORD_HEADER).map(|byte| record(&[byte]));
        assert_eq!(
            read(&pieces.collect::<Vec<_>>().concat()),
            Progress::Refused(InvalidHello::TooLarge)
        );
    }

    #[test]
    fn what_follows_the_record_of_the_hello_is_none_of_its_business() {
        let hello = record(&message());
        for after in [&b"\x14\x03\x03\0\x01\x01"[..], b"\x17\x03\x03", b"GET /", &[0; 100_000]] {
            match read(&[&hello, after].concat()) {
                Progress::Hello(read) => assert_eq!(read.consumed, hello.len()),
                other => panic!("{other:?}"),
            }
        }
        let mut longer = message();
        longer.push(0);
        assert_eq!(read(&record(&longer)), malformed(TrailingHandshake));
    }

    #[test]
    fn an_empty_hello_is_whole_and_malformed() {
        assert_eq!(read(&record(&[1, 0, 0, 0])), malformed(Truncated));
    }

    #[test]
    fn memory_follows_what_was_received_and_not_what_was_declared() {
        let mut reader = HelloReader::new(MAX);
        assert_eq!(reader.gathered.capacity(), 0, "nothing before the first byte");
        assert_eq!(reader.read(b"\x16\x03\x01\x40\0\x01\0\x40\0"), Progress::Incomplete);
        assert_eq!(reader.gathered.capacity(), 0, "nothing for an unfinished record");

        let mut received = record(&[1, 0, 0x40, 0]);
        let mut reader = HelloReader::new(MAX);
        for gathered in 4..4000 {
            assert_eq!(reader.read(&received), Progress::Incomplete);
            assert_eq!(reader.gathered.len(), gathered);
            assert!(reader.gathered.capacity() <= (2 * gathered).max(8), "at {gathered}");
            received.extend(record(&[0]));
        }

        let mut reader = HelloReader::new(MAX);
        assert!(matches!(reader.read(&record(&message())), Progress::Hello(_)));
        assert_eq!(*reader.random(), [7; 32]);
        assert_eq!(reader.gathered.capacity(), 0, "one record is parsed in place");
    }

    #[test]
    fn records_take_no_more_than_the_longest_hello_and_a_little() {
        const MAX: usize = 1000;
        const MOST: usize = 2 * MAX + 512;
        let too_many = Progress::Refused(InvalidHello::TooManyRecords);
        let cut = |message: &[u8], size| message.chunks(size).flat_map(record).collect::<Vec<_>>();
        let message = [&[1, 0, 3, 0xe8][..], &[0; MAX]].concat();
        for size in [1, 2, 3, 4, 5, 10, 1004] {
            let received = cut(&message, size);
            let mut reader = HelloReader::new(MAX);
            let whole = HelloReader::new(MAX).read(&received);
            assert_eq!(whole == too_many, received.len() > MOST, "records of {size}");
            for end in 0..received.len().min(MOST + 1) {
                assert_eq!(reader.read(&received[..end]), Progress::Incomplete, "{end}");
            }
            assert_eq!(reader.read(&received[..received.len().min(MOST + 1)]), whole);
        }
        // What is wrong behind that is no longer looked at, however much comes at once.
        let mut received = cut(&message, 1);
        received[6 * (MOST / 6 + 1)] = 0;
        assert_eq!(HelloReader::new(MAX).read(&received), too_many);
        received[6 * (MOST / 6)] = 0;
        assert_eq!(HelloReader::new(MAX).read(&received), malformed(ForeignRecord));
    }

    #[test]
    fn the_name_in_a_malformed_hello_is_known() {
        let name = |name: &[u8]| {
            let name = [&[0, 0, name.len() as u8][..], name].concat();
            let list = [&[0, name.len() as u8][..], &name].concat();
            [&[0, 0, 0, list.len() as u8][..], &list].concat()
        };
        let hello = |extensions: &[u8]| {
            let length = [0, extensions.len() as u8];
            let body = [&message()[4..], &length, extensions].concat();
            [&[1, 0, 0, body.len() as u8][..], &body].concat()
        };
        let twice = [name(b"a.test"), name(b"b.test")].concat();
        let broken = [name(b"\xff.test"), vec![0, 16, 0, 1, 0]].concat();
        for (extensions, shown) in [
            (&twice[..], Some("a.test")),
            (&broken[..], Some("\\xff.test")),
            (&broken[broken.len() - 5..], None),
        ] {
            for size in [1000, 9] {
                let received: Vec<u8> = hello(extensions).chunks(size).flat_map(record).collect();
                let mut reader = HelloReader::new(MAX);
                assert!(matches!(reader.read(&received), Progress::Refused(_)));
                let named = reader.name_in_refused();
                assert_eq!(named.as_ref().map(SentName::as_str), shown);
            }
        }
    }

    #[test]
    fn a_spent_reader_does_not_panic() {
        let hello = record(&message());
        let mut reader = HelloReader::new(MAX);
        for received in [&hello[..], &hello[..], &[], &[0; 3], &hello[..9]] {
            reader.read(received);
        }
    }
}
