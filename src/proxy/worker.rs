//! A data-plane thread, and what its connections share.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::Settings;
use super::bind::ListeningSocket;
use super::crew::{Crew, Given, Member, Phase};
use super::descriptors::Spare;
use super::hellos::Hellos;
use super::listener::{Listener, accept, admit};
use super::reactor::{Reactor, TaskId};
use super::relay::{Allowance, FastSlots, Pipes};
use super::warnings::{Cause, WARNING_EVERY, Warnings};
use crate::access_log::{Buffer, Entry};
use crate::machine::Machine;
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::reach::Refusal;
use crate::routing::{Reader, mix};

/// The size of the buffer that all connections of a worker read into, one at a time.
const BUFFER: usize = 64 * 1024;
/// How long a line of the access log may wait for others.
const LOG_DELAY: Duration = Duration::from_millis(200);

/// What the connections of one thread share.
pub(super) struct Worker {
    pub(super) reactor: Rc<Reactor>,
    pub(super) routes: Reader,
    pub(super) settings: Arc<Settings>,
    pub(super) metrics: Metrics,
    /// Never borrowed across an await.
    pub(super) buffer: RefCell<Box<[u8]>>,
    pub(super) pipes: Pipes,
    pub(super) fast: FastSlots,
    crew: Arc<Crew>,
    /// Its place in the crew.
    number: usize,
    log: RefCell<Option<Buffer>>,
    log_task: Cell<Option<TaskId>>,
    main_task: Cell<Option<TaskId>>,
    /// Connections whose record is open.
    connections: Cell<usize>,
    listeners: Cell<usize>,
    closing: Cell<bool>,
    random: Cell<u64>,
    warnings: Warnings,
    machine: Machine,
}

/// Everything that a thread is given to make its worker from.
pub(super) struct Seed {
    pub(super) number: usize,
    pub(super) routes: Reader,
    pub(super) settings: Arc<Settings>,
    pub(super) metrics: Metrics,
    pub(super) crew: Arc<Crew>,
    pub(super) log: Option<Buffer>,
    pub(super) listeners: Vec<(Listener, ListeningSocket)>,
}

/// Serves until the bell has rung for the end and the last connection is over.
pub(super) fn run(seed: Seed) -> io::Result<()> {
    let Seed { number, routes, settings, metrics, crew, log, listeners } = seed;
    let Some(inbox) = crew.member(number).map(|member| Arc::clone(member.inbox())) else {
        return Err(io::Error::other("a worker that is none of the crew"));
    };
    let panics = metrics.panics.clone();
    let reactor = Reactor::new(inbox, move || panics.inc())?;
    let worker = Rc::new(Worker {
        reactor: Rc::clone(&reactor),
        routes,
        pipes: Pipes::new(Allowance::of(settings.workers), &metrics),
        fast: FastSlots::new(),
        settings,
        metrics,
        buffer: RefCell::new(vec![0; BUFFER].into()),
        crew,
        number,
        log: RefCell::new(log),
        log_task: Cell::new(None),
        main_task: Cell::new(None),
        connections: Cell::new(0),
        listeners: Cell::new(listeners.len()),
        closing: Cell::new(false),
        // Its keys come from the system: in containers, all processes may have the same id.
        random: Cell::new(RandomState::new().hash_one(number)),
        warnings: Warnings::default(),
        machine: Machine::new(),
    });
    reactor.block_on(obey(worker, listeners))?
}

/// The worker's first task: starts the others and does what the bell says.
async fn obey(worker: Rc<Worker>, listeners: Vec<(Listener, ListeningSocket)>) -> io::Result<()> {
    let reactor = &worker.reactor;
    let crew = Arc::clone(&worker.crew);
    let Some(member) = crew.member(worker.number) else {
        return Err(io::Error::other("a worker that is none of the crew"));
    };
    worker.main_task.set(Some(reactor.current()));
    worker.log_task.set(Some(reactor.spawn(write_log(Rc::clone(&worker)))));
    let (known, sockets): (Vec<_>, Vec<_>) =
        listeners.into_iter().map(|(listener, socket)| (Rc::new(listener), socket)).unzip();
    let accepting = known.iter().zip(sockets).enumerate().map(|(place, (listener, socket))| {
        reactor.spawn(accept(Rc::clone(&worker), place, Rc::clone(listener), socket))
    });
    let mut accepting: Vec<TaskId> = accepting.collect();
    let adopt = |all: Vec<Given>| {
        for Given { listener, client, source } in all {
            if let Some(listener) = known.get(listener) {
                admit(&worker, listener, client, source);
            }
        }
    };
    poll_fn(|_| {
        member.answer();
        adopt(member.take());
        if member.has_reached(Phase::Closing) && !worker.closing.replace(true) {
            accepting.drain(..).for_each(|task| reactor.wake(task));
        }
        if member.has_reached(Phase::Aborting) && !reactor.is_cancelled() {
            reactor.cancel();
        }
        if worker.is_closing() && worker.listeners.get() == 0 {
            adopt(member.take_last());
        }
        match (worker.is_closing(), worker.listeners.get(), worker.connections.get()) {
            (true, 0, 0) => Poll::Ready(Ok(())),
            (false, left, _) if left < known.len() => {
                Poll::Ready(Err(io::Error::other("a listener ended by itself")))
            }
            _ => Poll::Pending,
        }
    })
    .await
}

/// Hands the lines of the access log over when the first of them is old enough.
async fn write_log(worker: Rc<Worker>) {
    poll_fn(|_| {
        if let Some(log) = worker.log.borrow_mut().as_mut() {
            log.hand_over();
            if !log.is_empty() {
                let reactor = &worker.reactor;
                reactor.wake_at(reactor.current(), reactor.after(LOG_DELAY));
            }
        }
        Poll::<()>::Pending
    })
    .await;
}

impl Worker {
    /// Whether no new clients are taken.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Whether the process has no descriptors for another connection. The one in question is counted
    /// already.
    pub(super) fn is_full(&self) -> bool {
        self.crew.descriptors.are_exceeded()
    }

    /// A descriptor for one more attempt to connect beside another, if there are plenty.
    pub(super) fn take_spare(&self) -> Option<Spare<'_>> {
        self.crew.descriptors.take_spare()
    }

    /// The hellos that this worker and the others are serving.
    pub(super) fn hellos(&self) -> &Hellos {
        &self.crew.hellos
    }

    /// Counts a connection in that was accepted at `at`.
    pub(super) fn opened(&self, at: Instant) {
        self.connections.set(self.connections.get() + 1);
        self.crew.descriptors.take_for_connection();
        self.metrics.connections_active.inc();
        if let Some(member) = self.member() {
            member.opened();
            self.crew.accepted(member, at);
        }
    }

    /// Counts a connection out.
    pub(super) fn closed(&self) {
        self.connections.set(self.connections.get().saturating_sub(1));
        self.crew.descriptors.give_back_connection();
        self.metrics.connections_active.dec();
        self.member().into_iter().for_each(Member::closed);
        if let Some(task) = self.main_task.get().filter(|_| self.is_closing()) {
            self.reactor.wake(task);
        }
    }

    /// Hands a connection that was just accepted to a worker that has clearly fewer; gives it back
    /// if there is none.
    pub(super) fn hand_over(&self, given: Given) -> Option<Given> {
        match self.crew.less_busy_than(self.number) {
            Some(member) => member.give(given).err(),
            None => Some(given),
        }
    }

    fn member(&self) -> Option<&Member> {
        self.crew.member(self.number)
    }

    /// Counts a listener out.
    pub(super) fn listener_closed(&self) {
        self.listeners.set(self.listeners.get().saturating_sub(1));
        if let Some(task) = self.main_task.get() {
            self.reactor.wake(task);
        }
    }

    /// A listener could not accept a connection.
    pub(super) fn accept_failed(&self, listener: &str, error: &io::Error) {
        self.metrics.accept_errors.of(error).inc();
        if self.may_warn(Cause::of_accept(error)) {
            tracing::warn!(listener, %error, "cannot accept a connection; trying again");
        }
    }

    /// A client was closed at once.
    pub(super) fn refused_for_want_of_descriptors(&self) {
        if self.may_warn(Cause::Full) {
            let most = self.settings.most_connections;
            tracing::warn!(most, "as many connections as the limit of open files allows");
        }
    }

    /// Whether an endpoint may be connected to now. What the control plane has seen of it may be
    /// of before: of a table that was saved, or of another machine's address.
    pub(super) fn judge(&self, endpoint: SocketAddr) -> Result<(), Refusal> {
        let Settings { reach, own_endpoints, .. } = &*self.settings;
        let judged = reach.judge(endpoint, &own_endpoints.get(), |ip| self.machine.has(ip));
        if let Err(refusal) = judged {
            self.metrics.endpoint_refused(refusal.kind()).inc();
            if self.may_warn(Cause::Refused(refusal)) {
                tracing::warn!(%endpoint, reason = %refusal, "an endpoint is refused; not connecting");
            }
        }
        judged
    }

    fn may_warn(&self, cause: Cause) -> bool {
        let next = self.reactor.after(WARNING_EVERY);
        self.warnings.are_due(cause, self.reactor.now(), next)
    }

    /// Adds a line to the access log.
    pub(super) fn log(&self, entry: &Entry<'_>) {
        self.with_log(|log| log.push(entry));
    }

    /// Adds a line about a client that was not served, unless there are many of its kind.
    pub(super) fn log_refusal(&self, entry: &Entry<'_>, outcome: Outcome) {
        self.with_log(|log| log.push_refusal(entry, outcome));
    }

    fn with_log(&self, push: impl FnOnce(&mut Buffer)) {
        let mut log = self.log.borrow_mut();
        let Some(log) = log.as_mut() else { return };
        let first = log.is_empty();
        push(log);
        if let Some(task) = self.log_task.get().filter(|_| first) {
            self.reactor.wake_at(task, self.reactor.after(LOG_DELAY));
        }
    }

    /// A random number, good enough to spread connections with.
    pub(super) fn random(&self) -> u64 {
        let next = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(next);
        mix(next)
    }
}
