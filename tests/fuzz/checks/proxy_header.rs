//! Any bytes at all, read at once and in pieces, as a PROXY header.

use sluice::proxy_protocol::{Extensions, HeaderProgress, Version, read, write};

/// Returns whether the bytes begin with a header.
pub(crate) fn check(received: &[u8]) -> bool {
    let whole = read(received);
    let first = (0..=received.len())
        .map(|end| (end, read(&received[..end])))
        .find(|(_, progress)| *progress != HeaderProgress::Incomplete);
    match first {
        // What is decided stays decided, whatever comes behind it.
        Some((_, ref progress)) => assert_eq!(*progress, whole),
        None => assert_eq!(whole, HeaderProgress::Incomplete),
    }
    let HeaderProgress::Header(header) = whole else { return false };
    assert_eq!(first.map(|(end, _)| end), Some(header.length));
    let Some(addresses) = header.addresses else { return true };
    for version in [Version::V1, Version::V2] {
        let unique_id = header.unique_id.as_deref().filter(|_| version == Version::V2);
        let extensions = Extensions { unique_id, checksum: true, ..Extensions::default() };
        let mut written = Vec::new();
        write(&mut written, version, addresses, extensions);
        let HeaderProgress::Header(again) = read(&written) else { panic!("{written:?}") };
        assert_eq!(again.addresses, Some(addresses));
        assert_eq!(again.unique_id.as_deref(), unique_id);
    }
    true
}
