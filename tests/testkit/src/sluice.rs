//! The binary, while it runs.

use std::net::SocketAddr;
use std::process::{Command, ExitStatus};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{Metrics, Program, eventually, get};

/// A running `sluice run`, which logs JSON. It is killed when this is dropped.
pub struct Sluice {
    program: Program,
    /// The address of its first listener.
    pub address: SocketAddr,
    /// The address of its admin port.
    pub admin: SocketAddr,
}

/// Gives a type that wraps a [`Sluice`] in a field all that a [`Sluice`] has.
#[macro_export]
macro_rules! deref_to_sluice {
    ($wrapper:ty, $field:tt) => {
        impl std::ops::Deref for $wrapper {
            type Target = $crate::Sluice;

            fn deref(&self) -> &$crate::Sluice {
                &self.$field
            }
        }

        impl std::ops::DerefMut for $wrapper {
            fn deref_mut(&mut self) -> &mut $crate::Sluice {
                &mut self.$field
            }
        }
    };
}

impl Sluice {
    /// Starts it, and waits until it has logged its addresses.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let mut program = Program::start(command);
        let address = |log: &[Value], message: &str| -> Option<SocketAddr> {
            let line = log.iter().find(|line| line["message"] == message)?;
            line["address"].as_str()?.parse().ok()
        };
        let (address, admin) = eventually("sluice logs its addresses", || {
            assert!(program.is_running(), "{}", program.stderr.text());
            let log = program.stderr.json();
            Some((address(&log, "listening")?, address(&log, "admin port")?))
        });
        Sluice { program, address, admin }
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.program.is_running()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        self.program.pid()
    }

    /// Kills it, and waits until it has ended.
    pub fn kill(&mut self) {
        self.program.kill();
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        self.program.ended()
    }

    /// All that it has written to stdout.
    pub fn stdout(&self) -> Vec<u8> {
        self.program.stdout.bytes()
    }

    /// All that it has written to stderr.
    pub fn stderr(&self) -> Vec<u8> {
        self.program.stderr.bytes()
    }

    /// The lines of its log.
    #[track_caller]
    pub fn log(&self) -> Vec<Value> {
        self.program.stderr.json()
    }

    /// The lines of its access log.
    #[track_caller]
    pub fn access_log(&self) -> Vec<Value> {
        self.program.stdout.json()
    }

    /// The lines of its log above INFO.
    #[track_caller]
    pub fn warnings(&self) -> Vec<Value> {
        self.log().into_iter().filter(|line| line["level"] != "INFO").collect()
    }

    /// Status and body of a page of the admin port.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        get(self.admin, path)
    }

    /// Waits until `/readyz` answers 200.
    #[track_caller]
    pub fn await_ready(&self) {
        eventually("sluice is ready", || (self.get("/readyz").0 == 200).then_some(()));
    }

    /// The page `/metrics`.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        Metrics(self.page("/metrics"))
    }

    /// The page `/routes`.
    #[track_caller]
    pub fn report(&self) -> Value {
        serde_json::from_str(&self.page("/routes")).unwrap()
    }

    #[track_caller]
    fn page(&self, path: &str) -> String {
        let (status, text) = self.get(path);
        assert_eq!(status, 200, "{text}");
        text
    }
}
