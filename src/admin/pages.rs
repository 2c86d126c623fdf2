//! What the port answers.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::AdminState;
use super::report::RoutesReport;
use crate::metrics;

/// How many answers of one large page are in memory at once. More than one, so that a client that
/// takes its time holds nobody up.
const COPIES: usize = 4;
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

pub(super) type Answer = Response<Full<Bytes>>;

/// The pages, with what they show.
pub(super) struct Pages {
    state: Arc<AdminState>,
    /// The turn to make a large answer: with many thousand routes that takes a while.
    turn: Arc<Semaphore>,
    metrics: Large,
    routes: Large,
}

/// A page that may have many megabytes.
struct Large {
    media_type: &'static str,
    make: fn(&AdminState) -> Result<Vec<u8>, String>,
    /// The right to have an answer of this page in memory, from its making until it is sent. Each
    /// page has its own: who reads the routes slowly holds no scraper up.
    copies: Arc<Semaphore>,
}

/// The text of a large answer. What is left to send shares it, so the right is given back with it.
struct Held {
    text: Vec<u8>,
    _right: OwnedSemaphorePermit,
}

impl Pages {
    pub(super) fn new(state: Arc<AdminState>) -> Self {
        let large =
            |media_type, make| Large { media_type, make, copies: Arc::new(Semaphore::new(COPIES)) };
        Pages {
            state,
            turn: Arc::new(Semaphore::new(1)),
            metrics: large(metrics::CONTENT_TYPE, metrics_text),
            routes: large(JSON, routes_text),
        }
    }

    /// The answer to a request. A body is never read: a request that has one is refused, and its
    /// connection is closed.
    pub(super) async fn answer(&self, request: &Request<Incoming>) -> Result<Answer, Infallible> {
        let has_body = !request.body().is_end_stream();
        let mut answer = match request.uri().path() {
            path @ ("/metrics" | "/livez" | "/readyz" | "/routes") => match *request.method() {
                Method::GET | Method::HEAD if has_body => body_refused(),
                Method::GET | Method::HEAD => self.page(path).await,
                _ => method_refused(),
            },
            _ => text(
                StatusCode::NOT_FOUND,
                "not found; there are /metrics, /livez, /readyz and /routes\n",
            ),
        };
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if has_body {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer)
    }

    async fn page(&self, path: &str) -> Answer {
        match path {
            "/livez" => probe(self.state.health.live(), &[]),
            "/readyz" => {
                let health = &self.state.health;
                probe(health.ready(), &health.notices())
            }
            "/metrics" => self.large(&self.metrics).await,
            _ => self.large(&self.routes).await,
        }
    }

    /// An answer that takes long to make. On a thread of its own, one at a time: probes share
    /// this runtime's only thread and do not wait for it.
    async fn large(&self, page: &Large) -> Answer {
        let right = Arc::clone(&page.copies).acquire_owned().await;
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        let (Ok(right), Ok(turn)) = (right, turn) else {
            return failed("the port is closing");
        };
        let (state, make) = (Arc::clone(&self.state), page.make);
        let made = tokio::task::spawn_blocking(move || {
            // Both are held in here, since a client that goes away does not stop this thread.
            let _turn = turn;
            let text = make(&state)?;
            Ok::<_, String>(Bytes::from_owner(Held { text, _right: right }))
        });
        match made.await {
            Ok(Ok(body)) => with_type(StatusCode::OK, page.media_type, body),
            Ok(Err(error)) => failed(error),
            Err(error) => failed(error),
        }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

fn metrics_text(state: &AdminState) -> Result<Vec<u8>, String> {
    state.metrics.encode().map(String::into_bytes).map_err(|error| error.to_string())
}

fn routes_text(state: &AdminState) -> Result<Vec<u8>, String> {
    let report = RoutesReport::now(&state.table, &state.statuses);
    let mut text = serde_json::to_vec(&report).map_err(|error| error.to_string())?;
    text.push(b'\n');
    Ok(text)
}

fn probe(verdict: Result<(), Vec<String>>, notices: &[String]) -> Answer {
    let (status, mut lines) = match verdict {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reasons) => (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n"),
    };
    for notice in notices {
        lines.push_str(&format!("notice: {notice}\n"));
    }
    text(status, lines)
}

fn method_refused() -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

fn body_refused() -> Answer {
    text(StatusCode::PAYLOAD_TOO_LARGE, "a request here has no body\n")
}

fn failed(error: impl std::fmt::Display) -> Answer {
    tracing::error!(%error, "the admin port cannot answer");
    text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    with_type(status, TEXT, body)
}

fn with_type(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}
