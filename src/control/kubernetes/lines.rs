//! The lines of a watch, each of which is an event.

use std::mem;
use std::time::Duration;

use http_body_util::BodyExt;
use kube::Error;
use kube::client::Body;
use tokio::time::timeout;

use super::list_watch::WatchFailure;
use super::request::WATCH_SECONDS;

/// How long after its end a watch is given up that has brought nothing more.
const MARGIN: Duration = Duration::from_secs(5);

/// The lines of a watch.
pub(super) struct LineReader {
    body: Body,
    buffer: Vec<u8>,
    /// Before this there is no end of a line.
    at: usize,
}

impl LineReader {
    pub(super) fn new(body: Body) -> Self {
        LineReader { body, buffer: Vec::new(), at: 0 }
    }

    /// The next line. What comes after the last one is not whole, and is passed over.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, WatchFailure> {
        let patience = Duration::from_secs(WATCH_SECONDS.into()) + MARGIN;
        match timeout(patience, self.read()).await {
            Ok(line) => line.map_err(WatchFailure::Broken),
            // The server has vanished without a word.
            Err(_) => Err(WatchFailure::Silent),
        }
    }

    async fn read(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            let rest = self.buffer.get(self.at..).unwrap_or_default();
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.at + length + 1);
                self.at = 0;
                return Ok(Some(mem::replace(&mut self.buffer, rest)));
            }
            self.at = self.buffer.len();
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Some(bytes) = frame?.data_ref() {
                self.buffer.extend_from_slice(bytes);
            }
        }
    }
}
