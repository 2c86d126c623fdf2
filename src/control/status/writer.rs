//! The status writer, which runs on the leader.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::Request;
use kube::{Client, Error};
use tokio::time::{sleep, sleep_until};

use super::body::REPORTED;
use super::ejections::Ejections;
use super::events::EventWriter;
use super::failure::{RequestFailure, answered};
use super::failure_log::FailureLog;
use super::moves::Moves;
use super::object::WrittenStatus;
use super::queue::{WriteLane, WriteQueue, WriteResult};
use super::reporter::{ReporterArgs, StatusChanges};
use super::statuses::StatusEvent;
use super::warning::Warning;
use super::{REPORTER, RouteStatus};
use crate::control::api::Definition;
use crate::control::objects::{Extent, Pages, send};
use crate::control::random::jitter;
use crate::routing::ObjectRef;

/// How long the API server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long after a failed list the next one starts, or a little sooner.
const LIST_PAUSE: Duration = Duration::from_secs(5);

/// Writes statuses while it runs. It first reads the written statuses, and writes only those that differ. It
/// does not read what others write later, so two installations that serve the same route do not overwrite
/// each other without end.
pub(super) struct StatusWriter<'r> {
    reporting: &'r ReporterArgs,
    written: HashMap<ObjectRef, WrittenStatus>,
    queue: WriteQueue,
    in_flight: FuturesUnordered<BoxFuture<'static, WriteAnswer>>,
    events: EventWriter<'r>,
    ejections: Ejections<'r>,
    failure_log: FailureLog,
}

/// The result of one write.
struct WriteAnswer {
    key: ObjectRef,
    written: WrittenStatus,
    result: Result<(), RequestFailure>,
}

impl<'r> StatusWriter<'r> {
    pub(super) fn new(reporting: &'r ReporterArgs) -> Self {
        StatusWriter {
            reporting,
            written: HashMap::new(),
            queue: WriteQueue::new(Instant::now()),
            in_flight: FuturesUnordered::new(),
            events: EventWriter::new(reporting),
            ejections: Ejections::new(&reporting.ejections, Instant::now()),
            failure_log: FailureLog::default(),
        }
    }

    /// Works until it is dropped.
    pub(super) async fn run(mut self, changes: &mut StatusChanges) -> Infallible {
        changes.moves.lead(Instant::now());
        let dropped = &self.reporting.meters.events_dropped;
        tokio::select! {
            () = self.learn() => {}
            // What differs is found when all is read.
            never = changes.hear_of_moves(|moves, more| {
                dropped.inc_by(moves.push(more, Instant::now()) as u64);
            }) => match never {},
        }
        for said in self.reporting.statuses.hold().snapshot() {
            if self.next(&said).is_some() {
                self.queue.push(said.object.clone(), WriteLane::Backlog);
            }
        }
        loop {
            self.send();
            self.events.send(&mut changes.moves);
            self.warn_of_ejections();
            let now = Instant::now();
            let wakes = [self.queue.wake(now), self.events.wake(&changes.moves)];
            let wake = wakes.into_iter().flatten().chain([self.ejections.wake()]).min();
            tokio::select! {
                news = changes.next() => self.hear(news, &mut changes.moves),
                Some(answer) = self.in_flight.next() => self.take(answer),
                Some(outcome) = self.events.next() => self.events.take(outcome, &mut changes.moves),
                () = sleep_until(wake.unwrap_or(now).into()), if wake.is_some() => {}
            }
        }
    }

    /// Warns of endpoints that were ejected lately.
    fn warn_of_ejections(&mut self) {
        for (route, warning) in self.ejections.look(Instant::now()) {
            let uid = self.reporting.statuses.get(&route).and_then(|status| status.uid.clone());
            uid.into_iter().for_each(|uid| self.events.warn(&route, &uid, &warning));
        }
    }

    fn hear(&mut self, news: StatusEvent, moves: &mut Moves) {
        match news {
            StatusEvent::Changed(keys) => {
                keys.into_iter().for_each(|key| self.queue.push(key, WriteLane::Change));
            }
            StatusEvent::Moved(more) => {
                let dropped = moves.push(&more, Instant::now()) as u64;
                self.reporting.meters.events_dropped.inc_by(dropped);
            }
        }
    }

    /// Reads the written statuses.
    async fn learn(&mut self) {
        self.written.clear();
        for definition in REPORTED.map(Definition::of) {
            while let Err(failure) = self.list(definition).await {
                FailureLog::of_reads(definition, &failure);
                sleep(jitter(LIST_PAUSE)).await;
            }
        }
    }

    async fn list(&mut self, definition: Definition) -> Result<(), RequestFailure> {
        self.written.retain(|object, _| object.kind != definition.kind);
        let namespaces = &self.reporting.namespaces;
        let scopes: Vec<Option<&str>> = match namespaces.as_slice() {
            [] => vec![None],
            some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
        };
        for scope in scopes {
            let path = Definition::path(&definition.newest(), scope);
            let mut pages = Pages::new(self.reporting.client.clone(), &path, Extent::Whole);
            while let Some(object) = answered(TIMEOUT, pages.next()).await? {
                let Some((key, written)) = WrittenStatus::of(definition.kind, &object) else {
                    continue;
                };
                // Only those of this installation.
                if self.reporting.statuses.get(&key).is_some() {
                    self.written.insert(key, written);
                }
            }
        }
        Ok(())
    }

    /// The status to write for a route, if it differs from the written one.
    fn next(&self, said: &RouteStatus) -> Option<WrittenStatus> {
        let before = self.written.get(&said.object);
        let next = WrittenStatus::next(said, before, Timestamp::now())?;
        (before != Some(&next)).then_some(next)
    }

    /// Starts all writes whose turn it is.
    fn send(&mut self) {
        while let Some(key) = self.queue.next(Instant::now()) {
            // What is to be said now, whatever it was when the route was put into the queue. A
            // route that is gone, or another installation's by now, is not touched.
            let said = self.reporting.statuses.get(&key);
            if said.is_none() {
                self.written.remove(&key);
            }
            match said.and_then(|said| Some((self.next(&said)?, said))) {
                Some((next, said)) => {
                    let client = self.reporting.client.clone();
                    let write = write(client, said, next);
                    self.in_flight.push(Box::pin(write));
                }
                None => self.queue.end(&key, WriteResult::Idle, Instant::now(), jitter),
            }
        }
    }

    fn take(&mut self, WriteAnswer { key, written, result }: WriteAnswer) {
        let meters = &self.reporting.meters;
        let how = match result {
            Ok(()) => {
                meters.written.inc();
                self.failure_log.writes_work();
                self.warn(&key, &written);
                self.written.insert(key.clone(), written);
                WriteResult::Done
            }
            Err(failure) => match failure.code() {
                // It is gone.
                Some(404) => {
                    self.written.remove(&key);
                    WriteResult::Done
                }
                // It has changed, and this replica will receive the change.
                Some(409) => {
                    self.failure_log.of_conflict(&key, self.queue.failures(&key));
                    WriteResult::Refused
                }
                Some(400 | 413 | 422) => {
                    meters.failed.inc();
                    self.failure_log.of_status(&key, self.queue.failures(&key), &failure);
                    WriteResult::Refused
                }
                code => {
                    meters.failed.inc();
                    self.failure_log.of_writes(&key, code, &failure);
                    WriteResult::Failed
                }
            },
        };
        self.queue.end(&key, how, Instant::now(), jitter);
    }

    /// Creates Events for new problems of a route.
    fn warn(&mut self, key: &ObjectRef, written: &WrittenStatus) {
        let warnings: Vec<Warning> =
            written.warnings(self.written.get(key)).into_iter().map(Warning::of).collect();
        for warning in warnings {
            self.events.warn(key, &written.uid, &warning);
        }
    }
}

async fn write(client: Client, said: Arc<RouteStatus>, next: WrittenStatus) -> WriteAnswer {
    let definition = Definition::of(said.object.kind).newest();
    let objects = Request::new(Definition::path(&definition, Some(said.object.namespace())));
    let patch = Patch::Apply(next.patch(&said));
    let params = PatchParams::apply(REPORTER).force();
    let request = objects.patch_subresource("status", said.object.name(), &params, &patch);
    let result = match request.map_err(Error::BuildRequest) {
        Ok(request) => answered(TIMEOUT, send(&client, request)).await,
        Err(error) => Err(RequestFailure::Refused(error)),
    };
    WriteAnswer { key: said.object.clone(), written: next, result }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use http_body_util::BodyExt;
    use hyper::{Method, Request, Response};
    use kube::client::Body;
    use prometheus::{IntCounter, IntGauge};
    use tokio::sync::Notify;
    use tower::service_fn;

    use super::super::EjectionSource;
    use super::super::moves::tests::moved;
    use super::super::{Meters, Statuses};
    use super::*;
    use crate::control::lease;

    /// A server that answers a list once it is told to, and the first Event with 503. It notes those
    /// that it takes.
    #[derive(Default)]
    struct Server {
        list: Notify,
        was_busy: AtomicBool,
        events: Mutex<BTreeSet<String>>,
    }

    impl Server {
        async fn answer(self: Arc<Self>, request: Request<Body>) -> (u16, &'static str) {
            if request.method() == Method::GET {
                self.list.notified().await;
                return (200, "{\"metadata\": {\"resourceVersion\": \"1\"}, \"items\": []}");
            }
            if !self.was_busy.swap(true, Ordering::Relaxed) {
                return (503, "{\"status\": \"Failure\", \"code\": 503, \"reason\": \"Busy\"}");
            }
            let event = request.into_body().collect().await.unwrap().to_bytes();
            let event: serde_json::Value = serde_json::from_slice(&event).unwrap();
            let name = event["metadata"]["namespace"].as_str().unwrap().to_owned();
            let route = event["regarding"]["name"].as_str().unwrap();
            self.events.lock().unwrap().insert(format!("{name}/{route}"));
            (201, "{\"metadata\": {}, \"eventTime\": null}")
        }

        fn client(self: &Arc<Self>) -> Client {
            let server = Arc::clone(self);
            let service = service_fn(move |request| {
                let answer = Arc::clone(&server).answer(request);
                async move {
                    let (code, text) = answer.await;
                    let answer = Response::builder().status(code);
                    answer.body(Body::from(text.as_bytes().to_vec()))
                }
            });
            Client::new(service, "ns")
        }
    }

    fn reporting(client: Client) -> ReporterArgs {
        let counter = || IntCounter::new("c", "c").unwrap();
        ReporterArgs {
            client,
            namespaces: Vec::new(),
            lease: lease::LeaseSettings {
                namespace: "ns".to_owned(),
                name: "lease".to_owned(),
                identity: "me".to_owned(),
                duration: Duration::from_secs(15),
            },
            lead: tokio::sync::watch::channel(true).0,
            statuses: Statuses::default(),
            ejections: EjectionSource {
                table: crate::routing::channel().1,
                counts: [counter(), counter()],
                unhealthy: counter(),
            },
            meters: Meters {
                leader: IntGauge::new("l", "l").unwrap(),
                written: counter(),
                failed: counter(),
                events_dropped: counter(),
            },
            supervised: Box::new(|_| {}),
        }
    }

    #[tokio::test]
    async fn both_sides_get_an_event_however_many_move_and_while_a_leader_lists() {
        const MOVES: usize = 40;
        let server = Arc::<Server>::default();
        let reporting = reporting(server.client());
        let mut changes = StatusChanges::new(reporting.statuses.follow());
        let told = async {
            reporting.statuses.hold().moved((0..MOVES).map(moved).collect());
            // The news are taken in before the list is answered.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            server.list.notify_one();
            while server.events.lock().unwrap().len() < 2 * MOVES {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let run = async {
            tokio::select! {
                never = StatusWriter::new(&reporting).run(&mut changes) => match never {},
                () = told => {}
            }
        };
        tokio::time::timeout(Duration::from_secs(20), run).await.unwrap();
        assert_eq!(reporting.meters.events_dropped.get(), 0);
    }
}
