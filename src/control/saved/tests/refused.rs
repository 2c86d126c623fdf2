//! Files that are not used, and what is said of them.

use proptest::prelude::*;

use super::*;

#[test]
fn another_installation_is_refused_by_the_setting_that_differs() {
    let folder = saved();
    for (other, message) in [
        (
            SavedIdentity { class: "other".into(), ..identity() },
            "with class \"sluice\", and this one has class \"other\"",
        ),
        (
            SavedIdentity { require_class: true, ..identity() },
            "with requireClass: false, and this one has requireClass: true",
        ),
        (
            SavedIdentity { namespaces: vec![], ..identity() },
            "with the namespaces a, b, and this one has all namespaces",
        ),
    ] {
        let refused =
            load(folder.path(), &other, &Layers::default()).expect_err(message).to_string();
        assert!(refused.contains(message), "{refused}");
    }
    let same = SavedIdentity { namespaces: vec!["a".into(), "b".into(), "a".into()], ..identity() };
    assert!(
        load(folder.path(), &same, &Layers::default())
            .expect("the same, in another order")
            .is_some()
    );
}

#[test]
fn a_damaged_file_is_refused_with_the_reason() {
    let folder = saved();
    let good = fs::read_to_string(path(folder.path())).expect("UTF-8");
    let refused = |text: &str| {
        fs::write(path(folder.path()), text).expect("written");
        load(folder.path(), &identity(), &Layers::default()).expect_err(text).to_string()
    };
    let other_version = |version: &str| good.replacen(" 4 ", &format!(" {version} "), 1);
    for (text, message) in [
        (String::new(), "not a saved table"),
        ("apiVersion: v1\nkind: List\n".to_owned(), "not a saved table"),
        ("\u{0}".repeat(4096), "not a saved table"),
        (good[..50].to_owned(), "not a saved table"),
        (good[..HEADER].to_owned(), "cut off or added to"),
        (good[..good.len() - 1].to_owned(), "cut off or added to"),
        (format!("{good}\n"), "cut off or added to"),
        (good.replacen("kafka.test", "kafka.tesu", 1), "does not fit its checksum"),
        (other_version("3"), "has version 3, and this sluice reads version 4"),
        (other_version("5"), "has version 5, and this sluice reads version 4"),
        (other_version("12-beta"), "has version 12-beta"),
    ] {
        let refused = refused(&text);
        assert!(refused.contains(message), "{refused}");
    }
    let file = File::options().write(true).open(path(folder.path())).expect("there");
    fs::write(path(folder.path()), &good).expect("written");
    file.set_len(LARGEST + 1).expect("a sparse file");
    let refused =
        load(folder.path(), &identity(), &Layers::default()).expect_err("large").to_string();
    assert!(refused.contains("more than the 1073741824 that are read"), "{refused}");
    fs::remove_file(path(folder.path())).expect("there");
    fs::create_dir(path(folder.path())).expect("made");
    assert!(matches!(
        load(folder.path(), &identity(), &Layers::default()),
        Err(SavedTableError::NotATable)
    ));
}

#[test]
fn an_invalid_line_is_reported_with_its_number() {
    let folder = saved();
    let text = fs::read_to_string(path(folder.path())).expect("UTF-8");
    let lines: Vec<&str> = text.lines().skip(1).collect();
    let kafka = lines.iter().find(|line| line.contains("kafka.test")).expect("the route");
    let backend = lines.iter().find(|line| line.contains("fd00")).expect("the backend");
    let attached = r#""attachments":[{"hostnames":["a.test"],"listeners":[]}],"alpn""#;
    let hostnames = r#""hostnames":["kafka.test","*.kafka.test","*"],"anyOn":{"except":["redis"]}"#;
    let head: Vec<&str> =
        lines.iter().filter(|line| !line.starts_with(r#"{"route""#)).copied().collect();
    for (line, message) in [
        (kafka.replace("kafka.test\"", "kafka..test\""), "empty label"),
        (kafka.replace("kafka.test", "10.0.0.1"), "IP address"),
        (kafka.replace("SourceAddress", "Nearest"), "\"Nearest\" is not a policy; write one of"),
        (kafka.replace("\"created\"", "\"later\":1,\"created\""), "differently from column 64 on"),
        (kafka.replace("\"connect\"", "\"later\":1,\"connect\""), "differently from column"),
        (kafka.replace("\"weight\":90", "\"weight\":-1"), "invalid value"),
        (kafka.replace("\"kind\":\"SniRoute\"", "\"kind\":\"Lease\""), "unknown variant `Lease`"),
        (
            kafka.replace("data/kafka:9093", "kafka:9093"),
            "\"kafka:9093\" is no namespace/service:port",
        ),
        (kafka.replace("1s500ms", "1500"), "\"1500\" is not a duration"),
        (kafka.replace(r#"["kafka.test","*.kafka.test","*"]"#, "[]"), "lacks hostnames"),
        (
            kafka.replace(hostnames, r#""hostnames":[]"#).replace(r#""alpn""#, attached),
            "the SniRoute data/kafka lacks hostnames",
        ),
        (
            kafka.replace("data/kafka:tls", "data/kafka:other"),
            "the SniRoute data/kafka has a backend without a line: data/kafka:other",
        ),
        (format!("{kafka}\n{kafka}"), "line 7: the SniRoute data/kafka is there twice"),
        ((*backend).to_owned(), "line 6: the backend data/kafka:9093 is there twice"),
        (backend.replace("10.0.0.1:9093", "kafka.test:9093"), "invalid socket address"),
        (r#"{"secret":{}}"#.to_owned(), "unknown variant `secret`"),
        ("null".to_owned(), "line 6"),
        (String::new(), "line 6"),
    ] {
        let file = [&head[..], &[&*line]].concat();
        let refused = load_lines(&folder, &file).expect_err(&line).to_string();
        assert!(refused.contains(message), "{line}: {refused}");
    }
    let refused = load_lines(&folder, &[kafka]).expect_err("no description").to_string();
    assert!(refused.contains("line 2"), "{refused}");
    let when = lines[0].replace("2026-11-22", "2026-11-32");
    let refused = load_lines(&folder, &[&when]).expect_err("no day").to_string();
    assert!(refused.contains("is no time"), "{refused}");
    assert!(load_lines(&folder, &[]).is_err());
    assert!(load_lines(&folder, &lines).expect("good").is_some());
}

proptest! {
    /// Any change of the file's bytes.
    #[test]
    fn a_damaged_file_is_refused_or_the_same(
        at in any::<prop::sample::Index>(),
        damage in prop_oneof![
            (0..8u8).prop_map(Damage::Flip),
            any::<u8>().prop_map(Damage::Overwrite),
            Just(Damage::CutHere),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Damage::Insert),
        ],
    ) {
        let folder = saved();
        let mut bytes = fs::read(path(folder.path())).expect("there");
        let at = at.index(bytes.len());
        match damage {
            Damage::Flip(bit) => bytes[at] ^= 1 << bit,
            Damage::Overwrite(byte) => bytes[at] = byte,
            Damage::CutHere => bytes.truncate(at),
            Damage::Insert(more) => { bytes.splice(at..at, more); }
        }
        fs::write(path(folder.path()), bytes).expect("written");
        if let Ok(loaded) = load(folder.path(), &identity(), &Layers::default()) {
            prop_assert_eq!(served(loaded.expect("there").snapshot), served(snapshot()));
        }
    }

    /// Valid files with any content cause no panic.
    #[test]
    fn lines_of_any_kind_are_refused_or_read(
        mut lines in proptest::collection::vec(
            prop_oneof![
                "\\PC{0,40}",
                concat!(
                    r#"\{"(route|backend)":\{("(namespace|name|kind|backend)":"#,
                    r#"("[a-z*.]{0,5}"|[0-9]{1,6}|\[\]),?){0,4}\}\}"#
                ),
            ],
            0..6,
        ),
        described: bool,
    ) {
        let folder = saved();
        let text = fs::read_to_string(path(folder.path())).expect("UTF-8");
        if described {
            lines.insert(0, text.lines().nth(1).expect("the description").to_owned());
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let _ = load_lines(&folder, &lines);
    }
}

#[derive(Clone, Debug)]
enum Damage {
    Flip(u8),
    Overwrite(u8),
    CutHere,
    Insert(Vec<u8>),
}
