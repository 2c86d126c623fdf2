//! Which of several snapshots counts; without I/O.

use std::time::Instant;

use super::snapshot::DirSnapshot;

/// How many snapshots in a row must not have counted until files are known to go on changing. The
/// deadline alone does not tell: a process that was stopped, or got no time to run, finds it past
/// after a single change, in the middle of which a snapshot may have been taken.
const RESTLESS: u32 = 5;

/// The snapshots since a change was noticed: it counts when it is whole.
pub(super) struct Stability {
    deadline: Instant,
    last: Option<DirSnapshot>,
    /// How many of them did not count.
    unstable: u32,
}

/// What becomes of a snapshot.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// It counts: it is as the one before, or as what is applied, and waits for no file.
    Stable(DirSnapshot),
    /// Some files go on changing. What rests counts, the rest in another turn.
    Restless(DirSnapshot),
    /// Another one is needed, some time later.
    Again,
}

impl Stability {
    /// From the `deadline` on, files that go on changing or being written are no longer waited for.
    pub(super) fn until(deadline: Instant) -> Self {
        Stability { deadline, last: None, unstable: 0 }
    }

    /// The snapshot that the next one is to agree with.
    pub(super) fn last(&self) -> Option<&DirSnapshot> {
        self.last.as_ref()
    }

    /// Judges a snapshot of that time. `has_begun` is whether somebody has just begun to write a file
    /// that is held back in it: the other files may be a part of the same change.
    pub(super) fn judge(
        &mut self,
        mut snapshot: DirSnapshot,
        applied: &DirSnapshot,
        has_begun: bool,
        now: Instant,
    ) -> Verdict {
        if (snapshot == *applied || self.last.as_ref() == Some(&snapshot)) && !has_begun {
            return Verdict::Stable(snapshot);
        }
        self.unstable += 1;
        match self.last.take() {
            Some(last) if now >= self.deadline && self.unstable >= RESTLESS => {
                snapshot.hold_back(applied, |root, name, now, _| last.file(root, name) != now);
                Verdict::Restless(snapshot)
            }
            _ => {
                self.last = Some(snapshot);
                Verdict::Again
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;

    /// A folder of manifests.
    struct Folder(TempDir);

    impl Folder {
        fn new() -> Self {
            Folder(tempfile::tempdir().unwrap())
        }

        /// Writes files, and reads them all.
        fn with(&self, files: &[(&str, &str)]) -> DirSnapshot {
            for (name, content) in files {
                fs::write(self.0.path().join(name), content).unwrap();
            }
            DirSnapshot::of(&[self.0.path().to_owned()], &DirSnapshot::default())
        }
    }

    #[test]
    fn half_of_a_change_does_not_count_however_late_it_is() {
        let folder = Folder::new();
        let applied = folder.with(&[("a.yaml", "old"), ("b.yaml", "old")]);
        let half = folder.with(&[("b.yaml", "new")]);
        let whole = folder.with(&[("a.yaml", "new")]);
        let start = Instant::now();
        // The process was stopped, before the first snapshot or after it.
        for times in [[0, 60, 60], [60, 60, 60]] {
            let mut stability = Stability::until(start + Duration::from_millis(500));
            let mut judge = |snapshot: &DirSnapshot, seconds| {
                let now = start + Duration::from_secs(seconds);
                stability.judge(snapshot.clone(), &applied, false, now)
            };
            assert_eq!(judge(&half, times[0]), Verdict::Again);
            assert_eq!(judge(&whole, times[1]), Verdict::Again);
            assert_eq!(judge(&whole, times[2]), Verdict::Stable(whole.clone()));
        }
    }

    #[test]
    fn what_rests_counts_while_the_rest_goes_on_changing() {
        let folder = Folder::new();
        let applied = folder.with(&[("a.yaml", "old"), ("x.yaml", "old")]);
        let start = Instant::now();
        let deadline = start + Duration::from_millis(500);
        let mut stability = Stability::until(deadline);
        folder.with(&[("a.yaml", "new")]);
        for round in 0..RESTLESS + 5 {
            let snapshot = folder.with(&[("x.yaml", &format!("{round}"))]);
            assert_eq!(stability.judge(snapshot, &applied, false, start), Verdict::Again);
        }
        let last = folder.with(&[("x.yaml", "last")]);
        let rests = folder.with(&[("x.yaml", "old")]);
        assert_eq!(stability.judge(last, &applied, false, deadline), Verdict::Restless(rests));
    }

    #[test]
    fn a_file_that_has_just_begun_to_be_written_is_waited_for_but_not_for_ever() {
        let folder = Folder::new();
        let applied = folder.with(&[("a.yaml", "old")]);
        let half = folder.with(&[("a.yaml", "new")]);
        let start = Instant::now();
        let deadline = start + Duration::from_millis(500);
        let waited = || {
            let mut stability = Stability::until(deadline);
            for _ in 0..RESTLESS + 5 {
                let verdict = stability.judge(half.clone(), &applied, true, start);
                assert_eq!(verdict, Verdict::Again);
            }
            stability
        };
        let verdict = waited().judge(half.clone(), &applied, false, start);
        assert_eq!(verdict, Verdict::Stable(half.clone()), "it is written");
        let verdict = waited().judge(half.clone(), &applied, true, deadline);
        assert_eq!(verdict, Verdict::Restless(half.clone()), "it takes too long");
    }

    /// What is in force of it is from before that: an empty folder would end all its routes.
    #[test]
    fn a_path_that_comes_back_while_files_change_stays_unreadable_until_its_files_rest() {
        let (beside, folder) = (Folder::new(), Folder::new());
        let routes = folder.0.path().join("routes");
        let snapshot = |round: u32| {
            fs::write(beside.0.path().join("x.yaml"), round.to_string()).unwrap();
            let roots = [beside.0.path().to_owned(), routes.clone()];
            DirSnapshot::of(&roots, &DirSnapshot::default())
        };
        let applied = snapshot(0);
        assert!(applied.roots[&routes].is_err());
        let deadline = Instant::now();
        let mut stability = Stability::until(deadline);
        for round in 1..RESTLESS {
            let verdict = stability.judge(snapshot(round), &applied, false, deadline);
            assert_eq!(verdict, Verdict::Again);
        }
        fs::create_dir(&routes).unwrap();
        fs::write(routes.join("a.yaml"), "a").unwrap();
        let back = snapshot(RESTLESS);
        assert!(back.roots[&routes].is_ok());
        let verdict = stability.judge(back, &applied, false, deadline);
        assert_eq!(verdict, Verdict::Restless(applied));
    }
}
