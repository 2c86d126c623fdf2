//! Hellos of real clients, whole, cut and broken, through the reader.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::mem::discriminant;
use std::sync::Arc;

use sluice::tls::{ClientHello, HelloReader, InvalidHello, Progress, TlsVersion};
use testkit::Random;

const MAX: usize = 16 << 10;
const NAME: &str = "www.example.com";

/// File, name, ALPN, highest version, ECH, post-quantum.
type Expected =
    (&'static str, Option<&'static str>, &'static [&'static str], TlsVersion, bool, bool);

const WEB: &[&str] = &["h2", "http/1.1"];
const CLIENTS: [Expected; 17] = {
    use TlsVersion::{Tls10, Tls12, Tls13};
    [
        ("chromium", Some(NAME), WEB, Tls13, true, true),
        ("curl", Some(NAME), WEB, Tls13, false, false),
        ("curl-address", None, WEB, Tls13, false, false),
        ("curl-tls12", Some(NAME), WEB, Tls12, false, false),
        ("gnutls", Some(NAME), &["h2"], Tls13, false, false),
        ("go", Some(NAME), &[], Tls13, false, true),
        ("go-alpn", Some(NAME), WEB, Tls13, false, true),
        ("go-anonymous", None, &[], Tls13, false, true),
        ("go-tls12", Some(NAME), &[], Tls12, false, false),
        ("openssl-alpn", Some(NAME), WEB, Tls13, false, false),
        ("openssl-noname", None, &[], Tls13, false, false),
        ("openssl-resumed", Some(NAME), &[], Tls13, false, false),
        ("openssl-tls10", Some(NAME), &[], Tls10, false, false),
        ("openssl-tls12", Some(NAME), &[], Tls12, false, false),
        ("openssl-tls13", Some(NAME), &[], Tls13, false, false),
        ("openssl-upper-dot", Some(NAME), &[], Tls13, false, false),
        ("python", Some(NAME), &["http/1.1"], Tls13, false, false),
    ]
};

/// The captured hellos by the names of their files.
fn corpus() -> BTreeMap<String, Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/hello");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().into(), fs::read(path).unwrap()))
        .collect()
}

fn read(received: &[u8]) -> Progress {
    HelloReader::new(MAX).read(received)
}

fn hello(received: &[u8]) -> ClientHello {
    match read(received) {
        Progress::Hello(hello) => hello,
        other => panic!("{other:?}"),
    }
}

/// Reads what was received in calls that end at these places, and then all of it.
fn read_in_calls(received: &[u8], ends: impl IntoIterator<Item = usize>) -> Progress {
    let mut reader = HelloReader::new(MAX);
    ends.into_iter()
        .map(|end| reader.read(&received[..end]))
        .find(|progress| *progress != Progress::Incomplete)
        .unwrap_or_else(|| reader.read(received))
}

/// The handshake message of a hello in one record.
fn message(hello: &[u8]) -> &[u8] {
    &hello[5..]
}

/// The message in records of these lengths, over and over.
fn in_records(message: &[u8], lengths: &[usize]) -> Vec<u8> {
    let (mut records, mut rest) = (Vec::new(), message);
    for length in lengths.iter().cycle() {
        let (body, after) = rest.split_at((*length).min(rest.len()));
        records.extend([22, 3, 1]);
        records.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        records.extend(body);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    records
}

/// The answer without that which the records decide.
fn apart_from_records(progress: Progress) -> Progress {
    match progress {
        Progress::Hello(hello) => Progress::Hello(ClientHello { consumed: 0, ..hello }),
        other => other,
    }
}

#[test]
fn every_client_is_understood() {
    let corpus = corpus();
    assert_eq!(corpus.keys().collect::<Vec<_>>(), CLIENTS.each_ref().map(|client| client.0));
    for (client, name, alpn, highest, ech, post_quantum) in CLIENTS {
        let hello = hello(&corpus[client]);
        assert_eq!(hello.server_name.as_ref().map(|name| name.as_str()), name, "{client}");
        assert!(hello.alpn.iter().eq(alpn.iter().map(|name| name.as_bytes())), "{client}");
        assert_eq!(hello.versions.highest(), Some(highest), "{client}");
        assert_eq!((hello.ech, hello.post_quantum), (ech, post_quantum), "{client}");
        assert_eq!(hello.consumed, corpus[client].len(), "{client}");
    }
}

/// kube's client takes the same defaults: its connections to the API server prefer X25519MLKEM768 too.
#[test]
fn rustls_is_understood_and_prefers_a_post_quantum_group() {
    let mut config = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let groups = &config.crypto_provider().kx_groups;
    assert_eq!(groups[0].name(), rustls::NamedGroup::X25519MLKEM768, "{groups:?}");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut client =
        rustls::ClientConnection::new(Arc::new(config), NAME.try_into().unwrap()).unwrap();
    let mut sent = Vec::new();
    client.write_tls(&mut sent).unwrap();
    let hello = hello(&sent);
    assert_eq!(hello.server_name.unwrap().as_str(), NAME);
    assert!(hello.alpn.offers(b"h2"));
    assert_eq!(hello.versions.highest(), Some(TlsVersion::Tls13));
    assert!(hello.post_quantum);
    assert_eq!(hello.consumed, sent.len());
}

#[test]
fn every_prefix_is_incomplete_and_the_rest_makes_it_whole() {
    for (client, bytes) in corpus() {
        let whole = read(&bytes);
        let mut growing = HelloReader::new(MAX);
        for end in 0..bytes.len() {
            let mut reader = HelloReader::new(MAX);
            assert_eq!(reader.read(&bytes[..end]), Progress::Incomplete, "{client} to {end}");
            assert_eq!(reader.read(&bytes), whole, "{client} cut at {end}");
            assert_eq!(growing.read(&bytes[..end]), Progress::Incomplete, "{client} to {end}");
        }
        assert_eq!(growing.read(&bytes), whole, "{client} byte by byte");
    }
}

#[test]
fn every_cut_into_records_gives_the_same_hello() {
    for (client, bytes) in corpus() {
        let whole = apart_from_records(read(&bytes));
        let message = message(&bytes);
        for cut in 1..message.len() {
            let two = in_records(message, &[cut, message.len()]);
            assert_eq!(hello(&two).consumed, two.len(), "{client} cut at {cut}");
            let by_calls = read_in_calls(&two, [cut + 4, cut + 5, cut + 7, two.len() - 1]);
            assert_eq!(apart_from_records(by_calls), whole, "{client} cut at {cut}");
        }
        let single = in_records(message, &[1]);
        assert_eq!(single.len(), 6 * message.len());
        let mut growing = HelloReader::new(MAX);
        for end in 0..single.len() {
            assert_eq!(growing.read(&single[..end]), Progress::Incomplete, "{client} to {end}");
        }
        assert_eq!(growing.read(&single), read(&single), "{client} byte by byte");
        assert_eq!(hello(&single).consumed, single.len(), "{client}");
        assert_eq!(apart_from_records(read(&single)), whole, "{client}");
    }
}

#[test]
fn names_that_no_server_has_are_like_none_wherever_they_come_from() {
    let bytes = &corpus()["openssl-tls13"];
    let at = bytes.windows(NAME.len()).position(|window| window == NAME.as_bytes()).unwrap();
    let with = |name: &[u8; NAME.len()]| {
        let mut bytes = bytes.clone();
        bytes[at..][..NAME.len()].copy_from_slice(name);
        read(&bytes)
    };
    for legal in [b"www_example_com", b"WWW.EXAMPLE.COM", b"www.example.co.", b"1.2.3.4.com.com"] {
        assert!(matches!(with(legal), Progress::Hello(_)), "{}", legal.escape_ascii());
    }
    for name in [
        b"*.w.example.com",
        b"www..xample.com",
        b".ww.example.com",
        b"www.example.c..",
        b"www.example.co\0",
        b"www\0example.com",
        b"www example.com",
        b"www.example:443",
        b"www.ex\xc3\xa9mple.co",
        b"192.168.100.200",
        b"2001:db8:a:b::1",
    ] {
        let Progress::Hello(nameless) = with(name) else { panic!("{}", name.escape_ascii()) };
        assert_eq!(nameless.server_name, None, "{}", name.escape_ascii());
        assert_eq!(nameless.unusable_name.unwrap().sent.as_str(), name.escape_ascii().to_string());
    }
}

#[test]
fn a_hello_longer_than_a_record_is_read_where_it_is_allowed() {
    let bytes = &corpus()["go-alpn"];
    let padding = [&[0, 21, 0xa0, 0][..], &[0; 0xa000]].concat();
    let mut long = [message(bytes), &padding].concat();
    // The length of the extensions: after the version, the random and three lists.
    let mut at = 4 + 2 + 32;
    at += 1 + usize::from(long[at]);
    at += 2 + usize::from(u16::from_be_bytes([long[at], long[at + 1]]));
    at += 1 + usize::from(long[at]);
    let length = u16::try_from(long.len() - at - 2).unwrap();
    long[at..][..2].copy_from_slice(&length.to_be_bytes());
    set_length(&mut long);

    let records = in_records(&long, &[1 << 14]);
    assert_eq!(read(&records), Progress::Refused(InvalidHello::TooLarge));
    let expected = Progress::Hello(ClientHello { consumed: records.len(), ..hello(bytes) });
    let mut reader = HelloReader::new(64 << 10);
    for end in (0..records.len()).step_by(1460) {
        assert_eq!(reader.read(&records[..end]), Progress::Incomplete);
    }
    assert_eq!(reader.read(&records), expected);
}

#[test]
fn a_broken_hello_is_answered_the_same_however_it_is_cut() {
    let corpus: Vec<Vec<u8>> = corpus().into_values().collect();
    let mut random = Random(0x5eed);
    let mut answers = HashSet::new();
    for round in 0..20_000 {
        let original = &corpus[random.below(corpus.len())];
        let mut broken = original.clone();
        mutate(&mut random, &mut broken);
        let whole = read(&broken);
        let mut ends = [(); 3].map(|()| random.below(broken.len() + 1));
        ends.sort_unstable();
        assert_eq!(read_in_calls(&broken, ends), whole, "round {round}");
        if whole == Progress::Incomplete {
            assert!(broken.len() <= 2 * MAX + 512, "round {round}");
        }

        // The same on the message, in sound records, so that most reach the fields of the hello.
        let mut broken = message(original).to_vec();
        mutate(&mut random, &mut broken);
        broken.resize(broken.len().max(4), 0);
        broken[0] = 1;
        set_length(&mut broken);
        let whole = apart_from_records(read(&in_records(&broken, &[1 << 14])));
        let lengths = [(); 3].map(|()| 1 + random.below(broken.len()));
        let cut = apart_from_records(read(&in_records(&broken, &lengths)));
        assert_eq!(cut, whole, "round {round}, records of {lengths:?}");
        if let Progress::Refused(InvalidHello::Malformed(cause)) = whole {
            answers.insert(discriminant(&cause));
        }
    }
    assert!(answers.len() >= 8, "the run meets few of the causes: {}", answers.len());
}

/// Makes the header of the message say how long it is.
fn set_length(message: &mut [u8]) {
    let length = u32::try_from(message.len() - 4).unwrap();
    message[1..4].copy_from_slice(&length.to_be_bytes()[1..]);
}

/// Breaks one to three places.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        let end = at + random.below(bytes.len() - at).min(40);
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            2 => bytes[at] = bytes[at].wrapping_add(1),
            3 => bytes.truncate(at + 1),
            4 => drop(bytes.drain(at..end)),
            5 => bytes.extend_from_within(at..end),
            _ => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
}
