//! A connection to one of a route's endpoints.
//!
//! Nearly always the first endpoint answers at once, and nothing else happens. If it does not, the
//! search goes on in [`Race`], which has memory of its own.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::balance::{Wish, choose};
use super::race::Race;
use super::reactor::Interrupted;
use super::record::Record;
use super::socket::Socket;
use super::worker::Worker;
use crate::outcome::Outcome;
use crate::routing::{ActiveConnection, Moment, Route};

/// How long an endpoint may be silent before another is tried beside it.
pub(super) const SILENCE: Duration = Duration::from_millis(300);

/// The precision of the first such deadline. Every connection has it, and nearly none meets it, so
/// many share one time at which the worker is woken.
const SILENCE_STEP: u64 = 100;

/// An endpoint's socket, counted by the endpoint as long as this lives.
pub(super) struct Upstream {
    pub(super) socket: Socket,
    _active: ActiveConnection,
}

/// Connects to an endpoint of `route`; if that fails or takes long, to another, for the client has
/// not been promised anything yet. Gives up as soon as `downstream`, the client, is gone.
pub(super) async fn connect(
    worker: &Worker,
    route: &Route,
    downstream: &Socket,
    record: &mut Record,
) -> Result<Upstream, Outcome> {
    let wish = Wish::new(record.source().ip(), &[], worker.random());
    let Some(active) = choose(route, &wish) else { return Err(Outcome::NoEndpoints) };
    record.trying(active.endpoint().address);
    let limit = worker.settings.timeouts.connect_of(route.spec.timeouts.connect);
    let first = match Attempt::begin(worker, route, active) {
        Ok(attempt) => {
            let patience = patience(worker);
            let answer = match attempt.look(worker, route, downstream).await {
                Some(answer) => Ok(answer),
                None => {
                    let answer = poll_fn(|_| attempt.poll(route, downstream));
                    worker.reactor.within(patience.min(limit), answer).await
                }
            };
            match answer {
                Ok(Ok(true)) => return Ok(attempt.succeed(worker)),
                Ok(Ok(false)) => Err(Setback::Failed),
                Ok(Err(gone)) => return Err(gone),
                Err(Interrupted::Cancelled) => return Err(Outcome::Drained),
                Err(Interrupted::Elapsed) if patience < limit => Ok(attempt),
                Err(Interrupted::Elapsed) => {
                    attempt.fail();
                    Err(Setback::TimedOut)
                }
            }
        }
        Err(setback) => Err(setback),
    };
    // Only here, so that a connection in the ordinary case does not keep room for it.
    Box::pin(Race::new(worker, route, downstream, record, limit, first).run()).await
}

/// [`SILENCE`], and what is left of the step that it ends in.
fn patience(worker: &Worker) -> Duration {
    let past = worker.reactor.after(SILENCE) % SILENCE_STEP;
    SILENCE + Duration::from_millis((SILENCE_STEP - past) % SILENCE_STEP)
}

/// Why an attempt came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setback {
    /// The endpoint refused, or cannot be reached.
    Failed,
    /// It did not answer in time.
    TimedOut,
    /// The kernel has no route to it.
    Unrouted,
    /// This machine has no port left for a connection to it, which another endpoint does not need.
    Ports,
    /// This process or machine is out of descriptors or memory, for any endpoint.
    Exhausted,
}

/// A connection to an endpoint, as long as it is not known how it ends.
pub(super) struct Attempt {
    socket: Socket,
    active: ActiveConnection,
    begun: Instant,
}

impl Attempt {
    /// Begins to connect. The endpoint's health has what is known of it when this fails.
    pub(super) fn begin(
        worker: &Worker,
        route: &Route,
        active: ActiveConnection,
    ) -> Result<Self, Setback> {
        let (endpoint, now) = (active.endpoint(), Instant::now());
        match begin(worker, endpoint.address) {
            Ok(socket) => Ok(Attempt { socket, active, begun: now }),
            Err(error) => {
                log_failure(route, endpoint.address, &error);
                let setback = setback(endpoint.address, &error);
                match setback {
                    Setback::Failed => endpoint.failed(Moment::of(now)),
                    Setback::Unrouted => endpoint.unrouted(Moment::of(now)),
                    Setback::TimedOut | Setback::Ports | Setback::Exhausted => {}
                }
                Err(setback)
            }
        }
    }

    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.active.endpoint().address
    }

    /// Whether the connection stands, or failed for good; an error if the client is gone.
    pub(super) fn poll(&self, route: &Route, downstream: &Socket) -> Poll<Result<bool, Outcome>> {
        // That the client has merely said all it has to say changes nothing.
        if downstream.is_broken() {
            self.socket.reset_on_close();
            return Poll::Ready(Err(Outcome::DownstreamReset));
        }
        self.socket.poll_connected().map(|connected| match connected {
            Ok(()) => Ok(true),
            Err(error) => {
                log_failure(route, self.address(), &error);
                self.fail();
                Ok(false)
            }
        })
    }

    /// Polls at once, and in the next turn. By then an endpoint near by has answered, and no time
    /// has to be named for which the worker would set a timer.
    async fn look(
        &self,
        worker: &Worker,
        route: &Route,
        downstream: &Socket,
    ) -> Option<Result<bool, Outcome>> {
        let mut looked = false;
        poll_fn(|_| match (self.poll(route, downstream), std::mem::replace(&mut looked, true)) {
            (Poll::Ready(answer), _) => Poll::Ready(Some(answer)),
            (Poll::Pending, true) => Poll::Ready(None),
            (Poll::Pending, false) => {
                worker.reactor.wake_current();
                Poll::Pending
            }
        })
        .await
    }

    /// Notes that the endpoint failed, or is silent.
    pub(super) fn fail(&self) {
        self.active.endpoint().failed(Moment::now());
    }

    /// The connection stands.
    pub(super) fn succeed(self, worker: &Worker) -> Upstream {
        self.active.endpoint().succeeded();
        worker.metrics.connect_duration.observe(self.begun.elapsed().as_secs_f64());
        Upstream { socket: self.socket, _active: self.active }
    }
}

fn log_failure(route: &Route, endpoint: SocketAddr, error: &io::Error) {
    let route = &route.spec.key;
    tracing::debug!(%route, %endpoint, %error, "cannot connect");
}

fn begin(worker: &Worker, address: SocketAddr) -> io::Result<Socket> {
    // An IPv4 address in the form of IPv6 (RFC 4291 §2.5.5.2) is IPv4 to the kernel too.
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    worker.judge(address).map_err(|why| io::Error::other(format!("{address} {why}")))?;
    Socket::connect(&worker.reactor, address)
}

/// What an error says that came before anything was sent.
fn setback(address: SocketAddr, error: &io::Error) -> Setback {
    match Errno::from_io_error(error) {
        Some(Errno::NETUNREACH | Errno::AFNOSUPPORT) => Setback::Unrouted,
        // No port is left, or no address to send from.
        Some(Errno::ADDRNOTAVAIL) => match has_source(address) {
            true => Setback::Ports,
            false => Setback::Unrouted,
        },
        // The last is for want of epoll watches (`fs.epoll.max_user_watches`).
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::NOSPC) => {
            Setback::Exhausted
        }
        _ => Setback::Failed,
    }
}

/// Whether this machine has an address from which it would send to `address`. Nothing is sent.
fn has_source(address: SocketAddr) -> bool {
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(any).and_then(|socket| socket.connect(address)).is_ok()
}
