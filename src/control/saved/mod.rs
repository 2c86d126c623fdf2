//! The table in a file, for a process that starts while the API server is away.
//!
//! The first line says what the file is, how long the rest is, and its checksum:
//!
//! ```text
//! sluice-table 3 00000000000000000412 SHA-256 in 64 hexadecimal digits
//! ```
//!
//! The rest is one JSON object a line: when the table was saved, by which version and for which
//! installation, and then each backend with its endpoints and each route. So neither writing nor
//! reading it takes the whole text into memory.
//!
//! A file is replaced as a whole or not at all, and one that is not whole is refused.

mod format;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use serde::Serialize;

use self::format::{Description, SavedLine};
use crate::routing::{Snapshot, Table};

/// The file's name in its folder.
const FILE: &str = "table";
/// Holds the next one until it is whole.
const NEW_FILE: &str = "table.new";
/// Keeps two processes from writing at once; it is never removed.
const LOCK_FILE: &str = "table.lock";

const MAGIC: &str = "sluice-table";
/// Of the format. A change that an older or newer sluice would misread makes it another.
const VERSION: &str = "3";
/// The length of the first line: magic, version, 20 digits, 64 digits, three spaces, a line feed.
const HEADER: usize = MAGIC.len() + VERSION.len() + 20 + 64 + 4;
/// The largest file that is read, in bytes: room for a million routes.
const LARGEST: u64 = 1 << 30;

/// Whose table it is. One that was saved under another identity has other routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The class of the installation.
    pub class: String,
    /// Whether it leaves routes alone that name no class.
    pub require_class: bool,
    /// The namespaces that it watches, in any order; all if it is empty.
    pub namespaces: Vec<String>,
}

/// A table that was saved.
#[derive(Clone, Debug)]
pub struct SavedTable {
    /// What was served.
    pub snapshot: Snapshot,
    /// When.
    pub saved_at: Timestamp,
    /// The version of sluice that did.
    pub saved_by: String,
}

/// Why a saved table is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SavedTableError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// Something else has its name.
    #[error("it is not a saved table")]
    NotATable,
    /// Another version of sluice wrote it.
    #[error("its format has version {0}, and this sluice reads version {VERSION} alone")]
    Version(String),
    /// It is larger than any table.
    #[error("it has {0} bytes, more than the {LARGEST} that are read")]
    TooLarge(u64),
    /// It ends too early or too late.
    #[error("it should have {expected} bytes and has {found}: it is cut off or added to")]
    Length {
        /// As its first line has it.
        expected: u64,
        /// As it is.
        found: u64,
    },
    /// Something in it was changed.
    #[error("its content does not fit its checksum")]
    Checksum,
    /// It is the table of other routes.
    #[error("it was saved by an installation with {saved}, and this one has {ours}")]
    OtherInstallation {
        /// The setting there.
        saved: String,
        /// The setting here.
        ours: String,
    },
    /// It is whole, and yet no table.
    #[error("line {line}: {reason}")]
    Content {
        /// From 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
}

/// The path of the file in its folder.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// Saves what `table` serves, with the endpoints of this moment, in place of what was saved before.
/// Makes the folder if it is not there. Blocks until it is on the disk.
///
/// # Errors
/// Those of the file system, with what could not be done. Then the file of before is still there.
pub fn save(
    folder: &Path,
    table: &Table,
    identity: &Identity,
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
            return Err(io::Error::other("another process saves its table there at this moment"));
        }
        Err(TryLockError::Error(error)) => return Err(said("cannot lock a file there")(error)),
    }

    let new = folder.join(NEW_FILE);
    // What a process left that was killed while it saved.
    remove(&new).map_err(said("cannot remove a file there"))?;
    let file = options.create_new(true).open(&new).map_err(said("cannot make a file there"))?;
    let written = write(file, table, identity, saved_at).map_err(said("cannot write"));
    let replaced = written.and_then(|()| {
        fs::rename(&new, path(folder)).map_err(said("cannot replace the file of before"))?;
        // Only then is the new name on the disk.
        File::open(folder)?.sync_all()
    });
    if replaced.is_err() {
        // It takes room that others may need. That it failed is said already.
        let _ = remove(&new);
    }
    replaced
}

/// Reads what [`save`] wrote for the same installation; `None` if there is nothing. Blocks.
///
/// # Errors
/// Whatever is wrong with the file: then it is as good as none.
pub fn load(folder: &Path, identity: &Identity) -> Result<Option<SavedTable>, SavedTableError> {
    let path = path(folder);
    match fs::metadata(&path) {
        // Opening a pipe could block for good.
        Ok(metadata) if !metadata.is_file() => return Err(SavedTableError::NotATable),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let mut file = File::open(path)?;
    check(&mut file)?;
    file.seek(SeekFrom::Start(HEADER as u64))?;
    read(BufReader::new(file), identity).map(Some)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write(file: File, table: &Table, identity: &Identity, saved_at: Timestamp) -> io::Result<()> {
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
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Passes text on, and learns its length and checksum.
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

/// Whether the file is a whole table that this sluice reads. Its content is not looked at.
fn check(file: &mut File) -> Result<(), SavedTableError> {
    let found = file.metadata()?.len();
    let mut header = Vec::with_capacity(HEADER);
    file.take(HEADER as u64).read_to_end(&mut header)?;
    let header = std::str::from_utf8(&header).map_err(|_| SavedTableError::NotATable)?;
    let rest = header.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(' '));
    // Other versions may have another first line from here on.
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

/// The table in the lines after the first.
fn read(lines: impl BufRead, identity: &Identity) -> Result<SavedTable, SavedTableError> {
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
    for (text, line) in lines {
        let record = SavedLine::read(&text?).map_err(content(line))?;
        record.add_to(&mut snapshot, &mut keys).map_err(content(line))?;
    }
    Ok(SavedTable { snapshot, saved_at: description.saved_at(), saved_by: description.saved_by })
}

impl Identity {
    fn sorted(&self) -> Identity {
        let mut sorted = self.clone();
        sorted.namespaces.sort_unstable();
        sorted.namespaces.dedup();
        sorted
    }

    /// The first setting that is not the same, as each has it.
    fn difference(&self, other: &Identity) -> (String, String) {
        let namespaces = |identity: &Identity| match identity.namespaces.as_slice() {
            [] => "all namespaces".to_owned(),
            some => format!("the namespaces {}", some.join(", ")),
        };
        if self.class != other.class {
            (format!("class {:?}", self.class), format!("class {:?}", other.class))
        } else if self.require_class != other.require_class {
            let setting = |identity: &Identity| format!("requireClass: {}", identity.require_class);
            (setting(self), setting(other))
        } else {
            (namespaces(self), namespaces(other))
        }
    }
}
