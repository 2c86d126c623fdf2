//! The state of a connection.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::context::Context;
use super::listener::Listener;
use super::record::{ByteCounts, ConnectionRecord};
use super::stream::Stream;
use super::terminated::Terminated;
use crate::access_log::{ConnectionEnd, Entry, Event, ServedTls};
use crate::config::{AccessLogMode, Protocol};
use crate::limiter::Permit;
use crate::outcome::{Limit, Outcome};
use crate::proxy_protocol::{Header, InvalidHeader};
use crate::routing::{Route, RouteKey};
use crate::tls::{self, ClientHello, SentName};

/// The maximum number of bytes of a client's protocols that are kept for the access log.
const KEPT_ALPN: usize = 1024;

/// The state of a connection. Its record is written exactly once: by `close`, or on drop if its task
/// panics.
pub(super) struct Connection {
    pub(super) context: Rc<Context>,
    /// The listener that accepted it.
    pub(super) listener: Rc<Listener>,
    /// The client's address.
    pub(super) source: SocketAddr,
    /// What a trusted proxy says of the connection.
    pub(super) proxied: Option<Box<Proxied>>,
    /// Whether its listener was asked to admit the client.
    pub(super) is_admitted: bool,
    /// Its places in the counts of limits.
    pub(super) permits: Vec<Permit>,
    /// The limit that it exceeds.
    limit: Option<Limit>,
    /// The client's hello, if the listener reads one.
    pub(super) hello: Option<ClientHello>,
    /// The key of the hello in [`Hellos`](super::hellos::Hellos).
    pub(super) hello_key: Option<u64>,
    /// The invalid hello that the client sent instead.
    pub(super) refused_hello: Option<Box<RefusedHello>>,
    /// Why the peer's PROXY header was refused.
    pub(super) refused_header: Option<Box<RefusedHeader>>,
    /// The route that takes it.
    pub(super) route: Option<Arc<Route>>,
    /// The TLS with the client, if its route asks for that.
    pub(super) terminated: Option<Box<Terminated>>,
    /// The endpoint that was tried last.
    pub(super) endpoint: Option<SocketAddr>,
    /// How many were tried.
    pub(super) attempts: u8,
    pub(super) record: ConnectionRecord,
}

/// What a trusted proxy says of a connection, and who that is.
pub(super) struct Proxied {
    /// The proxy's address.
    pub(super) peer: SocketAddr,
    /// The address that the client connected to.
    pub(super) destination: Option<SocketAddr>,
    /// The connection's id.
    pub(super) unique_id: Option<Box<[u8]>>,
}

/// An invalid hello.
pub(super) struct RefusedHello {
    /// What is wrong with it.
    pub(super) cause: tls::InvalidHello,
    /// The server name, if it could still be read.
    pub(super) name: Option<SentName>,
}

/// Why a PROXY header was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum RefusedHeader {
    /// A trusted proxy sent something else.
    #[error("{peer} is in proxyProtocol.from, and sent no PROXY header")]
    Missing {
        /// The proxy.
        peer: SocketAddr,
    },
    /// A trusted proxy sent an invalid one.
    #[error("the PROXY header is invalid: {0}")]
    Invalid(InvalidHeader),
    /// A peer that is not trusted sent one.
    #[error("{peer} sent a PROXY header, and is not in proxyProtocol.from of listener {listener}")]
    Untrusted {
        /// The peer.
        peer: SocketAddr,
        /// The name of the listener.
        listener: String,
    },
}

impl Connection {
    /// A connection that was just accepted.
    pub(super) fn open(context: &Rc<Context>, listener: Rc<Listener>, source: SocketAddr) -> Self {
        let record = ConnectionRecord::open(context);
        Connection {
            context: Rc::clone(context),
            listener,
            source,
            proxied: None,
            is_admitted: false,
            permits: Vec::new(),
            limit: None,
            refused_header: None,
            hello: None,
            hello_key: None,
            refused_hello: None,
            route: None,
            terminated: None,
            endpoint: None,
            attempts: 0,
            record,
        }
    }

    /// Stores what a trusted proxy says.
    pub(super) fn proxied(&mut self, header: Header) {
        let Header { addresses, unique_id, .. } = header;
        let (peer, destination) = (self.source, addresses.map(|addresses| addresses.destination));
        self.source = addresses.map_or(peer, |addresses| addresses.source);
        self.proxied = Some(Box::new(Proxied { peer, destination, unique_id }));
    }

    /// Stores the route. Frees everything that only the lookup needed, because connecting may take long, and
    /// the connection may last long.
    pub(super) fn routed(&mut self, route: &Arc<Route>) {
        self.route = Some(Arc::clone(route));
        if let Some(hello) = &mut self.hello {
            hello.alpn.shorten(KEPT_ALPN);
        }
    }

    /// Records an attempt to connect to an endpoint.
    pub(super) fn trying(&mut self, endpoint: SocketAddr) {
        self.endpoint = Some(endpoint);
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Records that the connection to the endpoint is open.
    pub(super) fn connected(&mut self) {
        // Why TLS with another endpoint has failed is over with.
        self.terminated.iter_mut().for_each(|terminated| terminated.fault = None);
        let handshake = self.terminated.as_ref().and_then(|terminated| terminated.took);
        self.record.connected(handshake.unwrap_or_default());
        if self.context.settings.access_log == AccessLogMode::Off {
            (self.hello, self.terminated) = (None, None);
        }
        if let Some(limit) = self.limit {
            self.context.metrics.limits.reported(limit).inc();
            if let Some(route) = &self.route {
                route.stats.over_limit.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.log_start();
    }

    /// Records that it exceeds a limit that is only reported. It is counted once it is connected.
    pub(super) fn is_over(&mut self, limit: Limit) {
        self.limit.get_or_insert(limit);
    }

    /// Records that it is refused because it exceeds a limit.
    pub(super) fn is_refused_by(&mut self, limit: Limit) {
        self.context.metrics.limits.refused(limit).inc();
        self.limit = Some(limit);
    }

    /// Ends the connection.
    pub(super) fn close(mut self, outcome: Outcome) {
        // Health checks may also reset connections; without a hello, only this distinguishes them.
        let silent = self.listener.protocol == Protocol::Tcp && self.record.is_silent();
        self.write_record(match outcome {
            Outcome::DownstreamReset if silent => Outcome::NoHello,
            outcome => outcome,
        });
    }

    /// Counts the connection as closed, and logs it. Only the first call has an effect.
    fn write_record(&mut self, outcome: Outcome) {
        let context = &*self.context;
        let stats = self.route.as_ref().map_or(&context.metrics.unrouted, |route| &route.stats);
        let Some(lasted) = self.record.close(context, stats, outcome) else { return };
        // Before it counts as closed: whoever knows of its end may have its place.
        self.permits.clear();
        let is_wanted = match context.settings.access_log {
            AccessLogMode::Off => false,
            AccessLogMode::Errors => outcome.is_error(),
            AccessLogMode::All => true,
        };
        if is_wanted {
            let ByteCounts { up: bytes_up, down: bytes_down } = self.record.bytes();
            let entry =
                self.entry(Event::End(ConnectionEnd { outcome, bytes_up, bytes_down, lasted }));
            // Connections that the drain ends do not count as a flood of refusals.
            match self.record.connect_took().is_none() && outcome != Outcome::Drained {
                true => context.log_refusal(&entry, outcome),
                false => context.log(&entry),
            }
        }
        context.closed();
    }

    /// Logs the start of the relay, if configured.
    fn log_start(&self) {
        if self.context.settings.access_log_start {
            self.context.log(&self.entry(Event::Start));
        }
    }

    fn entry(&self, event: Event) -> Entry<'_> {
        let hello = self.hello.as_ref();
        let route = self.route.as_ref().map(|route| &route.spec.key);
        Entry {
            id: self.id(),
            has_start: self.context.settings.access_log_start,
            listener: &self.listener.name,
            source: self.source,
            peer: self.proxied.as_ref().map_or(self.source, |proxied| proxied.peer),
            unique_id: self.proxied.as_ref().and_then(|proxied| proxied.unique_id.as_deref()),
            server_name: self.name(),
            alpn: hello.map(|hello| &hello.alpn),
            tls_version: hello.and_then(|hello| hello.versions.highest()).map(|v| v.as_str()),
            ech: hello.is_some_and(|hello| hello.ech),
            post_quantum: hello.is_some_and(|hello| hello.post_quantum),
            kind: route.map(|route| route.kind().as_str()),
            namespace: route.map(RouteKey::namespace),
            route: route.map(RouteKey::name),
            endpoint: self.endpoint,
            attempts: self.attempts,
            limit: self.limit.map(Limit::as_str),
            served: self
                .terminated
                .as_deref()
                .map(served)
                .filter(|served| *served != ServedTls::default()),
            cause: self.cause(&event),
            hello_took: self.record.hello_took(),
            connect_took: self.record.connect_took(),
            event,
        }
    }

    /// The server name, if the client sent a valid one.
    pub(super) fn server_name(&self) -> Option<&str> {
        Some(self.hello.as_ref()?.server_name.as_ref()?.as_str())
    }

    /// The server name that the client sent: normalised if it is valid, else escaped.
    fn name(&self) -> Option<&str> {
        let hello = self.hello.as_ref();
        let usable = hello.and_then(|hello| hello.server_name.as_ref()).map(|name| name.as_str());
        let unusable = hello.and_then(|hello| hello.unusable_name.as_ref());
        let refused = self.refused_hello.as_ref().and_then(|refused| refused.name.as_ref());
        usable.or_else(|| Some(unusable.map(|name| &name.sent).or(refused)?.as_str()))
    }

    /// Records why TLS with an endpoint has failed. Another one may be tried.
    pub(super) fn endpoint_failed(&mut self, fault: &dyn fmt::Display) {
        if let Some(terminated) = &mut self.terminated {
            terminated.failed(&format_args!("TLS with the endpoint: {fault}"));
        }
    }

    /// Records why TLS has ended the relay, if it has.
    pub(super) fn relayed(&mut self, downstream: &Stream, upstream: &Stream) {
        let failure = |stream: &Stream| stream.tls()?.borrow().failure().cloned();
        if let Some(fault) = failure(upstream) {
            self.endpoint_failed(&fault);
        } else if let Some((terminated, fault)) = self.terminated.as_mut().zip(failure(downstream))
        {
            terminated.failed(&fault);
        }
    }

    /// Why the hello, the PROXY header or TLS was refused.
    fn cause(&self, event: &Event) -> Option<&dyn fmt::Display> {
        if let Some(refused) = &self.refused_header {
            return Some(&**refused);
        }
        if let Some(refused) = &self.refused_hello {
            return Some(&refused.cause);
        }
        if let Some(fault) =
            self.terminated.as_ref().and_then(|terminated| terminated.fault.as_ref())
            && matches!(event, Event::End(ConnectionEnd { outcome, .. }) if is_of_tls(*outcome))
        {
            return Some(fault);
        }
        let nameless = matches!(event, Event::End(ConnectionEnd { outcome: Outcome::NoSni, .. }));
        let hello = self.hello.as_ref().filter(|_| nameless);
        hello?.unusable_name.as_ref().map(|name| &name.cause as &dyn fmt::Display)
    }

    /// An id for all log lines of this connection: a 64-bit hash with a key of this process.
    pub(super) fn id(&self) -> u64 {
        // No two connections have the same address and start time in nanoseconds.
        self.context.hellos().hash(&(self.source, self.record.opened()))
    }
}

/// Whether a fault of TLS may be why a connection has ended so.
fn is_of_tls(outcome: Outcome) -> bool {
    use Outcome::{
        ConnectFailed, ConnectTimeout, DownstreamReset, HandshakeFailed, NoCertificate,
        UpstreamReset,
    };
    let refused = matches!(outcome, HandshakeFailed | NoCertificate);
    refused || matches!(outcome, ConnectFailed | ConnectTimeout | DownstreamReset | UpstreamReset)
}

/// The TLS with the client, for the access log.
fn served(terminated: &Terminated) -> ServedTls<'_> {
    ServedTls {
        version: terminated.version,
        cipher: terminated.cipher,
        alpn: terminated.alpn.as_deref(),
        resumed: terminated.resumed,
        certificate: terminated.served.as_ref().map(|served| &*served.serial),
        client_subject: terminated.client.as_ref().map(|client| &*client.subject),
        handshake_took: terminated.took,
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.write_record(Outcome::Drained);
    }
}
