//! Constant load: new connections, each for one request.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Target, eventually};

/// Clients at a time, and the pause of each between two connections.
const CLIENTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(20);

/// Clients that connect anew for each request, until they are stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    start: Instant,
    clients: Vec<JoinHandle<()>>,
}

/// What became of the connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// How often each answer was given.
    pub(crate) answers: BTreeMap<String, usize>,
    /// The failures, and when after the start each connection was begun.
    pub(crate) failures: Vec<(Duration, String)>,
}

impl Load {
    /// Starts, once a first connection has been answered.
    pub(crate) fn start(target: Target) -> Self {
        eventually(&format!("{target:?} answers"), || target.get().ok());
        let stop = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let start = Instant::now();
        let client = || {
            let (stop, tally) = (Arc::clone(&stop), Arc::clone(&tally));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let begun = start.elapsed();
                    let answer = target.get();
                    tally.lock().expect("no panic").add(begun, answer);
                    thread::sleep(PAUSE);
                }
            })
        };
        let clients = (0..CLIENTS).map(|_| client()).collect();
        Load { stop, tally, start, clients }
    }

    /// Waits until as many more connections have been answered, by any backend.
    pub(crate) fn goes_on(&self, more: usize) {
        let wanted = self.so_far().answered() + more;
        eventually(&format!("{wanted} connections are answered"), || {
            (self.so_far().answered() >= wanted).then_some(())
        });
    }

    /// How long it has been going on.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// What has become of them until now.
    fn so_far(&self) -> Tally {
        self.tally.lock().expect("no panic").clone()
    }

    /// Ends it.
    pub(crate) fn finish(mut self) -> Tally {
        self.stop();
        self.so_far()
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Tally {
    /// How many were answered.
    pub(crate) fn answered(&self) -> usize {
        self.answers.values().sum()
    }

    fn add(&mut self, begun: Duration, answer: std::io::Result<String>) {
        match answer {
            Ok(said) => *self.answers.entry(said).or_default() += 1,
            Err(error) => self.failures.push((begun, error.to_string())),
        }
    }
}
