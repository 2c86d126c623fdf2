//! Tries other endpoints after the first one has failed or is silent.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::attempt::{Attempt, ConnectFailure, SILENCE, Upstream};
use super::connection::Connection;
use super::context::Context;
use super::descriptors::SpareDescriptor;
use super::reactor::Interrupted;
use super::refuse::Refusal;
use super::socket::Socket;
use crate::routing::{EndpointRequest, Route, SearchState, choose};

/// The maximum number of silent endpoints for one client, all of which it waits for at the same time.
const MOST_WAITED_FOR: usize = 3;
/// How many endpoints are tried for one client, if they fail at once.
const MOST_TRIED: usize = 16;
/// How many addresses without a route are skipped for one client.
const MOST_UNROUTED: usize = 16;

/// Attempts for one client that run at the same time. The first one that connects wins, and the others
/// are closed at once. Each additional attempt takes a descriptor that another client could need, so
/// there is only one at a time if descriptors are short.
pub(super) struct Race<'a> {
    context: &'a Context,
    connection: &'a mut Connection,
    route: &'a Route,
    downstream: &'a Socket,
    /// The deadline of one attempt.
    limit: Duration,
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
        route: &'a Route,
        downstream: &'a Socket,
        limit: Duration,
        search: SearchState,
        first: Result<Attempt, ConnectFailure>,
    ) -> Self {
        let mut race = Race {
            context,
            route,
            downstream,
            limit,
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
                let mut runner = RunningAttempt { attempt, _spare: None, silent: false };
                race.waited_for += runner.fall_silent();
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

    /// Starts an attempt with another endpoint. Returns `false` if there is no endpoint or no descriptor
    /// left.
    fn begin_another(&mut self) -> bool {
        let beside = !self.running.is_empty();
        let spare = beside.then(|| self.context.take_spare()).flatten();
        if beside && spare.is_none() {
            return false;
        }
        let search = std::mem::take(&mut self.search);
        let request = EndpointRequest::again(
            self.connection.source.ip(),
            &self.tried,
            self.context.random(),
            search,
        );
        let chosen = choose(self.route, &request);
        self.search = request.search;
        let Some(active) = chosen else {
            self.exhausted = true;
            return false;
        };
        let address = active.endpoint().address;
        self.connection.trying(address);
        self.tried.push(address);
        match Attempt::begin(self.context, self.route, active) {
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
        let limit = self.limit;
        let next = self.running.iter().map(|runner| runner.patience(limit)).min();
        let answer = poll_fn(|_| {
            for (index, runner) in self.running.iter().enumerate() {
                if let Poll::Ready(answer) = runner.attempt.poll(self.route, self.downstream) {
                    return Poll::Ready(answer.map(|connected| (index, connected)));
                }
            }
            Poll::Pending
        });
        match self.context.reactor.within(next.unwrap_or_default(), answer).await {
            Ok(Ok((index, true))) => return Ok(Some(self.running.swap_remove(index).attempt)),
            Ok(Ok((index, false))) => {
                self.running.swap_remove(index);
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
        let limit = self.limit;
        let late = |runner: &mut RunningAttempt<'_>| runner.attempt.begun().elapsed() >= limit;
        for mut runner in self.running.extract_if(.., late) {
            // A silent attempt already counts as waited for.
            self.waited_for += runner.fall_silent();
            runner.attempt.give_up();
            self.failure = Refusal::ConnectTimeout;
        }
        let silent = |runner: &&mut RunningAttempt<'_>| runner.attempt.begun().elapsed() >= SILENCE;
        for runner in self.running.iter_mut().filter(silent) {
            self.waited_for += runner.fall_silent();
        }
    }
}

impl RunningAttempt<'_> {
    /// The time until its next deadline, plus one millisecond, because the reactor does not sleep for
    /// fractions of a millisecond.
    fn patience(&self, limit: Duration) -> Duration {
        let deadline = if self.silent { limit } else { limit.min(SILENCE) };
        deadline.saturating_sub(self.attempt.begun().elapsed()) + Duration::from_millis(1)
    }

    /// Marks the attempt as silent. Returns 1 if it was not silent before.
    fn fall_silent(&mut self) -> usize {
        let new = !std::mem::replace(&mut self.silent, true);
        if new {
            self.attempt.give_up();
        }
        usize::from(new)
    }
}
