#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn addresses(source: &str, destination: &str) -> ConnectionAddresses {
    ConnectionAddresses { source: address(source), destination: address(destination) }
}

fn line(text: &str) -> HeaderProgress {
    read(text.as_bytes())
}

/// Version 2 with this command, family and body.
fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend_from_slice(&[command, family]);
    header.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
    header.extend_from_slice(body);
    header
}

/// 192.0.2.1:56324 → 192.0.2.2:443, with these extensions behind.
fn tcp4(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 0x04, 0x01, 0xbb];
    body.extend_from_slice(extensions);
    binary(0x21, 0x11, &body)
}

#[track_caller]
fn header(bytes: &[u8]) -> Header {
    match read(bytes) {
        HeaderProgress::Header(header) => header,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_line_has_the_addresses_of_its_family() {
    for (text, expected) in [
        (
            "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n",
            Some(addresses("192.0.2.1:56324", "192.0.2.2:443")),
        ),
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            Some(addresses("255.255.255.255:65535", "255.255.255.255:65535")),
        ),
        (
            "PROXY TCP6 2001:db8::1 2001:DB8:0:0:0:0:0:2 0 443\r\n",
            Some(addresses("[2001:db8::1]:0", "[2001:db8::2]:443")),
        ),
        (
            "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1 2\r\n",
            Some(addresses("192.0.2.1:1", "192.0.2.2:2")),
        ),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    ] {
        let expected = Header { length: text.len(), addresses: expected, unique_id: None };
        assert_eq!(
            line(&format!("{text}\x16\x03\x01")),
            HeaderProgress::Header(expected),
            "{text}"
        );
    }
}

#[test]
fn a_line_that_breaks_a_rule_is_invalid() {
    for text in [
        "PROXY \r\n",
        "PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 \r\n",
        "PROXY TCP4 ::1 ::2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n",
    ] {
        assert_eq!(line(text), HeaderProgress::Invalid(InvalidHeader::LineFields), "{text:?}");
    }
    for text in ["PROXY UNKNOWN\n", "PROXY UNKNOWN\r\r\n", "PROXY UNKNOWN\rx"] {
        assert_eq!(line(text), HeaderProgress::Invalid(InvalidHeader::LineEnd), "{text:?}");
    }
    let filled = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16));
    assert_eq!(header(filled(107).as_bytes()).length, 107);
    assert_eq!(line(&filled(108)), HeaderProgress::Invalid(InvalidHeader::LineTooLong));
    assert_eq!(line(&filled(300)), HeaderProgress::Invalid(InvalidHeader::LineTooLong));
    assert_eq!(line(&filled(300)[..107]), HeaderProgress::Invalid(InvalidHeader::LineTooLong));
    assert_eq!(line(&filled(300)[..106]), HeaderProgress::Incomplete);
}

#[test]
fn a_binary_header_has_the_addresses_of_its_family() {
    let expected = Some(addresses("192.0.2.1:56324", "192.0.2.2:443"));
    assert_eq!(header(&tcp4(&[])).addresses, expected);
    let mut body = [0; 36];
    body[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    body[16..32].copy_from_slice(&"2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
    body[32..].copy_from_slice(&[0, 1, 0, 2]);
    let expected = addresses("[2001:db8::1]:1", "[2001:db8::2]:2");
    assert_eq!(header(&binary(0x21, 0x21, &body)).addresses, Some(expected));
}

#[test]
fn a_header_without_usable_addresses_is_valid() {
    for bytes in [
        LOCAL.to_vec(),
        // What else a LOCAL header has is ignored, an unknown family too.
        binary(0x20, 0xff, &[1, 2, 3]),
        binary(0x21, 0x00, &[]),
        binary(0x21, 0x00, &[0xff; 5]),
        // UDP, and UNIX sockets.
        binary(0x21, 0x12, &[1; 12]),
        binary(0x21, 0x31, &[0; 216]),
    ] {
        let expected = Header { length: bytes.len(), addresses: None, unique_id: None };
        assert_eq!(read(&bytes), HeaderProgress::Header(expected), "{bytes:?}");
    }
}

#[test]
fn a_binary_header_that_breaks_a_rule_is_invalid() {
    for (bytes, expected) in [
        (binary(0x11, 0x11, &[0; 12]), InvalidHeader::Version(1)),
        (binary(0x31, 0x11, &[0; 12]), InvalidHeader::Version(3)),
        (binary(0x22, 0x11, &[0; 12]), InvalidHeader::Command(2)),
        (binary(0x21, 0x41, &[0; 12]), InvalidHeader::Family(0x41)),
        (binary(0x21, 0x13, &[0; 12]), InvalidHeader::Family(0x13)),
        (binary(0x21, 0x11, &[0; 11]), InvalidHeader::TooShort(11)),
        (binary(0x21, 0x21, &[0; 35]), InvalidHeader::TooShort(35)),
        (binary(0x21, 0x31, &[0; 215]), InvalidHeader::TooShort(215)),
        (tcp4(&[0x04]), InvalidHeader::Extension(0x04)),
        (tcp4(&[0x04, 0, 1]), InvalidHeader::Extension(0x04)),
        (
            tcp4(&[0x05, 0, 129].into_iter().chain([0; 129]).collect::<Vec<_>>()),
            InvalidHeader::Extension(0x05),
        ),
        (tcp4(&[0x05, 0, 1, 7, 0x05, 0, 1, 7]), InvalidHeader::Extension(0x05)),
        (tcp4(&[0x03, 0, 3, 0, 0, 0]), InvalidHeader::Extension(0x03)),
        (tcp4(&[0x03, 0, 4, 0, 0, 0, 0]), InvalidHeader::Checksum),
        (binary(0x21, 0x00, &[0x03, 0, 4, 0, 0, 0, 0]), InvalidHeader::Checksum),
    ] {
        assert_eq!(read(&bytes), HeaderProgress::Invalid(expected), "{bytes:?}");
    }
}

#[test]
fn an_invalid_header_is_refused_as_early_as_possible() {
    let bytes = binary(0x31, 0x11, &[0; 12]);
    assert_eq!(read(&bytes[..13]), HeaderProgress::Invalid(InvalidHeader::Version(3)));
    let bytes = binary(0x21, 0x11, &[0; 3]);
    assert_eq!(read(&bytes[..16]), HeaderProgress::Invalid(InvalidHeader::TooShort(3)));
}

/// The checksum of the specification's own parameters: that of "123456789" is e3069283.
#[test]
fn the_checksum_is_that_of_the_whole_header_with_zeros_in_its_place() {
    let mut written = Vec::new();
    let extensions = Extensions { checksum: true, ..Extensions::default() };
    write(&mut written, Version::V2, addresses("192.0.2.1:56324", "192.0.2.2:443"), extensions);
    let (before, sum) = written.split_at(written.len() - 4);
    let zeroed = [before, &[0; 4]].concat();
    let mut expected = u32::MAX;
    for byte in &zeroed {
        expected ^= u32::from(*byte);
        for _ in 0..8 {
            expected = (expected >> 1) ^ (0x82f6_3b78 & (0_u32.wrapping_sub(expected & 1)));
        }
    }
    assert_eq!(sum, (!expected).to_be_bytes());
    assert_eq!(header(&written).length, written.len());
}

#[test]
fn unknown_extensions_are_ignored_and_the_id_is_kept() {
    let bytes = tcp4(&[0xea, 0, 2, 1, 2, 0x05, 0, 3, 7, 8, 9, 0x04, 0, 0]);
    assert_eq!(header(&bytes).unique_id.as_deref(), Some(&[7, 8, 9][..]));
}

#[test]
fn what_is_no_header_is_seen_at_its_first_different_byte() {
    for bytes in [&b"\x16\x03\x01"[..], b"GET / HTTP/1.1\r\n", b"PROXx", b"\r\n\r\n\0\r\nQUIT\r"] {
        assert_eq!(read(bytes), HeaderProgress::Other, "{bytes:?}");
    }
    assert_eq!(read(b""), HeaderProgress::Incomplete);
}

#[test]
fn both_addresses_have_the_same_family() {
    let mixed = addresses("192.0.2.1:1", "[2001:db8::2]:2");
    let mut text = Vec::new();
    write(&mut text, Version::V1, mixed, Extensions::default());
    assert_eq!(text, b"PROXY TCP6 ::ffff:c000:201 2001:db8::2 1 2\r\n");
    let mut binary = Vec::new();
    write(&mut binary, Version::V2, mixed, Extensions::default());
    assert_eq!(binary[13], 0x21);
    assert_eq!(header(&binary).addresses, Some(mixed));
    let mut mapped = Vec::new();
    let both = addresses("[::ffff:192.0.2.1]:1", "192.0.2.2:2");
    write(&mut mapped, Version::V1, both, Extensions::default());
    assert_eq!(mapped, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
}

/// The bytes of §2.2.6.
#[test]
fn tls_is_an_extension_of_extensions() {
    let tls = TlsExtension {
        version: "TLSv1.3",
        cipher: "TLS_AES_128_GCM_SHA256",
        key: Some("EC256"),
        client: Some(ClientCertificateExtension {
            is_of_connection: false,
            common_name: Some("me"),
        }),
    };
    let extensions = Extensions { alpn: Some(b"h2"), tls: Some(tls), ..Extensions::default() };
    let mut bytes = Vec::new();
    write(&mut bytes, Version::V2, addresses("192.0.2.1:1", "192.0.2.2:2"), extensions);
    let expected: &[&[u8]] = &[
        b"\x01\0\x02h2\x20\0\x35\x05\0\0\0\0",
        b"\x21\0\x07TLSv1.3\x22\0\x02me\x23\0\x16TLS_AES_128_GCM_SHA256\x25\0\x05EC256",
    ];
    assert_eq!(bytes[28..], expected.concat());
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(|bytes| Ipv6Addr::from(bytes).to_canonical()),
    ];
    (ip, any::<u16>()).prop_map(SocketAddr::from)
}

fn any_header() -> impl Strategy<Value = (Vec<u8>, Header)> {
    let version = prop_oneof![Just(Version::V1), Just(Version::V2)];
    let authority = option::of("[a-z.]{0,255}");
    let unique_id = option::of(vec(any::<u8>(), 0..=128));
    let alpn = option::of(vec(any::<u8>(), 1..=255));
    let name = option::of(option::of("[a-z.]{0,255}"));
    let tls = (alpn, name, any::<bool>());
    (version, any_address(), any_address(), authority, unique_id, any::<bool>(), tls).prop_map(
        |(version, source, destination, authority, unique_id, checksum, (alpn, name, has_tls))| {
            let addresses = ConnectionAddresses { source, destination };
            let client = name.as_ref().map(|name| ClientCertificateExtension {
                is_of_connection: true,
                common_name: name.as_deref(),
            });
            let tls = TlsExtension { version: "TLSv1.3", cipher: "x", key: None, client };
            let extensions = Extensions {
                alpn: alpn.as_deref(),
                tls: has_tls.then_some(tls),
                authority: authority.as_deref(),
                unique_id: unique_id.as_deref(),
                checksum,
            };
            let mut bytes = Vec::new();
            write(&mut bytes, version, addresses, extensions);
            let unique_id = unique_id.filter(|_| version == Version::V2).map(Into::into);
            let header = Header { length: bytes.len(), addresses: Some(addresses), unique_id };
            (bytes, header)
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_and_every_cut_of_it_is_incomplete((bytes, expected) in any_header()) {
        for cut in 0..bytes.len() {
            prop_assert_eq!(read(&bytes[..cut]), HeaderProgress::Incomplete, "{}", cut);
        }
        prop_assert_eq!(read(&bytes), HeaderProgress::Header(expected.clone()));
        let mut followed = bytes;
        followed.extend_from_slice(b"\x16\x03\x01\x02\x00");
        prop_assert_eq!(read(&followed), HeaderProgress::Header(expected));
    }

    /// A header with a checksum never passes with another byte in its place.
    #[test]
    fn a_changed_byte_is_noticed_by_the_checksum(place in 16_usize..28, change in 1_u8..) {
        let mut bytes = Vec::new();
        let extensions = Extensions { checksum: true, ..Extensions::default() };
        write(&mut bytes, Version::V2, addresses("192.0.2.1:1", "192.0.2.2:2"), extensions);
        bytes[place] ^= change;
        prop_assert_eq!(read(&bytes), HeaderProgress::Invalid(InvalidHeader::Checksum));
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(
        start in prop_oneof![
            Just(&b""[..]),
            Just(&b"PROXY TCP4 "[..]),
            Just(&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..]),
        ],
        rest in vec(any::<u8>(), 0..300),
    ) {
        let bytes = [start, &rest].concat();
        if let HeaderProgress::Header(header) = read(&bytes) {
            prop_assert!(header.length <= bytes.len());
        }
    }
}
