//! The admin port: `/metrics`, `/livez`, `/readyz`, `/routes` and `/limits`, for scrapers, probes and people.
//!
//! It is read-only, and requests need no body. It has limits of its own, so that its clients can disturb
//! only each other: a fixed number of connections; deadlines for the header, for the whole connection and
//! for a reader that takes nothing; one large page in the making at a time; and at most four copies of each
//! large page in memory. If one more copy is needed, the slowest readers are disconnected.

pub mod certificates;
mod large_page;
mod limiter;
pub mod limits;
mod pages;
pub mod report;
mod write_deadline;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::control::status::Statuses;
use crate::metrics::Metrics;
use crate::reach::Listening;
use crate::readiness::Readiness;
use crate::routing::TableReader;
use large_page::PageConsumer;
use limiter::ConnectionLimiter;
use pages::AdminPages;
use write_deadline::WriteDeadline;

/// The maximum size of a request line and header in bytes; a larger one is answered with 431.
const MAX_HEADER: usize = 8 * 1024;
/// The maximum number of header fields; more are answered with 431.
const MAX_FIELDS: usize = 64;
/// The pause after a failed accept: without descriptors, another try at once only burns CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The data for the pages.
pub struct AdminState {
    /// For `/metrics`; also counts the port's own failed accepts.
    pub metrics: Metrics,
    /// For `/livez` and `/readyz`.
    pub readiness: Arc<Readiness>,
    /// For `/routes`.
    pub table: TableReader,
    /// For the conditions in `/routes`, both of served and of refused routes.
    pub statuses: Statuses,
    /// The limits for clients of the port.
    pub limits: AdminLimits,
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminState").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The limits for clients of the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminLimits {
    /// The maximum number of open connections. Another one closes the oldest connection of the address with
    /// the most connections, so that idle connections cannot keep out a probe.
    pub connections: usize,
    /// From accept, or from the last answer, to a complete request header.
    pub header: Duration,
    /// How long a connection accepts new requests. If an answer is being sent then, it has another
    /// [`AdminLimits::header`].
    pub lifetime: Duration,
    /// How long a client may stop reading an answer.
    pub stall: Duration,
}

impl Default for AdminLimits {
    fn default() -> Self {
        AdminLimits {
            connections: 64,
            header: Duration::from_secs(10),
            lifetime: Duration::from_secs(60),
            stall: Duration::from_secs(10),
        }
    }
}

/// The bound port.
#[derive(Debug)]
pub struct Admin {
    listener: StdListener,
    address: SocketAddr,
}

impl Admin {
    /// Binds the port. Needs no runtime. Port 0 takes any free port. If the machine lacks the address family
    /// of `[::]` or `0.0.0.0`, the other one is bound.
    ///
    /// # Errors
    /// The errors of bind(2), with a message that contains the port's purpose and its address.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let bind = || {
            let listener = match StdListener::bind(address) {
                Err(error) if address.ip().is_unspecified() && is_no_family(&error) => {
                    let other = other_family(address);
                    tracing::info!(%address, at = %other, "the machine lacks this address family; listening on the other");
                    // The error is about the configured address.
                    StdListener::bind(other).map_err(|_| error)?
                }
                bound => bound?,
            };
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Admin { listener, address })
        };
        bind().map_err(|error: io::Error| {
            io::Error::new(error.kind(), format!("cannot bind the admin port {address}: {error}"))
        })
    }

    /// The address that no route may lead to.
    pub fn listening(&self) -> Listening {
        // Whether `[::]` includes IPv4 depends on `net.ipv6.bindv6only`.
        Listening { address: self.address, dual_stack: true }
    }

    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`. Running answers then have [`AdminLimits::header`] to end. Works on any tokio
    /// runtime, including a current-thread one.
    ///
    /// # Errors
    /// Only when the runtime cannot use the listener; clients cause no errors.
    pub async fn serve(
        self,
        state: Arc<AdminState>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let pages = Arc::new(AdminPages::new(Arc::clone(&state)));
        let mut limiter = ConnectionLimiter::new(state.limits.connections);
        let (stop, stopped) = watch::channel(());
        let mut shutdown = pin!(shutdown);
        loop {
            let (stream, peer) = tokio::select! {
                accepted = accept(&listener, &state.metrics) => accepted,
                () = shutdown.as_mut() => break,
            };
            let connection =
                serve_connection(stream, Arc::clone(&pages), state.limits, stopped.clone());
            limiter.admit(peer.ip(), connection);
        }
        drop(listener);
        drop(stop);
        limiter.ended().await;
        Ok(())
    }
}

/// Whether the machine lacks the address family.
fn is_no_family(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// The unspecified address of the other family.
fn other_family(address: SocketAddr) -> SocketAddr {
    let ip = match address {
        SocketAddr::V4(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, address.port())
}

/// The next connection. Accepting may fail while descriptors are exhausted; it is tried again.
async fn accept(listener: &TcpListener, metrics: &Metrics) -> (TcpStream, SocketAddr) {
    let mut logged = false;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                metrics.accept_errors.of(&error).inc();
                if !logged {
                    tracing::warn!(%error, "the admin port cannot accept");
                }
                logged = true;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    pages: Arc<AdminPages>,
    limits: AdminLimits,
    mut stopped: watch::Receiver<()>,
) {
    // Answers are complete when they are sent, so a delay has no benefit.
    let _ = stream.set_nodelay(true);
    let reader = Arc::<PageConsumer>::default();
    let reading = Arc::clone(&reader);
    let service = service_fn(move |request| {
        let (pages, reader) = (Arc::clone(&pages), Arc::clone(&reading));
        async move { pages.answer(&request, &reader).await }
    });
    let stream = WriteDeadline::new(stream, limits.stall);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_headers(MAX_FIELDS)
        .max_header_size(MAX_HEADER)
        .max_buf_size(2 * MAX_HEADER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // Errors of a client's connection are not logged, because any port scan causes them.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = reader.give_way.notified() => return,
        () = sleep(limits.lifetime) => {}
        _ = stopped.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = timeout(limits.header, connection) => {}
        () = reader.give_way.notified() => {}
    }
}
