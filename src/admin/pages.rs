//! The answers of the admin port.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;

use super::AdminState;
use super::large_page::{LargePage, PageConsumer};
use super::limits::{LimitsQuery, LimitsReport};
use super::report::RoutesReport;
use crate::metrics;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

pub(super) type PageResponse = Response<Full<Bytes>>;

/// The pages and their data.
pub(super) struct AdminPages {
    state: Arc<AdminState>,
    metrics: Arc<LargePage>,
    routes: Arc<LargePage>,
}

impl AdminPages {
    pub(super) fn new(state: Arc<AdminState>) -> Self {
        let turn = Arc::new(Semaphore::new(1));
        let large = |media_type, make| {
            LargePage::new(media_type, make, Arc::clone(&state), Arc::clone(&turn))
        };
        AdminPages {
            metrics: large(metrics::CONTENT_TYPE, metrics_text),
            routes: large(JSON, routes_text),
            state,
        }
    }

    /// The answer to a request. A request with a body is refused, and its connection is closed; the body is
    /// never read.
    pub(super) async fn answer(
        &self,
        request: &Request<Incoming>,
        reader: &Arc<PageConsumer>,
    ) -> Result<PageResponse, Infallible> {
        let has_body = !request.body().is_end_stream();
        let mut answer = match request.uri().path() {
            path @ ("/metrics" | "/livez" | "/readyz" | "/routes" | "/limits") => {
                match *request.method() {
                    Method::GET | Method::HEAD if has_body => body_refused(),
                    Method::GET | Method::HEAD if path == "/limits" => {
                        self.limits(request.uri().query())
                    }
                    Method::GET | Method::HEAD => self.page(path, reader).await,
                    _ => method_refused(),
                }
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "not found; there are /metrics, /livez, /readyz, /routes and /limits\n",
            ),
        };
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if has_body {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer)
    }

    /// The limits that a client of a route would exceed.
    fn limits(&self, query: Option<&str>) -> PageResponse {
        let query: LimitsQuery = match query.unwrap_or_default().parse() {
            Ok(query) => query,
            Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        };
        let table = self.state.table.table();
        match table.route(&query.route) {
            Some(route) => match serde_json::to_vec(&LimitsReport::of(route, query.source)) {
                Ok(body) => with_type(StatusCode::OK, JSON, body),
                Err(error) => failed(error),
            },
            None => text(StatusCode::NOT_FOUND, format!("{} is not served\n", query.route)),
        }
    }

    async fn page(&self, path: &str, reader: &Arc<PageConsumer>) -> PageResponse {
        match path {
            "/livez" => probe(self.state.readiness.live(), &[]),
            "/readyz" => {
                let readiness = &self.state.readiness;
                probe(readiness.ready(), &readiness.notices())
            }
            "/metrics" => large(&self.metrics, reader).await,
            _ => large(&self.routes, reader).await,
        }
    }
}

async fn large(page: &Arc<LargePage>, reader: &Arc<PageConsumer>) -> PageResponse {
    match page.text(reader).await {
        Ok(body) => with_type(StatusCode::OK, page.media_type, body),
        Err(error) => failed(error),
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

fn probe(verdict: Result<(), Vec<String>>, notices: &[String]) -> PageResponse {
    let (status, mut lines) = match verdict {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reasons) => (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n"),
    };
    for notice in notices {
        lines.push_str(&format!("notice: {notice}\n"));
    }
    text(status, lines)
}

fn method_refused() -> PageResponse {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

fn body_refused() -> PageResponse {
    text(StatusCode::PAYLOAD_TOO_LARGE, "a request here has no body\n")
}

fn failed(error: impl std::fmt::Display) -> PageResponse {
    tracing::error!(%error, "the admin port cannot answer");
    text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> PageResponse {
    with_type(status, TEXT, body)
}

fn with_type(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> PageResponse {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}
