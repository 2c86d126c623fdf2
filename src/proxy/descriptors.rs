//! The descriptors that connections may take, those of all workers together.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::relay::Allowance;

/// Descriptors that connections leave to everything else: the admin port, manifests, logs.
const RESERVED: usize = 128;
/// A connection has a socket on either side.
const A_CONNECTION: usize = 2;
/// What a worker has besides: an epoll, its timer, an eventfd and a way to ask whose an address is;
/// and for a moment, one more to ask with.
const A_WORKER: usize = 5;
/// The last quarter is for clients: an attempt to connect that only shortens a wait takes none of it.
const KEPT_FOR_CLIENTS: usize = 4;

/// How many descriptors connections take, and how many they may.
#[derive(Debug)]
pub(super) struct Descriptors {
    most: usize,
    taken: AtomicUsize,
}

impl Descriptors {
    /// Those for `most` connections.
    pub(super) fn of_connections(most: usize) -> Self {
        Descriptors { most: most.saturating_mul(A_CONNECTION), taken: AtomicUsize::new(0) }
    }

    /// Takes those of a connection, whether there are any left or not.
    pub(super) fn take_for_connection(&self) {
        self.taken.fetch_add(A_CONNECTION, Ordering::Relaxed);
    }

    /// Gives back those of a connection.
    pub(super) fn give_back_connection(&self) {
        self.taken.fetch_sub(A_CONNECTION, Ordering::Relaxed);
    }

    /// Whether more are taken than there are.
    pub(super) fn are_exceeded(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > self.most
    }

    /// Takes one for a second socket on the same side, if there are plenty.
    pub(super) fn take_spare(&self) -> Option<Spare<'_>> {
        let most = self.most - self.most / KEPT_FOR_CLIENTS;
        let one_more = |taken: usize| (taken < most).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Spare(self))
    }
}

/// A descriptor beyond the two of a connection, for as long as this lives.
#[derive(Debug)]
pub(super) struct Spare<'a>(&'a Descriptors);

impl Drop for Spare<'_> {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many connections the process has descriptors for, after raising its soft limit as far as it
/// may.
pub(super) fn most_connections(workers: usize, listeners: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let Some(descriptors) = limit.and_then(|limit| usize::try_from(limit).ok()) else {
        return usize::MAX;
    };
    let pipes = 2 * workers * Allowance::of(workers).pipes;
    let left = descriptors.saturating_sub(RESERVED + pipes + workers * (listeners + A_WORKER));
    // With very few descriptors, pipes have to give way, as they do: without one, bytes are copied.
    let least = descriptors / 4;
    (left.max(least) / A_CONNECTION).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spares_leave_the_last_quarter_to_connections() {
        let descriptors = Descriptors::of_connections(4);
        descriptors.take_for_connection();
        let spares: Vec<_> = std::iter::from_fn(|| descriptors.take_spare()).collect();
        assert_eq!(spares.len(), 4);
        descriptors.take_for_connection();
        assert!(!descriptors.are_exceeded() && descriptors.take_spare().is_none());
        descriptors.take_for_connection();
        assert!(descriptors.are_exceeded());
        drop(spares);
        assert!(!descriptors.are_exceeded() && descriptors.take_spare().is_none());
        descriptors.give_back_connection();
        assert!(descriptors.take_spare().is_some());
        // Without a limit, there are always plenty.
        assert!(Descriptors::of_connections(usize::MAX).take_spare().is_some());
    }
}
