//! Signals: those that end the process, SIGHUP, which makes it read manifests again, and all others, which
//! have no effect.
//!
//! By default, most signals kill a process. After [`Signals::catch`], only these do: SIGKILL, the signals by
//! which the kernel reports a fault of the process itself (SIGSEGV, SIGABRT and similar ones), and the two
//! that the C library uses (32 and 33).

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals without effect, in addition to those of [`real_time`]. SIGXFSZ is included so that a full quota
/// becomes a write error. SIGPIPE is not needed, because Rust already ignores it.
const IGNORED: [(i32, &str); 11] = [
    (3, "SIGQUIT"),
    (10, "SIGUSR1"),
    (12, "SIGUSR2"),
    (14, "SIGALRM"),
    (16, "SIGSTKFLT"),
    (24, "SIGXCPU"),
    (25, "SIGXFSZ"),
    (26, "SIGVTALRM"),
    (27, "SIGPROF"),
    (29, "SIGIO"),
    (30, "SIGPWR"),
];

/// The real-time signals that the C library leaves to programs.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// The signals of the process, all of which are caught.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    ignored: Vec<(String, Signal)>,
}

impl Signals {
    /// Catches the signals. They are queued until they are received. Needs a runtime with I/O.
    ///
    /// # Errors
    /// When the runtime has no descriptors for it.
    pub(super) fn catch() -> io::Result<Self> {
        let named = IGNORED.iter().map(|(number, name)| (*number, (*name).to_owned()));
        let numbered = REAL_TIME.map(|number| (number, format!("SIG{number}")));
        let ignored = named
            .chain(numbered)
            .map(|(number, name)| Ok((name, signal(SignalKind::from_raw(number))?)))
            .collect::<io::Result<_>>()?;
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            ignored,
        })
    }

    /// Calls `reread` for each SIGHUP, and logs signals without effect. Returns a function that waits for
    /// the next signal that ends the process, and returns its name. Must be called in the runtime.
    pub(super) fn follow(
        self,
        mut reread: impl FnMut() + Send + 'static,
    ) -> impl AsyncFnMut() -> &'static str {
        let Signals { mut terminate, mut interrupt, mut hangup, ignored } = self;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                reread();
            }
        });
        for (name, mut signal) in ignored {
            tokio::spawn(async move {
                while signal.recv().await.is_some() {
                    tracing::info!(signal = name, "ignoring a signal");
                }
            });
        }
        async move || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        }
    }
}
