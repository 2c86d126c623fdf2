//! The image, and what it is allowed in a pod.

use std::fs;
use std::path::PathBuf;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::{Namespace, Sluice, kubectl_fails, run, shared, test};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test!(the_image_is_one_small_file_with_labels),
        test!(the_same_binary_makes_the_same_image),
        test!(it_runs_in_a_restricted_namespace_with_no_rights_at_all),
    ]
}

const IMAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/image/sluice.tar");
const MOST_BYTES: u64 = 18_000_000;

fn the_image_is_one_small_file_with_labels() {
    let bytes = fs::metadata(IMAGE).unwrap().len();
    assert!(bytes <= MOST_BYTES, "the image has {bytes} bytes");

    let manifest = manifest(IMAGE);
    let files: Vec<String> = strings(&manifest["Layers"]).map(files_of_layer).collect();
    assert_eq!(files.concat(), "-r-xr-xr-x 0/0 sluice\n", "files of the image");

    let config = config(&manifest);
    assert_eq!(config["os"], "linux");
    let config = &config["config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], json!(["/sluice"]));
    assert_eq!(config["Cmd"], json!(["run"]));
    assert_eq!(config["StopSignal"], "SIGTERM");
    let label = |name: &str| &config["Labels"][format!("org.opencontainers.image.{name}")];
    assert_eq!(label("title"), "sluice");
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("licenses"), env!("CARGO_PKG_LICENSE"));
    assert!(label("description").is_string());
    assert_eq!(label("revision").as_str().map(str::len), Some(40), "a commit");
}

/// Wherever and whenever it is built, and whatever the binary's own date and mode are.
fn the_same_binary_makes_the_same_image() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let manifest = manifest(IMAGE);
    let config = config(&manifest);
    let label = |name: &str| {
        let value = &config["config"]["Labels"][format!("org.opencontainers.image.{name}")];
        format!("{}={}", name.to_uppercase(), value.as_str().expect("a text"))
    };
    let layer = strings(&manifest["Layers"]).next_back().expect("a layer").to_owned();
    let binary = format!("tar -xOf {IMAGE} {layer} | tar -xO sluice > target/release/sluice");
    run("bash", &["-c", &format!("cd {} && mkdir -p target/release && {binary}", path(""))]);
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/Dockerfile"), path("Dockerfile")).unwrap();
    let created = config["created"].as_str().expect("a time");
    let epoch = run("date", &["--date", created, "+SOURCE_DATE_EPOCH=%s"]);

    let again = path("again.tar");
    let name = manifest["RepoTags"][0].as_str().expect("a name");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/env/image.sh");
    let build = ["env", "--chdir", &path(""), epoch.trim(), script, &again, name];
    let of = |argument| ["--build-arg".to_owned(), argument];
    let arguments =
        ["BINARY=prebuilt".to_owned(), label("version"), label("revision")].map(of).concat();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["."]).collect();
    run(build[0], &[&build[1..], &arguments].concat());
    let again = self::manifest(&again);
    // Their names are their digests.
    for part in ["Config", "Layers"] {
        assert_eq!(again[part], manifest[part], "{part}");
    }
}

fn it_runs_in_a_restricted_namespace_with_no_rights_at_all() {
    let _cluster = shared();
    let namespace = Namespace::restricted("restricted");
    let sluice = Sluice::install(&namespace, "replicas: 1");
    let pod = &sluice.pods()[0];

    let process = process_of(&namespace.get(&format!("pod/{pod}")));
    let status = fs::read_to_string(process.join("status")).unwrap();
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
    };
    assert_eq!(field("Uid:"), "65532\t65532\t65532\t65532");
    assert_eq!(field("Gid:"), "65532\t65532\t65532\t65532");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(&field(set), 16), Ok(0), "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2", "a filter");
    let mounts = fs::read_to_string(process.join("mounts")).unwrap();
    let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).unwrap();
    let options = root.split(' ').nth(3).unwrap();
    assert!(options.split(',').any(|option| option == "ro"), "{root}");

    for program in ["sh", "/bin/sh", "/bin/busybox", "cat"] {
        let exec = ["exec", "--namespace", namespace.name(), pod, "--", program];
        let error = kubectl_fails(&exec);
        assert!(error.contains("no such file") || error.contains("not found"), "{error}");
    }
}

/// The folder in /proc of the process of that name in a pod, which is in our own process namespace.
fn process_of(pod: &Value) -> PathBuf {
    let id = pod["metadata"]["uid"].as_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let mut found = processes.filter(|process| {
        let read = |file| fs::read_to_string(process.join(file)).unwrap_or_default();
        read("cgroup").contains(id) && read("comm") == "sluice\n"
    });
    found.next().expect("the process of the pod")
}

fn manifest(archive: &str) -> Value {
    json(&run("tar", &["-xOf", archive, "manifest.json"]))[0].take()
}

fn config(manifest: &Value) -> Value {
    let file = manifest["Config"].as_str().expect("a file");
    json(&run("tar", &["-xOf", IMAGE, file]))
}

/// The mode, owner and name of each.
fn files_of_layer(layer: &str) -> String {
    let list = format!("tar -xOf {IMAGE} {layer} | tar -tv --numeric-owner");
    let files = run("bash", &["-c", &list]);
    let fields = files.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.map(|fields| format!("{} {} {}\n", fields[0], fields[1], fields[5])).collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn strings(list: &Value) -> impl DoubleEndedIterator<Item = &str> {
    list.as_array().expect("a list").iter().map(|item| item.as_str().expect("a text"))
}
