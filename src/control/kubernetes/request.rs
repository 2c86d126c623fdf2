//! The requests of lists and watches: how long they may take, when the next may come, and what is
//! learnt from their answers.

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::header::RETRY_AFTER;
use hyper::{Request, Response};
use kube::Client;
use kube::client::{Body, ClientBuilder};
use tokio::time::{Instant, sleep_until, timeout};
use tower_service::Service;

use super::health::WatchHealth;

/// How long a watch is asked for, in seconds. One whose server has vanished without a word is
/// given up 5 s after that, so this is what it takes to notice. The server sends a bookmark before
/// it ends a watch, so the next one begins where this one ended.
pub(super) const WATCH_SECONDS: u32 = 40;

/// To connect, TLS included.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// To begin to answer a watch, which a server does at once.
const WATCH_WITHIN: Duration = Duration::from_secs(15);
/// To answer a list, or without a byte in an answer. A server gives a request up after 60 s.
const LIST_WITHIN: Duration = Duration::from_secs(65);
/// From the start of a watch to the start of the next one, which begins at once when a watch ends: a
/// server may end each at once.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// The first pause after a failure, and the longest: after an outage, changes are to be live soon.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// When a failure is no longer one in a row; and how often success may end a row, so that a server
/// whose every answer leads to the next failure is not asked in haste for ever.
const FORGET_AFTER: Duration = Duration::from_secs(30);
/// The longest pause that a server can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);

/// A configuration of the client with deadlines that fit lists and watches.
///
/// The client itself repeats no request: kube's way to do that goes on for minutes without a word.
/// Whoever uses the client sees a 429 or 503 as an error and tries again in its own time.
pub fn tuned(mut config: kube::Config) -> kube::Config {
    config.connect_timeout = Some(CONNECT_WITHIN);
    config.read_timeout = Some(LIST_WITHIN);
    config.reset_reader_on_write = true;
    config.default_retry = false;
    config
}

/// A client for one list and watch, whose health learns from it. Needs a runtime.
pub(super) fn observed(client: &Client, health: WatchHealth) -> Client {
    let namespace = client.default_namespace().to_owned();
    let observed = ObservedClient { client: client.clone(), health, not_before: Instant::now() };
    ClientBuilder::new(observed, namespace).build()
}

struct ObservedClient {
    client: Client,
    health: WatchHealth,
    /// When the next watch may begin.
    not_before: Instant,
}

impl Service<Request<Body>> for ObservedClient {
    type Response = Response<Body>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (client, health) = (self.client.clone(), self.health.clone());
        let watch = is_watch(&request);
        let start = if watch { self.not_before.max(Instant::now()) } else { Instant::now() };
        if watch {
            self.not_before = start + WATCH_EVERY;
        }
        let within = if watch { WATCH_WITHIN } else { LIST_WITHIN };
        async move {
            sleep_until(start).await;
            let answer = timeout(within, send(&client, request)).await.map_err(|_| {
                let text = format!("no answer in {} s", within.as_secs());
                io::Error::new(io::ErrorKind::TimedOut, text)
            })??;
            if watch && answer.status().is_success() {
                health.watching();
            }
            if let Some(pause) = retry_after(&answer) {
                health.set_retry_after(pause);
            }
            Ok(answer)
        }
        .boxed()
    }
}

/// Sends a request, and once more if the connection it was sent on breaks off, as one does that was
/// kept for later use and whose server has ended meanwhile: that is no failure of the server.
async fn send(client: &Client, request: Request<Body>) -> kube::Result<Response<Body>> {
    // Lists and watches have no body.
    let mut again = Request::new(Body::empty());
    again.method_mut().clone_from(request.method());
    again.uri_mut().clone_from(request.uri());
    again.headers_mut().clone_from(request.headers());
    again.extensions_mut().clone_from(request.extensions());
    match client.send(request).await {
        Err(error) if has_broken_off(&error) => client.send(again).await,
        answer => answer,
    }
}

/// Whether there was a connection. That none can be made is not an error of hyper's.
fn has_broken_off(error: &kube::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<hyper::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn is_watch(request: &Request<Body>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1")
}

/// In seconds; a date, which no API server sends, is passed over.
fn retry_after(answer: &Response<Body>) -> Option<Duration> {
    let text = answer.headers().get(RETRY_AFTER)?.to_str().ok()?;
    Some(Duration::from_secs(text.parse().ok()?).min(LONGEST_RETRY_AFTER))
}

/// The pauses of one list and watch after failures.
pub(super) struct Backoff {
    health: WatchHealth,
    /// How many failures there were in a row.
    row: u32,
    last: Option<Instant>,
    /// When success has last ended a row.
    ended: Option<Instant>,
    random: RandomState,
}

impl Backoff {
    pub(super) fn new(health: WatchHealth) -> Self {
        Backoff { health, row: 0, last: None, ended: None, random: RandomState::new() }
    }

    /// The pause after one more failure: twice that of before, half of it by chance, so that the
    /// replicas do not all come at once.
    fn after_failure(&mut self, now: Instant) -> Duration {
        let long_ago = |time: Option<Instant>| {
            time.is_none_or(|time| now.saturating_duration_since(time) > FORGET_AFTER)
        };
        let succeeded = self.health.take_succeeded();
        if long_ago(self.last) {
            self.row = 0;
        } else if succeeded && long_ago(self.ended) {
            // The end of an outage. A watch that then turns out to be too old is no new one.
            self.row = 0;
            self.ended = Some(now);
        }
        self.last = Some(now);
        let whole = FIRST_PAUSE.saturating_mul(1 << self.row.min(16)).min(LONGEST_PAUSE);
        self.row = self.row.saturating_add(1);
        let chance = self.random.hash_one(now) % 1024;
        let half = whole / 2;
        let pause = half + half.mul_f64(chance as f64 / 1024.0);
        match self.health.take_retry_after() {
            Some(asked) => pause.max(asked + pause / 4),
            None => pause,
        }
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.after_failure(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::{Arc, Mutex};

    use tower::service_fn;

    use super::super::health::{Notice, SourceHealth};
    use super::*;

    /// What a server answers, at once.
    async fn answer(request: Request<Body>) -> kube::Result<Response<Body>> {
        let mut answer = Response::new(Body::empty());
        if request.uri().path() == "/busy" {
            *answer.status_mut() = hyper::StatusCode::TOO_MANY_REQUESTS;
            answer.headers_mut().insert(RETRY_AFTER, 3.into());
        }
        Ok(answer)
    }

    #[tokio::test(start_paused = true)]
    async fn health_learns_from_answers_and_watches_do_not_follow_at_once() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&told);
        let health = SourceHealth::new(move |notice| kept.lock().expect("told").push(notice));
        let health = health.watch("as", None);
        let client = observed(&Client::new(service_fn(answer), "default"), health.clone());
        let ask = async |uri: &str| {
            let request = Request::get(uri).body(Body::empty()).expect("a request");
            client.send(request).await.expect("an answer").status().as_u16()
        };
        assert_eq!(ask("/as?limit=500").await, 200);
        assert_eq!(ask("/busy?watch=true").await, 429);
        assert_eq!(*told.lock().expect("told"), []);
        assert_eq!(health.take_retry_after(), Some(Duration::from_secs(3)));
        let start = Instant::now();
        assert_eq!(ask("/as?limit=500").await, 200);
        assert!(start.elapsed() < WATCH_EVERY, "lists do follow at once");
        assert_eq!(ask("/as?watch=true").await, 200);
        assert_eq!(*told.lock().expect("told"), [Notice::Up]);
        assert_eq!(ask("/as?watch=true").await, 200);
        assert!(start.elapsed() > WATCH_EVERY);
    }

    fn pauses() -> Backoff {
        Backoff::new(SourceHealth::new(|_| {}).watch("as", None))
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_not_all_the_same() {
        let mut pauses = pauses();
        let mut now = Instant::now();
        let mut whole = FIRST_PAUSE;
        for _ in 0..40 {
            let pause = pauses.after_failure(now);
            assert!(whole / 2 <= pause && pause <= whole, "{pause:?} of {whole:?}");
            now += pause;
            whole = (whole * 2).min(LONGEST_PAUSE);
        }
        let different: HashSet<_> =
            (0..20).map(|step| pauses.after_failure(now + Duration::from_millis(step))).collect();
        assert!(different.len() > 1, "{different:?}");
    }

    #[test]
    fn after_a_while_without_failure_pauses_begin_anew() {
        let mut pauses = pauses();
        let mut now = Instant::now();
        for _ in 0..10 {
            pauses.after_failure(now);
        }
        now += FORGET_AFTER + Duration::from_millis(1);
        assert!(pauses.after_failure(now) <= FIRST_PAUSE);
    }

    #[test]
    fn success_ends_a_row_and_not_every_time() {
        let mut pauses = pauses();
        let now = Instant::now();
        let row = |pauses: &mut Backoff, now| {
            for _ in 0..10 {
                pauses.after_failure(now);
            }
            assert!(pauses.after_failure(now) >= LONGEST_PAUSE / 2);
        };
        row(&mut pauses, now);
        pauses.health.watching();
        assert!(pauses.after_failure(now) <= FIRST_PAUSE);
        row(&mut pauses, now);
        pauses.health.watching();
        assert!(pauses.after_failure(now) >= LONGEST_PAUSE / 2);
    }

    #[test]
    fn what_the_server_asks_for_is_waited_once() {
        let mut pauses = pauses();
        let asked = Duration::from_secs(7);
        pauses.health.set_retry_after(asked);
        assert!(pauses.after_failure(Instant::now()) >= asked);
        assert!(pauses.after_failure(Instant::now()) < asked);
    }

    #[test]
    fn an_endless_retry_after_is_bounded() {
        for (text, expected) in [
            ("1", Some(1)),
            ("86400", Some(30)),
            ("Wed, 21 Oct 2026 07:28:00 GMT", None),
            ("-1", None),
        ] {
            let answer = Response::builder().header(RETRY_AFTER, text).body(Body::empty());
            let found = retry_after(&answer.expect("an answer"));
            assert_eq!(found, expected.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn watches_are_told_from_lists() {
        for (query, watch) in [
            ("?&watch=true&timeoutSeconds=40", true),
            ("?watch=1", true),
            ("?limit=500", false),
            ("?watch=false", false),
            ("", false),
        ] {
            let request = Request::get(format!("/api/v1/services{query}")).body(Body::empty());
            assert_eq!(is_watch(&request.expect("a request")), watch, "{query}");
        }
    }
}
