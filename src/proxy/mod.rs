//! The data plane: one thread per core, each with its own listening sockets. A connection may be
//! handed to a less busy thread as soon as it is accepted, and stays there to its close.
//!
//! [`Proxy::bind`] binds, [`Proxy::start`] serves, [`Running`] ends it. The story of a connection
//! is `connection::serve`.

mod balance;
mod bind;
mod connect;
mod connection;
mod crew;
mod descriptors;
mod hellos;
mod listener;
mod peek;
mod race;
mod reactor;
mod record;
mod refuse;
mod relay;
mod socket;
mod tcp;
mod warnings;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub use self::balance::{Wish, choose, endpoint_of_source};
pub use self::bind::{BindError, PassedSocket};
use self::bind::{Bound, ListeningSocket};
use self::crew::{Crew, Member, Phase};
use self::descriptors::{Descriptors, most_connections};
use self::worker::Seed;
use crate::access_log::{self, AccessLog};
use crate::config::{self, Config};
use crate::heartbeat::Pulse;
use crate::metrics::Metrics;
use crate::reach::{Listening, OwnEndpoints, Reach};
use crate::routing::Reader;

/// What all workers do alike.
#[derive(Debug)]
struct Settings {
    timeouts: config::Timeouts,
    max_hello: usize,
    access_log: config::AccessLog,
    access_log_start: bool,
    workers: usize,
    most_connections: usize,
    /// Where routes may lead.
    reach: Reach,
    /// The addresses of the installation's own Services.
    own_endpoints: OwnEndpoints,
}

/// A data plane whose listeners are bound.
#[derive(Debug)]
pub struct Proxy {
    settings: Settings,
    bound: Vec<Bound>,
}

impl Proxy {
    /// Binds every listener. Of a listener with several addresses, one that is everybody's is left
    /// out if the machine does not have its address family.
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
        let workers = config.workers.get();
        let bound = bind::bind_all(config, passed)?;
        let settings = Settings {
            timeouts: config.timeouts,
            max_hello: config.max_hello,
            access_log: config.access_log,
            access_log_start: config.access_log_start,
            workers,
            most_connections: most_connections(workers, bound.len()),
            reach: Reach {
                local_addresses: config.source != config::Source::Kubernetes,
                allow: config.addresses.allow.clone(),
                deny: config.addresses.deny.clone(),
                listening: bound.iter().map(Bound::listening).collect(),
            },
            own_endpoints: OwnEndpoints::default(),
        };
        Ok(Proxy { settings, bound })
    }

    /// The name and the address of every listener.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.bound.iter().map(|bound| (bound.listener.name.as_str(), bound.address))
    }

    /// Keeps routes from another port of this process, too.
    pub fn protect(&mut self, port: Listening) {
        self.settings.reach.listening.push(port);
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
        self.settings.most_connections
    }

    /// Begins to serve. `ended` is called each time a worker is over.
    ///
    /// # Errors
    /// When threads or descriptors cannot be had.
    pub fn start(
        self,
        routes: &Reader,
        metrics: &Metrics,
        log: Option<&AccessLog>,
        ended: impl Fn() + Clone + Send + 'static,
    ) -> io::Result<Running> {
        let settings = Arc::new(self.settings);
        let loads = (0..settings.workers).map(|number| metrics.worker_connections(number));
        let descriptors = Descriptors::of_connections(settings.most_connections);
        let crew = Arc::new(Crew::new(loads, descriptors)?);
        let mut bound = self.bound;
        let mut running = Running { crew: Arc::clone(&crew), workers: Vec::new(), outlived: true };
        for number in 0..settings.workers {
            let mut listeners = Vec::new();
            for one in &mut bound {
                let socket = one.for_worker()?;
                running.outlived &= socket.as_ref().is_none_or(ListeningSocket::is_shared);
                listeners.extend(socket.map(|socket| (one.listener.clone(), socket)));
            }
            let seed = Seed {
                number,
                routes: routes.clone(),
                settings: Arc::clone(&settings),
                metrics: metrics.clone(),
                crew: Arc::clone(&crew),
                log: log.cloned().map(|log| access_log::Buffer::new(log, settings.workers)),
                listeners,
            };
            let ended = Ended {
                call: ended.clone(),
                crew: Arc::clone(&crew),
                number,
                over: Arc::default(),
            };
            let over = Arc::clone(&ended.over);
            let lost = metrics.workers_lost.clone();
            let thread =
                std::thread::Builder::new().name(thread_name(number)).spawn(move || {
                    let _ended = ended;
                    worker::run(seed).inspect_err(|error| {
                        lost.inc();
                        tracing::error!(worker = number, %error, "a worker has ended by itself");
                    })
                })?;
            running.workers.push(WorkerThread { over, thread });
        }
        Ok(running)
    }
}

/// Tells that a worker is over, however it came to that.
struct Ended<F: Fn()> {
    call: F,
    crew: Arc<Crew>,
    number: usize,
    over: Arc<AtomicBool>,
}

impl<F: Fn()> Drop for Ended<F> {
    fn drop(&mut self) {
        // What others gave it in the meantime is closed, and they give it nothing more.
        drop(self.crew.member(self.number).map(Member::take_last));
        self.over.store(true, Ordering::Release);
        (self.call)();
    }
}

/// A data plane that serves.
#[derive(Debug)]
pub struct Running {
    crew: Arc<Crew>,
    workers: Vec<WorkerThread>,
    /// Whether all its listening sockets stay open elsewhere.
    outlived: bool,
}

#[derive(Debug)]
struct WorkerThread {
    over: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
}

impl Running {
    /// What each worker is watched by.
    pub fn pulses(&self) -> impl Iterator<Item = WorkerPulse> {
        self.workers.iter().enumerate().map(|(number, worker)| WorkerPulse {
            crew: Arc::clone(&self.crew),
            number,
            over: Arc::clone(&worker.over),
        })
    }

    /// How long ago the last client was accepted; since the start, if there was none.
    pub fn quiet_for(&self) -> Duration {
        self.crew.quiet_for()
    }

    /// Whether clients that come after [`Running::close`] find nobody.
    pub fn refuses_when_closed(&self) -> bool {
        !self.outlived
    }

    /// Stops accepting. Clients that the kernel has taken already are still served.
    pub fn close(&self) {
        self.crew.advance(Phase::Closing);
    }

    /// Resets every connection that is left, and accepts no more.
    pub fn abort(&self) {
        self.crew.advance(Phase::Aborting);
    }

    /// Whether all workers are over, as they are when it was closed and the last connection ended.
    pub fn is_over(&self) -> bool {
        self.workers.iter().all(|worker| worker.over.load(Ordering::Acquire))
    }

    /// Waits for all workers.
    ///
    /// # Errors
    /// Why a worker ended before its time.
    pub fn join(self) -> io::Result<()> {
        let ended = self.workers.into_iter().map(|worker| {
            worker.thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")))
        });
        ended.fold(Ok(()), io::Result::and)
    }
}

/// What a worker is watched by.
#[derive(Debug)]
pub struct WorkerPulse {
    crew: Arc<Crew>,
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
        self.crew.member(self.number).into_iter().for_each(Member::ask);
    }

    fn is_answered(&self) -> bool {
        let answered = self.crew.member(self.number).is_some_and(Member::has_answered);
        answered || self.over.load(Ordering::Acquire)
    }
}

fn thread_name(worker: usize) -> String {
    format!("worker-{worker}")
}
