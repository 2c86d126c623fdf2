//! The walls between the parts of the crate: which module may name which, and who may do I/O.
//!
//! The sources are read as tokens, so comments and strings do not count, and every `use` tree and
//! every path is resolved as far as `crate`, `self` and `super` go. The snippets at the end show
//! that each wall is seen when it is broken.

mod circles;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use source::{Name, Target, module_of, names, tokens};

/// What each module may name, besides itself. One that is not here fails when it names any.
const MAY_NAME: &[(&str, &[&str])] = &[
    // Pure.
    ("routing", &["outcome", "duration", "policy", "limiter", "termination"]),
    ("policy", &["cidr", "duration"]),
    ("limiter", &["policy"]),
    ("tls", &[]),
    ("termination", &[]),
    ("proxy_protocol", &[]),
    ("outcome", &[]),
    ("duration", &[]),
    ("cidr", &[]),
    ("reach", &["cidr"]),
    ("yaml", &[]),
    // The two planes, which meet only in `routing`.
    (
        "control",
        &["routing", "reach", "policy", "termination", "proxy_protocol", "duration", "yaml"],
    ),
    (
        "proxy",
        &[
            "routing",
            "reach",
            "machine",
            "tls",
            "termination",
            "proxy_protocol",
            "policy",
            "limiter",
            "outcome",
            "config",
            "metrics",
            "access_log",
            "heartbeat",
        ],
    ),
    // What an operator touches.
    (
        "admin",
        &[
            "routing",
            "policy",
            "limiter",
            "termination",
            "reach",
            "metrics",
            "readiness",
            "control::status",
            "duration",
        ],
    ),
    (
        "explain",
        &[
            "routing",
            "policy",
            "tls",
            "termination",
            "admin::report",
            "admin::limits",
            "admin::certificates",
        ],
    ),
    ("metrics", &["routing", "outcome", "reach", "limiter", "termination"]),
    ("access_log", &["tls", "outcome", "line_queue", "cidr"]),
    ("line_queue", &[]),
    ("readiness", &["heartbeat"]),
    ("heartbeat", &[]),
    ("machine", &[]),
    ("config", &["routing", "duration", "logging", "cidr", "policy", "yaml"]),
    ("logging", &["line_queue"]),
    ("cli", &["config", "routing"]),
    // The map declares the modules and names nothing in them.
    ("lib", &[]),
];

/// The only ones that know every part.
const KNOW_ALL: &[&str] = &["app", "main"];

/// The only ones that may write to stdout.
const MAY_PRINT: &[&str] = &["main", "cli", "access_log"];

/// What a module may not name of other crates. Its tests may.
const MAY_NOT_NAME: &[(&str, &[&str])] = &[
    ("routing", IO),
    ("tls", IO),
    ("termination", IO),
    ("proxy_protocol", IO),
    ("policy", IO),
    ("reach", IO),
    ("cidr", IO),
    ("proxy", CLUSTER),
    ("metrics", CLUSTER),
    ("outcome", IO),
    ("yaml", IO),
    ("limiter", IO),
    ("duration", IO),
];

const CLUSTER: &[&str] = &["kube", "k8s_openapi"];
const IO: &[&str] = &[
    "kube",
    "k8s_openapi",
    "tokio",
    "hyper",
    "hyper_util",
    "notify",
    "rustix",
    "socket2",
    "std::env",
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
];

#[test]
fn the_sources_keep_to_the_walls() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root);
    assert!(files.iter().any(|file| file.ends_with("routing/table.rs")), "{files:?}");
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap();
        found.extend(faults(name, &text).into_iter().map(|fault| format!("src/{name}:{fault}")));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_map_in_the_library_shows_the_walls() {
    let text = include_str!("../../src/lib.rs");
    let mut walls: BTreeMap<&str, BTreeSet<&str>> = MAY_NAME
        .iter()
        .map(|(module, allowed)| (*module, allowed.iter().copied().collect()))
        .collect();
    // The map's own file.
    walls.remove("lib");
    walls.insert("app", BTreeSet::from(["all"]));
    assert_eq!(map(text), walls);
}

/// The first and the last column of the map: each module, with what it may name.
fn map(text: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | ")?.strip_suffix(" |"));
    rows.map(|row| row.split(" | ").collect::<Vec<_>>())
        .filter(|cells| cells[0].starts_with('['))
        .flat_map(|cells| {
            let names =
                |cell| <str>::split(cell, ", ").map(|name| name.trim_matches(['[', ']', '`']));
            let allowed: BTreeSet<&str> =
                names(cells[cells.len() - 1]).filter(|name| *name != "nothing").collect();
            names(cells[0]).map(move |module| (module, allowed.clone())).collect::<Vec<_>>()
        })
        .collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// What is wrong in a file, each with its line. `file` is relative to `src`.
fn faults(file: &str, source: &str) -> Vec<String> {
    let module = module_of(file);
    let owner = match module.first() {
        Some(first) => first.as_str(),
        None => file.trim_end_matches(".rs"),
    };
    let tokens = tokens(source);
    let mut faults = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let text = |index: usize| tokens.get(index).map_or("", |token| token.text.as_str());
        let prints = match token.text.as_str() {
            "print" | "println" => text(index + 1) == "!",
            // The function, not the field of a child process.
            "stdout" => text(index.wrapping_sub(1)) != ".",
            _ => false,
        };
        if prints && !MAY_PRINT.contains(&owner) {
            faults.push(format!("{}: {owner} writes to stdout", token.line));
        }
        if token.text == "unsafe" {
            faults.push(format!("{}: unsafe", token.line));
        }
    }
    for name in names(&tokens, &module) {
        let fault = match &name.target {
            Target::Ours(path) => fault_of_ours(owner, path),
            Target::Theirs(path) => fault_of_theirs(owner, path, &name),
        };
        faults.extend(fault.map(|fault| format!("{}: {fault}", name.line)));
    }
    faults
}

fn fault_of_ours(owner: &str, path: &[String]) -> Option<String> {
    let allowed = MAY_NAME.iter().find(|(module, _)| *module == owner).map(|(_, allowed)| *allowed);
    let starts_with = |entry: &str| path.iter().zip(entry.split("::")).all(|(a, b)| a == b);
    let reaches = |entry: &str| path.len() >= entry.split("::").count() && starts_with(entry);
    let path_text = path.join("::");
    match allowed {
        _ if KNOW_ALL.contains(&owner) || reaches(owner) => None,
        Some(allowed) if allowed.iter().any(|entry| reaches(entry)) => None,
        Some(_) => Some(format!("{owner} may not name crate::{path_text}")),
        None => {
            Some(format!("{owner} names crate::{path_text}, but tests/parts/walls.rs lacks it"))
        }
    }
}

fn fault_of_theirs(owner: &str, path: &[String], name: &Name) -> Option<String> {
    let (_, banned) = MAY_NOT_NAME.iter().find(|(module, _)| *module == owner)?;
    let path: Vec<&str> = path.iter().map(String::as_str).filter(|part| *part != "*").collect();
    let meets = |entry: &&&str| {
        let entry: Vec<&str> = entry.split("::").collect();
        // To import a whole module is to have all that is in it.
        path.starts_with(&entry) || name.import && entry.starts_with(&path)
    };
    let entry = banned.iter().find(meets)?;
    (!name.in_tests).then(|| format!("{owner} may not name {entry}"))
}

#[test]
fn a_broken_wall_is_seen() {
    for (file, source, expected) in [
        ("control/translate.rs", "use crate::proxy::Worker;", "control may not name crate::proxy"),
        ("control/translate.rs", "use crate::{routing::Table, proxy};", "crate::proxy"),
        ("control/translate.rs", "use super::super::proxy::Worker;", "crate::proxy"),
        ("control/mod.rs", "use super::proxy as other;", "crate::proxy"),
        ("control/mod.rs", "mod inner { use super::super::proxy; }", "crate::proxy"),
        ("control/mod.rs", "use crate::*;", "crate::*"),
        ("control/mod.rs", "use {crate as all};", "crate::"),
        ("proxy/mod.rs", "fn f() -> crate::control::Plan { todo() }", "crate::control"),
        ("proxy/mod.rs", "fn f(x: Vec<crate::control::Plan>) {}", "crate::control"),
        ("proxy/mod.rs", "pub(in crate::control) fn f() {}", "crate::control"),
        ("proxy/mod.rs", "macro_rules! m { () => { $crate::control::f() } }", "crate::control"),
        ("proxy/mod.rs", "#[derive(kube::CustomResource)] struct S;", "proxy may not name kube"),
        ("routing/table.rs", "use crate::config::Config;", "crate::config"),
        ("routing/table.rs", "mod tests { use crate::config::Config; }", "crate::config"),
        ("routing.rs", "use tokio::sync::watch;", "routing may not name tokio"),
        ("routing.rs", "extern crate tokio;", "tokio"),
        ("tls/hello.rs", "fn f(a: &::tokio::net::TcpStream) {}", "tokio"),
        ("tls/hello.rs", "use {std::io, kube::Client};", "kube"),
        ("tls/hello.rs", "use std::net::{IpAddr, TcpStream};", "std::net::TcpStream"),
        ("tls/hello.rs", "use std::net;", "std::net"),
        ("tls/hello.rs", "use std::net::{self, IpAddr};", "std::net"),
        ("tls/hello.rs", "use std::net::*;", "std::net"),
        ("tls/hello.rs", "use std::net as n;", "std::net"),
        ("tls/hello.rs", "fn f() -> impl Ord + use<'_> { std::fs::read(p) }", "std::fs"),
        ("tls/hello.rs", "fn f() { std::fs::read(\"x\") }", "std::fs"),
        ("admin/mod.rs", "use crate::control::translate::Plan;", "crate::control::translate"),
        ("admin/mod.rs", "use crate::control;", "admin may not name crate::control"),
        ("lib.rs", "pub use crate::proxy::Worker;", "lib may not name"),
        ("novel.rs", "use crate::routing::Table;", "tests/parts/walls.rs lacks it"),
        ("app.rs", "fn f() { println!(\"x\") }", "app writes to stdout"),
        ("app.rs", "fn f() { std::io::stdout().lock() }", "app writes to stdout"),
        ("app.rs", "fn f() { let c = '\"'; unsafe { g() } }", "unsafe"),
        ("app.rs", "fn f() { /* /* */ */ let s = r#\"\"\"#; unsafe { g() } }", "unsafe"),
    ] {
        let found = faults(file, source);
        assert!(found.iter().any(|fault| fault.contains(expected)), "{file}: {source}: {found:?}");
    }
}

#[test]
fn what_keeps_to_the_walls_is_left_alone() {
    for (file, source) in [
        ("control/translate.rs", "use crate::{control::api, routing::{self, Table}};"),
        ("proxy/relay/copy.rs", "use super::super::peek; use crate::tls::Hello; use self::x::y;"),
        ("proxy/peek.rs", "pub(in crate::proxy) fn f() {} pub(crate) fn g() {}"),
        ("routing/table.rs", "use std::net::{IpAddr, SocketAddr}; use std::{fmt, io};"),
        ("routing/table.rs", "mod tests { use super::*; use crate::routing::channel; }"),
        ("routing/table.rs", "fn f(t: &T) -> impl Ord + use<'_> { Vec::<u8>::new(t) }"),
        ("tls/hello.rs", "// use tokio\n/* /* */ unsafe */ const S: &str = \"\\\" crate::proxy\";"),
        ("tls/hello.rs", "#[cfg(test)] mod tests { fn f() { std::fs::read(corpus()); } }"),
        (
            "tls/hello.rs",
            "const S: &[u8] = br##\"\"# unsafe crate::proxy\"##; const C: u8 = b'\\'';",
        ),
        ("tls/hello.rs", "fn f<'unsafe_looking>(s: &'unsafe_looking str) { s.print() }"),
        ("admin/report.rs", "use crate::control::status::{Condition, RouteStatus};"),
        ("app.rs", "use crate::{control, proxy}; fn f() { eprintln!(\"x\"); child.stdout }"),
        ("main.rs", "use sluice::{app, cli}; fn main() { println!(\"x\") }"),
    ] {
        assert_eq!(faults(file, source), Vec::<String>::new(), "{file}: {source}");
    }
}
