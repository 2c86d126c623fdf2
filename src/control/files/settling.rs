//! Which of several readings counts; without I/O.

use std::time::Instant;

use super::read::Reading;

/// How many readings in a row must not have counted until files are known to go on changing. The
/// deadline alone does not tell: a process that was stopped, or got no time to run, finds it past
/// after a single change, into which a reading may have fallen that shows half of it.
const RESTLESS: u32 = 5;

/// The readings since a change was noticed: it counts when it is whole.
pub(super) struct Settling {
    deadline: Instant,
    last: Option<Reading>,
    /// How many of them did not count.
    unsettled: u32,
}

/// What becomes of a reading.
#[derive(Debug, PartialEq)]
pub(super) enum Judgement {
    /// It counts: it is as the one before, or as what is applied.
    Settled(Reading),
    /// Somebody goes on changing files. What rests counts, the rest in another turn.
    Restless(Reading),
    /// Another one is needed, some time later.
    Again,
}

impl Settling {
    /// From the `deadline` on, files that go on changing are no longer waited for.
    pub(super) fn until(deadline: Instant) -> Self {
        Settling { deadline, last: None, unsettled: 0 }
    }

    /// The reading that the next one is to agree with.
    pub(super) fn last(&self) -> Option<&Reading> {
        self.last.as_ref()
    }

    /// Judges a reading of that time; `fresh` tells whether some file has just begun to be written.
    pub(super) fn judge(
        &mut self,
        reading: Reading,
        applied: &Reading,
        fresh: bool,
        now: Instant,
    ) -> Judgement {
        if (reading == *applied || self.last.as_ref() == Some(&reading)) && !fresh {
            return Judgement::Settled(reading);
        }
        self.unsettled += 1;
        match self.last.take() {
            Some(last) if now >= self.deadline && self.unsettled >= RESTLESS => {
                Judgement::Restless(reading.where_steady(&last, applied))
            }
            _ => {
                self.last = Some(reading);
                Judgement::Again
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
        fn with(&self, files: &[(&str, &str)]) -> Reading {
            for (name, content) in files {
                fs::write(self.0.path().join(name), content).unwrap();
            }
            Reading::of(&[self.0.path().to_owned()], &Reading::default())
        }
    }

    #[test]
    fn half_of_a_change_does_not_count_however_late_it_is() {
        let folder = Folder::new();
        let applied = folder.with(&[("a.yaml", "old"), ("b.yaml", "old")]);
        let half = folder.with(&[("b.yaml", "new")]);
        let whole = folder.with(&[("a.yaml", "new")]);
        let start = Instant::now();
        // The process was stopped, before the first reading or after it.
        for times in [[0, 60, 60], [60, 60, 60]] {
            let mut settling = Settling::until(start + Duration::from_millis(500));
            let mut judge = |reading: &Reading, seconds| {
                let now = start + Duration::from_secs(seconds);
                settling.judge(reading.clone(), &applied, false, now)
            };
            assert_eq!(judge(&half, times[0]), Judgement::Again);
            assert_eq!(judge(&whole, times[1]), Judgement::Again);
            assert_eq!(judge(&whole, times[2]), Judgement::Settled(whole.clone()));
        }
    }

    #[test]
    fn what_rests_counts_while_the_rest_goes_on_changing() {
        let folder = Folder::new();
        let applied = folder.with(&[("a.yaml", "old"), ("x.yaml", "old")]);
        let start = Instant::now();
        let deadline = start + Duration::from_millis(500);
        let mut settling = Settling::until(deadline);
        folder.with(&[("a.yaml", "new")]);
        for round in 0..RESTLESS + 5 {
            let reading = folder.with(&[("x.yaml", &format!("{round}"))]);
            assert_eq!(settling.judge(reading, &applied, false, start), Judgement::Again);
        }
        let last = folder.with(&[("x.yaml", "last")]);
        let rests = folder.with(&[("x.yaml", "old")]);
        assert_eq!(settling.judge(last, &applied, false, deadline), Judgement::Restless(rests));
    }

    #[test]
    fn a_file_that_has_just_begun_to_be_written_is_waited_for() {
        let folder = Folder::new();
        let applied = folder.with(&[("a.yaml", "a")]);
        let start = Instant::now();
        let mut settling = Settling::until(start + Duration::from_millis(500));
        for _ in 0..RESTLESS + 5 {
            let judgement = settling.judge(applied.clone(), &applied, true, start);
            assert_eq!(judgement, Judgement::Again);
        }
        let judgement = settling.judge(applied.clone(), &applied, false, start);
        assert_eq!(judgement, Judgement::Settled(applied));
    }
}
