mod damage;
mod lines;
mod log;
mod manifests;
mod secrets;
mod watch;
mod watched;
mod writers;

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::reach::Reach;
use crate::termination::TicketKeys;

/// A route with the given lines of its spec; `hostnames` is in line 5.
fn route(name: &str, spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: SniRoute\n\
         metadata: {{name: {name}, namespace: data}}\nspec:\n  {spec}\n"
    )
}

fn good(name: &str) -> String {
    route(name, &format!("hostnames: [{name}.com]\nbackends: [{{address: '192.0.2.1:1'}}]"))
}

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: data}}\n\
         spec: {{ports: [{{port: {port}}}]}}\n"
    )
}

fn slice(service: &str, address: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {service}-1, namespace: data, \
         labels: {{kubernetes.io/service-name: {service}}}}}\n\
         addressType: IPv4\nports: [{{port: 8443}}]\nendpoints: [{{addresses: [{address}]}}]\n"
    )
}

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        fs::write(folder.path().join(name), content).expect("a file");
    }
    folder
}

/// The CPU time that this thread has used: it does not grow while others have the processor.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("nanoseconds"))
}

fn load_folder(folder: &Path) -> Loaded {
    load(&[folder.to_owned()])
}

fn names(loaded: &Loaded) -> Vec<&str> {
    loaded.resources.routes.iter().filter_map(|route| route.metadata.name.as_deref()).collect()
}

/// The faults as they are shown, without the folder.
fn shown(folder: &Path, faults: &[ManifestFault]) -> Vec<String> {
    let folder = format!("{}/", folder.display());
    faults.iter().map(|fault| fault.to_string().replace(&folder, "")).collect()
}

/// The faults of one file of this content.
fn faults_of(content: &str) -> Vec<String> {
    let folder = folder(&[("a.yaml", content)]);
    let loaded = load_folder(folder.path());
    let faults = shown(folder.path(), &loaded.faults);
    if !faults.is_empty() {
        let nothing = Resources::default();
        assert_eq!(loaded.resources.routes, nothing.routes, "a file at fault contributes nothing");
        assert_eq!(loaded.resources.services, nothing.services);
        assert_eq!(loaded.resources.slices, nothing.slices);
    }
    faults
}

fn installation() -> Installation {
    Installation {
        listeners: vec!["https".into()],
        reach: Reach { local_addresses: true, ..Reach::default() },
        termination: Some(TicketKeys::default()),
        ..Installation::default()
    }
}

#[test]
fn a_folder_is_read_in_order_with_all_its_kinds_of_documents() {
    let many =
        format!("# head\n---\n{}---\n{}\n---\n# nothing\n--- \n", good("b"), service("s", 1));
    let json = r#"{"apiVersion": "sluice.dev/v1alpha1", "kind": "SniRoute",
        "metadata": {"name": "c", "uid": "5", "labels": {"a.b/c": "d"},
            "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}]},
        "spec": {"hostnames": ["c.com"], "backends": [{"address": "[::1]:1"}]},
        "status": {"conditions": []}}"#;
    let list = format!(
        "apiVersion: v1\nkind: List\nmetadata: {{resourceVersion: ''}}\nitems:\n- {}- {}",
        good("d").replace('\n', "\n  ").trim_end_matches(' '),
        slice("s", "10.0.0.1").replace('\n', "\n  ").trim_end_matches(' '),
    );
    let folder = folder(&[
        ("1.yaml", &many),
        ("2.json", json),
        ("3.yml", &list),
        ("4.yaml", "\u{feff}# only a comment"),
        ("5.yaml", ""),
        ("6.txt", "not: [ours"),
        (".hidden.yaml", "not: [ours"),
        ("7.yaml~", "not: [ours"),
        ("0.yaml", &good("a").replace('\n', "\r\n")),
    ]);
    fs::create_dir(folder.path().join("deeper.yaml")).expect("a folder");
    fs::write(folder.path().join("deeper.yaml/x.yaml"), "not: [ours").expect("a file");

    let loaded = load_folder(folder.path());
    assert_eq!(shown(folder.path(), &loaded.faults), [""; 0]);
    assert_eq!(names(&loaded), ["a", "b", "c", "d"]);
    assert_eq!(loaded.resources.services.len(), 1);
    assert_eq!(loaded.resources.slices.len(), 1);
}

#[test]
fn paths_may_be_files_of_any_name_and_each_file_counts_once() {
    let folder = folder(&[("a.yaml", &good("a")), ("b.conf", &good("b"))]);
    std::os::unix::fs::symlink("a.yaml", folder.path().join("z.yaml")).expect("a link");
    let paths = ["b.conf", "a.yaml", "", "a.yaml"].map(|name| folder.path().join(name));
    let loaded = load(&paths);
    assert_eq!(shown(folder.path(), &loaded.faults), [""; 0]);
    assert_eq!(names(&loaded), ["a", "b"]);
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = folder(&[("a.yaml", &good("a")), ("latin.yaml", "")]);
    fs::write(folder.path().join("latin.yaml"), b"# one\n# b\xfccher\n").expect("a file");
    std::os::unix::fs::symlink("gone", folder.path().join("link.yaml")).expect("a link");
    let socket = std::os::unix::net::UnixListener::bind(folder.path().join("s.yaml"));
    let huge = fs::File::create(folder.path().join("huge.yaml")).expect("a file");
    huge.set_len((16 << 20) + 1).expect("a length");

    let loaded = load(&[folder.path().to_owned(), folder.path().join("missing.yaml")]);
    assert_eq!(
        shown(folder.path(), &loaded.faults),
        [
            "missing.yaml: No such file or directory (os error 2)",
            "huge.yaml: is over 16 MiB",
            "latin.yaml:2: is not UTF-8 text",
            "link.yaml: No such file or directory (os error 2)",
            "s.yaml: is not a regular file",
        ]
    );
    assert_eq!(names(&loaded), ["a"], "the others are loaded");
    drop(socket);
}

#[test]
fn lines_are_those_of_the_file() {
    let text = format!("{}---\n\n{}", good("a"), route("r", "hostnames: [a.com]\nbackends: []"));
    assert!(faults_of(&text)[0].starts_with("a.yaml:14: SniRoute data/r: spec.backends: is empty"));
    // In a list, the object and its field are those of the item.
    let item = route("r", "hostnames: [a.com]\nbackends: [{weight: x}]").replace('\n', "\n  ");
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {}- {item}",
        good("a").replace('\n', "\n  ").trim_end_matches(' ')
    );
    let faults = faults_of(&list);
    assert!(
        faults[0].starts_with("a.yaml:15: SniRoute data/r: spec.backends[0].weight: invalid type"),
        "{faults:?}"
    );
    // Every document of a file is looked at.
    let bad = |name: &str| route(name, "hostnames: []\nbackends: []");
    let two = faults_of(&format!("{}---\n{}", bad("a"), bad("b")));
    assert_eq!(two.len(), 2);
    assert!(two[1].starts_with("a.yaml:12: SniRoute data/b: spec.hostnames: is empty"), "{two:?}");
}

#[test]
fn the_same_object_twice_is_a_fault_that_names_both_places() {
    let text = format!("{}---\n{}---\n{}", good("r"), service("r", 1), good("r"));
    assert_eq!(
        faults_of(&text),
        ["a.yaml:13: SniRoute data/r: is in this file twice, first in line 1"]
    );
    let folder = folder(&[
        ("a.yaml", &good("r")),
        ("b.yaml", &format!("{}---\n{}", good("x"), good("r"))),
        ("c.yaml", &good("r").replace(": data", ": other")),
    ]);
    let loaded = load_folder(folder.path());
    let first = folder.path().join("a.yaml");
    assert_eq!(
        shown(folder.path(), &loaded.faults),
        [format!("b.yaml:8: SniRoute data/r: is in {}:1 already", first.display())
            .replace(&format!("{}/", folder.path().display()), "")]
    );
    assert_eq!(names(&loaded), ["r", "r"], "the second file is left out whole");
}

#[test]
fn check_finds_what_keeps_routes_from_being_in_force() {
    let backends = "backends:\n- service: {name: s, port: 1}\n- service: {name: s, port: 2}\n\
                    - service: {name: t, port: 1}";
    let folder = folder(&[
        (
            "a.yaml",
            &format!(
                "{}---\n{}",
                service("s", 1),
                route(
                    "a",
                    &format!("hostnames: [a.com, b.com]\nlisteners: [https, nope]\n{backends}")
                )
            ),
        ),
        (
            "b.yaml",
            &route("b", "hostnames:\n- c.com\n- b.com\nbackends: [{address: '192.0.2.1:1'}]"),
        ),
        ("c.yaml", &route("c", "hostnames: []\nbackends: []")),
        (
            "d.yaml",
            &route(
                "d",
                "className: other\nhostnames: [b.com]\nbackends: [{address: '192.0.2.1:1'}]",
            ),
        ),
    ]);
    let paths = [folder.path().to_owned()];
    let faults = shown(folder.path(), &check(&paths, &installation()));
    assert_eq!(
        faults,
        [
            "a.yaml:11: SniRoute data/a: spec.listeners[1]: there is no listener \"nope\"",
            "a.yaml:14: SniRoute data/a: spec.backends[1].service.port: Service data/s has no port \
             2; it has 1",
            "a.yaml:15: SniRoute data/a: spec.backends[2].service.name: there is no Service data/t",
            "b.yaml:7: SniRoute data/b: spec.hostnames[1]: b.com belongs to data/a where both take \
             the same listener and ALPN",
            "c.yaml:5: SniRoute data/c: spec.hostnames: is empty; a route needs at least one \
             hostname (* takes any)",
        ]
    );
    let offline = Installation { listeners: vec![], ..installation() };
    assert!(!shown(folder.path(), &check(&paths, &offline))[0].contains("listener"));
    assert_eq!(check(&[folder.path().join("b.yaml")], &installation()), []);
}
