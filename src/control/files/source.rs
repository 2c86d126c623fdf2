//! What is in force of each file, without I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Fault;
use super::locate::Origin;
use super::parse::{Parsed, parse};
use super::read::Reading;
use crate::control::build::Resources;
use crate::routing::RouteKey;

/// All files with what is in force of them: for a file without faults what it holds, for another
/// what it held before.
#[derive(Debug, Default)]
pub(super) struct Source {
    files: BTreeMap<PathBuf, FileState>,
    /// Configured paths that cannot be read, and why.
    unreadable: BTreeMap<PathBuf, String>,
    complete: bool,
}

#[derive(Debug)]
struct FileState {
    /// The configured path through which it was found.
    root: PathBuf,
    content: Result<Arc<[u8]>, String>,
    /// What the content says.
    parsed: Result<Arc<[Parsed]>, Vec<Fault>>,
    /// What is served; `None` when the file was never good.
    in_force: Option<Arc<[Parsed]>>,
    /// An object that another file has too, which keeps the content from being in force.
    taken: Option<Fault>,
}

impl Source {
    /// Takes a reading over; returns the paths at which anything changed.
    ///
    /// Files that are gone go, unless the path through which they were found cannot be read: then
    /// they stay as they were.
    pub(super) fn apply(&mut self, reading: &Reading) -> BTreeSet<PathBuf> {
        let mut changed = BTreeSet::new();
        let mut found = BTreeSet::new();
        for (root, files) in &reading.roots {
            let former = self.unreadable.remove(root);
            match files {
                Err(error) => {
                    if former.as_ref() != Some(error) {
                        changed.insert(root.clone());
                    }
                    self.unreadable.insert(root.clone(), error.clone());
                }
                Ok(files) => {
                    if former.is_some() {
                        changed.insert(root.clone());
                    }
                    for (file, read) in files {
                        if self.take(file, root, &read.content) {
                            changed.insert(file.clone());
                        }
                        found.insert(file.clone());
                    }
                }
            }
        }
        self.files.retain(|file, state| {
            let stays = found.contains(file) || self.unreadable.contains_key(&state.root);
            if !stays {
                changed.insert(file.clone());
            }
            stays
        });
        if !changed.is_empty() {
            self.settle();
        }
        self.complete |=
            self.unreadable.is_empty() && self.files.values().all(|file| file.content.is_ok());
        changed
    }

    /// Whether everything could be read at some time. A file with faults counts as read and refused:
    /// the fault of one tenant must not keep a replica that starts from serving the others.
    pub(super) fn complete(&self) -> bool {
        self.complete
    }

    /// All objects in force.
    pub(super) fn resources(&self) -> Resources {
        let mut resources = Resources::default();
        for parsed in self.files.values().filter_map(|file| file.in_force.as_deref()).flatten() {
            parsed.object.add_to(&mut resources);
        }
        resources
    }

    /// All that is wrong with what the files hold now.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let unreadable = self.unreadable.iter().map(|(path, error)| unreadable(path, error));
        let files = self.files.values().flat_map(|file| match &file.parsed {
            Err(faults) => faults.as_slice(),
            Ok(_) => file.taken.as_slice(),
        });
        unreadable.chain(files.cloned()).collect()
    }

    /// Where the objects in force of one kind were written down.
    pub(super) fn origins(&self, kind: &str) -> HashMap<&RouteKey, (&Path, &Origin)> {
        let objects = self.files.iter().flat_map(|(file, state)| {
            let objects = state.in_force.as_deref().unwrap_or_default();
            objects.iter().map(move |parsed| (file.as_path(), parsed))
        });
        objects
            .filter(|(_, parsed)| parsed.object.kind() == kind)
            .map(|(file, parsed)| (&parsed.key, (file, &parsed.origin)))
            .collect()
    }

    /// Parses a file if its content is new; returns whether it is.
    fn take(&mut self, file: &Path, root: &Path, content: &Result<Arc<[u8]>, String>) -> bool {
        let known = self.files.get_mut(file);
        if known.as_ref().is_some_and(|state| state.content == *content) {
            return false;
        }
        let parsed = match content {
            Ok(bytes) => parse(file, bytes).map(Arc::from),
            Err(error) => Err(vec![unreadable(file, error)]),
        };
        let in_force = known.and_then(|state| state.in_force.take());
        let (root, content) = (root.to_owned(), content.clone());
        let state = FileState { root, content, parsed, in_force, taken: None };
        self.files.insert(file.to_owned(), state);
        true
    }

    /// Decides what is in force: of every file its present content if that is good, else its former
    /// one. No object is in force twice: the file that changed gives way to the one that did not,
    /// of two that changed the second. A file gives way whole.
    fn settle(&mut self) {
        for file in self.files.values_mut() {
            file.taken = None;
        }
        // Every round makes at least one file give way, for good.
        while let Some(fault) = self.first_clash() {
            match self.files.get_mut(&fault.file) {
                Some(file) => file.taken = Some(fault),
                None => break,
            }
        }
        for file in self.files.values_mut() {
            file.in_force = file.chosen().cloned();
        }
    }

    /// The first object that two files hold, as a fault of the one that is to give way.
    fn first_clash(&self) -> Option<Fault> {
        let mut holders: HashMap<(&str, &RouteKey), (&Path, &Parsed)> = HashMap::new();
        for (path, file) in &self.files {
            for parsed in file.chosen().into_iter().flat_map(|objects| objects.iter()) {
                let id = (parsed.object.kind(), &parsed.key);
                let Some((other_path, other)) = holders.insert(id, (path, parsed)) else {
                    continue;
                };
                let other_file = self.files.get(other_path)?;
                let (loser, own, winner, theirs) = match file.is_new() {
                    true => (path.as_path(), parsed, other_path, other),
                    false => (other_path, other, path.as_path(), parsed),
                };
                // What was in force together before has no clash.
                if !file.is_new() && !other_file.is_new() {
                    continue;
                }
                return Some(taken(loser, own, winner, theirs));
            }
        }
        None
    }
}

impl FileState {
    /// What is to be in force of this file, as far as it is known.
    fn chosen(&self) -> Option<&Arc<[Parsed]>> {
        match &self.parsed {
            Ok(parsed) if self.taken.is_none() => Some(parsed),
            _ => self.in_force.as_ref(),
        }
    }

    /// Whether what is chosen is other than what is in force.
    fn is_new(&self) -> bool {
        match (self.chosen(), &self.in_force) {
            (Some(chosen), Some(in_force)) => !Arc::ptr_eq(chosen, in_force),
            (chosen, in_force) => chosen.is_some() != in_force.is_some(),
        }
    }
}

fn unreadable(path: &Path, error: &str) -> Fault {
    Fault {
        file: path.to_owned(),
        line: None,
        object: None,
        field: None,
        message: error.to_owned(),
    }
}

fn taken(loser: &Path, own: &Parsed, winner: &Path, theirs: &Parsed) -> Fault {
    Fault {
        file: loser.to_owned(),
        line: Some(own.origin.line()),
        object: Some(format!("{} {}", own.object.kind(), own.key)),
        field: None,
        message: format!("is in {}:{} already", winner.display(), theirs.origin.line()),
    }
}
