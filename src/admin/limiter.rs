//! The limit on open connections of the admin port.
//!
//! At the limit, a new connection is accepted and another one is closed: the oldest of the address with the
//! most connections. If new connections were refused or left in the backlog, one client with idle
//! connections could keep out every probe.

use std::future::Future;
use std::net::IpAddr;

use tokio::task::{AbortHandle, JoinSet};

/// The open connections, up to a limit.
pub(super) struct ConnectionLimiter {
    limit: usize,
    tasks: JoinSet<()>,
    /// In the order of their arrival.
    connections: Vec<LimitedConnection>,
}

struct LimitedConnection {
    peer: IpAddr,
    task: AbortHandle,
}

impl ConnectionLimiter {
    /// A limiter without connections. A limit of 0 counts as 1.
    pub(super) fn new(limit: usize) -> Self {
        ConnectionLimiter { limit: limit.max(1), tasks: JoinSet::new(), connections: Vec::new() }
    }

    /// Runs the connection of `peer`, and closes another if there are too many.
    pub(super) fn admit(
        &mut self,
        peer: IpAddr,
        connection: impl Future<Output = ()> + Send + 'static,
    ) {
        while self.tasks.try_join_next().is_some() {}
        self.connections.retain(|connection| !connection.task.is_finished());
        if self.connections.len() >= self.limit
            && let Some(index) = self.supernumerary()
        {
            self.connections.remove(index).task.abort();
        }
        let task = self.tasks.spawn(connection);
        self.connections.push(LimitedConnection { peer, task });
    }

    /// The oldest connection of the address that has the most connections.
    fn supernumerary(&self) -> Option<usize> {
        let connections_of = |peer: IpAddr| {
            self.connections.iter().filter(|connection| connection.peer == peer).count()
        };
        // Of several maxima, the last is taken; in reverse order, that is the oldest.
        let (index, _) = self
            .connections
            .iter()
            .enumerate()
            .rev()
            .max_by_key(|(_, connection)| connections_of(connection.peer))?;
        Some(index)
    }

    /// Waits until all connections have ended. Each has its own deadlines.
    pub(super) async fn ended(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter_of(peers: &[u8]) -> ConnectionLimiter {
        let mut limiter = ConnectionLimiter::new(peers.len());
        for last in peers {
            limiter.admit([10, 0, 0, *last].into(), std::future::pending());
        }
        limiter
    }

    #[tokio::test]
    async fn the_oldest_of_the_busiest_address_makes_room() {
        for (peers, index) in [
            (&[1, 2, 3][..], 0),
            (&[1, 2, 2], 1),
            (&[1, 1, 2], 0),
            (&[3, 1, 2, 1, 2, 2], 2),
            (&[1, 2, 1, 2], 0),
        ] {
            assert_eq!(limiter_of(peers).supernumerary(), Some(index), "{peers:?}");
        }
    }

    #[tokio::test]
    async fn there_are_never_more_than_the_limit() {
        let mut limiter = limiter_of(&[1, 2, 2]);
        for _ in 0..10 {
            limiter.admit([10, 0, 0, 2].into(), std::future::pending());
            assert_eq!(limiter.connections.len(), 3);
        }
        assert_eq!(limiter.connections[0].peer, IpAddr::from([10, 0, 0, 1]), "one of a kind stays");
    }

    #[tokio::test]
    async fn an_ended_connection_makes_room_without_closing_another() {
        let mut limiter = limiter_of(&[1, 1]);
        limiter.connections[1].task.abort();
        while !limiter.connections[1].task.is_finished() {
            tokio::task::yield_now().await;
        }
        limiter.admit([10, 0, 0, 2].into(), std::future::pending());
        assert_eq!(limiter.connections.len(), 2);
        assert!(!limiter.connections[0].task.is_finished());
    }
}
