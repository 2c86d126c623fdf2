//! Any bytes at all, read at once, read in pieces, and read out of other records.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tls::{ClientHello, HelloReader, InvalidHello, Progress};

// `tls` imports nothing of the crate around it, so it can stand here without it.
#[allow(dead_code, unused_imports)]
#[path = "../../../src/tls/mod.rs"]
mod tls;

const MAX: usize = 16 << 10;
const MOST: usize = 2 * MAX + 512;

fuzz_target!(|received: &[u8]| {
    let whole = HelloReader::new(MAX).read(received);

    let mut growing = HelloReader::new(MAX);
    let first = (0..=received.len())
        .map(|end| (end, growing.read(&received[..end])))
        .find(|(_, progress)| *progress != Progress::Incomplete);
    match &first {
        Some((_, progress)) => assert_eq!(*progress, whole),
        None => {
            assert_eq!(whole, Progress::Incomplete);
            assert!(received.len() <= MOST);
        }
    }

    match whole {
        Progress::Hello(hello) => {
            assert_eq!(first.map(|(end, _)| end), Some(hello.consumed));
            consistent(&hello);
            let single = in_records_of_one_byte(&received[..hello.consumed]);
            let expected = match single.len() {
                ..=MOST => Progress::Hello(ClientHello { consumed: single.len(), ..hello }),
                _ => Progress::Refused(InvalidHello::TooManyRecords),
            };
            assert_eq!(HelloReader::new(MAX).read(&single), expected);
        }
        // Its text is for logs.
        Progress::Refused(refusal) => assert!(refusal.to_string().is_ascii()),
        Progress::Incomplete => {}
    }
});

fn consistent(hello: &ClientHello) {
    if let Some(name) = &hello.server_name {
        let normalised = name.as_str();
        assert!(!normalised.is_empty() && normalised.len() <= 253);
        assert!(normalised.split('.').all(|label| (1..=63).contains(&label.len())));
        assert!(normalised.parse::<std::net::IpAddr>().is_err());
        assert!(!normalised.bytes().any(|byte| byte.is_ascii_uppercase()));
    }
    if let Some(name) = &hello.unusable_name {
        assert!(hello.server_name.is_none());
        let shown = name.sent.as_str();
        assert!(shown.len() <= 255 && shown.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }
    assert!(hello.alpn.iter().all(|protocol| !protocol.is_empty() && hello.alpn.offers(protocol)));
    assert_eq!(hello.versions.iter().next(), hello.versions.highest());
}

/// The same handshake message in records that hold one byte each.
fn in_records_of_one_byte(records: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), records);
    while let Some(([_, _, _, high, low], after)) = rest.split_first_chunk() {
        let (body, after) = after.split_at(u16::from_be_bytes([*high, *low]).into());
        out.extend(body.iter().flat_map(|&byte| [22, 3, 3, 0, 1, byte]));
        rest = after;
    }
    out
}
