//! The access log: one JSON line for each connection. Writing it never delays a connection.
//!
//! A worker formats lines into its own buffer, and passes full or old buffers to the thread of a
//! [`LineQueue`]. If the output stalls, lines are dropped and counted.
//!
//! Refusals of one source and outcome have a limited number of lines per second; further ones are only
//! counted.

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

/// A worker's buffer is passed on when it has this many bytes.
const BATCH: usize = 32 * 1024;
/// The maximum number of bytes that wait for the output.
const QUEUE: usize = 64 * BATCH;
/// The maximum number of a client's protocols in a line, and of their bytes. A hello has room for thousands.
const MAX_PROTOCOLS: usize = 16;
const MAX_PROTOCOL_BYTES: usize = 256;

/// A connection in the access log. Times are in milliseconds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry<'a> {
    /// The same in all lines of a connection, if it has several.
    #[serde(serialize_with = "hex")]
    pub id: u64,
    /// Whether a connection also has a line for its start.
    #[serde(skip)]
    pub has_start: bool,
    /// The name of the listener.
    pub listener: &'a str,
    /// The client's address.
    pub source: SocketAddr,
    /// The address of the socket's other end: the client's, or that of a trusted proxy.
    pub peer: SocketAddr,
    /// The id that a trusted proxy gave the connection, escaped.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "escaped")]
    pub unique_id: Option<&'a [u8]>,
    /// The server name of the hello: normalised, or, if it is invalid, escaped and shortened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<&'a str>,
    /// The protocols that the client offered, followed by `...` if there were more.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "protocols")]
    pub alpn: Option<&'a Alpn>,
    /// The highest TLS version that the client offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_version: Option<&'static str>,
    /// Whether the hello contains an encrypted one. The server name is then the outer name.
    pub ech: bool,
    /// Whether the client offered a post-quantum key share.
    pub post_quantum: bool,
    /// The kind of the route's object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'a str>,
    /// The route's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<&'a str>,
    /// The route's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    /// The endpoint of the connection, or the endpoint that was tried last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// How many endpoints were tried.
    pub attempts: u8,
    /// The limit that the connection exceeds. It may be one that is only reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<&'static str>,
    /// The TLS that sluice has served.
    #[serde(rename = "tls", skip_serializing_if = "Option::is_none")]
    pub served: Option<ServedTls<'a>>,
    /// What is wrong with the hello or the PROXY header, or why TLS has failed. A text that a peer decides is escaped
    /// and short.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    pub cause: Option<&'a dyn fmt::Display>,
    /// From accept to the complete hello.
    #[serde(
        rename = "helloMs",
        skip_serializing_if = "Option::is_none",
        serialize_with = "optional_millis"
    )]
    pub hello_took: Option<Duration>,
    /// From the hello to the open upstream connection, including all attempts.
    #[serde(
        rename = "connectMs",
        skip_serializing_if = "Option::is_none",
        serialize_with = "optional_millis"
    )]
    pub connect_took: Option<Duration>,
    /// The event that the line reports.
    #[serde(flatten)]
    pub event: Event,
}

/// The TLS that sluice has served to a client, as far as it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServedTls<'a> {
    /// The negotiated version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<&'a str>,
    /// The negotiated cipher suite, by its name in OpenSSL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cipher: Option<&'a str>,
    /// The negotiated protocol, escaped.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "escaped")]
    pub alpn: Option<&'a [u8]>,
    /// Whether an earlier session was resumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed: Option<bool>,
    /// The serial number of the certificate that was served. A resumed session needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<&'a str>,
    /// The subject of the client's certificate, escaped and shortened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_subject: Option<&'a str>,
    /// From the hello to the end of the handshake.
    #[serde(
        rename = "handshakeMs",
        skip_serializing_if = "Option::is_none",
        serialize_with = "optional_millis"
    )]
    pub handshake_took: Option<Duration>,
}

/// An event of a connection that has a line in the access log.
#[derive(Clone, Copy, Serialize)]
#[serde(untagged)]
pub enum Event {
    /// The upstream connection is open.
    Start,
    /// The connection has ended.
    End(ConnectionEnd),
}

/// How a connection ended.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionEnd {
    /// The outcome, one word.
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
    /// Only if connections have several lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'static str>,
    #[serde(flatten)]
    of: T,
}

/// The access log, for workers. Each worker has a clone, in a [`Buffer`].
#[derive(Clone, Debug)]
pub struct AccessLog(LineQueue);

/// The writing side of the access log.
#[derive(Debug)]
pub struct Writing(LineQueue);

impl AccessLog {
    /// Starts the thread that writes to stdout. While sluice serves, only the access log writes there.
    /// `dropped` is as for [`AccessLog::start`].
    ///
    /// # Errors
    /// When the thread or a descriptor cannot be created.
    pub fn to_stdout(dropped: IntCounter) -> io::Result<(AccessLog, Writing)> {
        // A duplicate descriptor: a blocked writer must not hold the lock of stdout, which the process needs
        // when it ends.
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        AccessLog::start(stdout, dropped)
    }

    /// Starts the thread that writes to `output`. `dropped` counts the lines that were dropped or that the
    /// output refused.
    ///
    /// # Errors
    /// When the thread cannot be started.
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
    /// Waits until all lines that were passed on are written, for at most `limit`. Returns whether all lines
    /// were written.
    pub fn finish(self, limit: Duration) -> bool {
        self.0.flush(limit)
    }
}

/// A worker's lines that were not passed on yet.
#[derive(Debug)]
pub struct Buffer {
    log: AccessLog,
    bytes: Vec<u8>,
    lines: u64,
    flood: Flood,
}

impl Buffer {
    /// An empty buffer, for one of this number of workers.
    pub fn new(log: AccessLog, workers: usize) -> Self {
        Buffer { log, bytes: Vec::new(), lines: 0, flood: Flood::of_one_of(workers) }
    }

    /// Whether the buffer has neither lines nor counted refusals.
    pub fn is_empty(&self) -> bool {
        self.lines == 0 && self.flood.is_empty()
    }

    /// Adds a line. Passes the buffer on when it is full.
    pub fn push(&mut self, entry: &Entry<'_>) {
        self.push_at(jiff::Timestamp::now(), entry);
    }

    /// Adds a line about a refused client. If there were many of its source and outcome in this second, it
    /// is only counted; after the second, one line has the count.
    pub fn push_refusal(&mut self, entry: &Entry<'_>, outcome: Outcome) {
        let now = jiff::Timestamp::now();
        self.end_second(now);
        if self.flood.admits(now, entry.source.ip(), outcome) {
            self.push_at(now, entry);
        }
    }

    fn push_at(&mut self, time: jiff::Timestamp, entry: &Entry<'_>) {
        let event = entry.has_start.then_some(match entry.event {
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
            // An entry cannot fail to serialize, but an incomplete line must never stay.
            Err(_) => {
                self.bytes.truncate(start);
                self.log.0.lost(1);
            }
        }
        if self.bytes.len() >= BATCH {
            self.send();
        }
    }

    /// Adds the lines for counted refusals whose second has ended.
    fn end_second(&mut self, now: jiff::Timestamp) {
        for of in self.flood.end_second(now) {
            self.push_line(&Line { time: now, log: "access", event: None, of });
        }
    }

    /// Passes all lines on. Drops and counts them if the queue is full. Counted refusals stay until their
    /// second has ended.
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

fn escaped<S: Serializer>(bytes: &Option<&[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&bytes.unwrap_or_default().escape_ascii())
}

fn hex<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{:016x}", id))
}

/// The first protocols as text, with bytes that are not printable ASCII escaped.
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
