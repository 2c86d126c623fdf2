//! The documentation: its links lead somewhere, its manifests are valid, and what is generated in
//! it is fresh.
//!
//! `UPDATE_DOCS=1 cargo test --test parts docs` makes the generated parts anew. The chart's tests
//! take the same YAML to a real API server, and the values of the chart to Helm
//! (`tests/chart/docs_test.go`).

mod links;
mod manifests;
mod markdown;
mod reasons;
mod reference;

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every page that people read, relative to the repository, sorted.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    collect(root(), &mut pages);
    pages.sort();
    assert!(pages.contains(&PathBuf::from("docs/routes.md")), "{pages:?}");
    pages
}

fn collect(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            collect(&path, pages);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path.strip_prefix(root()).unwrap().to_owned());
        }
    }
}
