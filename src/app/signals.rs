//! Signals: those that end the process, the one that has manifests read again, and all others,
//! which do nothing.
//!
//! By default most signals kill a process. From [`Signals::catch`] on none does but SIGKILL, those
//! by which the kernel reports a fault of the process itself (SIGSEGV, SIGABRT and the like), and
//! the two that belong to the C library (32 and 33).

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What does nothing, with its name, beside the signals of [`real_time`]. SIGXFSZ is among them so
/// that a full quota is an error of the write, and SIGPIPE is not, for Rust ignores it already.
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

/// The signals that a program may use for what it likes, as far as the C library leaves them.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// The signals of the process, all of them caught.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    ignored: Vec<(String, Signal)>,
}

impl Signals {
    /// Catches them; what comes from now on is kept until somebody asks. Needs a runtime with I/O.
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

    /// Calls `reread` at each SIGHUP, and logs what does nothing. Returns what waits for the next
    /// signal to end, by name. To be called in the runtime.
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
                    tracing::info!(signal = name, "a signal that does nothing");
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
