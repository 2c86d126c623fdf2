//! The data plane: one worker thread per core, each with its own listening sockets. A worker may hand
//! an accepted connection to a less busy worker, where it stays until it closes.
//!
//! [`Proxy::bind`] binds the addresses, [`Proxy::start`] starts the workers, [`Running::apply`] changes
//! the binds at run time, and [`Running::close`] stops accepting. `serve` has the steps of a connection.

mod accept;
mod admit;
mod announce;
mod attempt;
mod bind;
mod binds;
mod connect;
mod connection;
mod context;
mod crowd;
mod descriptors;
mod endpoint_tls;
mod fast_slots;
mod handshake;
mod hellos;
mod keep_alive;
mod linked;
mod listener;
mod listener_limiters;
mod peek;
mod pipes;
mod preamble;
mod race;
mod race_budget;
mod reactor;
mod record;
mod refuse;
mod relay;
mod room;
mod serve;
mod settings;
mod socket;
mod stream;
mod tcp;
mod terminated;
mod upstreams;
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
pub use self::listener::{Listener, Proxies};
use self::settings::Settings;
use self::worker::WorkerArgs;
use self::workers::{Phase, WorkerHandle, Workers};
use crate::access_log::{self, AccessLog};
use crate::config::Config;
use crate::heartbeat::{Duty, Pulse};
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
    /// Binds the addresses of all configured listeners. If a listener has several addresses, an
    /// unspecified one (`0.0.0.0`, `[::]`) is skipped if the machine lacks its address family.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        Proxy::bind_with(config, Vec::new())
    }

    /// Like [`Proxy::bind`], with sockets that another process has bound. A socket belongs to the listener
    /// with its name, or to the listener at its address. All workers share it, and it stays open when this
    /// process ends.
    ///
    /// # Errors
    /// The first address that cannot be bound, or a socket that belongs to no listener.
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

    /// Forbids routes to lead to another port of this process.
    pub fn protect(&mut self, port: Listening) {
        self.protected.push(port);
        let listening = self.binds.listening().chain(self.protected.iter().copied());
        self.settings.reach.listening.set(listening);
    }

    /// Forbids routes to lead to the current addresses in `endpoints`.
    pub fn protect_own(&mut self, endpoints: OwnEndpoints) {
        self.settings.own_endpoints = endpoints;
    }

    /// The rules for endpoint addresses.
    pub fn reach(&self) -> &Reach {
        &self.settings.reach
    }

    /// The maximum number of open connections. Further connections are closed at once.
    pub fn most_connections(&self) -> usize {
        self.descriptors.most_connections()
    }

    /// The maximum number of descriptors that active health checks may have at a time.
    pub fn descriptors_of_checks(&self) -> usize {
        self.descriptors.of_checks()
    }

    /// Starts the workers. `ended` is called each time a worker ends.
    ///
    /// # Errors
    /// When a thread or descriptor cannot be created.
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
        let workers =
            Arc::new(Workers::new(connections, descriptors, Arc::clone(&metrics.sources))?);
        if let Some(error) = binds.hand_out(&workers).into_iter().next() {
            return Err(io::Error::other(error));
        }
        let told = Arc::downgrade(&workers);
        routes.on_removal(move |removals| {
            told.upgrade().into_iter().for_each(|workers| workers.tell(removals));
        });
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

/// Reports the end of a worker on drop, however the worker ended.
struct EndNotifier<F: Fn()> {
    call: F,
    workers: Arc<Workers>,
    number: usize,
    over: Arc<AtomicBool>,
}

impl<F: Fn()> Drop for EndNotifier<F> {
    fn drop(&mut self) {
        // Closes the connections that other workers have handed over, and refuses further ones.
        drop(self.workers.handle(self.number).map(WorkerHandle::take_last));
        self.over.store(true, Ordering::Release);
        (self.call)();
    }
}

/// A running data plane.
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
        let lost = args.metrics.process.workers_lost.clone();
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
    /// Changes the binds to those in `wanted`. Missing binds are made, existing ones are kept (with a
    /// new listener if `wanted` has another), and all others are closed after the clients that already
    /// wait there have been accepted. Open connections are not affected.
    ///
    /// Returns an error for each address that cannot be bound. The other addresses are served, and
    /// another call tries the failed ones again.
    pub fn apply(&self, wanted: &[BindSpec]) -> Vec<BindError> {
        let mut binds = self.binds();
        let errors = binds.apply(wanted, Some(&self.workers));
        let listening = binds.listening().chain(self.protected.iter().copied());
        self.settings.reach.listening.set(listening);
        errors
    }

    /// The current binds, in the form that [`Running::apply`] takes.
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

    /// Pulses to check that each worker still answers.
    pub fn pulses(&self) -> impl Iterator<Item = WorkerPulse> {
        self.threads.iter().enumerate().map(|(number, thread)| WorkerPulse {
            workers: Arc::clone(&self.workers),
            number,
            over: Arc::clone(&thread.over),
        })
    }

    /// The time since the last client was accepted, or since the start if there was none.
    pub fn quiet_for(&self) -> Duration {
        self.workers.quiet_for()
    }

    /// Whether new clients are refused after [`Running::close`]. Not if a socket was passed to this process,
    /// because it stays open in another process.
    pub fn refuses_when_closed(&self) -> bool {
        !self.binds().are_passed()
    }

    /// Stops accepting. Clients in the accept queue of the kernel are still served.
    pub fn close(&self) {
        self.workers.advance(Phase::Closing);
    }

    /// Resets all remaining connections, and stops accepting.
    pub fn abort(&self) {
        self.workers.advance(Phase::Aborting);
    }

    /// Whether all workers have ended. They end when the data plane is closed and the last connection
    /// has ended.
    pub fn is_over(&self) -> bool {
        self.threads.iter().all(|thread| thread.over.load(Ordering::Acquire))
    }

    /// Waits for all workers.
    ///
    /// # Errors
    /// When a worker has failed.
    pub fn join(self) -> io::Result<()> {
        let ended = self.threads.into_iter().map(|thread| {
            thread.thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")))
        });
        ended.fold(Ok(()), io::Result::and)
    }
}

/// A worker, as the watchdog sees it.
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

    fn duty(&self) -> Duty {
        Duty::Clients
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
