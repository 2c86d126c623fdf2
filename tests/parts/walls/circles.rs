//! No files of a folder name each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::source::{Name, Target, module_of, tokens};
use super::sources;

/// In these folders, no files name each other in a circle. A file's inline modules, and the folder
/// that has its name, are part of it; its tests may name what they like. What the folder's `mod.rs`
/// imports from a file, such as by `pub use`, is that file's by its short name, too. What `mod.rs`
/// defines is nobody's.
const WITHOUT_CIRCLES: &[&str] = &["routing", "tls", "termination", "proxy", "config", "admin"];

#[test]
fn no_files_of_a_folder_name_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for folder in WITHOUT_CIRCLES {
        let files = sources(&root.join(folder)).into_iter().map(|file| {
            let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(&file).unwrap())
        });
        assert_eq!(circle(folder, files), None);
    }
}

/// The files of a circle in `folder`, if there is one.
fn circle(folder: &str, files: impl IntoIterator<Item = (String, String)>) -> Option<String> {
    let folder_path: Vec<String> = folder.split('/').map(str::to_owned).collect();
    let depth = folder_path.len();
    let mut imports = BTreeMap::new();
    let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, source) in files {
        let module = module_of(&file);
        if module.iter().any(|part| part == "tests") {
            continue;
        }
        let names = super::source::names(&tokens(&source), &module)
            .into_iter()
            .filter(|name| !name.in_tests);
        let Some(from) = module.get(depth) else {
            imports.extend(names.filter_map(|name| import(&folder_path, name)));
            continue;
        };
        let inside = names.filter_map(|name| {
            let Target::Ours(path) = name.target else { return None };
            path.strip_prefix(&folder_path[..])?.first().cloned()
        });
        named.entry(from.clone()).or_default().extend(inside);
    }
    let files: BTreeSet<String> = named.keys().cloned().collect();
    for (from, named) in &mut named {
        let file = |name: &String| files.get(name).or_else(|| imports.get(name));
        *named = named.iter().filter_map(file).filter(|file| *file != from).cloned().collect();
    }
    let mut open = named.clone();
    // What names nothing that is left is in no circle.
    loop {
        let left: BTreeSet<String> = open.keys().cloned().collect();
        let before = open.len();
        open.retain(|_, named| named.iter().any(|name| left.contains(name)));
        if open.len() == before {
            break;
        }
    }
    let circle = |(from, named): (&String, &BTreeSet<String>)| {
        let named: Vec<&str> = named.iter().map(String::as_str).collect();
        format!("{folder}: {from} names {}", named.join(", "))
    };
    (!open.is_empty()).then(|| open.iter().map(circle).collect::<Vec<_>>().join("\n"))
}

/// The short name of what a folder's `mod.rs` imports from a file, and the file.
fn import(folder: &[String], name: Name) -> Option<(String, String)> {
    let path = match name.target {
        Target::Ours(path) => path.strip_prefix(folder)?.to_vec(),
        Target::Theirs(path) => path,
    };
    let (file, rest) = path.split_first()?;
    Some((rest.last().filter(|_| name.import)?.clone(), file.clone()))
}

#[test]
fn a_circle_is_seen() {
    let found = |files: &[(&str, &str)]| {
        let files = files.iter().map(|(name, text)| (format!("p/{name}.rs"), (*text).to_owned()));
        circle("p", files.collect::<Vec<_>>()).is_some()
    };
    assert!(found(&[("a", "use super::b::B;"), ("b", "use crate::p::a::A;")]));
    assert!(found(&[
        ("a", "use super::b;"),
        ("b/x", "use crate::p::c::C;"),
        ("c", "use super::a;")
    ]));
    for import in ["pub use a::A;", "pub(crate) use self::a::{self, A};", "use crate::p::a::A;"] {
        assert!(found(&[("mod", import), ("a", "use super::b;"), ("b", "use super::A;")]));
        assert!(!found(&[("mod", import), ("a", "use super::b;"), ("b", "use super::B;")]));
        assert!(!found(&[("mod", import), ("a", "use super::A;"), ("b", "use super::A;")]));
    }
    assert!(!found(&[("a", "use super::b;"), ("b", "use super::c;"), ("c", "use super::B;")]));
    assert!(!found(&[("a", "use super::b;"), ("b", "mod tests { use crate::p::a; }")]));
    assert!(!found(&[("a", "use super::b;"), ("b/tests", "use crate::p::a;")]));
    assert!(!found(&[("a", "use self::x::y;"), ("a/x", "use super::z;")]));
}
