//! Manifests from files and folders: the same YAML that a cluster takes.
//!
//! A path names a file, or a folder whose `*.yaml`, `*.yml` and `*.json` entries are read (not the
//! folders in it, and nothing that begins with a dot: that is where ConfigMap volumes and editors
//! keep their own things). A file holds any number of documents: `SniRoute`, `Service`,
//! `EndpointSlice`, or a `List` of those.
//!
//! Each file is taken whole or not at all: one fault in it, and what it held before stays in force.
//!
//! * `read` gets bytes and says where they lie;
//! * `parse` turns them into objects or [`Fault`]s, without I/O;
//! * `source` keeps what is in force, without I/O;
//! * `watches` has the kernel tell of changes;
//! * [`watch`] drives them all while sluice runs; [`load`] and [`check`] do it once.

mod locate;
mod parse;
mod read;
mod source;
mod watch;
mod watches;

use std::fmt;
use std::path::PathBuf;

use self::locate::{FieldPath, line_of};
use self::read::Reading;
use self::source::Source;
use super::build::{Installation, Resources, examine};

pub use watch::{Update, watch};

/// What is wrong, and where. Shown as one line:
/// `routes/kafka.yaml:12: SniRoute data/kafka: spec.backends[0].weight: ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
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

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        for part in [&self.object, &self.field].into_iter().flatten() {
            write!(f, ": {part}")?;
        }
        // Messages of the YAML parser may quote what spans lines.
        write!(f, ": {}", self.message.replace('\n', " "))
    }
}

/// What files hold, read once.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The objects of all files without faults.
    pub resources: Resources,
    /// What is wrong with the other files.
    pub faults: Vec<Fault>,
}

/// Reads files and folders once.
pub fn load(paths: &[PathBuf]) -> Loaded {
    let source = read_once(paths);
    Loaded { resources: source.resources(), faults: source.faults() }
}

/// Everything that is wrong with the manifests in `paths`, by file and line: what keeps a file from
/// being loaded, and what would keep a route of this installation from being wholly in force:
/// Services and ports that are not there, listeners that do not exist (unless
/// [`Installation::listeners`] is empty) and hostnames that another route owns.
pub fn check(paths: &[PathBuf], installation: &Installation) -> Vec<Fault> {
    let source = read_once(paths);
    let mut faults = source.faults();
    let (_, findings) = examine(&source.resources(), installation);
    for finding in findings {
        // The route comes from some file: `examine` makes none up.
        let Some((file, origin)) = source.origin("SniRoute", &finding.key) else { continue };
        let field = FieldPath::parse(&finding.field);
        faults.push(Fault {
            file: file.to_owned(),
            line: Some(line_of(origin, &field)),
            object: Some(format!("SniRoute {}", finding.key)),
            field: Some(finding.field),
            message: finding.message,
        });
    }
    faults.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    faults
}

fn read_once(paths: &[PathBuf]) -> Source {
    let mut source = Source::default();
    source.apply(&Reading::of(paths));
    source
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
