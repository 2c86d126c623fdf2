//! Relay: moves bytes between client and endpoint in both directions, until both are done.

mod answer;
mod bounds;
mod deadlines;
mod delivery;
mod direction;
mod io_context;
mod mode;
mod parting;
mod peer_watch;
mod peers;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

pub(super) use self::answer::Answer;
use self::answer::AnswerWatch;
use self::deadlines::Deadlines;
use self::direction::{Direction, Stage, StopReason};
pub(super) use self::io_context::IoContext;
use self::peers::PeerWatches;
use super::context::Context;
use super::crowd::Membership;
use super::reactor::{QUANTUM, Quanta};
use super::record::ByteCounts;
use super::stream::Stream;
use super::upstreams::KnownUpstream;
use crate::outcome::Outcome;
use crate::routing::{RemovalEffect, Removals, Route};

/// How often a long connection reports its bytes and checks its peers.
const TICK: Duration = Duration::from_secs(15);
const SHORTEST_TICK: Duration = Duration::from_millis(50);
/// The minimum number of ticks in a stall timeout.
const TICKS_A_STALL: u32 = 4;

/// A relay between two streams.
pub(super) struct Relay<'a> {
    context: &'a Context,
    downstream: &'a Stream,
    upstream: &'a Stream,
    member: &'a Membership<'a>,
    up: Direction,
    down: Direction,
    /// How many of the first bytes are sluice's own.
    header: u16,
    answer: AnswerWatch,
    quanta: Quanta,
    known: KnownUpstream<'a>,
}

/// The state of a relay besides its directions.
struct RelayState {
    /// The bytes that were relayed, as of the last poll.
    passed: ByteCounts,
    /// The bytes of TLS that the sockets have taken: they may be those of data that count as relayed long before.
    sent: u64,
    deadlines: Deadlines,
    /// When the peers are checked next.
    tick_at: u64,
    /// Allocated only for connections that last.
    watches: Option<Box<PeerWatches>>,
}

/// What the endpoint gets first.
pub(super) struct FirstBytes {
    /// A PROXY header, if the route has one, and the bytes that were read from the client.
    pub(super) bytes: Vec<u8>,
    /// The length of the header.
    pub(super) header: u16,
}

impl<'a> Relay<'a> {
    /// A relay that sends `first` upstream before anything else.
    pub(super) fn new(
        context: &'a Context,
        downstream: &'a Stream,
        upstream: &'a Stream,
        member: &'a Membership<'a>,
        known: KnownUpstream<'a>,
        first: FirstBytes,
    ) -> Self {
        let FirstBytes { bytes, header } = first;
        // A hello that is passed on, or data.
        let has_read = bytes.len() > header.into();
        let (mut up, down) = (Direction::new(bytes), Direction::new(Vec::new()));
        up.has_read = has_read;
        let (answer, quanta) = (AnswerWatch::default(), Quanta::default());
        Relay { context, downstream, upstream, member, up, down, header, answer, quanta, known }
    }

    /// Relays until both directions are done, a peer is gone, a deadline of `route`'s policy has passed, or
    /// the drain ends the connection. Calls `report` with the relayed bytes periodically and at the end, and
    /// `answered` once, when the endpoint has sent its first byte or closes without one.
    pub(super) async fn run(
        mut self,
        route: &Route,
        mut report: impl FnMut(ByteCounts),
        answered: impl Fn(Answer),
    ) -> Outcome {
        let deadlines = Deadlines::begin(self.context, &route.spec.policy);
        let tick_at = self.context.reactor.after(self.tick_every());
        let passed = ByteCounts::default();
        let mut state = RelayState { passed, sent: 0, deadlines, tick_at, watches: None };
        let outcome = poll_fn(|_| {
            let polled = self.poll();
            self.answer.take().into_iter().for_each(&answered);
            match polled {
                Poll::Ready(outcome) => Poll::Ready(outcome),
                Poll::Pending => self.go_on(route, &mut state, &mut report),
            }
        })
        .await;
        // Boxed, so that the tasks of other connections reserve no space for it.
        let (outcome, parted) = match outcome {
            _ if self.cut().is_some() => {
                let delivered = Box::pin(self.deliver(route, &mut state, &mut report)).await;
                let is_completed = outcome == Outcome::Completed;
                let outcome = if is_completed { delivered } else { outcome };
                (outcome, delivered == Outcome::Completed)
            }
            Outcome::Lifetime | Outcome::EndpointRemoved => {
                let pause = state.deadlines.is_pause(self.context.reactor.now())
                    && !self.has_unsent()
                    && !self.is_amid_record();
                (outcome, Box::pin(self.part(pause)).await)
            }
            Outcome::IdleTimeout => (outcome, !self.is_amid_record()),
            _ => (outcome, outcome == Outcome::Completed),
        };
        report(self.passed());
        self.end(parted);
        outcome
    }

    /// Handles what has happened besides, and checks the deadlines.
    fn go_on(
        &mut self,
        route: &Route,
        state: &mut RelayState,
        report: &mut impl FnMut(ByteCounts),
    ) -> Poll<Outcome> {
        let reactor = &*self.context.reactor;
        let sent = self.downstream.sent(0) + self.upstream.sent(0);
        if self.passed() != state.passed || sent != state.sent {
            (state.passed, state.sent) = (self.passed(), sent);
            state.deadlines.moved = reactor.now();
            self.member.touch(reactor.now());
        }
        for removals in self.known.take_news() {
            self.removed(route, &removals, state);
        }
        let (end, outcome) = self.next_end(route, state);
        if let Some(outcome) = self.interrupted(end, outcome) {
            return Poll::Ready(outcome);
        }
        if reactor.now() >= state.tick_at {
            let passed = state.passed;
            report(passed);
            let watches =
                state.watches.get_or_insert_with(|| PeerWatches::of(self.upstream.socket()));
            let ended = watches.look(self, passed);
            let every = self.tick_every();
            state.tick_at =
                reactor.after(watches.next_look().map_or(every, |next| next.min(every)));
            if let Some(outcome) = ended {
                return Poll::Ready(outcome);
            }
        }
        reactor.wake_at(reactor.current(), end.min(state.tick_at));
        Poll::Pending
    }

    /// Handles addresses that have left their backends, if its endpoint is one of them: it may be dead.
    fn removed(&self, route: &Route, removals: &Removals, state: &mut RelayState) {
        let (context, now) = (self.context, self.context.reactor.now());
        let Some(address) = self.known.address().filter(|_| !self.upstream.is_cut()) else {
            return;
        };
        match removals.effect(&route.spec.key, address) {
            RemovalEffect::Unconcerned => return,
            RemovalEffect::Keep => {}
            RemovalEffect::Close(over) => state.deadlines.removed(now, over, context.random()),
        }
        let watches = state.watches.get_or_insert_with(|| PeerWatches::of(self.upstream.socket()));
        watches.probe(self.upstream.socket(), &context.reactor);
        state.tick_at = now;
    }

    /// The next deadline, and the outcome of reaching it.
    fn next_end(&self, route: &Route, state: &mut RelayState) -> (u64, Outcome) {
        // What a peer has left behind is on its way to the other one, even if the kernel holds all of it.
        let unsent = self.has_unsent() || self.cut().is_some();
        let now = self.context.reactor.now();
        let next = state.deadlines.next(now, unsent);
        if next.1 == Outcome::EndpointRemoved && next.0 <= now && self.is_back(route) {
            state.deadlines.removal = u64::MAX;
            return state.deadlines.next(now, unsent);
        }
        next
    }

    /// Whether the route has the endpoint again. An address that moves from one slice of its Service to
    /// another may be in neither for a moment.
    fn is_back(&self, route: &Route) -> bool {
        let table = self.context.routes.table();
        let route = table.route(&route.spec.key).zip(self.known.address());
        route.is_some_and(|(route, address)| route.has_address(address))
    }

    /// The outcome of a relay that ends now: by the drain, or with `outcome` at `end`.
    fn interrupted(&self, end: u64, outcome: Outcome) -> Option<Outcome> {
        let reactor = &self.context.reactor;
        if reactor.is_cancelled() {
            return Some(Outcome::Drained);
        }
        (reactor.now() >= end).then_some(outcome)
    }

    /// How often to check the peers.
    fn tick_every(&self) -> Duration {
        let stall = self.context.settings.timeouts.stall;
        stall.map_or(TICK, |stall| (stall / TICKS_A_STALL).clamp(SHORTEST_TICK, TICK))
    }

    /// Updates the bounds of both directions, which have moved these bytes since the last check.
    fn maintain(&mut self, moved: ByteCounts) -> Option<Outcome> {
        let (pipes, downstream, upstream) = (&self.context.pipes, self.downstream, self.upstream);
        if self.up.maintain(downstream, upstream, pipes, moved.up).is_err() {
            return Some(Outcome::DownstreamReset);
        }
        let maintained = self.down.maintain(upstream, downstream, pipes, moved.down);
        maintained.is_err().then_some(Outcome::UpstreamReset)
    }

    fn passed(&self) -> ByteCounts {
        let up = self.up.bytes.saturating_sub(self.header.into());
        ByteCounts { up, down: self.down.bytes }
    }

    fn poll(&mut self) -> Poll<Outcome> {
        let context = self.context;
        let mut buffer = context.buffer.borrow_mut();
        let mut io = IoContext::of(context, &mut buffer, context.reactor.is_bulk_turn());
        let (downstream, upstream) = (self.downstream, self.upstream);

        let farewell = self.down.farewell_of_other();
        let Ok(up) = self.up.poll(downstream, upstream, &mut io, QUANTUM, farewell) else {
            return Poll::Ready(Outcome::DownstreamReset);
        };
        let farewell = self.up.farewell_of_other();
        let down = self.down.poll(upstream, downstream, &mut io, QUANTUM, farewell);
        self.answer.look(&self.up, &self.down, down.is_err(), downstream);
        if let Some(outcome) = self.cut() {
            return Poll::Ready(outcome);
        }
        let Ok(down) = down else { return Poll::Ready(Outcome::UpstreamReset) };

        match (self.up.stage(), self.down.stage()) {
            (Stage::Done, Stage::Done) => return Poll::Ready(Outcome::Completed),
            // A peer that accepts no more bytes may have sent some before; these are relayed first.
            (Stage::Refused, Stage::Done | Stage::Refused) => {
                return Poll::Ready(Outcome::UpstreamReset);
            }
            (Stage::Done, Stage::Refused) => return Poll::Ready(Outcome::DownstreamReset),
            _ => {}
        }
        // While the endpoint is slow, the client's socket is not read, so a read would detect a gone client
        // too late.
        if downstream.socket().is_broken() {
            return Poll::Ready(Outcome::DownstreamReset);
        }
        let more = matches!(up, StopReason::Yielded) || matches!(down, StopReason::Yielded);
        context.reactor.wake_for_bulk(&mut self.quanta, more);
        Poll::Pending
    }

    /// The outcome if a peer has ended without `close_notify`: an end in good order, if it could leave that out.
    fn cut(&self) -> Option<Outcome> {
        let peers =
            [(self.downstream, Outcome::DownstreamReset), (self.upstream, Outcome::UpstreamReset)];
        let (peer, reset) = peers.into_iter().find(|(peer, _)| peer.is_cut())?;
        Some(if peer.is_truncated() { reset } else { Outcome::Completed })
    }

    fn has_unsent(&self) -> bool {
        self.up.has_unsent(self.upstream) || self.down.has_unsent(self.downstream)
    }

    /// Whether a peer has sent the beginning of a record.
    fn is_amid_record(&self) -> bool {
        self.downstream.is_amid_record() || self.upstream.is_amid_record()
    }

    /// Closes both sides: with a FIN if they have `parted` and all bytes were relayed, else with a reset.
    fn end(mut self, parted: bool) {
        // A FIN after lost bytes would make the receiver believe that it has everything.
        let lost = self.has_unsent();
        self.up.discard(&self.context.pipes);
        self.down.discard(&self.context.pipes);
        if lost || !parted {
            self.downstream.socket().reset_on_close();
            self.upstream.socket().reset_on_close();
        } else {
            let (downstream, upstream) = (self.downstream, self.upstream);
            let (up, down) = (self.up.is_cut_off, self.down.is_cut_off);
            for (cut_off, from, to) in [(up, downstream, upstream), (down, upstream, downstream)] {
                if !cut_off && !from.is_cut() {
                    // If it does not fit, the close shows that bytes may be missing.
                    let _ = to.poll_close_notify();
                }
            }
        }
    }
}
