mod refused;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap as HashMap;
use tempfile::TempDir;

use super::*;
use crate::policy::{Balancing, Layers, Policy, Timeout, Timeouts};
use crate::routing::{
    AnyOn, BackendKey, Hostname, Hostnames, Kind, ObjectKey, ObjectRef, RouteKey, RouteSpec,
    ServicePort, TrafficPolicy, WeightedBackend, channel,
};
use crate::termination::{
    CertificateText, Identity, MinVersion, NotReady, ServerParts, Termination, TerminationText,
    TicketKeys,
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

/// A route that terminates TLS waits for its keys, which are in no file.
#[test]
fn a_saved_table_has_the_names_of_secrets_and_no_keys() {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).expect("parameters");
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    let key = key.serialize_pem();
    let server_identity =
        Identity::from_pem(certificate.as_bytes(), key.as_bytes()).expect("an identity");
    let secret = CertificateText { secret: "web/a".into() };
    let text = TerminationText {
        certificates: vec![secret.clone()],
        min_version: MinVersion::V13,
        ..TerminationText::default()
    };
    let server = ServerParts {
        certificates: vec![(secret, server_identity)],
        alpn: Vec::new(),
        min_version: MinVersion::V13,
        client_certificates: None,
        tickets: TicketKeys::default(),
        route: "".into(),
    };
    let termination = Termination::new(text, server, None).expect("a termination");
    let folder = TempDir::new().expect("a folder");
    let mut snapshot = snapshot();
    let name = snapshot.routes[0].key.clone();
    snapshot.routes[0].termination = Some(Arc::new(termination));
    save(folder.path(), &table(snapshot), &identity(), time()).expect("saved");
    let saved = fs::read_to_string(path(folder.path())).expect("UTF-8");
    let tls = r#""tls":{"certificates":[{"secret":"web/a"}],"minVersion":"1.3"}"#;
    assert!(saved.contains(tls), "{saved}");
    assert!(!saved.contains("BEGIN"));

    let loaded = load(folder.path(), &identity(), &Layers::default());
    let loaded = loaded.expect("good").expect("there").snapshot.routes;
    let terminating: Vec<_> = loaded.iter().filter(|route| route.termination.is_some()).collect();
    let [route] = &*terminating else { panic!("{terminating:?}") };
    assert_eq!(route.key, name);
    let server = route.termination.as_ref().expect("a termination").server();
    assert_eq!(server.err(), Some(NotReady::NoCertificate));
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

fn identity() -> SavedIdentity {
    let namespaces = vec!["b".into(), "a".into()];
    SavedIdentity { class: "sluice".into(), require_class: false, namespaces }
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
    let plain = BackendKey::address("", "203.0.113.7:443");
    let addresses = |texts: &[&str]| {
        texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<SocketAddr>>()
    };
    Snapshot {
        endpoints: HashMap::from([
            (kafka(number.clone()), addresses(&["10.0.0.1:9093", "[fd00::1]:9093"])),
            (kafka(name.clone()), addresses(&["10.0.0.2:9094"])),
        ]),
        places: HashMap::new(),
        routes: vec![
            RouteSpec {
                created: Some(1_700_000_000),
                alpn: vec!["h2".into()],
                backends: vec![(kafka(number), 90), (kafka(name), 10)],
                policy: TrafficPolicy::of(&Policy {
                    timeouts: Timeouts {
                        connect: Timeout::new(Duration::from_millis(1500)),
                        idle: Timeout::new(Duration::from_hours(1)),
                        lifetime: None,
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
        ..Snapshot::default()
    }
}
