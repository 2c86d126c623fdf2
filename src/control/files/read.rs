//! Files and folders as they lie on disk, and where to look for changes of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The largest file in bytes. Far above what people write, far below what hurts.
const MAX_FILE: u64 = 16 << 20;
/// How many symbolic links one path may lead through, as in the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// What the configured paths hold at one moment. Two equal readings mean that nothing changed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Reading {
    /// By configured path: its files, or why it cannot be read.
    pub(super) roots: BTreeMap<PathBuf, Result<Files, String>>,
}

/// Files by the paths by which they were found.
type Files = BTreeMap<PathBuf, FileRead>;

/// One file at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FileRead {
    /// Where it really is. When that changes (a ConfigMap volume was swapped), the reading was made
    /// across the swap.
    real: PathBuf,
    /// What is in it, or why it cannot be read.
    pub(super) content: Result<Arc<[u8]>, String>,
}

impl Reading {
    /// This reading, but with what is `applied` of the files that are being written, which are told
    /// by their real paths.
    pub(super) fn except(
        mut self,
        applied: &Reading,
        is_written: impl Fn(&Path) -> bool,
    ) -> Reading {
        for (path, root) in &mut self.roots {
            let Ok(files) = root else { continue };
            let applied = applied.files(path);
            let written: Vec<PathBuf> = files
                .iter()
                .filter(|(_, file)| is_written(&file.real))
                .map(|(name, _)| name.clone())
                .collect();
            for name in written {
                keep(files, applied, name);
            }
        }
        self
    }

    /// What of this reading is as it was in the `last`, and for the rest what is `applied`: a file
    /// that is caught in the middle of a change keeps what it had.
    pub(super) fn where_steady(mut self, last: &Reading, applied: &Reading) -> Reading {
        for (path, root) in &mut self.roots {
            let last = last.roots.get(path);
            let (Ok(files), Some(Ok(last))) = (&mut *root, last) else {
                if let (true, Some(applied)) = (last != Some(root), applied.roots.get(path)) {
                    *root = applied.clone();
                }
                continue;
            };
            let applied = applied.files(path);
            let names = files.keys().chain(last.keys());
            let changing: BTreeSet<PathBuf> =
                names.filter(|name| files.get(*name) != last.get(*name)).cloned().collect();
            for name in changing {
                keep(files, applied, name);
            }
        }
        self
    }

    /// The files that were found by way of a configured path.
    fn files(&self, path: &Path) -> Option<&Files> {
        self.roots.get(path)?.as_ref().ok()
    }

    /// Reads everything. A file that is reached in more than one way counts once.
    ///
    /// This blocks.
    pub(super) fn of(paths: &[PathBuf]) -> Self {
        let mut seen = HashSet::new();
        let mut reading = Reading::default();
        for path in paths {
            if !reading.roots.contains_key(path) {
                let files = read_root(path, &mut seen).map_err(|error| error.to_string());
                reading.roots.insert(path.clone(), files);
            }
        }
        reading
    }
}

/// Puts a file back to what is applied.
fn keep(files: &mut Files, applied: Option<&Files>, name: PathBuf) {
    match applied.and_then(|applied| applied.get(&name)) {
        Some(file) => files.insert(name, file.clone()),
        None => files.remove(&name),
    };
}

fn read_root(path: &Path, seen: &mut HashSet<PathBuf>) -> io::Result<Files> {
    let files = match fs::metadata(path)?.is_dir() {
        true => manifests(path)?,
        false => vec![path.to_owned()],
    };
    Ok(files.into_iter().filter_map(|file| Some((file.clone(), read_file(&file, seen)?))).collect())
}

/// Whether a folder holds other folders and no manifest: probably the manifests are in those.
pub(super) fn is_too_high(folder: &Path) -> bool {
    let holds_folder = |entries: fs::ReadDir| {
        entries.flatten().any(|entry| {
            !entry.file_name().as_encoded_bytes().starts_with(b".") && entry.path().is_dir()
        })
    };
    manifests(folder).is_ok_and(|files| files.is_empty())
        && fs::read_dir(folder).is_ok_and(holds_folder)
}

/// The entries of a folder that are manifests by their name, sorted.
fn manifests(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let extension = path.extension().and_then(|extension| extension.to_str());
        // A link that leads nowhere is read too: the error says so.
        if !hidden && matches!(extension, Some("yaml" | "yml" | "json")) && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// `None` when the file was read before by another name, or went away in the meantime.
fn read_file(file: &Path, seen: &mut HashSet<PathBuf>) -> Option<FileRead> {
    if fs::symlink_metadata(file).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return None;
    }
    let real = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    if !seen.insert(real.clone()) {
        return None;
    }
    let content = read_content(file).map_err(|error| error.to_string());
    Some(FileRead { real, content })
}

fn read_content(file: &Path) -> io::Result<Arc<[u8]>> {
    // Asked before opening it: to open a named pipe would wait for whoever writes into it.
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    let mut content = Vec::new();
    File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("is over {} MiB", MAX_FILE >> 20)));
    }
    Ok(content.into())
}

/// Where a change would have to happen to change a [`Reading`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interest {
    /// Folders of which every entry counts.
    folders: BTreeSet<PathBuf>,
    /// Single entries of other folders.
    entries: BTreeSet<PathBuf>,
}

impl Interest {
    /// Finds the files, the folders, and every symbolic link on the way to them.
    pub(super) fn of(paths: &[PathBuf]) -> Self {
        let mut interest = Interest::default();
        for path in paths {
            let way = trail(path);
            let real = way.last().filter(|real| real.is_dir()).cloned();
            interest.entries.extend(way);
            if let Some(folder) = real {
                let files = manifests(&folder).unwrap_or_default();
                let links = files.iter().filter(|file| file.is_symlink());
                interest.entries.extend(links.flat_map(|link| trail(link)));
                interest.folders.insert(folder);
            }
        }
        interest
    }

    /// The folders to watch, all of them real.
    pub(super) fn watched(&self) -> BTreeSet<PathBuf> {
        let parents = self.entries.iter().filter_map(|entry| entry.parent());
        parents.map(Path::to_owned).chain(self.folders.iter().cloned()).collect()
    }

    /// Whether a change at `path` may matter: it is one of the entries, is in one of the folders, or
    /// is the folder of an entry.
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
