//! What is configured to be read.

use std::path::PathBuf;

use super::snapshot::DirSnapshot;

/// The configured files and folders.
#[derive(Debug)]
pub(super) struct ManifestPaths {
    pub(super) paths: Vec<PathBuf>,
    /// Whether what Secrets hold is used. Else the files that they name are not read.
    pub(super) secrets: bool,
}

impl ManifestPaths {
    /// Reads them. Of files that are still as they were when `known` was read, nothing is read.
    ///
    /// This blocks.
    pub(super) fn look(&self, known: &DirSnapshot) -> DirSnapshot {
        match self.secrets {
            true => DirSnapshot::of(&self.paths, known),
            false => DirSnapshot::of_manifests_alone(&self.paths, known),
        }
    }
}
