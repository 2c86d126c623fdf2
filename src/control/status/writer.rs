//! The leader's work: has the statuses in the API server say what is to be said.

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
use kube::{Client, Error, Resource};
use tokio::time::{sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::object::Written;
use super::queue::{Ended, Lane, Queue};
use super::reporter::{Changes, Reporting, heard, ignore};
use super::statuses::News;
use super::warning::{Warning, Warnings};
use super::{HostnameMove, REPORTER, RouteStatus};
use crate::control::api::SniRoute;
use crate::control::lease::refusal;
use crate::control::objects::{Pages, send};
use crate::control::random::jitter;
use crate::routing::RouteKey;

/// How long the API server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long after a failed list the next one starts, or a little sooner.
const LIST_PAUSE: Duration = Duration::from_secs(5);
/// How many Events may be under way; more are dropped.
const MOST_EVENTS: usize = 16;
/// After so many refusals in a row of one route's status, somebody should look at it.
const MANY_CONFLICTS: u32 = 8;

/// Writes statuses for as long as it is run. It knows what it has written and what it found written
/// when it began, and writes what differs from that, and nothing else: what others write there
/// later it does not read, so two installations that both serve a route do not answer each other.
pub(super) struct Writer<'r> {
    reporting: &'r Reporting,
    written: HashMap<RouteKey, Written>,
    queue: Queue,
    in_flight: FuturesUnordered<BoxFuture<'static, Answer>>,
    events: FuturesUnordered<BoxFuture<'static, Result<(), Error>>>,
    warnings: Warnings,
    troubles: Troubles,
}

/// What came of one write.
struct Answer {
    key: RouteKey,
    written: Written,
    result: Result<(), Failure>,
}

enum Failure {
    Refused(Error),
    NoAnswer,
}

/// What has been logged, so that what goes on is not logged again and again.
#[derive(Debug, Default)]
struct Troubles {
    writes: Option<u16>,
    events_forbidden: bool,
}

impl<'r> Writer<'r> {
    pub(super) fn new(reporting: &'r Reporting) -> Self {
        Writer {
            reporting,
            written: HashMap::new(),
            queue: Queue::new(Instant::now()),
            in_flight: FuturesUnordered::new(),
            events: FuturesUnordered::new(),
            warnings: Warnings::new(&reporting.lease.identity),
            troubles: Troubles::default(),
        }
    }

    /// Works until it is dropped.
    pub(super) async fn run(mut self, changes: &mut Changes) -> Infallible {
        tokio::select! {
            () = self.learn() => {}
            never = ignore(changes) => match never {},
        }
        let now = Instant::now();
        for said in self.reporting.statuses.hold().snapshot() {
            if self.next(&said).is_some() {
                self.queue.push(said.key.clone(), Lane::Backlog, now);
            }
        }
        loop {
            self.send();
            let now = Instant::now();
            let wake = self.queue.wake(now);
            tokio::select! {
                changed = heard(changes) => {
                    self.hear(changed);
                }
                Some(answer) = self.in_flight.next() => self.take(answer),
                Some(result) = self.events.next() => self.troubles.of_event(result),
                () = sleep_until(wake.unwrap_or(now).into()), if wake.is_some() => {}
            }
        }
    }

    fn hear(&mut self, news: News) {
        let now = Instant::now();
        match news {
            News::Changed(keys) => {
                keys.into_iter().for_each(|key| self.queue.push(key, Lane::Change, now));
            }
            News::Moved(moves) => moves.iter().for_each(|moved| self.warn_of_move(moved)),
        }
    }

    /// Reads what is written.
    async fn learn(&mut self) {
        loop {
            match self.list().await {
                Ok(()) => return,
                Err(Failure::Refused(error)) if refusal(&error).is_some() => warn!(
                    %error,
                    hint = "trying again; the service account needs the verb list on \
                            sniroutes.sluice.dev",
                    "cannot read the statuses that are written"
                ),
                // Whoever watches tells of a server in trouble.
                Err(failure) => debug!(error = failure.text(), "cannot read the statuses"),
            }
            sleep(jitter(LIST_PAUSE)).await;
        }
    }

    async fn list(&mut self) -> Result<(), Failure> {
        self.written.clear();
        let namespaces = &self.reporting.namespaces;
        let scopes: Vec<Option<&str>> = match namespaces.as_slice() {
            [] => vec![None],
            some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
        };
        for scope in scopes {
            let path = SniRoute::url_path(&(), scope);
            let mut pages = Pages::new(self.reporting.client.clone(), &path);
            while let Some(object) = answered(pages.next()).await? {
                let Some((key, written)) = Written::of(&object) else { continue };
                // Others' are not ours to remember.
                if self.reporting.statuses.get(&key).is_some() {
                    self.written.insert(key, written);
                }
            }
        }
        Ok(())
    }

    /// What is to be written for a route, if it differs from what is.
    fn next(&self, said: &RouteStatus) -> Option<Written> {
        let before = self.written.get(&said.key);
        let next = Written::next(said, before, Timestamp::now())?;
        (before != Some(&next)).then_some(next)
    }

    /// Sends all whose turn it is.
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
                None => self.queue.end(&key, Ended::Idle, Instant::now(), jitter),
            }
        }
    }

    fn take(&mut self, Answer { key, written, result }: Answer) {
        let meters = &self.reporting.meters;
        let how = match result {
            Ok(()) => {
                meters.written.inc();
                self.troubles.writes_work();
                self.warn(&key, &written);
                self.written.insert(key.clone(), written);
                Ended::Done
            }
            Err(failure) => match failure.code() {
                // It is gone.
                Some(404) => {
                    self.written.remove(&key);
                    Ended::Done
                }
                // It has changed, and this replica is about to hear of it.
                Some(409) => {
                    self.troubles.of_conflict(&key, self.queue.failures(&key));
                    Ended::Refused
                }
                Some(400 | 413 | 422) => {
                    meters.failed.inc();
                    self.troubles.of_status(&key, self.queue.failures(&key), &failure);
                    Ended::Refused
                }
                code => {
                    meters.failed.inc();
                    self.troubles.of_writes(&key, code, &failure);
                    Ended::Failed
                }
            },
        };
        self.queue.end(&key, how, Instant::now(), jitter);
    }

    /// Tells what is wrong with a route and was not before.
    fn warn(&mut self, key: &RouteKey, written: &Written) {
        let warnings: Vec<Warning> =
            written.warnings(self.written.get(key)).into_iter().map(Warning::of).collect();
        for warning in warnings {
            self.publish(key, &written.uid, &warning);
        }
    }

    /// Tells both sides that hostnames belong to another namespace now.
    fn warn_of_move(&mut self, moved: &HostnameMove) {
        for (route, warning) in Warning::of_move(moved) {
            if let Some(uid) = &route.uid {
                self.publish(&route.key, uid, &warning);
            }
        }
    }

    fn publish(&mut self, key: &RouteKey, uid: &str, warning: &Warning) {
        if self.events.len() < MOST_EVENTS {
            let client = self.reporting.client.clone();
            let event = self.warnings.publish(client, key, uid, warning);
            self.events.push(Box::pin(event));
        }
    }
}

async fn write(client: Client, said: Arc<RouteStatus>, next: Written) -> Answer {
    let routes = Request::new(SniRoute::url_path(&(), Some(said.key.namespace())));
    let patch = Patch::Apply(next.patch(&said));
    let params = PatchParams::apply(REPORTER).force();
    let request = routes.patch_subresource("status", said.key.name(), &params, &patch);
    let result = match request.map_err(Error::BuildRequest) {
        Ok(request) => answered(send(&client, request)).await,
        Err(error) => Err(Failure::Refused(error)),
    };
    Answer { key: said.key.clone(), written: next, result }
}

async fn answered<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    match timeout(TIMEOUT, request).await {
        Ok(result) => result.map_err(Failure::Refused),
        Err(_) => Err(Failure::NoAnswer),
    }
}

impl Failure {
    fn code(&self) -> Option<u16> {
        match self {
            Failure::Refused(Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Failure::Refused(error) => error.to_string(),
            Failure::NoAnswer => "no answer".to_owned(),
        }
    }
}

impl Troubles {
    /// A status is refused for what it is. That concerns its route alone.
    fn of_status(&mut self, route: &RouteKey, failures: u32, failure: &Failure) {
        if failures == 0 {
            let error = failure.text();
            warn!(%route, error, "the status of a route is refused; trying again, ever slower");
        }
    }

    /// A status could not be written, and no other could.
    fn of_writes(&mut self, route: &RouteKey, code: Option<u16>, failure: &Failure) {
        let Some(code) = code else {
            debug!(%route, error = failure.text(), "cannot write the status of a route");
            return;
        };
        if self.writes.replace(code) == Some(code) {
            return;
        }
        let hint = match code {
            403 => {
                "the service account needs the verb patch on sniroutes/status in the API group \
                    sluice.dev, as deploy/clusterrole.yaml has it"
            }
            _ => "trying again, ever slower; traffic does not depend on it",
        };
        warn!(%route, error = failure.text(), hint, "cannot write the status of a route");
    }

    fn writes_work(&mut self) {
        if self.writes.take().is_some() {
            info!("statuses can be written again");
        }
    }

    fn of_conflict(&mut self, route: &RouteKey, failures: u32) {
        match failures {
            MANY_CONFLICTS => {
                warn!(%route, "the status of a route cannot be written: it changes all the time")
            }
            _ => debug!(%route, "a route has changed before its status was written"),
        }
    }

    fn of_event(&mut self, result: Result<(), Error>) {
        match result {
            Ok(()) => self.events_forbidden = false,
            Err(Error::Api(status)) if status.code == 403 && !self.events_forbidden => {
                self.events_forbidden = true;
                warn!(
                    error = status.message,
                    hint = "the service account needs the verbs create and patch on events in the \
                            API group events.k8s.io, as deploy/clusterrole.yaml has them",
                    "cannot warn of routes in Events"
                );
            }
            Err(error) => debug!(%error, "an Event is lost"),
        }
    }
}
