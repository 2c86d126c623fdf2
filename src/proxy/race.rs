//! Tries other endpoints after the first one has failed or is silent.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::attempt::{Attempt, ConnectFailure, Upstream};
use super::connection::Connection;
use super::context::Context;
use super::descriptors::SpareDescriptor;
use super::endpoint_tls::EndpointTls;
use super::race_budget::{RacePermit, RaceTurn};
use super::reactor::Interrupted;
use super::refuse::Refusal;
use super::stream::Stream;
use crate::routing::{EndpointRequest, Route, SearchState, choose};

/// The maximum number of silent endpoints for one client, all of which it waits for at the same time.
const MOST_WAITED_FOR: usize = 3;
/// How many endpoints are tried for one client, if they fail at once.
const MOST_TRIED: usize = 16;
/// How many addresses without a route are skipped for one client.
const MOST_UNROUTED: usize = 16;
/// How often a client that waits for its turn to race looks by itself: the budget may have grown, or a race of
/// another worker may have ended.
const TURN_AGAIN: Duration = Duration::from_millis(50);

/// Attempts for one client that run at the same time. The first one that connects wins, and the others
/// are closed. Each additional attempt takes a descriptor that another client could need, so there is only
/// one at a time if descriptors are short, or if so many other clients race that the route's budget is used
/// up.
pub(super) struct Race<'a> {
    context: &'a Context,
    connection: &'a mut Connection,
    route: &'a Arc<Route>,
    downstream: &'a Stream,
    /// The deadline of one attempt.
    limit: Duration,
    /// Held from the first attempt beside another one on.
    permit: Option<RacePermit<'a>>,
    /// The place in the line for a permit or a descriptor.
    turn: Option<RaceTurn<'a>>,
    begun: Instant,
    tried: Vec<SocketAddr>,
    search: SearchState,
    running: Vec<RunningAttempt<'a>>,
    waited_for: usize,
    unrouted: usize,
    /// Whether no other endpoint should be tried.
    exhausted: bool,
    failure: Refusal,
}

struct RunningAttempt<'a> {
    attempt: Attempt,
    /// The additional descriptor, if this is not the only attempt.
    _spare: Option<SpareDescriptor<'a>>,
    /// Whether it has been silent for so long that another endpoint may be tried.
    silent: bool,
}

impl<'a> Race<'a> {
    /// A race that starts with the `first` attempt, which has failed or is silent.
    pub(super) fn new(
        context: &'a Context,
        connection: &'a mut Connection,
        route: &'a Arc<Route>,
        downstream: &'a Stream,
        limit: Duration,
        search: SearchState,
        first: Result<Attempt, ConnectFailure>,
    ) -> Self {
        let mut race = Race {
            context,
            route,
            downstream,
            limit,
            permit: None,
            turn: None,
            begun: first.as_ref().map_or_else(|_| Instant::now(), Attempt::begun),
            tried: connection.endpoint.into_iter().collect(),
            search,
            connection,
            running: Vec::new(),
            waited_for: 0,
            unrouted: 0,
            exhausted: false,
            failure: Refusal::ConnectFailed,
        };
        match first {
            Ok(attempt) => {
                let is_silent = attempt.held_back().is_zero() || attempt.silence() >= race.after();
                let mut runner = RunningAttempt { attempt, _spare: None, silent: false };
                race.waited_for += if is_silent { runner.fall_silent() } else { 0 };
                race.running.push(runner);
            }
            Err(failure) => race.attempt_failed(failure),
        }
        race
    }

    /// Runs until an endpoint is connected, or no endpoint is left to try.
    pub(super) async fn run(mut self) -> Result<Upstream, Refusal> {
        loop {
            while self.wants_another() && self.begin_another() {}
            if self.running.is_empty() {
                return Err(self.failure);
            }
            if let Some(winner) = self.wait().await? {
                self.connection.endpoint = Some(winner.address());
                let context = &self.connection.context;
                self.running.into_iter().for_each(|loser| loser.attempt.lose(context, self.route));
                return Ok(winner.succeed(self.context));
            }
        }
    }

    /// Whether all running attempts are silent, and another attempt is allowed.
    fn wants_another(&self) -> bool {
        let tried = self.tried.len().saturating_sub(self.unrouted);
        let in_time = tried < MOST_WAITED_FOR || self.begun.elapsed() < self.limit;
        !self.exhausted
            && self.running.iter().all(|runner| runner.silent)
            && self.waited_for < MOST_WAITED_FOR
            && self.unrouted < MOST_UNROUTED
            && tried < MOST_TRIED
            && in_time
    }

    /// Takes what an attempt beside others needs. If there is none left, waits for a turn.
    fn take_spare(&mut self) -> Option<SpareDescriptor<'a>> {
        if self.route.spec.policy.race().budget == 0 {
            return None;
        }
        // One for all attempts of this client, so that another endpoint in place of one that refuses is never
        // a question of the budget.
        self.permit = self.permit.take().or_else(|| self.context.take_race(self.route));
        let spare = self.permit.as_ref().and_then(|_| self.context.take_spare());
        self.turn = spare.is_none().then(|| self.context.wait_for_race());
        spare
    }

    /// Starts an attempt with another endpoint. Returns `false` if there is no endpoint left, or if it would be
    /// one beside others and that is not possible now.
    fn begin_another(&mut self) -> bool {
        let beside = !self.running.is_empty();
        let spare = beside.then(|| self.take_spare()).flatten();
        if beside && spare.is_none() {
            return false;
        }
        let search = std::mem::take(&mut self.search);
        let connection = &*self.connection;
        let random = self.context.random();
        let request = EndpointRequest {
            name: connection.server_name(),
            search,
            ..EndpointRequest::new(connection.source.ip(), &self.tried, random)
        };
        let chosen = choose(self.route, &request);
        self.search = request.search;
        let Ok(active) = chosen else {
            self.exhausted = true;
            return false;
        };
        let address = active.endpoint().address;
        self.connection.trying(address);
        self.tried.push(address);
        let tls = EndpointTls::of(self.connection, self.route, self.downstream);
        match Attempt::begin(self.context, self.route, active, tls) {
            Ok(attempt) => {
                self.running.push(RunningAttempt { attempt, _spare: spare, silent: false })
            }
            Err(failure) => self.attempt_failed(failure),
        }
        true
    }

    fn attempt_failed(&mut self, failure: ConnectFailure) {
        self.failure = Refusal::ConnectFailed;
        match failure {
            ConnectFailure::Failed | ConnectFailure::Refused | ConnectFailure::Ports => {}
            ConnectFailure::Unrouted => {
                self.unrouted += 1;
                self.tried.last().into_iter().for_each(|last| self.search.unrouted(*last));
            }
            ConnectFailure::Exhausted => self.exhausted = true,
            ConnectFailure::TimedOut => {
                self.waited_for += 1;
                self.failure = Refusal::ConnectTimeout;
            }
        }
    }

    /// Waits until an attempt connects or fails, or until a deadline. Returns the attempt that has
    /// connected.
    async fn wait(&mut self) -> Result<Option<Attempt>, Refusal> {
        let next = self.running.iter().map(|runner| self.patience(runner)).min();
        let answer = poll_fn(|_| {
            for (index, runner) in self.running.iter().enumerate() {
                let polled = runner.attempt.poll(self.context, self.route, self.downstream);
                if let Poll::Ready(answer) = polled {
                    return Poll::Ready(answer.map(|connected| Some((index, connected))));
                }
            }
            match self.turn.as_ref().is_some_and(RaceTurn::has_come) {
                true => Poll::Ready(Ok(None)),
                false => Poll::Pending,
            }
        });
        match self.context.reactor.within(next.unwrap_or_default(), answer).await {
            Ok(Ok(None)) => self.turn = None,
            Ok(Ok(Some((index, true)))) => {
                return Ok(Some(self.running.swap_remove(index).attempt));
            }
            Ok(Ok(Some((index, false)))) => {
                let fault = self.running.swap_remove(index).attempt.take_fault();
                fault.into_iter().for_each(|fault| self.connection.endpoint_failed(&fault));
                self.attempt_failed(ConnectFailure::Failed);
            }
            Ok(Err(gone)) => return Err(gone),
            Err(Interrupted::Cancelled) => return Err(Refusal::Drained),
            Err(Interrupted::Elapsed) => self.look_at_the_clock(),
        }
        Ok(None)
    }

    /// Ends attempts that have reached the time limit, and marks silent ones.
    fn look_at_the_clock(&mut self) {
        let (limit, after) = (self.limit, self.after());
        let late = |runner: &mut RunningAttempt<'_>| runner.attempt.silence() >= limit;
        for mut runner in self.running.extract_if(.., late) {
            // A silent attempt already counts as waited for.
            self.waited_for += runner.fall_silent();
            runner.attempt.give_up(self.context, self.route);
            self.failure = Refusal::ConnectTimeout;
        }
        let silent = |runner: &&mut RunningAttempt<'_>| runner.attempt.silence() >= after;
        for runner in self.running.iter_mut().filter(silent) {
            self.waited_for += runner.fall_silent();
        }
    }

    /// How long an endpoint may be silent before another one is tried as well.
    fn after(&self) -> Duration {
        self.route.spec.policy.race().after
    }

    /// The time until the next deadline of an attempt, plus one millisecond, because the reactor does not
    /// sleep for fractions of a millisecond.
    fn patience(&self, runner: &RunningAttempt<'_>) -> Duration {
        let deadline = if runner.silent { self.limit } else { self.limit.min(self.after()) };
        let left = deadline.saturating_sub(runner.attempt.silence());
        let next = if self.turn.is_some() { left.min(TURN_AGAIN) } else { left };
        next + Duration::from_millis(1)
    }
}

impl RunningAttempt<'_> {
    /// Marks the attempt as silent. Returns 1 if it was not silent before.
    fn fall_silent(&mut self) -> usize {
        let new = !std::mem::replace(&mut self.silent, true);
        if new {
            self.attempt.fall_silent();
        }
        usize::from(new)
    }
}
