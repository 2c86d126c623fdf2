//! What is written down about a connection, once.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::listener::Listener;
use super::relay::Passed;
use super::worker::Worker;
use crate::access_log::{Ended, Entry, Event};
use crate::config::AccessLog;
use crate::outcome::Outcome;
use crate::routing::{Route, RouteKey, Tally};
use crate::tls::{ClientHello, Refusal, SentName};

/// How many bytes of a client's protocols are kept for the access log, which shows less.
const KEPT_ALPN: usize = 1024;

/// A connection's entry in metrics and access log. It is made when the connection is accepted and
/// counted exactly once, when it is closed; should it be dropped instead, by a fault of ours, it
/// counts as one that sluice ended.
pub(super) struct Record {
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    source: SocketAddr,
    opened: Instant,
    hello: Option<ClientHello>,
    /// Why there is no hello.
    refused: Option<Box<Refused>>,
    hello_took: Option<Duration>,
    route: Option<Arc<Route>>,
    endpoint: Option<SocketAddr>,
    attempts: u8,
    connect_took: Option<Duration>,
    passed: Passed,
    closed: bool,
}

/// What a client sent in place of a hello.
struct Refused {
    cause: Refusal,
    name: Option<SentName>,
}

impl Record {
    /// Begins the record of a connection that was accepted just now.
    pub(super) fn open(worker: &Rc<Worker>, listener: &Rc<Listener>, source: SocketAddr) -> Self {
        let opened = Instant::now();
        worker.opened(opened);
        Record {
            worker: Rc::clone(worker),
            listener: Rc::clone(listener),
            source,
            opened,
            hello: None,
            refused: None,
            hello_took: None,
            route: None,
            endpoint: None,
            attempts: 0,
            connect_took: None,
            passed: Passed::default(),
            closed: false,
        }
    }

    /// The client's address.
    pub(super) fn source(&self) -> SocketAddr {
        self.source
    }

    /// What the client said, if the listener looked.
    pub(super) fn hello(&self) -> Option<&ClientHello> {
        self.hello.as_ref()
    }

    /// The client has said whom it wants.
    pub(super) fn peeked(&mut self, hello: Option<ClientHello>) {
        if hello.is_some() {
            let took = self.opened.elapsed();
            self.hello_took = Some(took);
            self.worker.metrics.hello_duration.observe(took.as_secs_f64());
        }
        self.hello = hello;
    }

    /// What the client sent is no hello; `name` is in it all the same.
    pub(super) fn refused(&mut self, cause: Refusal, name: Option<SentName>) {
        self.refused = Some(Box::new(Refused { cause, name }));
    }

    /// The route is found.
    pub(super) fn routed(&mut self, route: &Arc<Route>) {
        self.route = Some(Arc::clone(route));
        // Connections may live long, so what nobody will ask for again is not kept.
        match self.worker.settings.access_log {
            AccessLog::Off => self.hello = None,
            AccessLog::Errors | AccessLog::All => {
                if let Some(hello) = &mut self.hello {
                    hello.alpn.shorten(KEPT_ALPN);
                }
            }
        }
    }

    /// An endpoint is being tried.
    pub(super) fn trying(&mut self, endpoint: SocketAddr) {
        self.endpoint = Some(endpoint);
        self.attempts = self.attempts.saturating_add(1);
    }

    /// The endpoint that was tried last.
    pub(super) fn endpoint(&self) -> Option<SocketAddr> {
        self.endpoint
    }

    /// Of several endpoints that were tried at the same time, this one has answered.
    pub(super) fn reached(&mut self, endpoint: SocketAddr) {
        self.endpoint = Some(endpoint);
    }

    /// The upstream connection stands, after however many attempts.
    pub(super) fn connected(&mut self) {
        let since_open = self.opened.elapsed();
        self.connect_took = Some(since_open.saturating_sub(self.hello_took.unwrap_or_default()));
        if self.worker.settings.access_log_start {
            self.worker.log(&self.entry(Event::Start));
        }
    }

    /// Whether no byte came from the client, as far as it was read, and none went to it.
    pub(super) fn is_silent(&self) -> bool {
        self.hello.is_none() && self.passed == Passed::default()
    }

    /// So many bytes were passed on in all.
    pub(super) fn passed(&mut self, passed: Passed) {
        let tally = self.tally();
        add(&tally.bytes_up, passed.up.saturating_sub(self.passed.up));
        add(&tally.bytes_down, passed.down.saturating_sub(self.passed.down));
        self.passed = passed;
    }

    /// The connection is over.
    pub(super) fn close(mut self, outcome: Outcome) {
        self.count(outcome);
    }

    fn tally(&self) -> &Tally {
        self.route.as_ref().map_or(&self.worker.metrics.unrouted, |route| &route.tally)
    }

    fn count(&mut self, outcome: Outcome) {
        self.closed = true;
        add(self.tally().ended(outcome), 1);
        let lasted = self.opened.elapsed();
        self.worker.metrics.connection_duration.observe(lasted.as_secs_f64());
        let wanted = match self.worker.settings.access_log {
            AccessLog::Off => false,
            AccessLog::Errors => outcome.is_error(),
            AccessLog::All => true,
        };
        if wanted {
            let (bytes_up, bytes_down) = (self.passed.up, self.passed.down);
            let entry = self.entry(Event::End(Ended { outcome, bytes_up, bytes_down, lasted }));
            // What sluice itself ends comes once, at the end of the drain.
            match self.connect_took.is_none() && outcome != Outcome::Drained {
                true => self.worker.log_refusal(&entry, outcome),
                false => self.worker.log(&entry),
            }
        }
        self.worker.closed();
    }

    fn entry(&self, event: Event) -> Entry<'_> {
        let hello = self.hello.as_ref();
        let route = self.route.as_ref().map(|route| &route.spec.key);
        Entry {
            id: self.worker.settings.access_log_start.then(|| self.id()),
            listener: &self.listener.name,
            source: self.source,
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
            cause: self.cause(&event),
            hello_took: self.hello_took,
            connect_took: self.connect_took,
            event,
        }
    }

    /// The name that the client sent: normalised if it can be that of a server, else escaped.
    fn name(&self) -> Option<&str> {
        let hello = self.hello.as_ref();
        let usable = hello.and_then(|hello| hello.server_name.as_ref()).map(|name| name.as_str());
        let unusable = hello.and_then(|hello| hello.unusable_name.as_ref());
        let refused = self.refused.as_ref().and_then(|refused| refused.name.as_ref());
        usable.or_else(|| Some(unusable.map(|name| &name.sent).or(refused)?.as_str()))
    }

    /// Why the hello was refused.
    fn cause(&self, event: &Event) -> Option<&dyn fmt::Display> {
        if let Some(refused) = &self.refused {
            return Some(&refused.cause);
        }
        let nameless = matches!(event, Event::End(Ended { outcome: Outcome::NoSni, .. }));
        let hello = self.hello.as_ref().filter(|_| nameless);
        hello?.unusable_name.as_ref().map(|name| &name.cause as &dyn fmt::Display)
    }

    /// Ties the lines of a connection together. Another one has the same once in 2⁶⁴ times: it is a
    /// hash with a key of this process.
    fn id(&self) -> u64 {
        // Nobody else comes from that address at the same nanosecond.
        self.worker.hellos().hash(&(self.source, self.opened))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.closed {
            self.count(Outcome::Drained);
        }
    }
}

/// Adds to a counter that other workers add to as well, and that is often not changed at all.
fn add(counter: &AtomicU64, by: u64) {
    if by > 0 {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}
