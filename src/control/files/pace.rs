//! How often files are looked at.

use std::time::Duration;

/// How often things happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// For how long files must stay as they are to count as written.
    pub(super) quiet: Duration,
    /// For how long to wait for that at most.
    pub(super) longest: Duration,
    /// For how long nothing may happen to a file that is open for writing: then it counts as it is.
    pub(super) silence: Duration,
    /// How often to look while files are held back.
    pub(super) held: Duration,
    /// How often to look without being told, where the kernel cannot tell.
    pub(super) poll: Duration,
    /// How often to look without being told, where it can: some file systems do not.
    pub(super) idle: Duration,
    /// Whether the kernel is asked at all.
    pub(super) notify: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            quiet: Duration::from_millis(50),
            longest: Duration::from_millis(500),
            silence: Duration::from_secs(30),
            held: Duration::from_secs(1),
            poll: Duration::from_millis(300),
            idle: Duration::from_secs(10),
            notify: true,
        }
    }
}

impl Pace {
    /// When to look at the files again without an event.
    pub(super) fn next_look(&self, is_watched: bool, held: bool) -> Duration {
        match is_watched {
            true if held => self.held,
            true => self.idle,
            false => self.poll,
        }
    }
}
