//! The limit on file descriptors, for the connections of all workers.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::pipes::PipeQuota;

/// Descriptors that are reserved for everything else: the admin port, manifests, logs.
const RESERVED: usize = 128;
/// Active health checks have at most an eighth of the limit, and never more than this.
const CHECKS_PART: usize = 8;
const MOST_CHECKS: usize = 640;
/// A connection has two sockets.
const A_CONNECTION: usize = 2;
/// A worker's own descriptors: epoll, timer, eventfd, a netlink socket, and one temporary one.
const A_WORKER: usize = 5;
/// The last quarter is reserved for clients: additional attempts to connect do not use it.
const KEPT_FOR_CLIENTS: usize = 4;

/// The limit on descriptors for connections. The number in use is computed from the number of connections.
#[derive(Debug)]
pub(super) struct Descriptors {
    /// The limit of the process; `None` is no limit.
    limit: Option<usize>,
    /// Reserved for everything but connections and binds.
    reserved: usize,
    workers: usize,
    binds: AtomicUsize,
    /// Descriptors for additional attempts, beyond the two of each connection.
    spares: AtomicUsize,
}

impl Descriptors {
    /// The descriptors of a process with this limit.
    pub(super) fn new(limit: Option<usize>, workers: usize) -> Self {
        let pipes = 2 * PipeQuota::of(workers).pipes;
        let reserved = RESERVED + of_checks(limit) + workers * (A_WORKER + pipes);
        let (binds, spares) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Descriptors { limit, reserved, workers, binds, spares }
    }

    /// The descriptors of this process, after raising its soft limit to the hard limit.
    pub(super) fn of_this_process(workers: usize) -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let limit = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            Err(_) => limit.current,
        };
        Descriptors::new(limit.and_then(|limit| usize::try_from(limit).ok()), workers)
    }

    /// The maximum number for active health checks.
    pub(super) fn of_checks(&self) -> usize {
        of_checks(self.limit)
    }

    /// Sets the number of binds. Each worker has a socket for each bind.
    pub(super) fn set_binds(&self, binds: usize) {
        self.binds.store(binds, Ordering::Relaxed);
    }

    /// The maximum number of connections at a time.
    pub(super) fn most_connections(&self) -> usize {
        (self.most() / A_CONNECTION).max(1)
    }

    /// Whether this number of connections exceeds the limit.
    pub(super) fn are_exceeded_by(&self, connections: usize) -> bool {
        let most = self.most().max(A_CONNECTION);
        connections.saturating_mul(A_CONNECTION) + self.spares.load(Ordering::Relaxed) > most
    }

    /// Takes a descriptor for an additional attempt, if this number of connections leaves enough.
    pub(super) fn take_spare(&self, connections: usize) -> Option<SpareDescriptor<'_>> {
        let most = self.most() - self.most() / KEPT_FOR_CLIENTS;
        let taken = connections.saturating_mul(A_CONNECTION);
        let one_more = |spares: usize| (taken + spares < most).then_some(spares + 1);
        self.spares.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(SpareDescriptor(self))
    }

    /// The number of descriptors for connections.
    fn most(&self) -> usize {
        let Some(limit) = self.limit else { return usize::MAX };
        let sockets = self.workers * self.binds.load(Ordering::Relaxed);
        // With very few descriptors, there is no room for pipes, and bytes are copied instead.
        limit.saturating_sub(self.reserved + sockets).max(limit / 4)
    }
}

fn of_checks(limit: Option<usize>) -> usize {
    limit.map_or(MOST_CHECKS, |limit| (limit / CHECKS_PART).clamp(1, MOST_CHECKS))
}

/// A descriptor for an additional attempt; given back on drop.
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

    /// So few descriptors that a quarter of them is for connections.
    fn for_connections(most: usize) -> Descriptors {
        let descriptors = Descriptors::new(Some(4 * A_CONNECTION * most), 1);
        assert_eq!(descriptors.most_connections(), most);
        descriptors
    }

    #[test]
    fn additional_attempts_leave_a_quarter_of_the_descriptors() {
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
    fn checks_have_an_eighth_of_the_descriptors_and_none_that_connections_have() {
        let of = |limit| Descriptors::new(limit, 1);
        assert_eq!([8_000, 1_024, 4].map(|limit| of(Some(limit)).of_checks()), [640, 128, 1]);
        assert_eq!(of(None).of_checks(), 640);
        let [few, more] = [2_000, 2_800].map(|limit| of(Some(limit)));
        let connections = [&few, &more].map(|one| A_CONNECTION * one.most_connections());
        assert_eq!(connections[1] - connections[0], 800 - (more.of_checks() - few.of_checks()));
    }

    #[test]
    fn binds_reduce_the_descriptors_for_connections() {
        let descriptors = Descriptors::new(Some(100_000), 2);
        let before = descriptors.most_connections();
        descriptors.set_binds(10);
        assert_eq!(descriptors.most_connections(), before - 10);
        descriptors.set_binds(0);
        assert_eq!(descriptors.most_connections(), before);
    }
}
