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

/// The smallest valid hello, with its handshake header: no session id, one cipher suite, no extensions.
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
fn other_protocols_are_detected_at_the_first_different_byte() {
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
        // Not one byte earlier, and whatever follows.
        let (_, before) = received.split_last().expect("a byte");
        assert_eq!(read(before), Progress::Incomplete, "{}", received.escape_ascii());
        assert_eq!(read(&[received, &[0xff; 99]].concat()), malformed(cause));
    }
    for legal in [&b"\x16\x03\x01\x40\0"[..], b"\x16\x03\x01\0\x04\x01\0\0\x29\x16\x03\x01\0\x29"] {
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
fn bytes_after_the_last_record_of_the_hello_are_ignored() {
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
fn memory_depends_on_received_bytes_and_not_on_declared_lengths() {
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
fn the_bytes_of_all_records_are_limited() {
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
    // Errors behind this point are ignored, however many bytes arrive at once.
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
