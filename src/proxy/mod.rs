//! The data plane: one thread per core, each with its own listening sockets. A connection may be
//! handed to a less busy thread as soon as it is accepted, and stays there to its close.
//!
//! [`Proxy::bind`] binds, [`Proxy::start`] serves, [`Running::apply`] changes the binds while it does,
//! and [`Running::close`] ends it. The story of a connection is `serve`.

mod accept;
mod admit;
mod attempt;
mod bind;
mod binds;
mod connect;
mod connection;
mod context;
mod descriptors;
mod fast_slots;
mod hellos;
mod listener;
mod peek;
mod pipes;
mod race;
mod reactor;
mod record;
mod refuse;
mod relay;
mod serve;
mod settings;
mod socket;
mod tcp;
mod warnings;
mod worker;
mod workers;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use self::bind::{BindError, BindSpec, PassedSocket};
use self::binds::Binds;
use self::descriptors::Descriptors;
pub use self::listener::Listener;
use self::settings::Settings;
use self::worker::WorkerArgs;
use self::workers::{Phase, WorkerHandle, Workers};
use crate::access_log::{self, AccessLog};
use crate::config::Config;
use crate::heartbeat::Pulse;
use crate::metrics::Metrics;
use crate::reach::{Listening, OwnEndpoints, Reach};
use crate::routing::TableReader;

/// A data plane whose addresses are bound.
#[derive(Debug)]
pub struct Proxy {
    settings: Settings,
    descriptors: Descriptors,
    binds: Binds,
    /// Other ports of this process.
    protected: Vec<Listening>,
}

impl Proxy {
    /// Binds the addresses of every listener that is configured. Of a listener with several, one that
    /// is everybody's is left out if the machine does not have its address family.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        Proxy::bind_with(config, Vec::new())
    }

    /// The same, with sockets that another process has bound: each is for the listener of its name,
    /// or at its address. They are shared by all workers, and still open when this process ends.
    ///
    /// # Errors
    /// The first address that cannot be had, or a socket that is for no listener.
    pub fn bind_with(config: &Config, passed: Vec<PassedSocket>) -> Result<Self, BindError> {
        let settings = Settings::of(config);
        let mut binds = Binds::new(settings.workers);
        let configured = config.listeners.iter().map(BindSpec::of).collect();
        let missing = binds.adopt(passed, configured)?;
        let wanted: Vec<BindSpec> = binds.specs().cloned().chain(missing).collect();
        if let Some(error) = binds.apply(&wanted, None).into_iter().next() {
            return Err(error);
        }
        let descriptors = Descriptors::of_this_process(settings.workers);
        descriptors.set_binds(binds.addresses().count());
        let proxy = Proxy { settings, descriptors, binds, protected: Vec::new() };
        proxy.settings.reach.listening.set(proxy.binds.listening());
        Ok(proxy)
    }

    /// The name of the listener and the address of every bind.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.binds.addresses()
    }

    /// Keeps routes from another port of this process, too.
    pub fn protect(&mut self, port: Listening) {
        self.protected.push(port);
        let listening = self.binds.listening().chain(self.protected.iter().copied());
        self.settings.reach.listening.set(listening);
    }

    /// Keeps routes from the addresses that `endpoints` has at any time.
    pub fn protect_own(&mut self, endpoints: OwnEndpoints) {
        self.settings.own_endpoints = endpoints;
    }

    /// Where routes may lead.
    pub fn reach(&self) -> &Reach {
        &self.settings.reach
    }

    /// How many connections are served at the same time at most; those beyond are closed at once.
    pub fn most_connections(&self) -> usize {
        self.descriptors.most_connections()
    }

    /// Begins to serve. `ended` is called each time a worker is over.
    ///
    /// # Errors
    /// When threads or descriptors cannot be had.
    pub fn start(
        self,
        routes: &TableReader,
        metrics: &Metrics,
        log: Option<&AccessLog>,
        ended: impl Fn() + Clone + Send + 'static,
    ) -> io::Result<Running> {
        let Proxy { settings, descriptors, mut binds, protected } = self;
        let settings = Arc::new(settings);
        let connections = (0..settings.workers).map(|number| metrics.connections.of(number));
        let workers = Arc::new(Workers::new(connections, descriptors)?);
        if let Some(error) = binds.hand_out(&workers).into_iter().next() {
            return Err(io::Error::other(error));
        }
        let mut threads = Vec::new();
        for number in 0..settings.workers {
            let args = WorkerArgs {
                number,
                workers: Arc::clone(&workers),
                routes: routes.clone(),
                settings: Arc::clone(&settings),
                metrics: metrics.clone(),
                log: log.cloned().map(|log| access_log::Buffer::new(log, settings.workers)),
            };
            threads.push(WorkerThread::start(args, ended.clone())?);
        }
        Ok(Running { workers, threads, binds: Mutex::new(binds), settings, protected })
    }
}

/// Tells that a worker is over, however it came to that.
struct EndNotifier<F: Fn()> {
    call: F,
    workers: Arc<Workers>,
    number: usize,
    over: Arc<AtomicBool>,
}

impl<F: Fn()> Drop for EndNotifier<F> {
    fn drop(&mut self) {
        // What others gave it in the meantime is closed, and they give it nothing more.
        drop(self.workers.handle(self.number).map(WorkerHandle::take_last));
        self.over.store(true, Ordering::Release);
        (self.call)();
    }
}

/// A data plane that serves.
#[derive(Debug)]
pub struct Running {
    workers: Arc<Workers>,
    threads: Vec<WorkerThread>,
    binds: Mutex<Binds>,
    settings: Arc<Settings>,
    protected: Vec<Listening>,
}

#[derive(Debug)]
struct WorkerThread {
    over: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
}

impl WorkerThread {
    fn start(args: WorkerArgs, ended: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (number, workers) = (args.number, Arc::clone(&args.workers));
        let ended = EndNotifier { call: ended, workers, number, over: Arc::default() };
        let over = Arc::clone(&ended.over);
        let lost = args.metrics.workers_lost.clone();
        let thread = std::thread::Builder::new().name(thread_name(number)).spawn(move || {
            let _ended = ended;
            worker::run(args).inspect_err(|error| {
                lost.inc();
                tracing::error!(worker = number, %error, "a worker has ended by itself");
            })
        })?;
        Ok(WorkerThread { over, thread })
    }
}

impl Running {
    /// Has clients be accepted where `wanted` says, and nowhere else. Binds that are missing are made;
    /// those that are there stay as they are, with other listeners where `wanted` has others; from
    /// those that are to go, clients who wait there are still accepted. Connections go on.
    ///
    /// Returns why some addresses cannot be had. The others are served. It may be called again, and
    /// then tries those.
    pub fn apply(&self, wanted: &[BindSpec]) -> Vec<BindError> {
        let mut binds = self.binds();
        let errors = binds.apply(wanted, Some(&self.workers));
        let listening = binds.listening().chain(self.protected.iter().copied());
        self.settings.reach.listening.set(listening);
        errors
    }

    /// What is bound, as [`Running::apply`] takes it.
    pub fn binds_in_force(&self) -> Vec<BindSpec> {
        self.binds().specs().cloned().collect()
    }

    /// The name of the listener and the address of every bind.
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        let binds = self.binds();
        binds.addresses().map(|(name, address)| (name.to_owned(), address)).collect()
    }

    fn binds(&self) -> MutexGuard<'_, Binds> {
        self.binds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each worker is watched by.
    pub fn pulses(&self) -> impl Iterator<Item = WorkerPulse> {
        self.threads.iter().enumerate().map(|(number, thread)| WorkerPulse {
            workers: Arc::clone(&self.workers),
            number,
            over: Arc::clone(&thread.over),
        })
    }

    /// How long ago the last client was accepted; since the start, if there was none.
    pub fn quiet_for(&self) -> Duration {
        self.workers.quiet_for()
    }

    /// Whether clients that come after [`Running::close`] find nobody.
    pub fn refuses_when_closed(&self) -> bool {
        !self.binds().are_passed()
    }

    /// Stops accepting. Clients that the kernel has taken already are still served.
    pub fn close(&self) {
        self.workers.advance(Phase::Closing);
    }

    /// Resets every connection that is left, and accepts no more.
    pub fn abort(&self) {
        self.workers.advance(Phase::Aborting);
    }

    /// Whether all workers are over, as they are when it was closed and the last connection ended.
    pub fn is_over(&self) -> bool {
        self.threads.iter().all(|thread| thread.over.load(Ordering::Acquire))
    }

    /// Waits for all workers.
    ///
    /// # Errors
    /// Why a worker ended before its time.
    pub fn join(self) -> io::Result<()> {
        let ended = self.threads.into_iter().map(|thread| {
            thread.thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")))
        });
        ended.fold(Ok(()), io::Result::and)
    }
}

/// What a worker is watched by.
#[derive(Debug)]
pub struct WorkerPulse {
    workers: Arc<Workers>,
    number: usize,
    over: Arc<AtomicBool>,
}

impl Pulse for WorkerPulse {
    fn name(&self) -> String {
        thread_name(self.number)
    }

    fn serves_clients(&self) -> bool {
        true
    }

    fn ask(&self) {
        self.workers.handle(self.number).into_iter().for_each(WorkerHandle::ask);
    }

    fn is_answered(&self) -> bool {
        let answered = self.workers.handle(self.number).is_some_and(WorkerHandle::has_answered);
        answered || self.over.load(Ordering::Acquire)
    }
}

fn thread_name(worker: usize) -> String {
    format!("worker-{worker}")
}
