//! One JSON line for each connection, written without ever holding a connection up.
//!
//! A worker formats lines into a buffer of its own and hands full or old buffers over to the
//! thread of a [`LineQueue`]. If the output stalls, lines are dropped and counted; nothing waits.
//!
//! A client that is refused again and again has lines of its own only so often a second.

mod flood;

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use prometheus::IntCounter;
use serde::{Serialize, Serializer};

use self::flood::Flood;
use crate::line_queue::{LineQueue, OutputProblem};
use crate::outcome::Outcome;
use crate::tls::Alpn;

/// A worker's buffer is handed over when it has as many bytes.
const BATCH: usize = 32 * 1024;
/// How many bytes may wait for the output.
const QUEUE: usize = 64 * BATCH;
/// How many of the protocols that a client offers are logged, and how many bytes of them. A hello
/// has room for thousands.
const MAX_PROTOCOLS: usize = 16;
const MAX_PROTOCOL_BYTES: usize = 256;

/// A connection, as the access log tells of it. Times are in milliseconds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry<'a> {
    /// Ties the lines of a connection together, where it has several.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "hex")]
    pub id: Option<u64>,
    /// The name of the listener.
    pub listener: &'a str,
    /// The client's address.
    pub source: SocketAddr,
    /// The server name of the hello, normalised; escaped and shortened, if it cannot be the name of
    /// a server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<&'a str>,
    /// The protocols that the client offered; `...` at the end if there were more.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "protocols")]
    pub alpn: Option<&'a Alpn>,
    /// The highest version that the client offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_version: Option<&'static str>,
    /// Whether the hello has an encrypted one inside: then the name is the outer one.
    pub ech: bool,
    /// Whether the client offered a post-quantum key share.
    pub post_quantum: bool,
    /// What the route's object is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'a str>,
    /// The route's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<&'a str>,
    /// The route's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    /// The endpoint that was connected to, or tried last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// How many endpoints were tried.
    pub attempts: u8,
    /// What was wrong with the hello. Says nothing that a client chose but the number of an
    /// extension and of a byte.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    pub cause: Option<&'a dyn fmt::Display>,
    /// From accept to a whole hello.
    #[serde(
        rename = "helloMs",
        skip_serializing_if = "Option::is_none",
        serialize_with = "optional_millis"
    )]
    pub hello_took: Option<Duration>,
    /// From the hello to the upstream connection, all attempts together.
    #[serde(
        rename = "connectMs",
        skip_serializing_if = "Option::is_none",
        serialize_with = "optional_millis"
    )]
    pub connect_took: Option<Duration>,
    /// What the line is about.
    #[serde(flatten)]
    pub event: Event,
}

/// What a line of the access log is about.
#[derive(Clone, Copy, Serialize)]
#[serde(untagged)]
pub enum Event {
    /// The upstream connection stands.
    Start,
    /// The connection is over.
    End(ConnectionEnd),
}

/// How a connection ended.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionEnd {
    /// In one word.
    #[serde(serialize_with = "word")]
    pub outcome: Outcome,
    /// Bytes from the client to the endpoint.
    pub bytes_up: u64,
    /// Bytes from the endpoint to the client.
    pub bytes_down: u64,
    /// From accept to the end.
    #[serde(rename = "durationMs", serialize_with = "millis")]
    pub lasted: Duration,
}

#[derive(Serialize)]
struct Line<T> {
    time: jiff::Timestamp,
    log: &'static str,
    /// Only where connections have several lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'static str>,
    #[serde(flatten)]
    of: T,
}

/// The way to the writing thread; every worker has a clone, in a [`Buffer`].
#[derive(Clone, Debug)]
pub struct AccessLog(LineQueue);

/// The end of the access log.
#[derive(Debug)]
pub struct Writing(LineQueue);

impl AccessLog {
    /// Starts the thread that writes to stdout, which is the access log's alone while sluice
    /// serves. `dropped` is as for [`AccessLog::start`].
    ///
    /// # Errors
    /// When no thread or descriptor can be had.
    pub fn to_stdout(dropped: IntCounter) -> io::Result<(AccessLog, Writing)> {
        // A descriptor of its own: a writer that hangs must not hold the lock of stdout, which the
        // end of the process waits for.
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        AccessLog::start(stdout, dropped)
    }

    /// Starts the thread that writes to `output`. `dropped` counts the lines that found no room,
    /// and those that the output refused.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        output: impl Write + Send + 'static,
        dropped: IntCounter,
    ) -> io::Result<(AccessLog, Writing)> {
        let queue = LineQueue::start("access-log", output, QUEUE, dropped, report)?;
        Ok((AccessLog(queue.clone()), Writing(queue)))
    }
}

fn report(problem: OutputProblem<'_>) {
    match problem {
        OutputProblem::Refused(error) => tracing::warn!(%error, "cannot write the access log"),
        OutputProblem::Dropped(lines) => {
            tracing::warn!(lines, "lines of the access log were dropped")
        }
    }
}

impl Writing {
    /// Waits until all lines that were handed over are written. An output that has stalled is
    /// given up after `limit`; returns whether all was written.
    pub fn finish(self, limit: Duration) -> bool {
        self.0.flush(limit)
    }
}

/// A worker's lines that are not handed over yet.
#[derive(Debug)]
pub struct Buffer {
    log: AccessLog,
    bytes: Vec<u8>,
    lines: u64,
    flood: Flood,
}

impl Buffer {
    /// An empty buffer of one of so many workers.
    pub fn new(log: AccessLog, workers: usize) -> Self {
        Buffer { log, bytes: Vec::new(), lines: 0, flood: Flood::of_one_of(workers) }
    }

    /// Whether nothing waits to be handed over, now or later.
    pub fn is_empty(&self) -> bool {
        self.lines == 0 && self.flood.is_empty()
    }

    /// Adds a line; hands the buffer over when it is full.
    pub fn push(&mut self, entry: &Entry<'_>) {
        self.push_at(jiff::Timestamp::now(), entry);
    }

    /// Adds a line about a client that was not served. If there were many of its source and its
    /// outcome in this second, it is only counted, and its second has one line for all of these.
    pub fn push_refusal(&mut self, entry: &Entry<'_>, outcome: Outcome) {
        let now = jiff::Timestamp::now();
        self.end_second(now);
        if self.flood.admits(now, entry.source.ip(), outcome) {
            self.push_at(now, entry);
        }
    }

    fn push_at(&mut self, time: jiff::Timestamp, entry: &Entry<'_>) {
        let event = entry.id.map(|_| match entry.event {
            Event::Start => "start",
            Event::End(_) => "end",
        });
        self.push_line(&Line { time, log: "access", event, of: entry });
    }

    fn push_line(&mut self, line: &impl Serialize) {
        let start = self.bytes.len();
        match serde_json::to_writer(&mut self.bytes, line) {
            Ok(()) => {
                self.bytes.push(b'\n');
                self.lines += 1;
            }
            // Nothing in an entry can fail, but half a line must not stay.
            Err(_) => {
                self.bytes.truncate(start);
                self.log.0.lost(1);
            }
        }
        if self.bytes.len() >= BATCH {
            self.send();
        }
    }

    /// Adds the lines for what was only counted, once its second is over.
    fn end_second(&mut self, now: jiff::Timestamp) {
        for of in self.flood.end_second(now) {
            self.push_line(&Line { time: now, log: "access", event: None, of });
        }
    }

    /// Hands over what there is; drops and counts it when there is no room. What is still counted
    /// stays until its second is over.
    pub fn hand_over(&mut self) {
        self.end_second(jiff::Timestamp::now());
        self.send();
    }

    fn send(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if lines == 0 {
            return;
        }
        self.log.0.push(std::mem::take(&mut self.bytes), lines);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.end_second(jiff::Timestamp::MAX);
        self.send();
    }
}

fn word<S: Serializer>(outcome: &Outcome, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(outcome.as_str())
}

fn text<S: Serializer>(text: &Option<&dyn fmt::Display>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}", text.as_ref().map_or(&"" as _, |text| *text)))
}

fn hex<S: Serializer>(id: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{:016x}", id.unwrap_or_default()))
}

/// The first protocols as text; bytes that are none are escaped.
fn protocols<S: Serializer>(alpn: &Option<&Alpn>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut protocols = alpn.iter().flat_map(|alpn| alpn.iter()).peekable();
    let mut shown = Vec::new();
    let mut room = MAX_PROTOCOL_BYTES;
    while shown.len() < MAX_PROTOCOLS
        && let Some(protocol) = protocols.next_if(|protocol| protocol.len() <= room)
    {
        room -= protocol.len();
        shown.push(protocol.escape_ascii().to_string());
    }
    if protocols.peek().is_some() {
        shown.push("...".to_owned());
    }
    serializer.collect_seq(shown)
}

fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    serializer.serialize_f64(micros as f64 / 1000.0)
}

fn optional_millis<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    millis(&duration.unwrap_or_default(), serializer)
}
