//! Handles to the workers, for other threads: wake a worker, give it orders, read its number of
//! connections, and hand it a connection.
//!
//! The kernel distributes clients over the listening sockets at random. With few and long connections, one
//! worker may have twice as many as another, and its clients wait twice as long. So a worker that has
//! clearly more connections than the least busy one hands over the connections that it accepts.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;

use super::bind::ListeningSocket;
use super::descriptors::Descriptors;
use super::hellos::Hellos;
use super::listener::{BindId, Listener};
use super::listener_limiters::ListenerLimiters;
use super::race_budget::RaceCount;
use super::reactor::Inbox;
use crate::heartbeat::Heartbeat;
use crate::limiter::{Limiter, SourceTable};
use crate::metrics::ConnectionCount;
use crate::routing::Removals;

/// A worker hands over no connection while it has at most this many more than the least busy one: with short
/// connections, the counts always differ a little.
const SLACK: usize = 2;
/// In addition, it may have this fraction more of the least busy worker's connections.
const SLACK_PART: usize = 16;

/// The part of all connections whose hello may be incomplete.
const HELLOS_PART: usize = 4;

/// How often waking a worker for an order is tried. An order is not repeated later.
const WAKE_ATTEMPTS: usize = 10;

/// All workers of a process.
#[derive(Debug)]
pub(super) struct Workers {
    /// The descriptors of all connections.
    pub(super) descriptors: Descriptors,
    /// The hellos of all connections.
    pub(super) hellos: Arc<Hellos>,
    /// The races of all connections.
    pub(super) races: RaceCount,
    /// The sources of all connections that are limited.
    pub(super) sources: Arc<SourceTable>,
    limiters: ListenerLimiters,
    start: Instant,
    handles: Box<[WorkerHandle]>,
}

/// A worker, as other threads see it.
#[derive(Debug)]
pub(super) struct WorkerHandle {
    phase: AtomicU8,
    /// The number of its open connections, including those that were handed over to it and not taken yet.
    /// There is no other counter.
    connections: Arc<ConnectionCount>,
    /// How many of them wait for an endpoint.
    pub(super) connecting: ConnectionCount,
    /// The time at which its last connection was accepted, in milliseconds since the start of the workers.
    accepted: AtomicU64,
    /// Orders and connections for the worker; `None` after it has ended.
    mail: Mutex<Option<Mail>>,
    inbox: Arc<Inbox>,
    heartbeat: Heartbeat,
}

/// The phase of the data plane. It only advances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    /// Serving.
    Open = 0,
    /// New connections are refused; open ones continue.
    Closing = 1,
    /// All connections are reset.
    Aborting = 2,
}

/// Messages from other threads to a worker.
#[derive(Debug, Default)]
pub(super) struct Mail {
    /// Changes of binds, in order.
    pub(super) orders: Vec<BindOrder>,
    /// Connections that were handed to it.
    pub(super) handoffs: Vec<Handoff>,
    /// Addresses that have left their backends, in order.
    pub(super) removals: Vec<Arc<Removals>>,
    /// Whether the worker was woken for this.
    is_announced: bool,
}

/// A change of a bind, for a worker.
#[derive(Debug)]
pub(super) enum BindOrder {
    /// Open the bind, and accept clients.
    Open {
        /// The bind.
        bind: BindId,
        /// The listener of the bind.
        listener: Arc<Listener>,
        /// The worker's own socket.
        socket: ListeningSocket,
        /// Held while the socket is open.
        lease: Arc<()>,
    },
    /// Change the listener for new clients.
    Change {
        /// The bind.
        bind: BindId,
        /// The new listener.
        listener: Arc<Listener>,
    },
    /// Accept the waiting clients, then close the bind.
    Close(BindId),
}

/// A connection that was accepted by another worker.
#[derive(Debug)]
pub(super) struct Handoff {
    /// The listener that accepted it. The other worker may not have this bind.
    pub(super) listener: Arc<Listener>,
    pub(super) client: OwnedFd,
    pub(super) source: SocketAddr,
}

impl Workers {
    /// A handle for each worker; `connections` has the counters.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub(super) fn new(
        connections: impl IntoIterator<Item = Arc<ConnectionCount>>,
        descriptors: Descriptors,
        sources: Arc<SourceTable>,
    ) -> io::Result<Self> {
        let handles: io::Result<Box<[WorkerHandle]>> =
            connections.into_iter().map(WorkerHandle::new).collect();
        let (hellos, limiters) = (Arc::new(Hellos::new()), ListenerLimiters::default());
        let races = RaceCount::default();
        let (start, handles) = (Instant::now(), handles?);
        Ok(Workers { descriptors, hellos, races, sources, limiters, start, handles })
    }

    /// The limiter of a listener.
    pub(super) fn limiter(&self, listener: &Listener) -> Arc<Limiter> {
        self.limiters.of(listener, &self.sources)
    }

    /// The handle of a worker.
    pub(super) fn handle(&self, number: usize) -> Option<&WorkerHandle> {
        self.handles.get(number)
    }

    /// The handles of all workers.
    pub(super) fn handles(&self) -> &[WorkerHandle] {
        &self.handles
    }

    /// Moves all workers on to `phase`.
    pub(super) fn advance(&self, phase: Phase) {
        self.handles.iter().for_each(|handle| handle.advance(phase));
    }

    /// How many connections of one worker may have an incomplete hello, if `most` of all may; a quarter of all,
    /// unless that is given.
    pub(super) fn most_hellos(&self, most: Option<usize>) -> usize {
        let most = most.unwrap_or_else(|| self.descriptors.most_connections() / HELLOS_PART);
        most.div_ceil(self.handles.len().max(1)).max(1)
    }

    /// Tells all workers which addresses have left their backends.
    pub(super) fn tell(&self, removals: &Arc<Removals>) {
        let add = |mail: &mut Mail| mail.removals.push(Arc::clone(removals));
        self.handles.iter().for_each(|handle| handle.post(add));
    }

    /// The total number of open connections.
    pub(super) fn connections(&self) -> usize {
        self.handles.iter().map(WorkerHandle::connections).sum()
    }

    /// The number of connections that wait for an endpoint.
    pub(super) fn connecting(&self) -> usize {
        self.handles.iter().map(|handle| handle.connecting.get()).sum()
    }

    /// The time since any worker last accepted a connection.
    pub(super) fn quiet_for(&self) -> Duration {
        let last = self.handles.iter().map(|handle| handle.accepted.load(Ordering::Relaxed)).max();
        let last = Duration::from_millis(last.unwrap_or_default());
        self.start.elapsed().saturating_sub(last)
    }

    /// Counts a connection of a worker that was accepted at `at`.
    pub(super) fn opened(&self, handle: &WorkerHandle, at: Instant) {
        handle.connections.add(1);
        let at = at.saturating_duration_since(self.start).as_millis();
        handle.accepted.store(u64::try_from(at).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The worker to which worker `number` should hand its next connection, if any.
    pub(super) fn less_busy_than(&self, number: usize) -> Option<&WorkerHandle> {
        let own = self.handles.get(number)?.connections();
        let least = self.handles.iter().min_by_key(|handle| handle.connections())?;
        is_clearly_more(own, least.connections()).then_some(least)
    }
}

fn is_clearly_more(own: usize, least: usize) -> bool {
    own >= least.saturating_add(SLACK + least / SLACK_PART)
}

impl WorkerHandle {
    fn new(connections: Arc<ConnectionCount>) -> io::Result<Self> {
        Ok(WorkerHandle {
            phase: AtomicU8::new(Phase::Open as u8),
            connections,
            connecting: ConnectionCount::default(),
            accepted: AtomicU64::new(0),
            mail: Mutex::new(Some(Mail::default())),
            inbox: Arc::new(Inbox::new()?),
            heartbeat: Heartbeat::default(),
        })
    }

    fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Release);
        let _woken = (0..WAKE_ATTEMPTS).any(|_| self.wake());
    }

    pub(super) fn has_reached(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Acquire) >= phase as u8
    }

    /// How many connections the worker has.
    pub(super) fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Counts a connection as closed.
    pub(super) fn closed(&self) {
        self.connections.subtract(1);
    }

    /// Hands a connection over to the worker. Returns it if the worker has ended or cannot be woken.
    pub(super) fn hand_over(&self, handoff: Handoff) -> Result<(), Handoff> {
        let mut mail = self.mail();
        let Some(waiting) = mail.as_mut() else { return Err(handoff) };
        // The lock is held, so the worker cannot take the mail meanwhile.
        if !waiting.is_announced && !self.wake() {
            return Err(handoff);
        }
        waiting.is_announced = true;
        waiting.handoffs.push(handoff);
        self.connections.add(1);
        Ok(())
    }

    /// Gives the worker an order. A worker that has ended ignores it.
    pub(super) fn order(&self, order: BindOrder) {
        self.post(|mail| mail.orders.push(order));
    }

    /// Adds a message that is not repeated later. A worker that has ended gets none.
    fn post(&self, add: impl FnOnce(&mut Mail)) {
        if let Some(waiting) = self.mail().as_mut() {
            add(waiting);
            waiting.is_announced |= (0..WAKE_ATTEMPTS).any(|_| self.wake());
        }
    }

    /// Takes the messages since the last call, and subtracts their connections from the count.
    pub(super) fn take(&self) -> Mail {
        self.uncounted(self.mail().as_mut().map(std::mem::take))
    }

    /// Takes the last messages. The worker accepts none after that.
    pub(super) fn take_last(&self) -> Mail {
        self.uncounted(self.mail().take())
    }

    fn uncounted(&self, mail: Option<Mail>) -> Mail {
        let mail = mail.unwrap_or_default();
        self.connections.subtract(mail.handoffs.len());
        mail
    }

    /// The inbox of the worker's reactor.
    pub(super) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Requests an answer from the worker, to check that it runs.
    pub(super) fn ask(&self) {
        self.heartbeat.ask();
        self.wake();
    }

    /// Whether the worker has answered the last request.
    pub(super) fn has_answered(&self) -> bool {
        self.heartbeat.is_answered()
    }

    /// Answers, on the worker's own thread.
    pub(super) fn answer(&self) {
        self.heartbeat.answer();
    }

    /// Wakes the worker. Returns whether that succeeded.
    fn wake(&self) -> bool {
        self.inbox.wake_main()
    }

    fn mail(&self) -> MutexGuard<'_, Option<Mail>> {
        // No code panics while it holds the lock.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;
    use crate::config::ListenerConfig;

    fn workers(connections: &[usize]) -> Workers {
        let counter = |count: &usize| {
            let connections = Arc::<ConnectionCount>::default();
            (0..*count).for_each(|_| connections.add(1));
            connections
        };
        Workers::new(
            connections.iter().map(counter),
            Descriptors::new(Some(1000), 1),
            Arc::default(),
        )
        .expect("events")
    }

    fn handoff(listener: &str) -> Handoff {
        let client = eventfd(0, EventfdFlags::CLOEXEC).expect("some descriptor");
        let source = ([127, 0, 0, 1], 1).into();
        let listener = Arc::new(Listener::of(&ListenerConfig::new(listener, source)));
        Handoff { listener, client, source }
    }

    #[test]
    fn a_clearly_busier_worker_hands_over_to_the_least_busy_one() {
        for (connections, by, to) in [
            (&[1, 0][..], 0, None),
            (&[2, 0], 0, Some(1)),
            (&[2, 0], 1, None),
            (&[33, 32], 0, None),
            (&[35, 32], 0, None),
            (&[36, 32], 0, Some(1)),
            (&[9, 7, 5, 8], 0, Some(2)),
            (&[9, 7, 5, 8], 1, Some(2)),
            (&[9, 7, 5, 8], 2, None),
            (&[100_000, 90_000], 0, Some(1)),
            (&[50], 0, None),
        ] {
            let workers = workers(connections);
            let chosen = workers.less_busy_than(by);
            let place = chosen.and_then(|chosen| {
                workers.handles.iter().position(|handle| std::ptr::eq(handle, chosen))
            });
            assert_eq!(place, to, "{connections:?} by {by}");
        }
    }

    #[test]
    fn a_handed_over_connection_counts_and_is_taken_once() {
        let workers = workers(&[0]);
        let handle = workers.handle(0).expect("a worker");
        for listener in ["a", "b"] {
            handle.hand_over(handoff(listener)).expect("it takes");
        }
        assert_eq!((handle.connections(), workers.connections()), (2, 2));
        let taken = handle.take().handoffs.into_iter().map(|taken| taken.listener.name.clone());
        assert_eq!(taken.collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(handle.connections(), 0);
        assert!(handle.take().handoffs.is_empty());
        handle.hand_over(handoff("c")).expect("it still takes");
        assert_eq!(handle.take_last().handoffs.len(), 1);
        assert_eq!(handle.hand_over(handoff("d")).expect_err("it is over").listener.name, "d");
        assert_eq!(handle.connections(), 0);
    }
}
