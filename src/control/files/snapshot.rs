//! Files and folders as they lie on disk.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::iter;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use super::parse::{DataFiles, data_file_names};

/// The largest file in bytes. Far above what people write, far below what hurts.
const MAX_FILE: u64 = 16 << 20;
/// The largest file in bytes that a Secret may name, as large as a Secret may be.
const MAX_DATA_FILE: u64 = 1 << 20;
/// How coarse the times of a file system may be: FAT counts in steps of two seconds.
const COARSE: Duration = Duration::from_secs(3);

/// What the configured paths hold at one moment. Two equal snapshots mean that nothing changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct DirSnapshot {
    /// By configured path: its files, or why it cannot be read.
    pub(super) roots: BTreeMap<PathBuf, Result<Files, String>>,
}

/// Files by the paths by which they were found.
type Files = BTreeMap<PathBuf, FileRead>;

/// One file at one moment.
#[derive(Clone, Debug)]
pub(super) struct FileRead {
    /// Where it really is. When that changes (a ConfigMap volume was swapped), the snapshot was taken
    /// across the swap.
    pub(super) real: PathBuf,
    /// What is in it, or why it cannot be read.
    pub(super) content: FileContent,
    /// By what to tell that it is still the same, if anything can.
    stamp: Option<Stamp>,
    /// The files that its Secrets name, by their names there; `None` where these are not read.
    data_files: Option<BTreeMap<PathBuf, FileRead>>,
}

impl PartialEq for FileRead {
    /// The stamp changes with every touch, which is no change of the content.
    fn eq(&self, other: &FileRead) -> bool {
        self.real == other.real
            && same(&self.content, &other.content)
            && self.data_files == other.data_files
    }
}

impl FileRead {
    /// Whether it holds the same, with the files that its Secrets name, wherever they are.
    pub(super) fn says_the_same(&self, other: &FileRead) -> bool {
        let one_says_the_same = |one: (&PathBuf, &FileRead), other: (&PathBuf, &FileRead)| {
            one.0 == other.0 && same(&one.1.content, &other.1.content)
        };
        same(&self.content, &other.content)
            && self.data_files().count() == other.data_files().count()
            && self
                .data_files()
                .zip(other.data_files())
                .all(|(one, other)| one_says_the_same(one, other))
    }

    /// The contents of the files that its Secrets name, if these are read.
    pub(super) fn data_contents(&self) -> Option<DataFiles> {
        let files = self.data_files.as_ref()?.iter();
        Some(files.map(|(name, file)| (name.clone(), file.content.clone())).collect())
    }

    fn data_files(&self) -> impl Iterator<Item = (&PathBuf, &FileRead)> {
        self.data_files.iter().flatten()
    }

    /// Itself, and the files that its Secrets name.
    pub(super) fn and_data_files(&self) -> impl Iterator<Item = &FileRead> {
        iter::once(self).chain(self.data_files().map(|(_, file)| file))
    }

    /// Whether the file is empty since a moment ago. Probably a writer has truncated it to write it
    /// anew: on a busy disk that takes long, is visible at once and is reported only when it is over.
    pub(super) fn was_just_emptied(&self, before: &FileRead) -> bool {
        let is_empty = |file: &FileRead| file.content.as_ref().is_ok_and(|bytes| bytes.is_empty());
        self.stamp.is_none() && is_empty(self) && !is_empty(before)
    }
}

/// What is in a file, or why it cannot be read.
pub(super) type FileContent = Result<FileBytes, String>;

/// The bytes of a file. They may hold private keys, and are wiped when they are dropped.
pub(super) type FileBytes = Arc<Zeroizing<Vec<u8>>>;

/// Whether the content is the same, which mostly takes no comparing.
pub(super) fn same(one: &FileContent, other: &FileContent) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => Arc::ptr_eq(one, other) || one == other,
        (one, other) => one == other,
    }
}

/// What the file system tells of a file without opening it. Nobody but the kernel sets the time of
/// the last change (`st_ctim` in inode(7)), and whatever is written to a file moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// In seconds and nanoseconds since 1970.
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of what is read from `now` on. There is none if the file changed just then: it may
    /// change again before the clock of the file system, which may be coarse, moves on.
    fn of(file: &Metadata, now: SystemTime) -> Option<Self> {
        let changed = SystemTime::UNIX_EPOCH
            .checked_add(Duration::new(file.ctime().try_into().ok()?, 0))?
            .checked_add(COARSE)?;
        let stamp = Stamp {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            changed: (file.ctime(), file.ctime_nsec()),
        };
        (changed < now).then_some(stamp)
    }
}

impl DirSnapshot {
    /// Puts those of the files that changed back to what is `applied` for which `is_held` says so, by
    /// their configured path, their name, and what they are and were. Returns their names.
    ///
    /// A configured path that could not be read when the snapshot was applied stays so as a whole: what
    /// is in force of its files is older than the applied snapshot, and a file that is missing from a
    /// readable path counts as gone.
    pub(super) fn hold_back(
        &mut self,
        applied: &DirSnapshot,
        is_held: impl Fn(&Path, &Path, Option<&FileRead>, Option<&FileRead>) -> bool,
    ) -> BTreeSet<PathBuf> {
        let mut all_held = BTreeSet::new();
        for (root, read) in &mut self.roots {
            let Ok(files) = read else { continue };
            let nothing = Files::new();
            let before = applied.files(root).unwrap_or(&nothing);
            let is_held = |name: &&PathBuf| {
                let (now, before) = (files.get(*name), before.get(*name));
                now != before && is_held(root, name, now, before)
            };
            let held: BTreeSet<PathBuf> =
                files.keys().chain(before.keys()).filter(is_held).cloned().collect();
            for name in &held {
                match before.get(name) {
                    Some(file) => files.insert(name.clone(), file.clone()),
                    None => files.remove(name),
                };
            }
            if !held.is_empty()
                && let Some(unreadable @ Err(_)) = applied.roots.get(root)
            {
                read.clone_from(unreadable);
            }
            all_held.extend(held);
        }
        all_held
    }

    /// A file that was found by way of a configured path.
    pub(super) fn file(&self, root: &Path, name: &Path) -> Option<&FileRead> {
        self.files(root)?.get(name)
    }

    /// Where the files are that Secrets name.
    pub(super) fn data_paths(&self) -> BTreeSet<PathBuf> {
        let files = self.roots.values().flatten().flatten();
        let named = files.flat_map(|(path, file)| {
            let folder = path.parent().unwrap_or(Path::new(""));
            file.data_files().map(move |(name, _)| folder.join(name))
        });
        named.collect()
    }

    /// The files that were found by way of a configured path.
    fn files(&self, path: &Path) -> Option<&Files> {
        self.roots.get(path)?.as_ref().ok()
    }

    /// Reads everything, but of files that are still as they were when `known` was read, nothing. A
    /// file that is reached in more than one way counts once.
    ///
    /// This blocks.
    pub(super) fn of(paths: &[PathBuf], known: &DirSnapshot) -> Self {
        DirSnapshot::with(paths, known, true)
    }

    /// The same without the files that Secrets name, which may hold private keys.
    pub(super) fn of_manifests_alone(paths: &[PathBuf], known: &DirSnapshot) -> Self {
        DirSnapshot::with(paths, known, false)
    }

    fn with(paths: &[PathBuf], known: &DirSnapshot, has_data_files: bool) -> Self {
        let mut seen = HashSet::new();
        let mut snapshot = DirSnapshot::default();
        for path in paths {
            if !snapshot.roots.contains_key(path) {
                let files = read_root(path, known.files(path), has_data_files, &mut seen);
                let files = files.map_err(|error| error.to_string());
                snapshot.roots.insert(path.clone(), files);
            }
        }
        snapshot
    }
}

fn read_root(
    path: &Path,
    known: Option<&Files>,
    has_data_files: bool,
    seen: &mut HashSet<PathBuf>,
) -> io::Result<Files> {
    let found = match fs::metadata(path)?.is_dir() {
        true => manifests(path)?,
        // Any step of the way may be a link.
        false => vec![Manifest { path: path.to_owned(), is_link: true }],
    };
    let folder = fs::canonicalize(path)?;
    let read = found.into_iter().filter_map(|manifest| {
        let mut read = read_file(&manifest, &folder, known, seen)?;
        read.data_files = has_data_files.then(|| {
            let known = known.and_then(|known| known.get(&manifest.path));
            read_data_files(&manifest.path, &read, known.filter(|known| known.real == read.real))
        });
        Some((manifest.path, read))
    });
    Ok(read.collect())
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

/// An entry of a folder that is a manifest by its name.
pub(super) struct Manifest {
    pub(super) path: PathBuf,
    /// Whether it is a symbolic link, and so lies elsewhere.
    pub(super) is_link: bool,
}

/// The manifests in a folder, sorted. What the listing tells, nobody asks of each again: there may
/// be thousands, and each change looks at all.
pub(super) fn manifests(folder: &Path) -> io::Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let extension = path.extension().and_then(|extension| extension.to_str());
        if hidden || !matches!(extension, Some("yaml" | "yml" | "json")) {
            continue;
        }
        // It may be gone by now.
        let Ok(kind) = entry.file_type() else { continue };
        let is_link = kind.is_symlink();
        let is_folder = kind.is_dir() || is_link && path.is_dir();
        // A link that leads nowhere is read too: the error says so.
        if !is_folder {
            manifests.push(Manifest { path, is_link });
        }
    }
    manifests.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(manifests)
}

/// Reads what was found in `folder`. `None` when it was read before by another name, or went away in
/// the meantime.
fn read_file(
    manifest: &Manifest,
    folder: &Path,
    known: Option<&Files>,
    seen: &mut HashSet<PathBuf>,
) -> Option<FileRead> {
    let Manifest { path, is_link } = manifest;
    let real = match path.file_name() {
        Some(name) if !is_link => folder.join(name),
        _ => fs::canonicalize(path).unwrap_or_else(|_| path.clone()),
    };
    if !seen.insert(real.clone()) {
        return None;
    }
    let known = known.and_then(|known| known.get(path)).filter(|known| known.real == real);
    let is_gone = |error: &io::Error| {
        let found_nothing = error.kind() == io::ErrorKind::NotFound;
        // A link that leads nowhere is there all the same.
        found_nothing && !(*is_link && fs::symlink_metadata(path).is_ok())
    };
    let (content, stamp) = match read_content(path, known, MAX_FILE) {
        Ok((content, stamp)) => (Ok(content), stamp),
        Err(error) if is_gone(&error) => return None,
        Err(error) => (Err(error.to_string()), None),
    };
    Some(FileRead { real, content, stamp, data_files: None })
}

/// Reads the files that the Secrets of a manifest name. Their names are relative to its folder.
fn read_data_files(
    manifest: &Path,
    read: &FileRead,
    known: Option<&FileRead>,
) -> BTreeMap<PathBuf, FileRead> {
    let Ok(bytes) = &read.content else { return BTreeMap::new() };
    let is_known = |known: &&FileRead| matches!(&known.content, Ok(one) if Arc::ptr_eq(one, bytes));
    let names = match known.filter(is_known) {
        Some(known) => known.data_files().map(|(name, _)| name.clone()).collect(),
        None => data_file_names(bytes),
    };
    let folder = manifest.parent().unwrap_or(Path::new(""));
    let read = names.into_iter().map(|name| {
        let path = folder.join(&name);
        let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        let known = known.and_then(|known| known.data_files.as_ref()?.get(&name));
        let known = known.filter(|known| known.real == real);
        let (content, stamp) = match read_content(&path, known, MAX_DATA_FILE) {
            Ok((content, stamp)) => (Ok(content), stamp),
            Err(error) => (Err(error.to_string()), None),
        };
        (name, FileRead { real, content, stamp, data_files: None })
    });
    read.collect()
}

fn read_content(
    file: &Path,
    known: Option<&FileRead>,
    most: u64,
) -> io::Result<(FileBytes, Option<Stamp>)> {
    // Asked before opening it: to open a named pipe would wait for whoever writes into it.
    let metadata = fs::metadata(file)?;
    if !metadata.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    let stamp = Stamp::of(&metadata, SystemTime::now());
    if let Some(FileRead { content: Ok(content), stamp: known, .. }) = known
        && stamp.is_some()
        && stamp == *known
    {
        return Ok((Arc::clone(content), stamp));
    }
    // Room for all of it, or what was read would be moved, and left behind.
    let room = usize::try_from(metadata.len().min(most)).unwrap_or_default().saturating_add(1);
    let mut content = Zeroizing::new(Vec::with_capacity(room));
    File::open(file)?.take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        return Err(io::Error::other(format!("is over {} MiB", most >> 20)));
    }
    Ok((content.into(), stamp))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
