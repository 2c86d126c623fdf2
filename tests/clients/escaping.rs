//! What clients put into their hellos, in the logs: escaped, or not at all.

use testkit::{Greeted, eventually, greeter, raw_hello};

use super::sluice::{Sluice, route};

/// Names that no server has.
const NAMES: [&[u8]; 12] = [
    b"x\n{\"outcome\":\"forged\"}",
    b"forged\r\n.test",
    b"forged\x1b[2J.test",
    b"forged\".test",
    b"forged\\.test",
    b"forged\0.test",
    b"forged\x7f.test",
    b"f\xc3\xb6rged.test",
    b"forged\xff\xfe.test",
    b"forged .test",
    b"<forged>.test",
    b"forged\xe2\x80\xae.test",
];

#[test]
fn names_that_are_none_are_shown_escaped() {
    let wild = route("wild", &["*.test"], greeter("wild"));
    let any = route("any", &["*"], greeter("any"));
    let refuses = Sluice::start_with(&[("wild.yaml", wild.clone())], &["--log-level", "trace"]);
    let serves =
        Sluice::start_with(&[("wild.yaml", wild), ("any.yaml", any)], &["--log-level", "trace"]);
    for name in NAMES {
        let refused = Greeted::send(refuses.address, &raw_hello(name, &[]));
        assert!(refused.is_err(), "{}", name.escape_ascii());
        let greeted = Greeted::send(serves.address, &raw_hello(name, &[])).unwrap();
        assert_eq!(greeted.by, "any");
        greeted.close().unwrap();
    }
    for (mut sluice, outcome) in [(refuses, "no_sni"), (serves, "completed")] {
        let log = eventually("all are in the access log", || {
            Some(sluice.access_log()).filter(|log| log.len() == NAMES.len())
        });
        for name in NAMES.map(|name| name.escape_ascii().to_string()) {
            let entry = log.iter().find(|entry| entry["serverName"] == name).expect(&name);
            assert_eq!(entry["outcome"], outcome, "{entry}");
            assert_eq!(entry.get("cause").is_some(), outcome == "no_sni", "{entry}");
        }
        assert!(sluice.is_running());
        assert_printable(&sluice);
        let log = String::from_utf8(sluice.stderr()).unwrap();
        assert!(!log.contains("forged") && !log.contains("rged.test"), "{log}");
    }
}

#[test]
fn protocols_of_any_bytes_are_shown_escaped() {
    let any = route("any", &["*"], greeter("any"));
    let sluice = Sluice::start_with(&[("any.yaml", any)], &["--log-level", "trace"]);
    let protocols: [&[u8]; 6] = [
        b"h2",
        b"\x0a\x0a",
        b"a\"b\\c",
        b"\xff\x00\x1b[2J",
        "\u{202e}ü".as_bytes(),
        b"\n{\"x\":1}",
    ];
    let greeted = Greeted::send(sluice.address, &raw_hello(b"a.test", &protocols)).unwrap();
    assert_eq!(greeted.by, "any");
    greeted.close().unwrap();

    let entry = sluice.entry_of("a.test");
    let shown: Vec<_> =
        entry["alpn"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
    let expected = [
        "h2",
        r"\n\n",
        r#"a\"b\\c"#,
        r"\xff\x00\x1b[2J",
        r"\xe2\x80\xae\xc3\xbc",
        r#"\n{\"x\":1}"#,
    ];
    assert_eq!(shown, expected);
    assert_printable(&sluice);
    assert_eq!(sluice.access_log().len(), 1);
}

/// A terminal or a collector of logs gets whole lines of printable ASCII, each a JSON object.
fn assert_printable(sluice: &Sluice) {
    for text in [sluice.stdout(), sluice.stderr()] {
        let raw = text.iter().find(|byte| !matches!(byte, b'\n' | b' '..=b'~'));
        assert_eq!(raw, None, "{}", text.escape_ascii());
    }
    // Both fail at a line that is no JSON object.
    sluice.access_log();
    sluice.log();
}
