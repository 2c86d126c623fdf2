//! What is in force of files that change.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::{folder, good, shown};
use crate::control::files::manifests::{Difference, Manifests};
use crate::control::files::parse::ManifestObject;
use crate::control::files::snapshot::DirSnapshot;
use crate::control::translate::sni_route_key;
use crate::routing::RouteKey;

/// A folder and what is in force of it.
struct Served {
    folder: TempDir,
    manifests: Manifests,
    snapshot: DirSnapshot,
    /// The routes in force by all differences so far.
    routes: BTreeSet<RouteKey>,
}

impl Served {
    fn new(files: &[(&str, &str)]) -> Self {
        let mut served = Served::of(folder(files));
        served.read();
        served
    }

    fn of(folder: TempDir) -> Self {
        let (manifests, snapshot) = (Manifests::default(), DirSnapshot::default());
        Served { folder, manifests, snapshot, routes: BTreeSet::new() }
    }

    /// Writes (or with `None` removes) all these files, then reads once; returns what changed.
    fn change(&mut self, files: &[(&str, Option<&str>)]) -> Vec<String> {
        for (name, content) in files {
            let file = self.path().join(name);
            match content {
                Some(content) => fs::write(file, content).expect("written"),
                None => fs::remove_file(file).expect("removed"),
            }
        }
        self.read()
    }

    fn read(&mut self) -> Vec<String> {
        self.snapshot = DirSnapshot::of(&[self.path().to_owned()], &self.snapshot);
        let Difference { changed, gone, put } = self.manifests.apply(&self.snapshot);
        for (kind, key) in gone {
            let route = RouteKey::new(kind, key.namespace(), key.name());
            assert!(self.routes.remove(&route), "{route} was not in force");
        }
        self.routes.extend(put.into_iter().map(|object| match object {
            ManifestObject::SniRoute(route) => sni_route_key(&route.metadata).expect("a name"),
            other => panic!("{other:?}"),
        }));
        let name = |path: &std::path::PathBuf| {
            path.strip_prefix(self.path()).unwrap_or(path).display().to_string()
        };
        changed.iter().map(name).collect()
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn routes(&self) -> Vec<String> {
        let origins: BTreeSet<RouteKey> = self.manifests.origins().into_keys().collect();
        assert_eq!(self.routes, origins);
        self.routes.iter().map(|key| key.name().to_owned()).collect()
    }

    fn faults(&self) -> Vec<String> {
        shown(self.path(), &self.manifests.faults())
    }
}

fn both(one: &str, other: &str) -> String {
    format!("{}---\n{}", good(one), good(other))
}

/// A file that has just been written is read a second time, for it may have changed once more.
#[test]
fn what_is_read_again_is_kept_once() {
    let mut served = Served::new(&[("a.yaml", &good("a"))]);
    served.snapshot = DirSnapshot::default();
    assert!(served.read().is_empty(), "nothing changed");
    let files = served.snapshot.roots[served.path()].as_ref().expect("a folder");
    let content = files[&served.path().join("a.yaml")].content.as_ref().expect("a file");
    assert_eq!(Arc::strong_count(content), 2, "by the snapshot and by what is in force");
}

#[test]
fn a_broken_file_changes_nothing_until_it_is_mended() {
    let mut served = Served::new(&[("a.yaml", &both("a1", "a2")), ("b.yaml", &good("b"))]);
    assert!(served.manifests.complete());
    let half = &both("a1", "new")[..200];
    for broken in ["rubbish", half, &both("a1", "UPPER")] {
        assert_eq!(served.change(&[("a.yaml", Some(broken))]), ["a.yaml"]);
        assert_eq!(served.routes(), ["a1", "a2", "b"], "{broken}");
        assert_eq!(served.faults().len(), 1);
        assert!(served.manifests.complete(), "nothing is missing that was there once");
    }
    // The other files go on.
    served.change(&[("b.yaml", Some(&good("b2")))]);
    assert_eq!(served.routes(), ["a1", "a2", "b2"]);
    served.change(&[("a.yaml", Some(&both("a1", "new")))]);
    assert_eq!(served.routes(), ["a1", "b2", "new"]);
    assert_eq!(served.faults(), [""; 0]);
}

#[test]
fn what_did_not_change_is_no_change() {
    let mut served = Served::new(&[("a.yaml", &good("a")), ("b.yaml", "rubbish")]);
    assert_eq!(served.read(), [""; 0]);
    let same = good("a");
    assert_eq!(served.change(&[("a.yaml", Some(&same)), ("b.yaml", Some("rubbish"))]), [""; 0]);
    assert_eq!(served.change(&[("b.yaml", Some("rubbish!"))]), ["b.yaml"]);
}

#[test]
fn a_file_that_was_never_good_contributes_nothing_and_counts_as_read() {
    let served = Served::new(&[("a.yaml", &good("a")), ("b.yaml", "rubbish")]);
    assert_eq!(served.routes(), ["a"]);
    assert_eq!(served.faults().len(), 1);
    assert!(served.manifests.complete());
}

#[test]
fn what_cannot_be_read_leaves_the_whole_incomplete() {
    let folder = folder(&[("a.yaml", &good("a"))]);
    let link = folder.path().join("b.yaml");
    std::os::unix::fs::symlink("gone", &link).expect("a link");
    let mut served = Served::of(folder);
    served.read();
    assert_eq!(served.routes(), ["a"]);
    assert!(!served.manifests.complete(), "one of the files cannot be read");
    fs::remove_file(&link).expect("removed");
    served.read();
    assert!(served.manifests.complete());

    let missing = [served.path().to_owned(), served.path().join("missing")];
    let mut manifests = Manifests::default();
    manifests.apply(&DirSnapshot::of(&missing, &DirSnapshot::default()));
    assert!(!manifests.complete(), "one of the paths cannot be read");
    fs::create_dir(&missing[1]).expect("a folder");
    manifests.apply(&DirSnapshot::of(&missing, &DirSnapshot::default()));
    assert!(manifests.complete());
    fs::remove_dir(&missing[1]).expect("removed");
    manifests.apply(&DirSnapshot::of(&missing, &DirSnapshot::default()));
    assert!(manifests.complete(), "once it is, it stays so");
}

#[test]
fn the_routes_of_a_deleted_file_go() {
    let mut served = Served::new(&[("a.yaml", &good("a")), ("b.yaml", &good("b"))]);
    assert_eq!(served.change(&[("a.yaml", None)]), ["a.yaml"]);
    assert_eq!(served.routes(), ["b"]);
    served.change(&[("b.yaml", Some("rubbish"))]);
    served.change(&[("b.yaml", None)]);
    assert_eq!(served.routes(), [""; 0]);
    assert_eq!(served.faults(), [""; 0]);
}

#[test]
fn what_was_read_stays_while_its_path_cannot_be_read() {
    let mut served = Served::new(&[("a.yaml", &good("a"))]);
    let away = served.path().with_extension("away");
    fs::rename(served.path(), &away).expect("renamed");
    let folder = served.path().display().to_string();
    assert_eq!(served.read(), [""]);
    assert_eq!(served.routes(), ["a"]);
    assert_eq!(served.faults(), [format!("{folder}: No such file or directory (os error 2)")]);
    assert_eq!(served.read(), [""; 0]);
    fs::rename(&away, served.path()).expect("renamed");
    assert_eq!(served.read(), [""]);
    assert_eq!(served.faults(), [""; 0]);
}

#[test]
fn of_two_files_with_one_object_the_one_that_changed_gives_way() {
    let mut served = Served::new(&[("a.yaml", &good("a")), ("b.yaml", &good("b"))]);
    served.change(&[("a.yaml", Some(&both("a", "b")))]);
    assert_eq!(served.routes(), ["a", "b"]);
    assert_eq!(served.faults(), ["a.yaml:8: SniRoute data/b: is in b.yaml:1 already"]);
    // The other way round.
    served.change(&[("a.yaml", Some(&good("a"))), ("b.yaml", Some(&both("x", "a")))]);
    assert_eq!(served.routes(), ["a", "b"]);
    assert_eq!(served.faults(), ["b.yaml:8: SniRoute data/a: is in a.yaml:1 already"]);
    // As soon as the object is free, what was refused comes in force.
    served.change(&[("a.yaml", Some(&good("a2")))]);
    assert_eq!(served.routes(), ["a", "a2", "x"]);
    assert_eq!(served.faults(), [""; 0]);
}

#[test]
fn of_two_files_that_both_changed_the_second_gives_way() {
    let mut served = Served::new(&[("a.yaml", &good("a")), ("b.yaml", &good("b"))]);
    served.change(&[("a.yaml", Some(&good("x"))), ("b.yaml", Some(&both("x", "y")))]);
    assert_eq!(served.routes(), ["b", "x"]);
    assert_eq!(served.faults(), ["b.yaml:1: SniRoute data/x: is in a.yaml:1 already"]);
}

#[test]
fn objects_may_change_places() {
    let mut served = Served::new(&[("a.yaml", &good("a")), ("b.yaml", &good("b"))]);
    served.change(&[("a.yaml", Some(&good("b"))), ("b.yaml", Some(&good("a")))]);
    assert_eq!(served.faults(), [""; 0]);
    assert_eq!(served.routes(), ["a", "b"]);
    served.change(&[("a.yaml", Some("")), ("b.yaml", Some(&both("b", "a")))]);
    assert_eq!(served.faults(), [""; 0]);
    assert_eq!(served.routes(), ["a", "b"]);
}

#[test]
fn a_file_that_gives_way_may_make_another_give_way() {
    // Whichever of the two comes first.
    for (one, other) in [("a.yaml", "b.yaml"), ("b.yaml", "a.yaml")] {
        let mut served =
            Served::new(&[(one, &good("k")), (other, &good("b")), ("c.yaml", &good("m"))]);
        served.change(&[(one, Some(&good("m"))), (other, Some(&good("k")))]);
        assert_eq!(served.routes(), ["b", "k", "m"]);
        let mut faults = [
            format!("{one}:1: SniRoute data/m: is in c.yaml:1 already"),
            format!("{other}:1: SniRoute data/k: is in {one}:1 already"),
        ];
        faults.sort();
        assert_eq!(served.faults(), faults);
        served.change(&[("c.yaml", None)]);
        assert_eq!(served.routes(), ["k", "m"]);
        assert_eq!(served.faults(), [""; 0]);
    }
}
