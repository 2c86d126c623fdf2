//! State that all connections of one worker share.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::descriptors::SpareDescriptor;
use super::fast_slots::FastSlots;
use super::hellos::Hellos;
use super::listener::{BindId, Listener};
use super::pipes::{PipeQuota, Pipes};
use super::race_budget::{Connecting, RaceLine, RacePermit, RaceTurn};
use super::reactor::{Reactor, TaskId};
use super::room::Room;
use super::settings::Settings;
use super::stream::CipherBuffer;
use super::upstreams::Upstreams;
use super::warnings::{WARNING_EVERY, WarningCause, WarningLimiter};
use super::workers::{WorkerHandle, Workers};
use crate::access_log::{Buffer, Entry};
use crate::machine::Machine;
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::reach::EndpointRefusal;
use crate::routing::{Ejected, Route, TableReader, mix};

/// The size of the buffer that all connections of a worker read into, one at a time.
const BUFFER: usize = 64 * 1024;
/// How long a handshake that has already begun may take after its bind was removed: a round trip, and the
/// first retransmission of a lost segment (RFC 6298 §2).
pub(super) const HANDSHAKE: Duration = Duration::from_secs(1);
/// The same limit at the end of the process, after it has waited until no new clients arrive.
pub(super) const LAST_HANDSHAKE: Duration = Duration::from_millis(200);
/// How long a line of the access log may wait for further lines.
pub(super) const LOG_DELAY: Duration = Duration::from_millis(200);

/// State that all connections of one worker share. It stays on the worker's thread.
pub(super) struct Context {
    pub(super) reactor: Rc<Reactor>,
    pub(super) routes: TableReader,
    pub(super) settings: Arc<Settings>,
    pub(super) metrics: Metrics,
    /// Never borrowed across an await.
    pub(super) buffer: RefCell<Box<[u8]>>,
    /// The same for TLS.
    pub(super) ciphertext: Rc<CipherBuffer>,
    pub(super) pipes: Pipes,
    pub(super) fast: FastSlots,
    pub(super) room: Room,
    pub(super) upstreams: Upstreams,
    pub(super) workers: Arc<Workers>,
    /// The worker's number.
    number: usize,
    /// The open binds.
    binds: RefCell<Vec<Rc<OpenBind>>>,
    /// Whether all binds are to be closed.
    closing: Cell<bool>,
    has_lost_bind: Cell<bool>,
    /// The clients that wait for their turn to race.
    race_line: RaceLine,
    log: RefCell<Option<Buffer>>,
    log_task: Cell<Option<TaskId>>,
    main_task: Cell<Option<TaskId>>,
    random: Cell<u64>,
    warnings: WarningLimiter,
    machine: Machine,
}

/// A bind that is open in this worker.
pub(super) struct OpenBind {
    pub(super) id: BindId,
    listener: RefCell<ServedListener>,
    /// The time limit for handshakes that have begun, if the bind is closing.
    closing: Cell<Option<Duration>>,
    task: Cell<Option<TaskId>>,
    /// Held while this worker has a socket of the bind.
    _lease: Arc<()>,
}

/// A listener in two copies: one is shared by all workers; the other is shared only by this worker's
/// connections, so that their reference counts are not shared with other threads.
struct ServedListener {
    shared: Arc<Listener>,
    local: Rc<Listener>,
}

impl ServedListener {
    fn of(listener: Arc<Listener>) -> Self {
        let local = Rc::new(Listener::clone(&listener));
        ServedListener { shared: listener, local }
    }
}

impl OpenBind {
    /// A bind that serves `listener`.
    pub(super) fn new(id: BindId, listener: Arc<Listener>, lease: Arc<()>) -> Self {
        let listener = RefCell::new(ServedListener::of(listener));
        let (closing, task) = (Cell::new(None), Cell::new(None));
        OpenBind { id, listener, closing, task, _lease: lease }
    }

    /// The listener for a new client.
    pub(super) fn listener(&self) -> Rc<Listener> {
        Rc::clone(&self.listener.borrow().local)
    }

    /// The listener for a new client that is handed to another worker.
    pub(super) fn shared_listener(&self) -> Arc<Listener> {
        Arc::clone(&self.listener.borrow().shared)
    }

    /// Changes the listener for new clients.
    pub(super) fn serve(&self, listener: Arc<Listener>) {
        *self.listener.borrow_mut() = ServedListener::of(listener);
    }

    /// The time limit for handshakes that have begun, if the bind is closing. Then only the clients of these
    /// handshakes, and those that already wait, are accepted.
    pub(super) fn closing(&self) -> Option<Duration> {
        self.closing.get()
    }

    /// Whether it is closing.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.get().is_some()
    }

    /// Sets the task that accepts.
    pub(super) fn set_task(&self, task: TaskId) {
        self.task.set(Some(task));
    }
}

impl Context {
    /// The context of worker `number`.
    pub(super) fn new(
        reactor: &Rc<Reactor>,
        number: usize,
        workers: Arc<Workers>,
        routes: TableReader,
        settings: Arc<Settings>,
        metrics: Metrics,
        log: Option<Buffer>,
    ) -> Self {
        Context {
            reactor: Rc::clone(reactor),
            routes,
            pipes: Pipes::new(PipeQuota::of(settings.workers), &metrics),
            fast: FastSlots::new(),
            room: Room::new(reactor),
            upstreams: Upstreams::default(),
            settings,
            metrics,
            buffer: RefCell::new(vec![0; BUFFER].into()),
            ciphertext: CipherBuffer::new(),
            workers,
            number,
            binds: RefCell::default(),
            closing: Cell::new(false),
            has_lost_bind: Cell::new(false),
            race_line: RaceLine::default(),
            log: RefCell::new(log),
            log_task: Cell::new(None),
            main_task: Cell::new(None),
            // The keys come from the system, because processes in different containers may have the same id.
            random: Cell::new(RandomState::new().hash_one(number)),
            warnings: WarningLimiter::default(),
            machine: Machine::new(),
        }
    }

    /// Sets the main task and the task that writes the access log, so that they can be woken.
    pub(super) fn set_tasks(&self, main: TaskId, log: TaskId) {
        self.main_task.set(Some(main));
        self.log_task.set(Some(log));
    }

    /// Wakes the main task.
    fn wake_main(&self) {
        self.main_task.get().into_iter().for_each(|task| self.reactor.wake(task));
    }

    /// The handle of this worker. It always exists.
    pub(super) fn handle(&self) -> Option<&WorkerHandle> {
        self.workers.handle(self.number)
    }

    /// Whether all binds are to be closed.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Adds a bind.
    pub(super) fn open_bind(&self, bind: &Rc<OpenBind>) {
        self.binds.borrow_mut().push(Rc::clone(bind));
    }

    /// The bind with this id, if it is open.
    pub(super) fn bind(&self, id: BindId) -> Option<Rc<OpenBind>> {
        self.binds.borrow().iter().find(|bind| bind.id == id).cloned()
    }

    /// Closes a bind. Clients that already wait, and those whose handshake ends within `handshake`, are
    /// still accepted.
    pub(super) fn close_bind(&self, bind: &OpenBind, handshake: Duration) {
        if bind.closing.replace(Some(handshake)).is_none() {
            bind.task.get().into_iter().for_each(|task| self.reactor.wake(task));
        }
    }

    /// Closes all binds, including later ones.
    pub(super) fn close(&self) {
        if !self.closing.replace(true) {
            let binds = self.binds.borrow().clone();
            binds.iter().for_each(|bind| self.close_bind(bind, LAST_HANDSHAKE));
        }
    }

    /// Records that a bind has closed, as ordered or by itself.
    pub(super) fn bind_closed(&self, bind: &OpenBind) {
        self.binds.borrow_mut().retain(|other| other.id != bind.id);
        if !bind.is_closing() {
            self.has_lost_bind.set(true);
        }
        self.wake_main();
    }

    /// Whether a bind has closed by itself.
    pub(super) fn has_lost_bind(&self) -> bool {
        self.has_lost_bind.get()
    }

    /// Whether any bind is open.
    pub(super) fn has_binds(&self) -> bool {
        !self.binds.borrow().is_empty()
    }

    /// This worker's copy of the listener of a connection that another worker accepted.
    pub(super) fn local_listener(&self, shared: &Arc<Listener>) -> Rc<Listener> {
        let binds = self.binds.borrow();
        let here = binds.iter().find_map(|bind| {
            let known = bind.listener.borrow();
            Arc::ptr_eq(&known.shared, shared).then(|| Rc::clone(&known.local))
        });
        // The bind is not open in this worker.
        here.unwrap_or_else(|| Rc::new(Listener::clone(shared)))
    }

    /// Whether the number of open connections, including the current one, exceeds the limit on descriptors.
    pub(super) fn is_full(&self) -> bool {
        self.workers.descriptors.are_exceeded_by(self.workers.connections())
    }

    /// How many connections of this worker may have an incomplete hello.
    pub(super) fn most_hellos(&self) -> usize {
        self.workers.most_hellos(self.settings.max_hellos)
    }

    /// A descriptor for an additional attempt to connect, if enough are left.
    pub(super) fn take_spare(&self) -> Option<SpareDescriptor<'_>> {
        self.workers.descriptors.take_spare(self.workers.connections())
    }

    /// Counts a client that waits for an endpoint, until the returned value is dropped.
    pub(super) fn connecting(&self) -> Connecting<'_> {
        Connecting::count(self.handle().map(|handle| &handle.connecting))
    }

    /// The permit for a client of a route to race, if the route's budget allows one more.
    pub(super) fn take_race<'a>(&'a self, route: &'a Route) -> Option<RacePermit<'a>> {
        let races = (&self.workers.races, &route.stats.racing);
        let budget = route.spec.policy.race().budget;
        self.race_line.take(races, &self.reactor, budget, self.workers.connecting())
    }

    /// Puts the current task in the line of those that wait for their turn to race.
    pub(super) fn wait_for_race(&self) -> RaceTurn<'_> {
        self.race_line.join(self.reactor.current())
    }

    /// The hellos that all workers are serving, and those that they have sent.
    pub(super) fn hellos(&self) -> &Arc<Hellos> {
        &self.workers.hellos
    }

    /// Counts a connection that was accepted at `at`.
    pub(super) fn opened(&self, at: Instant) {
        self.handle().into_iter().for_each(|handle| self.workers.opened(handle, at));
    }

    /// Counts a connection as closed.
    pub(super) fn closed(&self) {
        self.handle().into_iter().for_each(WorkerHandle::closed);
        if self.is_closing() {
            self.wake_main();
        }
    }

    /// A worker that has clearly fewer connections than this one, if there is any.
    pub(super) fn less_busy(&self) -> Option<&WorkerHandle> {
        self.workers.less_busy_than(self.number)
    }

    /// Counts and logs a failed accept.
    pub(super) fn accept_failed(&self, listener: &str, error: &io::Error) {
        self.metrics.accept_errors.of(error).inc();
        if self.may_warn(WarningCause::of_accept(error)) {
            tracing::warn!(listener, %error, "cannot accept a connection; trying again");
        }
    }

    /// Logs that a client was closed because descriptors are exhausted.
    pub(super) fn refused_for_want_of_descriptors(&self) {
        if self.may_warn(WarningCause::Full) {
            let most = self.workers.descriptors.most_connections();
            tracing::warn!(
                most,
                "refusing clients: the limit of open files allows no more connections"
            );
        }
    }

    /// Checks whether connecting to an endpoint is allowed. The control plane has checked it, but that may
    /// have been long ago: the table may be a saved one, or the address may have moved.
    pub(super) fn judge(&self, endpoint: SocketAddr) -> Result<(), EndpointRefusal> {
        let Settings { reach, own_endpoints, .. } = &*self.settings;
        let judged = reach.judge(endpoint, &own_endpoints.get(), |ip| self.machine.has(ip));
        if let Err(refusal) = judged {
            self.metrics.endpoint_refused(refusal.kind()).inc();
            if self.may_warn(WarningCause::Refused(refusal)) {
                tracing::warn!(%endpoint, reason = %refusal, "an endpoint is refused; not connecting");
            }
        }
        judged
    }

    /// Counts and logs that an endpoint was ejected. One endpoint is at most every two seconds.
    pub(super) fn ejected(&self, route: &Route, endpoint: SocketAddr, ejected: Ejected) {
        let Ejected { reason, times, lasts } = ejected;
        self.metrics.endpoint_ejected(reason).inc();
        let (route, reason) = (&route.spec.key, reason.as_str());
        tracing::warn!(
            %route, %endpoint, reason, times, ?lasts,
            "an endpoint has failed too often in a row and is tried last"
        );
    }

    fn may_warn(&self, cause: WarningCause) -> bool {
        let next = self.reactor.after(WARNING_EVERY);
        self.warnings.are_due(cause, self.reactor.now(), next)
    }

    /// Adds a line to the access log.
    pub(super) fn log(&self, entry: &Entry<'_>) {
        self.with_log(|log| log.push(entry));
    }

    /// Adds a line about a refused client. If there are many similar lines, only counts it.
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

    /// Passes the lines of the access log to the writing thread. Returns whether some are left.
    pub(super) fn hand_over_log(&self) -> bool {
        let mut log = self.log.borrow_mut();
        let Some(log) = log.as_mut() else { return false };
        log.hand_over();
        !log.is_empty()
    }

    /// A random number, good enough to distribute connections.
    pub(super) fn random(&self) -> u64 {
        let next = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(next);
        mix(next)
    }
}
