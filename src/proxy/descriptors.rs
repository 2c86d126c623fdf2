//! The descriptors that connections may take, those of all workers together.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::pipes::PipeQuota;

/// Descriptors that connections leave to everything else: the admin port, manifests, logs.
const RESERVED: usize = 128;
/// A connection has a socket on either side.
const A_CONNECTION: usize = 2;
/// What a worker has besides: an epoll, its timer, an eventfd and a way to ask whose an address is;
/// and for a moment, one more to ask with.
const A_WORKER: usize = 5;
/// The last quarter is for clients: an attempt to connect that only shortens a wait takes none of it.
const KEPT_FOR_CLIENTS: usize = 4;

/// How many descriptors connections may take. How many they take follows from how many there are.
#[derive(Debug)]
pub(super) struct Descriptors {
    /// What the process may have; `None` is as many as it likes.
    limit: Option<usize>,
    /// What is taken by everything but connections and binds.
    reserved: usize,
    workers: usize,
    binds: AtomicUsize,
    /// Taken beyond the two of each connection.
    spares: AtomicUsize,
}

impl Descriptors {
    /// Those of a process that may have `limit`.
    pub(super) fn new(limit: Option<usize>, workers: usize) -> Self {
        let pipes = 2 * PipeQuota::of(workers).pipes;
        let reserved = RESERVED + workers * (A_WORKER + pipes);
        let (binds, spares) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Descriptors { limit, reserved, workers, binds, spares }
    }

    /// Those of this process, after raising its soft limit as far as it may.
    pub(super) fn of_this_process(workers: usize) -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let limit = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            Err(_) => limit.current,
        };
        Descriptors::new(limit.and_then(|limit| usize::try_from(limit).ok()), workers)
    }

    /// Notes how many binds there are. Each worker has a socket of each.
    pub(super) fn set_binds(&self, binds: usize) {
        self.binds.store(binds, Ordering::Relaxed);
    }

    /// How many connections there may be at the same time.
    pub(super) fn most_connections(&self) -> usize {
        (self.most() / A_CONNECTION).max(1)
    }

    /// Whether so many connections take more than there are.
    pub(super) fn are_exceeded_by(&self, connections: usize) -> bool {
        let most = self.most().max(A_CONNECTION);
        connections.saturating_mul(A_CONNECTION) + self.spares.load(Ordering::Relaxed) > most
    }

    /// Takes one for a second socket on the same side, if so many connections leave plenty.
    pub(super) fn take_spare(&self, connections: usize) -> Option<SpareDescriptor<'_>> {
        let most = self.most() - self.most() / KEPT_FOR_CLIENTS;
        let taken = connections.saturating_mul(A_CONNECTION);
        let one_more = |spares: usize| (taken + spares < most).then_some(spares + 1);
        self.spares.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(SpareDescriptor(self))
    }

    /// What is left for connections.
    fn most(&self) -> usize {
        let Some(limit) = self.limit else { return usize::MAX };
        let sockets = self.workers * self.binds.load(Ordering::Relaxed);
        // With very few descriptors, pipes have to give way, as they do: without one, bytes are copied.
        limit.saturating_sub(self.reserved + sockets).max(limit / 4)
    }
}

/// A descriptor beyond the two of a connection, for as long as this lives.
#[derive(Debug)]
pub(super) struct SpareDescriptor<'a>(&'a Descriptors);

impl Drop for SpareDescriptor<'_> {
    fn drop(&mut self) {
        self.0.spares.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of so few, a quarter is for connections.
    fn for_connections(most: usize) -> Descriptors {
        let descriptors = Descriptors::new(Some(4 * A_CONNECTION * most), 1);
        assert_eq!(descriptors.most_connections(), most);
        descriptors
    }

    #[test]
    fn spares_leave_the_last_quarter_to_connections() {
        let descriptors = for_connections(4);
        let spares: Vec<_> = std::iter::from_fn(|| descriptors.take_spare(1)).collect();
        assert_eq!(spares.len(), 4);
        assert!(!descriptors.are_exceeded_by(2) && descriptors.take_spare(2).is_none());
        assert!(descriptors.are_exceeded_by(3));
        drop(spares);
        assert!(!descriptors.are_exceeded_by(3) && descriptors.take_spare(3).is_none());
        assert!(descriptors.take_spare(2).is_some());
        // Without a limit, there are always plenty.
        assert!(Descriptors::new(None, 1).take_spare(1_000_000).is_some());
    }

    #[test]
    fn binds_take_from_what_connections_may_have() {
        let descriptors = Descriptors::new(Some(100_000), 2);
        let before = descriptors.most_connections();
        descriptors.set_binds(10);
        assert_eq!(descriptors.most_connections(), before - 10);
        descriptors.set_binds(0);
        assert_eq!(descriptors.most_connections(), before);
    }
}
