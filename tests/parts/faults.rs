//! What sluice says of bad manifests and settings, to the letter.
//!
//! Each table in `faults/` has inputs, whose lines begin with `|`, and below each the faults that are
//! reported of it, which begin with `>`; an input without faults is good. `\t`, `\r`, `\xNN` and `\\`
//! stand for single bytes. A line in brackets names what the inputs below it are put into.
//!
//! `BLESS=1 cargo test --test parts faults` writes the tables anew: the difference is for a person to
//! judge.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use sluice::config::{Config, ConfigError, Flags};
use sluice::control::files::read_text;
use sluice::control::translate::Resources;

#[test]
fn faults_of_manifests() {
    check("manifests", |section, input| {
        let file = [head(section).as_bytes(), &within(section, input)].concat();
        let loaded = read_text(Path::new("a.yaml"), &file);
        let Resources { routes, services, slices, grants, secrets, .. } = &loaded.resources;
        let objects = routes.len() + services.len() + slices.len() + grants.len() + secrets.len();
        assert!(loaded.faults.is_empty() || objects == 0, "a file at fault contributes nothing");
        loaded.faults.iter().map(ToString::to_string).collect()
    });
}

/// What is small on the page and large in memory, or deep.
#[test]
fn faults_of_bombs() {
    let mut nested = "a0: &a0 [x]\n".to_owned();
    for level in 1..30 {
        let inner = vec![format!("*a{}", level - 1); 9].join(", ");
        nested += &format!("a{level}: &a{level} [{inner}]\n");
    }
    let repeated = |anchor: &str| format!("x: &x {anchor}\ny: [{}]\n", vec!["*x"; 3000].join(", "));
    let many = format!("[{}]", vec!["1"; 3000].join(", "));
    for (text, line, fault) in [
        (nested, 5, ALIASES),
        (repeated(&many), 2, ALIASES),
        (repeated(&"a".repeat(8000)), 2, ALIASES),
        (repeated(&format!("{{a: {many}}}")), 2, ALIASES),
        ("a: &a [*a]".to_owned(), 1, "an alias (*) stands for what it is in"),
        (format!("a: {}", "[".repeat(100_000)), 1, DEEP),
        (format!("a: {}", "{a: ".repeat(500)), 1, DEEP),
        (format!("{}a", "- ".repeat(100_000)), 1, DEEP),
        ("? ".repeat(100_000), 1, DEEP),
    ] {
        let start = Instant::now();
        let faults = read_text(Path::new("a.yaml"), text.as_bytes()).faults;
        let shown: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(shown, [format!("a.yaml:{line}: {fault}")], "{:.60}", text);
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:.60} took {:?}",
            text,
            start.elapsed()
        );
    }
}

const DEEP: &str = "is nested more than 32 levels deep";
const ALIASES: &str = "stands for far more than is written in it, by its aliases (*); write out what \
                       they stand for";

#[test]
fn faults_of_settings() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    check("settings", |_, input| {
        fs::write(&file, input).unwrap();
        let has_routes = input.starts_with(b"routes") || input.starts_with(b"source");
        let variable = |name: &str| match name {
            "SLUICE_CONFIG" => Some(OsString::from(&file)),
            "SLUICE_ROUTES" if !has_routes => Some("src".into()),
            _ => None,
        };
        let fault = Config::load(&Flags::default(), variable).err();
        let shown = fault.map(|fault| match fault {
            ConfigError::Unreadable { ref source, .. } => format!("{fault}: {source}"),
            fault => fault.to_string(),
        });
        let folder = format!("{}/", folder.path().display());
        shown.into_iter().map(|fault| fault.replace(&folder, "")).collect()
    });
}

/// What comes before the inputs of a section.
fn head(section: &str) -> String {
    let (api_version, kind) = match section {
        "file" => return String::new(),
        "metadata" | "route" | "spec" | "field" => ("sluice.dev/v1alpha1", "SniRoute"),
        "service" => ("v1", "Service"),
        "slice" => ("discovery.k8s.io/v1", "EndpointSlice"),
        "secret" => ("v1", "Secret"),
        "grant" => ("gateway.networking.k8s.io/v1", "ReferenceGrant"),
        _ => panic!("[{section}]"),
    };
    let metadata = match section {
        "metadata" => "spec: {hostnames: [a.com], backends: [{address: '192.0.2.1:1'}]}",
        _ => "metadata: {name: x, namespace: data}",
    };
    let spec = match section {
        "spec" => "spec:\n",
        "field" => "spec:\n  hostnames: [a.com]\n  backends: [{address: '192.0.2.1:1'}]\n",
        _ => "",
    };
    format!("apiVersion: {api_version}\nkind: {kind}\n{metadata}\n{spec}")
}

/// An input as it stands below its head.
fn within(section: &str, input: &[u8]) -> Vec<u8> {
    let indent: &[u8] = if matches!(section, "spec" | "field") { b"  " } else { b"" };
    input.split_inclusive(|&byte| byte == b'\n').flat_map(|line| [indent, line].concat()).collect()
}

/// Compares the faults of each input with those in the table.
fn check(table: &str, faults_of: impl Fn(&str, &[u8]) -> Vec<String>) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/parts/faults/{table}.txt"));
    let expected = fs::read_to_string(&path).unwrap();
    let (mut actual, mut input, mut section) = (String::new(), Vec::new(), "file");
    let mut lines = expected.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with('>') {
            continue;
        }
        actual.extend([line, "\n"]);
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some(text) = line.strip_prefix('|') {
            input.extend(unescape(text.strip_prefix(' ').unwrap_or(text)));
            if !lines.peek().is_some_and(|next| next.starts_with('|')) {
                let faults = faults_of(section, &std::mem::take(&mut input));
                actual.extend(faults.into_iter().map(|fault| format!("> {fault}\n")));
            }
        }
    }
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &actual).unwrap();
    }
    for (number, (expected, actual)) in expected.lines().zip(actual.lines()).enumerate() {
        assert_eq!(actual, expected, "line {} of {}", number + 1, path.display());
    }
    assert_eq!(actual, expected, "{}", path.display());
}

/// A line with its line end, unless a backslash is all that stands at its end.
fn unescape(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        let escaped = if c == '\\' { rest.next() } else { Some('\\') };
        match escaped {
            Some('\\') => bytes.extend(c.to_string().bytes()),
            Some('t') => bytes.push(b'\t'),
            Some('r') => bytes.push(b'\r'),
            Some('x') => {
                let digits: String = rest.by_ref().take(2).collect();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap());
            }
            Some(other) => panic!("\\{other} in {line:?}"),
            None => return bytes,
        }
    }
    bytes.push(b'\n');
    bytes
}
