//! A connection to one of a route's endpoints.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;
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
/// promised anything yet. Gives up as soon as `downstream`, the client, is gone.
pub(super) async fn connect(
    worker: &Worker,
    route: &Route,
    downstream: &Socket,
    record: &mut Record,
) -> Result<Upstream, Outcome> {
    let mut tried = Vec::new();
    let mut failure = Outcome::NoEndpoints;
    while tried.len() < ATTEMPTS {
        let source = record.source().ip();
        let Some(active) = balance::choose(route, source, &tried, worker.random()) else { break };
        let address = active.endpoint().address;
        record.trying(address);
        let begun = Instant::now();
        match attempt(worker, route, downstream, address).await {
            Ok(socket) => {
                worker.metrics.connect_duration.observe(begun.elapsed().as_secs_f64());
                return Ok(Upstream { socket, _active: active });
            }
            Err(end @ (Outcome::DownstreamReset | Outcome::Drained)) => return Err(end),
            Err(outcome) => failure = outcome,
        }
        tried.push(address);
    }
    Err(failure)
}

async fn attempt(
    worker: &Worker,
    route: &Route,
    downstream: &Socket,
    address: SocketAddr,
) -> Result<Socket, Outcome> {
    let failed = |error: io::Error| {
        let route = &route.spec.key;
        tracing::debug!(%route, endpoint = %address, %error, "cannot connect");
        Outcome::ConnectFailed
    };
    let socket = begin(worker, address).map_err(failed)?;
    let connected = poll_fn(|_| match downstream.is_broken() {
        // That the client has merely said all it has to say changes nothing.
        true => Poll::Ready(Err(Outcome::DownstreamReset)),
        false => socket.poll_connected().map_err(failed),
    });
    let limit = route.spec.timeouts.connect.unwrap_or(worker.settings.timeouts.connect);
    match worker.reactor.within(limit, connected).await {
        Ok(connected) => connected.map(|()| socket),
        Err(Interrupted::Elapsed) => Err(Outcome::ConnectTimeout),
        Err(Interrupted::Cancelled) => Err(Outcome::Drained),
    }
}

fn begin(worker: &Worker, address: SocketAddr) -> io::Result<Socket> {
    // An IPv4 address in the form of IPv6 (RFC 4291 §2.5.5.2) is IPv4 to the kernel too.
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    worker.judge(address).map_err(|why| io::Error::other(format!("{address} {why}")))?;
    Socket::connect(&worker.reactor, address)
}
