//! One attempt to connect to an endpoint, and what it shows about the endpoint's health.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::context::Context;
use super::endpoint_tls::EndpointTls;
use super::reactor::Interrupted;
use super::refuse::Refusal;
use super::relay::Answer;
use super::socket::Socket;
use super::stream::{HandshakeFault, Stream};
use crate::reach;
use crate::routing::{ActiveConnection, Endpoint, Moment, Route};

/// How long an endpoint may be silent before that shows something about it, whatever a route waits.
const SILENCE: Duration = Duration::from_millis(300);

/// An endpoint that answers within this time is taken to be on the same machine.
const QUICK: Duration = Duration::from_micros(50);

/// An open connection to an endpoint. The endpoint counts it as active until this is dropped.
pub(super) struct Upstream {
    pub(super) stream: Stream,
    active: ActiveConnection,
}

impl Upstream {
    /// Records what the endpoint did first. An early close counts only for a `client` that has sent a hello: a
    /// server of another protocol may have nothing to say.
    pub(super) fn answered(
        &self,
        context: &Context,
        route: &Route,
        answer: Answer,
        client: Option<IpAddr>,
    ) {
        match (answer, client) {
            (Answer::Byte, _) => self.active.endpoint().answered(),
            (Answer::EarlyClose, None) => {}
            (Answer::EarlyClose, Some(client)) => {
                let rule = route.spec.policy.ejection();
                let ejected = self.active.closed_early(client, Moment::now(), rule);
                let endpoint = self.active.endpoint().address;
                ejected.into_iter().for_each(|ejected| context.ejected(route, endpoint, ejected));
            }
        }
    }
}

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectFailure {
    /// The endpoint refused, or cannot be reached.
    Failed,
    /// It did not answer in time.
    TimedOut,
    /// The kernel has no route to it.
    Unrouted,
    /// The endpoint is forbidden.
    Refused,
    /// This machine has no local port left for this address; another endpoint may still work.
    Ports,
    /// This process or machine is out of descriptors or memory, for any endpoint.
    Exhausted,
}

/// A connection that is being opened to an endpoint.
pub(super) struct Attempt {
    stream: Stream,
    /// The TLS that follows, if the route asks for it.
    tls: Option<Box<EndpointTls>>,
    active: ActiveConnection,
    begun: Instant,
}

impl Attempt {
    /// Starts to connect, and then TLS if there is one to begin. If that fails, the endpoint's health is updated.
    pub(super) fn begin(
        context: &Context,
        route: &Route,
        active: ActiveConnection,
        tls: Option<Box<EndpointTls>>,
    ) -> Result<Self, ConnectFailure> {
        let begun = Instant::now();
        let address = active.endpoint().address;
        let failure = match begin(context, address) {
            Ok(socket) => {
                return Ok(Attempt { stream: Stream::new(socket), tls, active, begun });
            }
            Err(StartError::Refused(refusal)) => {
                log_failure(route, address, &refusal);
                ConnectFailure::Refused
            }
            Err(StartError::Failed(error)) => {
                log_failure(route, address, &error);
                failure_of(address, &error)
            }
        };
        let now = Moment::of(begun);
        match failure {
            ConnectFailure::Failed => count_failure(context, route, &active, now),
            ConnectFailure::Unrouted => active.settle(|endpoint| endpoint.unrouted(now)),
            ConnectFailure::Refused => active.settle(|endpoint| endpoint.refused(now)),
            ConnectFailure::TimedOut | ConnectFailure::Ports | ConnectFailure::Exhausted => {}
        }
        Err(failure)
    }

    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// How long the endpoint has been silent, or is being spoken to. The time in which TLS with it waits for its turn
    /// does not count.
    pub(super) fn silence(&self) -> Duration {
        self.begun.elapsed().saturating_sub(self.held_back())
    }

    /// How long TLS with the endpoint has waited for its turns.
    pub(super) fn held_back(&self) -> Duration {
        self.tls.as_ref().map(|tls| tls.waited()).unwrap_or_default()
    }

    /// Whether the endpoint's last answer was fast enough to be from the same machine.
    pub(super) fn is_quick(&self) -> bool {
        self.tls.is_none() && self.active.endpoint().is_quick()
    }

    /// Why TLS has failed, if it has, once.
    pub(super) fn take_fault(&self) -> Option<HandshakeFault> {
        self.tls.as_ref()?.take_fault()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.active.endpoint().address
    }

    /// Whether the connection is open (`true`) or has failed (`false`). An error if the client is gone.
    pub(super) fn poll(
        &self,
        context: &Context,
        route: &Route,
        downstream: &Stream,
    ) -> Poll<Result<bool, Refusal>> {
        // The endpoint's health is updated even if the client is gone.
        let connected = self.poll_connected(context, route);
        // A client that has only closed its sending side is still served.
        if downstream.socket().is_broken() {
            self.stream.socket().reset_on_close();
            return Poll::Ready(Err(Refusal::ClientGone));
        }
        connected.map(Ok)
    }

    /// Whether the connection is open, with its TLS, or has failed, whatever becomes of the client.
    fn poll_connected(&self, context: &Context, route: &Route) -> Poll<bool> {
        let is_open = ready!(self.poll_open(route));
        let is_connected = match &self.tls {
            Some(tls) if is_open => ready!(tls.poll(context, route, &self.stream)),
            _ => is_open,
        };
        match is_connected {
            true => self.active.settle(Endpoint::succeeded),
            false => count_failure(context, route, &self.active, Moment::now()),
        }
        Poll::Ready(is_connected)
    }

    /// Whether the connection is open or has failed, without its TLS.
    fn poll_open(&self, route: &Route) -> Poll<bool> {
        if self.stream.as_plain().is_none() {
            return Poll::Ready(true);
        }
        self.stream.socket().poll_connected().map(|connected| {
            connected.inspect_err(|error| log_failure(route, self.address(), error)).is_ok()
        })
    }

    /// Polls now and in the next turn, without a deadline: an endpoint on the same machine has answered by
    /// then, so no timer is needed. If it has not, the endpoint no longer counts as quick.
    pub(super) async fn look(
        &self,
        context: &Context,
        route: &Route,
        downstream: &Stream,
    ) -> Option<Result<bool, Refusal>> {
        let mut looked = false;
        poll_fn(|_| {
            match (self.poll(context, route, downstream), std::mem::replace(&mut looked, true)) {
                (Poll::Ready(answer), _) => Poll::Ready(Some(answer)),
                (Poll::Pending, true) => {
                    self.active.endpoint().set_quick(false);
                    Poll::Ready(None)
                }
                (Poll::Pending, false) => {
                    context.reactor.wake_current();
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Makes other clients avoid the endpoint, if it was silent for [`SILENCE`]. The attempt goes on, so it
    /// has not failed yet.
    pub(super) fn fall_silent(&self) {
        if self.silence() >= SILENCE {
            self.active.settle(|endpoint| endpoint.failed(Moment::now()));
        }
    }

    /// Ends an attempt that took too long for its client. It counts as failed only if the endpoint was silent
    /// for [`SILENCE`]: the short timeout of one route must not affect other routes.
    pub(super) fn give_up(self, context: &Context, route: &Route) {
        if self.silence() >= SILENCE {
            count_failure(context, route, &self.active, Moment::now());
        }
    }

    /// Ends an attempt that has lost a race. If the race began so early that the endpoint has not been silent
    /// for [`SILENCE`], it gets the rest of that time to answer: otherwise a route that does not wait for long
    /// would never find out that it is dead.
    pub(super) fn lose(self, context: &Rc<Context>, route: &Arc<Route>) {
        let rest = SILENCE.saturating_sub(self.silence());
        if rest.is_zero() {
            return self.give_up(context, route);
        }
        let (context, route) = (Rc::clone(context), Arc::clone(route));
        let reactor = Rc::clone(&context.reactor);
        reactor.spawn(async move {
            let Some(_spare) = context.take_spare() else { return };
            let answer = poll_fn(|_| match self.tls {
                None => self.poll_connected(&context, &route),
                // That it is open shows nothing about its TLS.
                Some(_) => self.poll_open(&route),
            });
            let answer = context.reactor.within(rest + Duration::from_millis(1), answer).await;
            if matches!(answer, Err(Interrupted::Elapsed)) {
                self.give_up(&context, &route);
            }
        });
    }

    /// Turns the attempt into an open connection.
    pub(super) fn succeed(self, context: &Context) -> Upstream {
        let took = self.begun.elapsed();
        if took < QUICK {
            self.active.endpoint().set_quick(true);
        }
        context.metrics.durations.connect.observe(took.as_secs_f64());
        if let Some(ring) = self.active.ring() {
            context.metrics.locality.of(ring).inc();
        }
        Upstream { stream: self.stream, active: self.active }
    }
}

/// Counts a failed attempt, and reports the ejection that begins with it.
fn count_failure(context: &Context, route: &Route, active: &ActiveConnection, now: Moment) {
    let rule = route.spec.policy.ejection();
    let ejected = active.settle(|endpoint| endpoint.count_failure(now, rule));
    if let Some(ejected) = ejected {
        context.ejected(route, active.endpoint().address, ejected);
    }
}

fn log_failure(route: &Route, endpoint: SocketAddr, error: &dyn fmt::Display) {
    let route = &route.spec.key;
    tracing::debug!(%route, %endpoint, %error, "cannot connect");
}

/// Why an attempt could not start.
enum StartError {
    /// The address is forbidden.
    Refused(reach::EndpointRefusal),
    /// The kernel refused.
    Failed(io::Error),
}

fn begin(context: &Context, address: SocketAddr) -> Result<Socket, StartError> {
    // The kernel treats an IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2) as IPv4.
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    context.judge(address).map_err(StartError::Refused)?;
    Socket::connect(&context.reactor, address).map_err(StartError::Failed)
}

/// The failure for an error that occurred before anything was sent.
fn failure_of(address: SocketAddr, error: &io::Error) -> ConnectFailure {
    match Errno::from_io_error(error) {
        // There is no route, or one of the type `unreachable`, `prohibit` or `blackhole`. Errors of routers
        // arrive later, as an answer.
        Some(
            Errno::NETUNREACH
            | Errno::AFNOSUPPORT
            | Errno::HOSTUNREACH
            | Errno::ACCESS
            | Errno::INVAL,
        ) => ConnectFailure::Unrouted,
        // No local port is left, or there is no source address.
        Some(Errno::ADDRNOTAVAIL) => match has_source(address) {
            true => ConnectFailure::Ports,
            false => ConnectFailure::Unrouted,
        },
        // `ENOSPC` means that the epoll watches are exhausted (`fs.epoll.max_user_watches`).
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::NOSPC) => {
            ConnectFailure::Exhausted
        }
        _ => ConnectFailure::Failed,
    }
}

/// Whether this machine has a source address for packets to `address`. Sends nothing.
fn has_source(address: SocketAddr) -> bool {
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(any).and_then(|socket| socket.connect(address)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_of_the_endpoint_itself_affect_its_health() {
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let of = |errno: Errno| failure_of(address, &io::Error::from(errno));
        for errno in [Errno::CONNREFUSED, Errno::PERM, Errno::TIMEDOUT] {
            assert_eq!(of(errno), ConnectFailure::Failed, "{errno}");
        }
        for errno in [Errno::NETUNREACH, Errno::AFNOSUPPORT, Errno::HOSTUNREACH, Errno::ACCESS] {
            assert_eq!(of(errno), ConnectFailure::Unrouted, "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::NOSPC] {
            assert_eq!(of(errno), ConnectFailure::Exhausted, "{errno}");
        }
        // There is a source address, so a port is missing.
        assert_eq!(of(Errno::ADDRNOTAVAIL), ConnectFailure::Ports);
        assert_eq!(failure_of(address, &io::Error::other("refused by us")), ConnectFailure::Failed);
    }
}
