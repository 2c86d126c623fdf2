//! Logs: to stderr, as JSON or for people.
//!
//! A line goes to the thread of a [`LineQueue`], which alone waits for stderr: whatever becomes of
//! its reader, no thread that serves does. Lines that find no room are dropped and counted.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use prometheus::IntCounter;
use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::line_queue::{LineQueue, OutputProblem};

/// How many bytes may wait for stderr: a start may have a line for each of ten thousand routes.
const QUEUE: usize = 8 << 20;
/// How long stderr may take for the last lines.
pub(crate) const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How sluice logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A filter in the syntax of `RUST_LOG`, without spans and fields.
    pub level: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl LogFormat {
    /// The word in the setting.
    pub fn as_str(self) -> &'static str {
        match self {
            LogFormat::Auto => "auto",
            LogFormat::Json => "json",
            LogFormat::Text => "text",
        }
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter makes no sense.
    #[error(
        "{filter:?} is not a log filter: {reason}; write off, error, warn, info, debug or trace, \
         or TARGET=LEVEL, with commas between several"
    )]
    Filter {
        /// The whole filter.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The process logs already.
    #[error("logging has been set up before")]
    Twice,
    /// There is no thread or descriptor for it.
    #[error("cannot log to stderr: {0}")]
    Output(#[from] io::Error),
}

/// What is never logged unless the filter names it. The library that watches files warns about
/// every folder that is removed, as each update of a ConfigMap removes one. The one that
/// speaks to the API server says in its own words what we say in ours. That of TLS warns of each message that breaks the
/// rules, and quotes it: any client could fill the log. The errors of all three reach us as values.
const QUIET: &str = "notify=off,kube_client=off,rustls=off";

/// The log of the process. When it is dropped, lines that wait are written, unless stderr has
/// stalled: after a second, they are given up.
#[derive(Debug)]
#[must_use]
pub struct Logging(LineQueue);

/// Starts logging for the whole process, panics included. To be called once. `dropped` counts the
/// lines that stderr did not take in time.
///
/// # Errors
/// When the filter is wrong, logging was set up before, or no thread can be started.
pub fn init(log: &Log, dropped: IntCounter) -> Result<Logging, LoggingError> {
    let queue = LineQueue::start("log", stderr()?, QUEUE, dropped, report)?;
    let lines = queue.clone();
    let subscriber =
        subscriber(log, io::stderr().is_terminal(), move || LineWriter(lines.clone()))?;
    subscriber.try_init().map_err(|_| LoggingError::Twice)?;
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let location = panic.location().map(ToString::to_string);
        let detail = panic.payload_as_str();
        tracing::error!(thread = thread.name(), location, detail, "a fault in sluice itself");
    }));
    Ok(Logging(queue))
}

/// Writes a last line to stderr for people, in a second or not at all.
pub fn last_line(line: &str) {
    let Ok(lost) = IntCounter::new("lost", "Lost lines.") else { return };
    if let Ok(queue) = LineQueue::start("last-line", io::stderr(), QUEUE, lost, |_| {}) {
        queue.push(format!("{line}\n").into_bytes(), 1);
        queue.flush(FLUSH_TIMEOUT);
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.0.flush(FLUSH_TIMEOUT);
    }
}

/// A descriptor of its own: a writer that hangs must not hold the lock of stderr.
fn stderr() -> io::Result<File> {
    Ok(File::from(io::stderr().as_fd().try_clone_to_owned()?))
}

/// An output that refuses lines cannot be told of; the counter has them.
fn report(problem: OutputProblem<'_>) {
    if let OutputProblem::Dropped(lines) = problem {
        tracing::warn!(lines, "lines of this log were dropped: its reader was too slow");
    }
}

/// The formatter writes each line at once.
struct LineWriter(LineQueue);

impl Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes.to_vec(), 1);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a text is a filter.
///
/// Stricter than `RUST_LOG` in one point: a word alone must be a level. Elsewhere `verbose` is a
/// target, and turns off all the others.
pub fn check_filter(filter: &str) -> Result<(), LoggingError> {
    parse_filter(filter).map(drop)
}

fn parse_filter(filter: &str) -> Result<Targets, LoggingError> {
    let fault = |reason| LoggingError::Filter { filter: filter.to_owned(), reason };
    let parts: Vec<&str> = filter.split(',').map(str::trim).collect();
    for part in &parts {
        let level = !part.is_empty() && part.parse::<LevelFilter>().is_ok();
        if !level && !part.contains('=') {
            return Err(fault(format!("{part:?} is not a level")));
        }
    }
    let targets = format!("{QUIET},{}", parts.join(",")).parse::<Targets>();
    targets.map_err(|error| fault(error.to_string()))
}

/// Times are RFC 3339 in UTC, the default of the formatter.
fn subscriber<W>(
    log: &Log,
    terminal: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, LoggingError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = tracing_subscriber::registry().with(parse_filter(&log.level)?);
    // A line that cannot be written is lost. The formatter would say so with eprintln, which
    // panics where stderr is a closed pipe.
    let lines = fmt::layer().with_writer(writer).log_internal_errors(false);
    Ok(match is_json(log.format, terminal) {
        true => {
            Box::new(filter.with(
                lines.json().flatten_event(true).with_current_span(false).with_span_list(false),
            ))
        }
        false => Box::new(filter.with(lines.with_ansi(terminal && colours_are_welcome()))),
    })
}

fn is_json(format: LogFormat, terminal: bool) -> bool {
    match format {
        LogFormat::Auto => !terminal,
        LogFormat::Json => true,
        LogFormat::Text => false,
    }
}

/// See no-color.org.
fn colours_are_welcome() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What one event becomes.
    fn line(format: LogFormat, terminal: bool) -> String {
        let log = Log { level: "info, quiet=off".to_owned(), format };
        let lines = Captured::default();
        let writer = lines.clone();
        let subscriber = subscriber(&log, terminal, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!("connection", id = 7).in_scope(|| {
                tracing::info!(target: "loud", route = "data/kafka", bytes = 12, "routed");
                tracing::debug!(target: "loud", "not this");
                tracing::error!(target: "quiet", "nor this");
            });
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn json_is_one_flat_object_a_line() {
        let text = line(LogFormat::Auto, false);
        assert_eq!(text.lines().count(), 1, "{text}");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["level"], "INFO");
        assert_eq!(json["target"], "loud");
        assert_eq!(json["message"], "routed");
        assert_eq!(json["route"], "data/kafka");
        assert_eq!(json["bytes"], 12);
        assert!(json.as_object().unwrap().values().all(|value| !value.is_object()), "{text}");
        assert_eq!(line(LogFormat::Json, true).lines().count(), 1);
    }

    #[test]
    fn times_are_rfc_3339_in_utc() {
        let json: serde_json::Value = serde_json::from_str(&line(LogFormat::Json, false)).unwrap();
        let shape: String = json["timestamp"]
            .as_str()
            .unwrap()
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000000Z");
    }

    #[test]
    fn text_is_for_people() {
        let text = line(LogFormat::Text, false);
        assert!(
            text.contains(" INFO ") && text.ends_with("routed route=\"data/kafka\" bytes=12\n")
        );
        assert!(line(LogFormat::Auto, true).contains("routed"));
        assert!(!line(LogFormat::Auto, true).starts_with('{'));
    }

    #[test]
    fn filters_are_checked() {
        for good in ["info", "off", "WARN", "warn,sluice::proxy=debug", "info, sluice=trace"] {
            assert!(check_filter(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "verbose",
            "info,",
            "info;debug",
            "info,sluice",
            "sluice=loud",
            "a=b=c",
            "info,[span]",
        ] {
            let error = check_filter(bad).unwrap_err().to_string();
            assert!(error.contains("write off, error, warn"), "{bad}: {error}");
        }
    }
}
