//! A connection to one of a route's endpoints.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::balance;
use super::reactor::Interrupted;
use super::record::Record;
use super::socket::Socket;
use super::worker::Worker;
use crate::outcome::Outcome;
use crate::routing::{ActiveConnection, Route};

/// How many endpoints are tried for one client.
const ATTEMPTS: usize = 3;

/// An endpoint's socket, counted by the endpoint as long as this lives.
pub(super) struct Upstream {
    pub(super) socket: Socket,
    _active: ActiveConnection,
}

/// Connects to an endpoint of `route`; if that fails, to another, for the client has not been
/// promised anything yet.
pub(super) async fn connect(
    worker: &Worker,
    route: &Route,
    record: &mut Record,
) -> Result<Upstream, Outcome> {
    let limit = route.spec.timeouts.connect.unwrap_or(worker.settings.timeouts.connect);
    let mut tried = Vec::new();
    let mut failure = Outcome::NoEndpoints;
    while tried.len() < ATTEMPTS {
        let source = record.source().ip();
        let Some(active) = balance::choose(route, source, &tried, worker.random()) else { break };
        let address = active.endpoint().address;
        record.trying(address);
        let begun = Instant::now();
        match worker.reactor.within(limit, attempt(worker, address)).await {
            Ok(Ok(socket)) => {
                worker.metrics.connect_duration.observe(begun.elapsed().as_secs_f64());
                return Ok(Upstream { socket, _active: active });
            }
            Ok(Err(error)) => {
                let route = &route.spec.key;
                tracing::debug!(%route, endpoint = %address, %error, "cannot connect");
                failure = Outcome::ConnectFailed;
            }
            Err(Interrupted::Elapsed) => failure = Outcome::ConnectTimeout,
            Err(Interrupted::Cancelled) => return Err(Outcome::Drained),
        }
        tried.push(address);
    }
    Err(failure)
}

async fn attempt(worker: &Worker, address: SocketAddr) -> io::Result<Socket> {
    if worker.is_own(address) {
        return Err(io::Error::other("the endpoint is sluice itself"));
    }
    let socket = Socket::connect(&worker.reactor, address)?;
    poll_fn(|_| socket.poll_connected()).await?;
    Ok(socket)
}
