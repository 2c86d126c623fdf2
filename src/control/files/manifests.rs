//! The manifests in force, and what a snapshot changes of them; without I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ManifestFault;
use super::parse::{ManifestObject, Origin, parse};
use super::snapshot::{DirSnapshot, FileRead};
use crate::routing::{Kind, ObjectKey, ObjectRef, RouteKey};

/// All files with what is in force of them: for a file without faults what it holds, for another
/// what it held before.
///
/// The objects themselves go to whoever takes a snapshot over. What stays here is which there are
/// and how they were written, so that the next snapshot can tell what it changes.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    files: BTreeMap<PathBuf, FileState>,
    /// The file of each object in force.
    holders: HashMap<Id, Arc<Path>>,
    /// Configured paths that cannot be read, and why.
    unreadable: BTreeMap<PathBuf, String>,
    complete: bool,
}

/// What a snapshot changes.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// The paths at which anything changed.
    pub(super) changed: BTreeSet<PathBuf>,
    /// The objects that are in force no longer.
    pub(super) gone: Vec<Id>,
    /// The objects that are new in force, or written in another way than before.
    pub(super) put: Vec<ManifestObject>,
}

/// What tells an object from all others.
pub(super) type Id = (Kind, ObjectKey);

#[derive(Debug)]
struct FileState {
    /// The configured path through which it was found.
    root: PathBuf,
    read: FileRead,
    latest: Latest,
    in_force: Vec<WrittenObject>,
}

/// What became of the content of a file.
#[derive(Debug)]
enum Latest {
    InForce,
    /// It cannot be in force, so what was before stays.
    Faulty(Vec<ManifestFault>),
    /// It may come in force, as soon as no other file has any object of it.
    Waiting {
        /// Which objects there are, in the order of the file.
        written: Vec<WrittenObject>,
        /// The objects themselves.
        objects: Vec<ManifestObject>,
        /// An object that another file has.
        taken: Option<ManifestFault>,
    },
}

/// Which object was written where, and how.
#[derive(Debug)]
struct WrittenObject {
    id: Id,
    origin: Origin,
}

impl Manifests {
    /// Takes a snapshot over.
    ///
    /// Files that are gone go, unless the path through which they were found cannot be read: then
    /// they stay as they were.
    pub(super) fn apply(&mut self, snapshot: &DirSnapshot) -> Difference {
        let mut changed = BTreeSet::new();
        let mut found = BTreeSet::new();
        for (root, files) in &snapshot.roots {
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
                        if self.take(file, root, read) {
                            changed.insert(file.clone());
                        }
                        found.insert(file);
                    }
                }
            }
        }
        let mut former = HashMap::new();
        let unreadable = &self.unreadable;
        let gone = |file: &PathBuf, state: &mut FileState| {
            !found.contains(file) && !unreadable.contains_key(&state.root)
        };
        for (file, state) in self.files.extract_if(.., gone) {
            former.extend(state.in_force.into_iter().map(|written| (written.id, written.origin)));
            changed.insert(file);
        }
        former.keys().for_each(|id| _ = self.holders.remove(id));
        let mut difference = Difference { changed, ..Difference::default() };
        if !difference.changed.is_empty() {
            self.settle(former, &mut difference);
        }
        self.complete |=
            self.unreadable.is_empty() && self.files.values().all(|file| file.read.content.is_ok());
        difference
    }

    /// Whether everything could be read at some time. A file with faults counts as read and
    /// refused: the fault of one tenant must not keep a replica that starts from serving the
    /// others.
    pub(super) fn complete(&self) -> bool {
        self.complete
    }

    /// All that is wrong with what the files hold now.
    pub(super) fn faults(&self) -> Vec<ManifestFault> {
        let unreadable = self.unreadable.iter().map(|(path, error)| unreadable(path, error));
        let files = self.files.values().flat_map(|file| match &file.latest {
            Latest::InForce => &[],
            Latest::Faulty(faults) => faults.as_slice(),
            Latest::Waiting { taken, .. } => taken.as_slice(),
        });
        unreadable.chain(files.cloned()).collect()
    }

    /// Where the routes in force were written down.
    pub(super) fn origins(&self) -> HashMap<RouteKey, (&Path, &Origin)> {
        let all = self.files.iter().flat_map(|(file, state)| {
            state.in_force.iter().map(move |written| (file.as_path(), written))
        });
        all.filter(|(_, written)| written.id.0 == Kind::SniRoute)
            .map(|(file, written)| {
                let (kind, key) = &written.id;
                let route = RouteKey::of_rule(ObjectRef::new(*kind, key.clone()), 0);
                (route, (file, &written.origin))
            })
            .collect()
    }

    /// Parses a file if its content is new; returns whether it is.
    fn take(&mut self, file: &Path, root: &Path, read: &FileRead) -> bool {
        let mut known = self.files.get_mut(file);
        if let Some(state) = &mut known
            && state.read.says_the_same(read)
        {
            // What was read again is kept once, and known at once by the next snapshot.
            state.read = read.clone();
            return false;
        }
        let parsed = match &read.content {
            Ok(bytes) => parse(file, bytes, read.data_contents().as_ref()),
            Err(error) => Err(vec![unreadable(file, error)]),
        };
        let latest = match parsed {
            Err(faults) => Latest::Faulty(faults),
            Ok(parsed) => {
                let (mut written, mut objects) = (Vec::new(), Vec::new());
                for parsed in parsed {
                    let id = (parsed.object.kind(), parsed.key);
                    written.push(WrittenObject { id, origin: parsed.origin });
                    objects.push(parsed.object);
                }
                Latest::Waiting { written, objects, taken: None }
            }
        };
        let in_force = known.map(|state| mem::take(&mut state.in_force)).unwrap_or_default();
        let state = FileState { root: root.to_owned(), read: read.clone(), latest, in_force };
        self.files.insert(file.to_owned(), state);
        true
    }

    /// Puts in force what waits and can be. No object is in force twice: the file that changed
    /// gives way to the one that did not, of two that changed the second. A file gives way whole,
    /// and keeps what it had before. `former` are the objects of files that are gone.
    fn settle(&mut self, mut former: HashMap<Id, Origin>, difference: &mut Difference) {
        let mut waiting = Vec::new();
        for (path, file) in &mut self.files {
            if let Latest::Waiting { taken, .. } = &mut file.latest {
                *taken = None;
                waiting.push(Arc::<Path>::from(path.as_path()));
            }
        }
        while self.give_way(&waiting) {}
        waiting.retain(|path| self.files.get(&**path).is_some_and(FileState::comes_in_force));

        // First what they had, of all of them: an object may go from one file to another.
        let mut came = Vec::new();
        for path in waiting {
            let Some(file) = self.files.get_mut(&*path) else { continue };
            for had in mem::take(&mut file.in_force) {
                self.holders.remove(&had.id);
                former.insert(had.id, had.origin);
            }
            let latest = mem::replace(&mut file.latest, Latest::InForce);
            if let Latest::Waiting { written, objects, .. } = latest {
                came.extend(objects.into_iter().zip(&written).map(|(object, written)| {
                    self.holders.insert(written.id.clone(), Arc::clone(&path));
                    (written.id.clone(), written.origin.clone(), object)
                }));
                file.in_force = written;
            }
        }
        for (id, origin, object) in came {
            let same = former.remove(&id).is_some_and(|former| former.says_the_same(&origin));
            if !same {
                difference.put.push(object);
            }
        }
        difference.gone.extend(former.into_keys());
    }

    /// Has each file give way that would come in force with an object that another file has;
    /// returns whether any did, for what it had before may be what another one wants now.
    fn give_way(&mut self, waiting: &[Arc<Path>]) -> bool {
        let mut any = false;
        let mut wanted: HashMap<Id, Arc<Path>> = HashMap::new();
        for path in waiting {
            let Some(Latest::Waiting { written, taken: None, .. }) =
                self.files.get(&**path).map(|file| &file.latest)
            else {
                continue;
            };
            let clash = written.iter().find_map(|own| {
                let keeps = |holder: &&Arc<Path>| {
                    self.files.get(&***holder).is_some_and(|file| !file.comes_in_force())
                };
                let kept = || self.holders.get(&own.id).filter(keeps);
                let winner = wanted.get(&own.id).or_else(kept)?;
                Some(clash(path, own, winner, self.files.get(&**winner)?))
            });
            match clash {
                None => {
                    let ids = written.iter().map(|own| own.id.clone());
                    wanted.extend(ids.map(|id| (id, Arc::clone(path))));
                }
                Some(fault) => {
                    if let Some(file) = self.files.get_mut(&**path)
                        && let Latest::Waiting { taken, .. } = &mut file.latest
                    {
                        *taken = Some(fault);
                        any = true;
                    }
                }
            }
        }
        any
    }
}

impl FileState {
    /// Whether something else is to be in force of it, as far as it is known.
    fn comes_in_force(&self) -> bool {
        matches!(self.latest, Latest::Waiting { taken: None, .. })
    }

    /// What is to be in force of it, as far as it is known.
    fn chosen(&self) -> &[WrittenObject] {
        match &self.latest {
            Latest::Waiting { written, taken: None, .. } => written,
            _ => &self.in_force,
        }
    }
}

fn unreadable(path: &Path, error: &str) -> ManifestFault {
    ManifestFault {
        file: path.to_owned(),
        line: None,
        object: None,
        field: None,
        message: error.to_owned(),
    }
}

fn clash(loser: &Path, own: &WrittenObject, winner: &Path, file: &FileState) -> ManifestFault {
    let (kind, key) = &own.id;
    let theirs = file.chosen().iter().find(|written| written.id == own.id);
    let line = theirs.map_or(1, |written| written.origin.line);
    ManifestFault {
        file: loser.to_owned(),
        line: Some(own.origin.line),
        object: Some(format!("{kind} {key}")),
        field: None,
        message: format!("is in {}:{line} already", winner.display()),
    }
}
