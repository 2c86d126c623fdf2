//! Where to look for changes of what lies on disk.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::snapshot::manifests;

/// How many symbolic links one path may lead through, as in the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Where a change would have to happen to change a [`DirSnapshot`](super::snapshot::DirSnapshot).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WatchSet {
    /// Folders of which every entry counts.
    folders: BTreeSet<PathBuf>,
    /// Single entries of other folders.
    entries: BTreeSet<PathBuf>,
}

impl WatchSet {
    /// Finds the files, the folders, and every symbolic link on the way to them. `data_files` are further files, which
    /// manifests name.
    pub(super) fn of(paths: &[PathBuf], data_files: &BTreeSet<PathBuf>) -> Self {
        let mut set = WatchSet::default();
        set.entries.extend(data_files.iter().flat_map(|file| trail(file)));
        for path in paths {
            let way = trail(path);
            let real = way.last().filter(|real| real.is_dir()).cloned();
            set.entries.extend(way);
            if let Some(folder) = real {
                let files = manifests(&folder).unwrap_or_default();
                let links = files.iter().filter(|file| file.is_link);
                set.entries.extend(links.flat_map(|link| trail(&link.path)));
                set.folders.insert(folder);
            }
        }
        set
    }

    /// The folders to watch, all of them real.
    pub(super) fn watched(&self) -> BTreeSet<PathBuf> {
        let parents = self.entries.iter().filter_map(|entry| entry.parent());
        parents.map(Path::to_owned).chain(self.folders.iter().cloned()).collect()
    }

    /// Whether a change at `path` may matter: it is one of the entries, is in one of the folders,
    /// or is the folder of an entry.
    pub(super) fn includes(&self, path: &Path) -> bool {
        self.entries.contains(path)
            || path.parent().is_some_and(|parent| self.folders.contains(parent))
            || self.entries.iter().any(|entry| entry.parent() == Some(path))
    }
}

/// The symbolic links on the way to `path`, each by its real place, and last what the way leads to,
/// or the first thing on it that is not there.
fn trail(path: &Path) -> Vec<PathBuf> {
    let Ok(path) = std::path::absolute(path) else { return Vec::new() };
    let mut trail = Vec::new();
    let mut real = PathBuf::new();
    let mut rest: Vec<PathBuf> = steps(&path);
    while let Some(step) = rest.pop() {
        if step.as_os_str() == ".." {
            real.pop();
            continue;
        }
        real.push(&step);
        match fs::symlink_metadata(&real) {
            Ok(found) if found.is_symlink() && trail.len() < MAX_LINKS => {
                let target = fs::read_link(&real).unwrap_or_default();
                trail.push(real.clone());
                real.pop();
                rest.extend(steps(&target));
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    trail.push(real);
    trail
}

/// The components of a path, the first one last.
fn steps(path: &Path) -> Vec<PathBuf> {
    let given = path.components().filter(|component| *component != Component::CurDir);
    given.rev().map(|component| PathBuf::from(component.as_os_str())).collect()
}
