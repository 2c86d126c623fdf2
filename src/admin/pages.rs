//! What the port answers.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;

use super::AdminState;
use super::report::RoutesReport;
use crate::metrics;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

pub(super) type Answer = Response<Full<Bytes>>;

/// The pages, with what they show.
pub(super) struct Pages {
    state: Arc<AdminState>,
    /// The turn to make a large answer: with many thousand routes one takes time and memory.
    turn: Arc<Semaphore>,
}

impl Pages {
    pub(super) fn new(state: Arc<AdminState>) -> Self {
        Pages { state, turn: Arc::new(Semaphore::new(1)) }
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
            "/livez" => probe(self.state.health.live()),
            "/readyz" => probe(self.state.health.ready()),
            "/metrics" => self.large(metrics_page).await,
            _ => self.large(routes_page).await,
        }
    }

    /// An answer that takes long to make. On a thread of its own, one at a time: probes and the
    /// control plane share this runtime's only thread and do not wait for it.
    async fn large(&self, make: fn(&AdminState) -> Answer) -> Answer {
        let Ok(turn) = Arc::clone(&self.turn).acquire_owned().await else {
            return failed("the port is closing");
        };
        let state = Arc::clone(&self.state);
        let made = tokio::task::spawn_blocking(move || {
            // Held in here, since a client that goes away does not stop this thread.
            let _turn = turn;
            make(&state)
        });
        made.await.unwrap_or_else(failed)
    }
}

fn metrics_page(state: &AdminState) -> Answer {
    match state.metrics.encode() {
        Ok(text) => with_type(StatusCode::OK, metrics::CONTENT_TYPE, text),
        Err(error) => failed(error),
    }
}

fn routes_page(state: &AdminState) -> Answer {
    let table = Arc::clone(&state.table.table());
    let report = RoutesReport::new(&table, &state.statuses.load());
    match serde_json::to_string(&report) {
        Ok(json) => with_type(StatusCode::OK, JSON, json + "\n"),
        Err(error) => failed(error),
    }
}

fn probe(verdict: Result<(), Vec<&'static str>>) -> Answer {
    match verdict {
        Ok(()) => text(StatusCode::OK, "ok\n"),
        Err(reasons) => text(StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n"),
    }
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
