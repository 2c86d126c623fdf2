//! The lines of a watch, each of which is an event.

use std::time::Duration;

use http_body_util::BodyExt;
use kube::Error;
use kube::client::Body;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::list_watch::WatchFailure;
use super::request::WATCH_SECONDS;
use crate::control::objects::extend_wiped;

/// How long after its end a watch is given up that has brought nothing more.
const MARGIN: Duration = Duration::from_secs(5);

/// The lines of a watch. They may hold secrets, and are wiped when they are dropped.
pub(super) struct LineReader {
    body: Body,
    /// What has arrived.
    buffer: Zeroizing<Vec<u8>>,
    /// The start of the next line.
    start: usize,
    /// Between the start and this there is no end of a line.
    at: usize,
}

impl LineReader {
    pub(super) fn new(body: Body) -> Self {
        LineReader { body, buffer: Zeroizing::default(), start: 0, at: 0 }
    }

    /// The next line. What comes after the last one is not whole, and is passed over.
    pub(super) async fn next(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, WatchFailure> {
        let patience = Duration::from_secs(WATCH_SECONDS.into()) + MARGIN;
        match timeout(patience, self.read()).await {
            Ok(line) => line.map_err(WatchFailure::Broken),
            // The server has vanished without a word.
            Err(_) => Err(WatchFailure::Silent),
        }
    }

    async fn read(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        loop {
            let rest = self.buffer.get(self.at..).unwrap_or_default();
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let end = self.at + length + 1;
                let line = self.buffer.get(self.start..end).unwrap_or_default().to_vec();
                (self.start, self.at) = (end, end);
                return Ok(Some(Zeroizing::new(line)));
            }
            if self.start == self.buffer.len() {
                // Nothing stays while the watch is quiet.
                self.buffer = Zeroizing::default();
            } else {
                self.buffer.drain(..self.start);
            }
            (self.start, self.at) = (0, self.buffer.len());
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Some(bytes) = frame?.data_ref() {
                extend_wiped(&mut self.buffer, bytes);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http_body_util::StreamBody;
    use hyper::body::{Bytes, Frame};
    use hyper::{Request, Response};
    use kube::Client;
    use tower::service_fn;
    use zeroize::ZeroizeOnDrop;

    use super::*;
    use crate::control::objects::open;

    fn is_wiped_when_dropped<T: ZeroizeOnDrop>(_: &T) {}

    #[tokio::test]
    async fn lines_are_whole_however_they_arrive_and_wiped_when_they_are_dropped() {
        let text = b"first\n\nsecond, which is longer\nthird\nnot whole";
        for piece in 1..=text.len() {
            let answer = move |_: Request<Body>| {
                let pieces = text.chunks(piece).map(Bytes::from_static);
                let frames = pieces.map(|piece| Ok::<_, Error>(Frame::data(piece)));
                let body = StreamBody::new(futures::stream::iter(frames));
                async move { Ok::<_, Error>(Response::new(body)) }
            };
            let client = Client::new(service_fn(answer), "default");
            let request = Request::get("/a").body(Vec::new()).unwrap();
            let body = open(&client, request).await.unwrap().into_body();
            let mut reader = LineReader::new(body);
            let mut lines = Vec::new();
            while let Some(line) = reader.next().await.unwrap() {
                is_wiped_when_dropped(&line);
                lines.push(String::from_utf8(line.to_vec()).unwrap());
            }
            let expected = ["first\n", "\n", "second, which is longer\n", "third\n"];
            assert_eq!(lines, expected, "in pieces of {piece}");
            assert_eq!(*reader.buffer, b"not whole", "the lines before are not kept");
            is_wiped_when_dropped(&reader.buffer);
        }
    }
}
