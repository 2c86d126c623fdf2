//! Manifests from files and folders: the same YAML that a cluster takes.
//!
//! A path names a file, or a folder whose `*.yaml`, `*.yml` and `*.json` entries are read (not the
//! folders in it, and nothing that begins with a dot: that is where ConfigMap volumes and editors
//! keep their own things). A file holds any number of documents: `SniRoute`, `Service`,
//! `EndpointSlice`, `ReferenceGrant`, `ConfigMap`, `Secret`, or a `List` of those. A Secret may name files that have its
//! entries (`dataFiles`): these belong to the file.
//!
//! Each file is taken whole or not at all: one fault in it, and what it held before stays in force.
//!
//! * `snapshot` reads the files that changed, and `stability` decides which snapshot counts;
//! * `parse` turns bytes into objects or [`ManifestFault`]s, without I/O;
//! * `manifests` holds what is in force, and computes what a snapshot changes, without I/O;
//! * `watch_set` computes which folders to watch, and `watcher` has the kernel watch them;
//! * [`watch`] drives them all while sluice runs; [`load`] and [`check`] do it once.

mod manifest_paths;
mod manifests;
mod pace;
mod parse;
mod snapshot;
mod stability;
mod watch;
mod watch_set;
mod watcher;

use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use self::manifests::Manifests;
use self::parse::{DataFiles, FieldLines};
use self::snapshot::DirSnapshot;
use super::translate::{Installation, Resources, examine};
use crate::yaml::FieldPath;

pub use watch::{FilesUpdate, watch};

/// What is wrong, and where. Shown as one line:
/// `routes/kafka.yaml:12: SniRoute data/kafka: spec.backends[0].weight: ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFault {
    /// The file, or the path that could not be read.
    pub file: PathBuf,
    /// The line in the file, from 1.
    pub line: Option<usize>,
    /// Kind, namespace and name of the object, such as `SniRoute data/kafka`.
    pub object: Option<String>,
    /// The field, such as `spec.backends[0].service.port`.
    pub field: Option<String>,
    /// What is wrong with it, and what to write instead.
    pub message: String,
}

impl fmt::Display for ManifestFault {
    /// One line, whatever the file holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ManifestFault { file, line, object, field, message } = self;
        write_visibly(f, &file.to_string_lossy())?;
        if let Some(line) = line {
            write!(f, ":{line}")?;
        }
        // Messages of the YAML parser may quote what spans lines.
        let message = message.replace('\n', " ");
        for part in [object, field, &Some(message)].into_iter().flatten() {
            f.write_str(": ")?;
            write_visibly(f, part)?;
        }
        Ok(())
    }
}

/// Writes a text in which whatever moves a cursor or ends a line is escaped.
fn write_visibly(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        match c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            true => write!(f, "{}", c.escape_default())?,
            false => f.write_char(c)?,
        }
    }
    Ok(())
}

/// What files hold, read once.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The objects of all files without faults.
    pub resources: Resources,
    /// What is wrong with the other files.
    pub faults: Vec<ManifestFault>,
}

/// Reads files and folders once.
pub fn load(paths: &[PathBuf]) -> Loaded {
    let (manifests, resources) = read_once(paths);
    Loaded { resources, faults: manifests.faults() }
}

/// What a file holds whose content is `text`.
pub fn read_text(file: &Path, text: &[u8]) -> Loaded {
    let mut loaded = Loaded::default();
    match parse::parse(file, text, Some(&DataFiles::new())) {
        Ok(parsed) => {
            parsed.into_iter().for_each(|parsed| parsed.object.add_to(&mut loaded.resources));
        }
        Err(faults) => loaded.faults = faults,
    }
    loaded
}

/// Everything that is wrong with the manifests in `paths`, by file and line: what keeps a file from
/// being loaded, and what would keep a route of this installation from being wholly in force:
/// Services and ports that are not there, listeners that do not exist (unless
/// [`Installation::listeners`] is empty) and hostnames that another route owns.
pub fn check(paths: &[PathBuf], installation: &Installation) -> Vec<ManifestFault> {
    let (manifests, resources) = read_once(paths);
    let mut faults = manifests.faults();
    let (_, problems) = examine(&resources, installation);
    let origins = manifests.origins();
    let mut lines = FieldLines::default();
    for problem in problems {
        // Each route comes from some file: `examine` makes none up.
        let Some((file, origin)) = origins.get(&problem.key) else { continue };
        let line = lines.of(origin, &FieldPath::parse(&problem.field));
        faults.push(ManifestFault {
            file: file.to_path_buf(),
            line: Some(line),
            object: Some(format!("SniRoute {}", problem.key)),
            field: Some(problem.field),
            message: problem.message,
        });
    }
    faults.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    faults
}

fn read_once(paths: &[PathBuf]) -> (Manifests, Resources) {
    let mut manifests = Manifests::default();
    let difference = manifests.apply(&DirSnapshot::of(paths, &DirSnapshot::default()));
    let mut resources = Resources::default();
    difference.put.into_iter().for_each(|object| object.add_to(&mut resources));
    (manifests, resources)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
