use super::*;
use crate::tls::{InvalidServerName, TlsVersion};
use MalformedHello::*;

/// The fields of a ClientHello; all other parts are valid.
struct Fields {
    version: [u8; 2],
    session_id: Vec<u8>,
    suites: Vec<u8>,
    compression: Vec<u8>,
    /// With a length prefix; empty means no extensions.
    extensions: Vec<u8>,
}

impl Default for Fields {
    fn default() -> Self {
        Fields {
            version: [3, 3],
            session_id: vec![9; 32],
            suites: vec![0x13, 0x01, 0x13, 0x02],
            compression: vec![0],
            extensions: vec![],
        }
    }
}

impl Fields {
    fn body(&self) -> Vec<u8> {
        [
            &self.version[..],
            &[7; 32],
            &short(&self.session_id),
            &long(&self.suites),
            &short(&self.compression),
            &self.extensions,
        ]
        .concat()
    }
}

fn short(content: &[u8]) -> Vec<u8> {
    [&[u8::try_from(content.len()).expect("a length")][..], content].concat()
}

fn long(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("a length");
    [&length.to_be_bytes()[..], content].concat()
}

fn extension(number: u16, content: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &long(content)].concat()
}

/// The content of a server_name extension with one host_name.
fn host(name: &str) -> Vec<u8> {
    long(&[&[HOST_NAME][..], &long(name.as_bytes())].concat())
}

fn parse(body: &[u8]) -> Result<ClientHello, MalformedHello> {
    ClientHello::parse(body, 0)
}

/// Parses a hello with these extensions.
fn with(extensions: &[(u16, &[u8])]) -> Result<ClientHello, MalformedHello> {
    let extensions: Vec<u8> = extensions.iter().flat_map(|(n, c)| extension(*n, c)).collect();
    parse(&Fields { extensions: long(&extensions), ..Fields::default() }.body())
}

#[test]
fn a_hello_without_extensions_has_no_server_name() {
    for extensions in [vec![], vec![0, 0]] {
        let hello = parse(&Fields { extensions, ..Fields::default() }.body()).expect("a hello");
        assert_eq!(hello.server_name, None);
        assert!(hello.alpn.is_empty() && !hello.ech && !hello.post_quantum);
        assert_eq!(hello.versions.highest(), Some(TlsVersion::Tls12));
    }
}

#[test]
fn extensions_for_routing_are_read_and_others_are_ignored() {
    let (grease, odd_group) = (0x4a4a, long(&[0x1a, 0x1a, 0, 29]));
    let name = host("WWW.Example.com.");
    let hello = with(&[(grease, b""), (SERVER_NAME, &name), (SUPPORTED_GROUPS, &odd_group)]);
    let hello = hello.expect("a hello");
    assert_eq!(hello.server_name.expect("a name").as_str(), "www.example.com");
    assert!(!hello.post_quantum && !hello.ech);

    // Malformed extensions that routing does not use: status_request, ec_point_formats, early_data, and a
    // pre_shared_key that is not the last extension.
    let odd: &[(u16, &[u8])] =
        &[(5, b"\x01"), (11, b"\x09"), (42, b"x"), (41, b""), (SERVER_NAME, &host("a.example"))];
    assert!(with(odd).is_ok());
}

#[test]
fn versions_are_read_from_the_extension_or_else_from_the_legacy_field() {
    let highest = |hello: Result<ClientHello, _>| hello.expect("a hello").versions.highest();
    let offered = [0x3a, 0x3a, 3, 4, 3, 3];
    assert_eq!(highest(with(&[(SUPPORTED_VERSIONS, &short(&offered))])), Some(TlsVersion::Tls13));
    assert_eq!(highest(with(&[(SUPPORTED_VERSIONS, &short(&[3, 2]))])), Some(TlsVersion::Tls11));
    let old = Fields { version: [3, 1], ..Fields::default() };
    assert_eq!(highest(parse(&old.body())), Some(TlsVersion::Tls10));
}

#[test]
fn every_post_quantum_group_is_known_in_groups_and_in_shares() {
    let expected = [0x0200, 0x0201, 0x0202, 0x11eb, 0x11ec, 0x11ed, 0x6399];
    for group in 0..=u16::MAX {
        assert_eq!(is_post_quantum(group), expected.contains(&group), "{group:#06x}");
    }
    for (group, expected) in [(0x11ec_u16, true), (0x001d, false)] {
        let x25519 = extension(29, &[1; 32]);
        let share = [x25519.clone(), extension(group, &[1; 8])].concat();
        let groups = [&[0, 29][..], &group.to_be_bytes()].concat();
        let by_share = with(&[(KEY_SHARE, &long(&share))]).expect("a hello");
        let by_group = with(&[(SUPPORTED_GROUPS, &long(&groups)), (KEY_SHARE, &long(&x25519))]);
        assert_eq!(by_share.post_quantum, expected);
        assert_eq!(by_group.expect("a hello").post_quantum, expected);
    }
}

#[test]
fn an_encrypted_hello_is_routed_by_its_outer_name() {
    let outer = [&[0, 0, 1, 0, 1, 7][..], &long(&[1; 32]), &long(&[2; 200])].concat();
    let hello = with(&[(0xfe0d, &outer), (SERVER_NAME, &host("public.example"))]).expect("a hello");
    assert!(hello.ech);
    assert_eq!(hello.server_name.expect("a name").as_str(), "public.example");
}

#[test]
fn broken_fields_are_refused_with_their_cause() {
    let fields = Fields::default;
    let body = |fields: Fields| parse(&fields.body()).err();
    assert_eq!(body(Fields { session_id: vec![], ..fields() }), None);
    assert_eq!(body(Fields { session_id: vec![1; 32], ..fields() }), None);
    assert_eq!(body(Fields { session_id: vec![1; 33], ..fields() }), Some(SessionId));
    assert_eq!(body(Fields { suites: vec![0x13, 1], ..fields() }), None);
    assert_eq!(body(Fields { suites: vec![], ..fields() }), Some(AlgorithmLists));
    assert_eq!(body(Fields { suites: vec![0x13, 1, 0x13], ..fields() }), Some(AlgorithmLists));
    assert_eq!(body(Fields { compression: vec![1, 0], ..fields() }), None);
    assert_eq!(body(Fields { compression: vec![], ..fields() }), Some(AlgorithmLists));
    let extensions = |extensions: &[u8]| body(Fields { extensions: extensions.into(), ..fields() });
    assert_eq!(extensions(b"\0\x04\0\x63\0\0"), None);
    assert_eq!(extensions(b"\0\x04\0\x63\0\0\0"), Some(TrailingBytes));
    assert_eq!(extensions(b"\0\0\0"), Some(TrailingBytes));
    assert_eq!(extensions(b"\0\x05\0\x63\0\0"), Some(Extensions));
    assert_eq!(extensions(b"\0"), Some(Extensions));
    assert_eq!(extensions(b"\0\x03\0\x63\0"), Some(Extensions));
    assert_eq!(extensions(b"\0\x04\0\x63\0\x01"), Some(Extensions));
    assert_eq!(extensions(b"\0\x05\0\x63\0\0\0"), Some(Extensions));
}

#[test]
fn a_truncated_hello_is_refused_wherever_it_ends() {
    let named = extension(SERVER_NAME, &host("a.example"));
    let body = Fields { extensions: long(&named), ..Fields::default() }.body();
    assert!(parse(&body).is_ok());
    assert_eq!(Fields::default().body().len(), 75);
    for end in 0..body.len() {
        let cause = match end {
            // Nothing after the compression methods is valid.
            75 => continue,
            // In the two lists before the extensions.
            69..=72 | 74 => AlgorithmLists,
            ..75 => Truncated,
            _ => Extensions,
        };
        assert_eq!(parse(&body[..end]), Err(cause), "{end} of {}", body.len());
    }
}

#[test]
fn an_extension_may_occur_only_once() {
    assert!(with(&[(0x1234, b"a"), (0x1235, b"a"), (0x1274, b"a"), (0x3234, b"a")]).is_ok());
    let names: &[(u16, &[u8])] = &[(0, &host("a.example")), (7777, b""), (0, &host("b.example"))];
    assert_eq!(with(names), Err(DuplicateExtension(0)));
    let same: &[(u16, &[u8])] = &[(0, &host("a.example")), (0, &host("a.example"))];
    assert_eq!(with(same), Err(DuplicateExtension(0)));
    assert_eq!(with(&[(0xffff, b""), (0xffff, b"")]), Err(DuplicateExtension(0xffff)));
}

#[test]
fn a_list_of_server_names_holds_one_host_name_and_fills_its_extension() {
    let name = |content: &[u8]| with(&[(SERVER_NAME, content)]).err();
    let one = |kind: u8, name: &str| [&[kind][..], &long(name.as_bytes())].concat();
    let broken = Some(ExtensionFormat(SERVER_NAME));
    assert_eq!(name(&host("a.example")), None);
    assert_eq!(name(b""), broken);
    assert_eq!(name(b"\0"), broken);
    assert_eq!(name(b"\0\0"), broken);
    assert_eq!(name(&[&host("a.example")[..], b"\0"].concat()), broken);
    assert_eq!(name(&long(b"\0\0\x05a")), broken);
    assert_eq!(name(&long(b"\0\0")), broken);
    assert_eq!(name(b"\0\x09\0\0\x01a"), broken);
    assert_eq!(name(&long(&[&one(0, "a.example")[..], b"\0"].concat())), broken);
    assert_eq!(name(&long(&one(1, "a.example"))), Some(ServerNameType));
    let two = |kind: u8, other: &str| [one(0, "a.example"), one(kind, other)].concat();
    assert_eq!(name(&long(&two(0, "b.example"))), Some(SeveralServerNames));
    assert_eq!(name(&long(&two(0, "a.example"))), Some(SeveralServerNames));
    assert_eq!(name(&long(&two(1, "b.example"))), Some(ServerNameType));
}

#[test]
fn an_invalid_server_name_is_treated_like_none() {
    use InvalidServerName::{Byte, Empty, IpAddress, TooLong};
    let long = "a.".repeat(130);
    for (sent, cause) in [
        ("", Empty),
        ("127.0.0.1", IpAddress),
        ("2001:db8::7", IpAddress),
        ("*", Byte(b'*')),
        ("*.example", Byte(b'*')),
        ("a\0.example", Byte(0)),
        ("a.example:443", Byte(b':')),
        (&long, TooLong),
    ] {
        let hello = with(&[(SERVER_NAME, &host(sent))]).expect(sent);
        assert_eq!(hello.server_name, None, "{sent}");
        let unusable = hello.unusable_name.expect(sent);
        assert_eq!((unusable.cause, unusable.sent), (cause, SentName::new(sent.as_bytes())));
    }
    let named = with(&[(SERVER_NAME, &host("a.example"))]).expect("a hello");
    assert_eq!(named.unusable_name, None);
}

#[test]
fn the_other_extensions_that_are_read_follow_their_formats() {
    let check = |number: u16, legal: &[u8], broken: &[&[u8]]| {
        assert!(with(&[(number, legal)]).is_ok(), "{number}");
        for content in broken {
            let refused = with(&[(number, content)]);
            assert_eq!(refused, Err(ExtensionFormat(number)), "{}", content.escape_ascii());
        }
    };
    let alpn: &[&[u8]] = &[b"", b"\0\0", b"\0\x02\x02h2", b"\0\x03\x02h2\0", b"\0\x01\0"];
    check(ALPN, b"\0\x03\x02h2", alpn);
    let versions: &[&[u8]] =
        &[b"", b"\0", b"\x01\x03", b"\x02\x03", b"\x02\x03\x04\0", b"\x03\x04"];
    check(SUPPORTED_VERSIONS, b"\x02\x03\x04", versions);
    let groups: &[&[u8]] = &[b"", b"\0\0", b"\0\x01\0", b"\0\x02\0", b"\0\x02\0\x1d\0"];
    check(SUPPORTED_GROUPS, b"\0\x02\0\x1d", groups);
    let shares: &[&[u8]] = &[b"", b"\0", b"\0\0\0", b"\0\x04\0\x1d\0\0", b"\0\x05\0\x1d\0\x02k"];
    check(KEY_SHARE, b"\0\x05\0\x1d\0\x01k", shares);
    check(KEY_SHARE, b"\0\0", &[]); // the client waits for the server's choice
}
