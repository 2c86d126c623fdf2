//! The table in a file, for a start while the API server is not available.
//!
//! The first line is a header with the version, the length of the rest, and its checksum:
//!
//! ```text
//! sluice-table 3 00000000000000000412 SHA-256 in 64 hexadecimal digits
//! ```
//!
//! The rest has one JSON object per line: first the time of saving, the version of sluice and the
//! installation; then each backend with its endpoints, and each route. So the text is written and read
//! without keeping all of it in memory.
//!
//! A file is always replaced as a whole. A damaged or incomplete file is refused.

mod format;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use jiff::Timestamp;
use serde::Serialize;

use self::format::{Description, SavedLine};
use super::translate::policy::Policies;
use crate::policy::Layers;
use crate::routing::{Snapshot, Table};

/// The name of the file in its folder.
const FILE: &str = "table";
/// The name of the new file until it is complete.
const NEW_FILE: &str = "table.new";
/// Locked while a process writes; never removed.
const LOCK_FILE: &str = "table.lock";

const MAGIC: &str = "sluice-table";
/// The version of the format. It changes whenever another version of sluice would misread the file.
const VERSION: &str = "4";
/// The length of the header: magic, version, 20 digits, 64 digits, three spaces, a line feed.
const HEADER: usize = MAGIC.len() + VERSION.len() + 20 + 64 + 4;
/// The maximum size of a file in bytes: room for a million routes.
const LARGEST: u64 = 1 << 30;

/// The settings that decide which routes an installation serves. A table is used only if they are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedIdentity {
    /// The class of the installation.
    pub class: String,
    /// Whether routes without a class are ignored.
    pub require_class: bool,
    /// The watched namespaces, in any order; empty means all.
    pub namespaces: Vec<String>,
}

/// The content of a saved table.
#[derive(Clone, Debug)]
pub struct SavedTable {
    /// The routes and endpoints.
    pub snapshot: Snapshot,
    /// When it was saved.
    pub saved_at: Timestamp,
    /// The version of sluice that saved it.
    pub saved_by: String,
}

/// Why a saved table is refused.
#[derive(Debug, thiserror::Error)]
pub enum SavedTableError {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// The file is no saved table.
    #[error("it is not a saved table")]
    NotATable,
    /// Another version of the format.
    #[error("its format has version {0}, and this sluice reads version {VERSION} alone")]
    Version(String),
    /// The file is larger than the maximum.
    #[error("it has {0} bytes, more than the {LARGEST} that are read")]
    TooLarge(u64),
    /// The file is longer or shorter than its header says.
    #[error("it should have {expected} bytes and has {found}: it is cut off or added to")]
    Length {
        /// The length in the header.
        expected: u64,
        /// The actual length.
        found: u64,
    },
    /// The content does not match the checksum.
    #[error("its content does not fit its checksum")]
    Checksum,
    /// The table belongs to an installation with other settings.
    #[error("it was saved by an installation with {saved}, and this one has {ours}")]
    OtherInstallation {
        /// The setting in the file.
        saved: String,
        /// The current setting.
        ours: String,
    },
    /// A line is invalid, although the checksum matches.
    #[error("line {line}: {reason}")]
    Content {
        /// The number of the line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// The path of the file in its folder.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// Saves the routes of `table` with their current endpoints, and replaces the previous file. Creates the
/// folder if necessary. Blocks until the data is on the disk.
///
/// # Errors
/// Errors of the file system, with the failed step. The previous file then stays.
pub fn save(
    folder: &Path,
    table: &Table,
    identity: &SavedIdentity,
    saved_at: Timestamp,
) -> io::Result<()> {
    let said = |what: &'static str| {
        move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"))
    };
    fs::create_dir_all(folder).map_err(said("cannot make the folder"))?;
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    let lock = options.clone().create(true).open(folder.join(LOCK_FILE));
    let lock = lock.map_err(said("cannot make a file there"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(io::Error::other("another process is saving its table there"));
        }
        Err(TryLockError::Error(error)) => return Err(said("cannot lock a file there")(error)),
    }

    let new = folder.join(NEW_FILE);
    // The rest of a process that was killed while it saved.
    remove(&new).map_err(said("cannot remove a file there"))?;
    let file = options.create_new(true).open(&new).map_err(said("cannot make a file there"))?;
    let written = write(file, table, identity, saved_at).map_err(said("cannot write"));
    let replaced = written.and_then(|()| {
        fs::rename(&new, path(folder)).map_err(said("cannot replace the previous file"))?;
        // The rename is on the disk only after this.
        File::open(folder)?.sync_all()
    });
    if replaced.is_err() {
        // Frees disk space. The error that is returned already explains the failure.
        let _ = remove(&new);
    }
    replaced
}

/// Reads the file that [`save`] wrote for the same installation; `None` if there is none. `layers` are those of
/// this process. Blocks.
///
/// # Errors
/// Any fault of the file. It is then not used.
pub fn load(
    folder: &Path,
    identity: &SavedIdentity,
    layers: &Layers,
) -> Result<Option<SavedTable>, SavedTableError> {
    let path = path(folder);
    match fs::metadata(&path) {
        // Opening a pipe could block for ever.
        Ok(metadata) if !metadata.is_file() => return Err(SavedTableError::NotATable),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let mut file = File::open(path)?;
    check(&mut file)?;
    file.seek(SeekFrom::Start(HEADER as u64))?;
    read(BufReader::new(file), identity, layers).map(Some)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write(
    file: File,
    table: &Table,
    identity: &SavedIdentity,
    saved_at: Timestamp,
) -> io::Result<()> {
    let mut text = BufWriter::new(file);
    text.write_all(&[b' '; HEADER])?;
    let mut text = DigestWriter { text, length: 0, digest: Context::new(&SHA256) };
    text.line(&Description::new(identity, saved_at))?;
    let mut seen = HashSet::new();
    for route in table.routes() {
        for backend in &route.backends {
            if seen.insert(backend.backend.key()) {
                text.line(&SavedLine::backend(&backend.backend))?;
            }
        }
        text.line(&SavedLine::route(&route.spec))?;
    }
    let DigestWriter { text, length, digest } = text;
    let mut file = text.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(header(length, digest).as_bytes())?;
    file.sync_all()
}

fn header(length: u64, digest: Context) -> String {
    format!("{MAGIC} {VERSION} {length:020} {}\n", hexadecimal(digest))
}

fn hexadecimal(digest: Context) -> String {
    let mut text = String::with_capacity(64);
    for byte in digest.finish().as_ref() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A writer that forwards its input, and computes its length and checksum.
struct DigestWriter<W> {
    text: W,
    length: u64,
    digest: Context,
}

impl<W: Write> DigestWriter<W> {
    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut *self, value)?;
        self.write_all(b"\n")
    }
}

impl<W: Write> Write for DigestWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.text.write_all(bytes)?;
        self.length += bytes.len() as u64;
        self.digest.update(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.text.flush()
    }
}

/// Checks the header, length and checksum, but not the content.
fn check(file: &mut File) -> Result<(), SavedTableError> {
    let found = file.metadata()?.len();
    let mut header = Vec::with_capacity(HEADER);
    file.take(HEADER as u64).read_to_end(&mut header)?;
    let header = std::str::from_utf8(&header).map_err(|_| SavedTableError::NotATable)?;
    let rest = header.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(' '));
    // In other versions, the rest of the header may be different.
    let (version, rest) =
        rest.and_then(|rest| rest.split_once(' ')).ok_or(SavedTableError::NotATable)?;
    if version != VERSION {
        let version = version.chars().take(20).filter(|c| !c.is_control()).collect();
        return Err(SavedTableError::Version(version));
    }
    let (length, checksum) = rest
        .strip_suffix('\n')
        .and_then(|rest| rest.split_once(' '))
        .ok_or(SavedTableError::NotATable)?;
    let length: u64 = length.parse().map_err(|_| SavedTableError::NotATable)?;
    let expected = length.saturating_add(HEADER as u64);
    if found > LARGEST {
        return Err(SavedTableError::TooLarge(found));
    }
    if found != expected {
        return Err(SavedTableError::Length { expected, found });
    }

    let mut digest = Context::new(&SHA256);
    let mut buffer = vec![0; 64 * 1024];
    let mut rest = file.take(length);
    loop {
        match rest.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => digest.update(buffer.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    if hexadecimal(digest) == checksum { Ok(()) } else { Err(SavedTableError::Checksum) }
}

/// Reads the lines after the header.
fn read(
    lines: impl BufRead,
    identity: &SavedIdentity,
    layers: &Layers,
) -> Result<SavedTable, SavedTableError> {
    let mut lines = lines.lines().zip(2..);
    let (first, line) = lines.next().ok_or(SavedTableError::NotATable)?;
    let content = |line| move |reason: String| SavedTableError::Content { line, reason };
    let description = Description::read(&first?).map_err(content(line))?;
    let saved = description.identity();
    if saved != identity.sorted() {
        let (saved, ours) = saved.difference(&identity.sorted());
        return Err(SavedTableError::OtherInstallation { saved, ours });
    }
    let mut snapshot = Snapshot::default();
    let mut keys = HashSet::new();
    let mut policies = Policies::new(layers.clone());
    for (text, line) in lines {
        let record = SavedLine::read(&text?).map_err(content(line))?;
        record.add_to(&mut snapshot, &mut keys, &mut policies).map_err(content(line))?;
    }
    Ok(SavedTable { snapshot, saved_at: description.saved_at(), saved_by: description.saved_by })
}

impl SavedIdentity {
    fn sorted(&self) -> SavedIdentity {
        let mut sorted = self.clone();
        sorted.namespaces.sort_unstable();
        sorted.namespaces.dedup();
        sorted
    }

    /// The first setting that differs, with both values.
    fn difference(&self, other: &SavedIdentity) -> (String, String) {
        let namespaces = |identity: &SavedIdentity| match identity.namespaces.as_slice() {
            [] => "all namespaces".to_owned(),
            some => format!("the namespaces {}", some.join(", ")),
        };
        if self.class != other.class {
            (format!("class {:?}", self.class), format!("class {:?}", other.class))
        } else if self.require_class != other.require_class {
            let setting =
                |identity: &SavedIdentity| format!("requireClass: {}", identity.require_class);
            (setting(self), setting(other))
        } else {
            (namespaces(self), namespaces(other))
        }
    }
}
