use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap as HashMap;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::policy::{Balancing, Layers, Policy, Timeout, Timeouts};
use crate::routing::{
    AnyOn, BackendKey, Hostname, Hostnames, Kind, ObjectKey, ObjectRef, RouteKey, RouteSpec,
    ServicePort, TrafficPolicy, WeightedBackend, channel,
};

#[test]
fn a_saved_table_can_be_loaded() {
    let folder = saved();
    let loaded =
        load(folder.path(), &identity(), &Layers::default()).expect("good").expect("there");
    assert_eq!(served(loaded.snapshot), served(snapshot()));
    assert_eq!(loaded.saved_at, time());
    assert_eq!(loaded.saved_by, env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_format_is_stable() {
    let text = fs::read_to_string(path(saved().path())).expect("UTF-8");
    let mut lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("sluice-table 4 0000000000000000"), "{}", lines[0]);
    let description = lines[1].replace(env!("CARGO_PKG_VERSION"), "VERSION");
    assert_eq!(
        description,
        concat!(
            r#"{"savedAt":"2026-11-22T19:00:00Z","savedBy":"VERSION","class":"sluice","#,
            r#""requireClass":false,"namespaces":["a","b"]}"#
        )
    );
    // The order of routes is not specified.
    let lines = lines.split_off(2);
    for line in [
        concat!(
            r#"{"backend":{"backend":"data/kafka:9093","kind":"service","#,
            r#""endpoints":["10.0.0.1:9093","[fd00::1]:9093"]}}"#
        ),
        r#"{"backend":{"backend":"203.0.113.7:443","kind":"address","endpoints":[]}}"#,
        concat!(
            r#"{"route":{"kind":"SniRoute","namespace":"data","name":"kafka","created":1700000000,"#,
            r#""hostnames":["kafka.test","*.kafka.test","*"],"anyOn":{"except":["redis"]},"#,
            r#""listeners":["https"],"alpn":["h2"],"loadBalancing":{"policy":"SourceAddress"},"#,
            r#""timeouts":{"connect":"1s500ms","idle":"1h"},"#,
            r#""backends":[{"backend":"data/kafka:9093","kind":"service","weight":90},"#,
            r#"{"backend":"data/kafka:tls","kind":"service","weight":10}]}}"#
        ),
        concat!(
            r#"{"route":{"kind":"SniRoute","namespace":"web","name":"plain","#,
            r#""hostnames":["plain.test"],"anyOn":{"only":["one","two"]},"listeners":[],"alpn":[],"#,
            r#""backends":[{"backend":"203.0.113.7:443","kind":"address","weight":1}]}}"#
        ),
        concat!(
            r#"{"route":{"kind":"TLSRoute","namespace":"web","name":"plain","rule":1,"#,
            r#""hostnames":["rule.test"],"listeners":[],"alpn":[],"#,
            r#""backends":[{"backend":"203.0.113.7:443","kind":"address","weight":1}]}}"#
        ),
    ] {
        assert!(lines.contains(&line), "{line}\nis not in\n{}", lines.join("\n"));
    }
    assert_eq!(lines.len(), 6, "each backend once");
}

#[test]
fn only_the_owner_can_read_the_file_and_no_temporary_file_is_left() {
    let folder = saved();
    let mode = |name: &str| {
        let metadata = fs::metadata(folder.path().join(name)).expect("it is there");
        metadata.permissions().mode() & 0o777
    };
    assert_eq!((mode(FILE), mode(LOCK_FILE)), (0o600, 0o600));
    assert!(!folder.path().join(NEW_FILE).exists());
}

#[test]
fn the_folder_is_created_and_an_incomplete_file_is_replaced() {
    let folder = TempDir::new().expect("a folder");
    let deep = folder.path().join("state/of/sluice");
    save(&deep, &table(snapshot()), &identity(), time()).expect("saved");
    fs::write(deep.join(NEW_FILE), "half a tab").expect("written");
    save(&deep, &table(Snapshot::default()), &identity(), time()).expect("saved again");
    let loaded = load(&deep, &identity(), &Layers::default()).expect("good").expect("there");
    assert_eq!(served(loaded.snapshot), served(Snapshot::default()));
    assert!(!deep.join(NEW_FILE).exists());
}

#[test]
fn a_failed_save_keeps_the_previous_file() {
    let folder = saved();
    let lock = File::open(folder.path().join(LOCK_FILE)).expect("there");
    lock.lock().expect("free");
    let error = save(folder.path(), &table(Snapshot::default()), &identity(), time());
    assert!(error.expect_err("locked").to_string().contains("another process"));
    drop(lock);

    // A file cannot be renamed onto a folder.
    let other = TempDir::new().expect("a folder");
    fs::create_dir_all(path(other.path()).join("inside")).expect("made");
    let error = save(other.path(), &table(snapshot()), &identity(), time()).expect_err("a folder");
    assert!(error.to_string().contains("cannot replace the previous file"), "{error}");
    assert!(!other.path().join(NEW_FILE).exists());
    let under_a_file = path(folder.path()).join("below");
    let error =
        save(&under_a_file, &table(snapshot()), &identity(), time()).expect_err("no folder");
    assert!(error.to_string().contains("cannot make the folder"), "{error}");

    let loaded =
        load(folder.path(), &identity(), &Layers::default()).expect("good").expect("there");
    assert_eq!(served(loaded.snapshot), served(snapshot()));
}

#[test]
fn a_missing_file_is_no_error() {
    let folder = TempDir::new().expect("a folder");
    assert!(load(folder.path(), &identity(), &Layers::default()).expect("fine").is_none());
    assert!(
        load(&folder.path().join("nowhere"), &identity(), &Layers::default())
            .expect("fine")
            .is_none()
    );
}

#[test]
fn another_installation_is_refused_by_the_setting_that_differs() {
    let folder = saved();
    for (other, message) in [
        (
            Identity { class: "other".into(), ..identity() },
            "with class \"sluice\", and this one has class \"other\"",
        ),
        (
            Identity { require_class: true, ..identity() },
            "with requireClass: false, and this one has requireClass: true",
        ),
        (
            Identity { namespaces: vec![], ..identity() },
            "with the namespaces a, b, and this one has all namespaces",
        ),
    ] {
        let refused =
            load(folder.path(), &other, &Layers::default()).expect_err(message).to_string();
        assert!(refused.contains(message), "{refused}");
    }
    let same = Identity { namespaces: vec!["a".into(), "b".into(), "a".into()], ..identity() };
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

/// Loads a file that consists of a matching header and these lines.
fn load_lines(folder: &TempDir, lines: &[&str]) -> Result<Option<SavedTable>, SavedTableError> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut digest = Context::new(&SHA256);
    digest.update(text.as_bytes());
    let header = header(text.len() as u64, digest);
    fs::write(path(folder.path()), header + &text).expect("written");
    load(folder.path(), &identity(), &Layers::default())
}

fn saved() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    save(folder.path(), &table(snapshot()), &identity(), time()).expect("saved");
    folder
}

fn identity() -> Identity {
    let namespaces = vec!["b".into(), "a".into()];
    Identity { class: "sluice".into(), require_class: false, namespaces }
}

fn time() -> Timestamp {
    "2026-11-22T19:00:00Z".parse().expect("a time")
}

fn table(snapshot: Snapshot) -> Arc<Table> {
    let (mut writer, reader) = channel();
    writer.apply(snapshot);
    Arc::clone(&reader.table())
}

/// The routes and endpoints of a table, sorted.
fn served(snapshot: Snapshot) -> Vec<(RouteSpec, Vec<Vec<SocketAddr>>)> {
    let endpoints = |backend: &WeightedBackend| {
        backend.backend.endpoints().iter().map(|endpoint| endpoint.address).collect()
    };
    let table = table(snapshot);
    let mut routes: Vec<_> = table
        .routes()
        .map(|route| (route.spec.clone(), route.backends.iter().map(endpoints).collect()))
        .collect();
    routes.sort_by(|(one, _), (other, _): &(RouteSpec, _)| one.key.cmp(&other.key));
    routes
}

fn snapshot() -> Snapshot {
    let kafka = |port| BackendKey::Service { service: ObjectKey::new("data", "kafka"), port };
    let (number, name) = (ServicePort::Number(9093), ServicePort::Name("tls".into()));
    let plain = BackendKey::Address("203.0.113.7:443".into());
    let addresses = |texts: &[&str]| {
        texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<SocketAddr>>()
    };
    Snapshot {
        endpoints: HashMap::from([
            (kafka(number.clone()), addresses(&["10.0.0.1:9093", "[fd00::1]:9093"])),
            (kafka(name.clone()), addresses(&["10.0.0.2:9094"])),
        ]),
        routes: vec![
            RouteSpec {
                created: Some(1_700_000_000),
                alpn: vec!["h2".into()],
                backends: vec![(kafka(number), 90), (kafka(name), 10)],
                policy: TrafficPolicy::of(&Policy {
                    timeouts: Timeouts {
                        connect: Timeout::new(Duration::from_millis(1500)),
                        idle: Timeout::new(Duration::from_hours(1)),
                    },
                    ..Balancing::SourceAddress.into()
                }),
                ..RouteSpec::new(
                    RouteKey::sni_route("data", "kafka"),
                    ["kafka.test", "*.kafka.test", "*"]
                        .map(|text| text.parse::<Hostname>().expect("a hostname"))
                        .into_iter()
                        .collect::<Hostnames>()
                        .with_any_on(AnyOn::Except(["redis".into()].into())),
                )
                .on(&["https"])
            },
            RouteSpec {
                backends: vec![(plain.clone(), 1)],
                ..RouteSpec::new(
                    RouteKey::of_rule(
                        ObjectRef::new(Kind::TlsRoute, ObjectKey::new("web", "plain")),
                        1,
                    ),
                    Hostname::Exact("rule.test").into(),
                )
            },
            RouteSpec {
                backends: vec![(plain, 1)],
                ..RouteSpec::new(
                    RouteKey::sni_route("web", "plain"),
                    Hostnames::from(Hostname::Exact("plain.test"))
                        .with_any_on(AnyOn::Only(["one".into(), "two".into()].into())),
                )
            },
        ],
    }
}
