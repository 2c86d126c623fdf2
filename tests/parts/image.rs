//! What the build of the image from sources is given.

use std::fs;
use std::path::Path;

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The strings in double quotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('"').skip(1).step_by(2).collect()
}

/// Cargo reads the manifest of every package of the workspace, whatever is built.
#[test]
fn docker_is_given_every_path_that_cargo_toml_names() {
    let manifest = read("Cargo.toml");
    let paths = manifest.split("path = ").skip(1).filter_map(|rest| quoted(rest).first().copied());
    let members = manifest.split_once("members = [").and_then(|(_, rest)| rest.split_once(']'));
    let members = members.map(|(members, _)| quoted(members)).unwrap_or_default();
    let named: Vec<&str> = paths.chain(members).collect();
    assert!(named.contains(&"tests/testkit"), "{named:?}");

    let ignore = read(".dockerignore");
    let rules: Vec<&str> = ignore.lines().filter(|line| !line.starts_with('#')).collect();
    let (all, exceptions) = rules.split_first().unwrap();
    assert_eq!(*all, "*");
    let exceptions: Vec<&str> =
        exceptions.iter().map(|rule| rule.strip_prefix('!').unwrap()).collect();
    for path in named {
        let is_given = exceptions.iter().any(|given| Path::new(path).starts_with(given));
        assert!(is_given, "{path} of Cargo.toml is missing in .dockerignore");
    }
}
