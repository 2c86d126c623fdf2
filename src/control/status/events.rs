//! The Events that the leader writes.

use std::time::Instant;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tracing::{debug, warn};

use super::failure::RequestFailure;
use super::moves::Moves;
use super::reporter::ReporterArgs;
use super::warning::{Warning, Warnings};
use crate::control::random::jitter;
use crate::routing::ObjectRef;

/// How many may be under way.
const MOST_UNDER_WAY: usize = 16;
/// How many of them may be of hostnames that changed their owner, which wait for their turn. Others
/// are dropped when there is no room.
const MOST_MOVES: usize = 8;

/// Writes Events.
pub(super) struct EventWriter<'r> {
    reporting: &'r ReporterArgs,
    warnings: Warnings,
    in_flight: FuturesUnordered<BoxFuture<'static, EventResult>>,
    /// Whether it was logged that none may be written.
    forbidden: bool,
}

/// What came of one.
pub(super) struct EventResult {
    /// The ticket of one that waits for its turn.
    ticket: Option<u64>,
    result: Result<(), RequestFailure>,
}

impl<'r> EventWriter<'r> {
    pub(super) fn new(reporting: &'r ReporterArgs) -> Self {
        EventWriter {
            reporting,
            warnings: Warnings::new(&reporting.lease.identity),
            in_flight: FuturesUnordered::new(),
            forbidden: false,
        }
    }

    /// Writes one now or never.
    pub(super) fn warn(&mut self, key: &ObjectRef, uid: &str, warning: &Warning) {
        match self.in_flight.len() < MOST_UNDER_WAY {
            true => self.publish(None, key, uid, warning),
            false => self.reporting.meters.events_dropped.inc(),
        }
    }

    /// Writes those whose turn it is.
    pub(super) fn send(&mut self, moves: &mut Moves) {
        while self.has_room(moves)
            && let Some((ticket, told)) = moves.next(Instant::now())
        {
            self.publish(Some(ticket), &told.route, &told.uid, &told.warning);
        }
    }

    /// When there may be one to write; nothing if that depends on what is under way or comes.
    pub(super) fn wake(&self, moves: &Moves) -> Option<Instant> {
        moves.wake().filter(|_| self.has_room(moves))
    }

    /// What comes of the next one, if there is one under way.
    pub(super) async fn next(&mut self) -> Option<EventResult> {
        self.in_flight.next().await
    }

    pub(super) fn take(&mut self, EventResult { ticket, result }: EventResult, moves: &mut Moves) {
        let lost = match &result {
            Ok(()) => {
                self.forbidden = false;
                false
            }
            Err(failure) if failure.is_of_a_namespace_that_ends() => false,
            Err(failure) => {
                self.log(failure);
                // What is refused for what it is will be so again.
                let is_final = matches!(failure.code(), Some(400 | 403 | 413 | 422));
                let again = ticket.filter(|_| !is_final);
                !again.is_some_and(|ticket| moves.retry(ticket, Instant::now(), jitter))
            }
        };
        if lost {
            self.reporting.meters.events_dropped.inc();
        }
        // One that is to come again is no longer under way.
        ticket.iter().for_each(|ticket| moves.end(*ticket));
    }

    fn has_room(&self, moves: &Moves) -> bool {
        self.in_flight.len() < MOST_UNDER_WAY && moves.under_way() < MOST_MOVES
    }

    fn publish(&mut self, ticket: Option<u64>, key: &ObjectRef, uid: &str, warning: &Warning) {
        let event = self.warnings.publish(self.reporting.client.clone(), key, uid, warning);
        self.in_flight.push(Box::pin(async move { EventResult { ticket, result: event.await } }));
    }

    fn log(&mut self, failure: &RequestFailure) {
        let error = failure.text();
        if failure.code() == Some(403) && !self.forbidden {
            self.forbidden = true;
            warn!(
                error,
                hint = "the service account needs the verbs create and patch on events in the API \
                        group events.k8s.io, as deploy/clusterrole.yaml has them",
                "cannot warn of routes in Events"
            );
        } else {
            debug!(error, "an Event could not be written");
        }
    }
}
