//! Decides about connections by limits: how many there are at a time, and how many are opened in a time, altogether
//! and for each source.
//!
//! A [`Limiter`] counts for one place, such as a route. Its numbers, the [`LimitSet`], may change while it counts.
//! All limiters of a process count their sources in one [`SourceTable`].

mod gcra;
mod sources;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub use self::gcra::Tick;
use self::gcra::{Gcra, NextArrival};
pub use self::sources::SourceTable;
use self::sources::{CountedAt, SourceGroup, SourceRules};
use crate::policy::{LimitMode, Limits, Number};

/// What one place may have, ready for use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitSet {
    connections: Option<u32>,
    rate: Option<Gcra>,
    source: Option<SourceRules>,
    /// What becomes of connections that exceed a limit.
    pub mode: LimitMode,
}

/// The limit that a connection exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExceededLimit {
    /// One of its source.
    Source,
    /// The number of connections at a time.
    Connections,
    /// The number of new connections in a time.
    Rate,
}

impl LimitSet {
    /// The limits of a place; `None` if nothing is limited.
    pub fn of(limits: &Limits) -> Option<Self> {
        limits.counts().then(|| LimitSet {
            connections: limits.connections.map(Number::get),
            rate: limits.new_connections.as_ref().map(Gcra::of),
            source: SourceRules::of(&limits.per_source),
            mode: limits.mode.unwrap_or_default(),
        })
    }
}

/// Counts the connections of one place.
#[derive(Debug)]
pub struct Limiter {
    table: Arc<SourceTable>,
    connections: AtomicU32,
    /// A [`NextArrival`].
    next: AtomicU64,
    sources: Arc<SourceGroup>,
}

impl PartialEq for Limiter {
    /// A limiter equals only itself.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Limiter {}

/// A connection that a [`Limiter`] counts, until this is dropped.
#[derive(Debug)]
pub struct Permit {
    limiter: Arc<Limiter>,
    counted: Option<CountedAt>,
}

impl Limiter {
    /// A limiter that counts its sources in `table`, of which all limiters of `owner` have one share.
    pub fn new(table: &Arc<SourceTable>, owner: &str) -> Self {
        // Unique in the process, also after a limiter is gone: its entries may still be in the table.
        static MADE: AtomicU64 = AtomicU64::new(0);
        let id = MADE.fetch_add(1, Ordering::Relaxed);
        let sources = Arc::new(SourceGroup::new(id, table.owner(owner)));
        let (connections, next) = (AtomicU32::new(0), AtomicU64::new(0));
        Limiter { table: Arc::clone(table), connections, next, sources }
    }

    /// Counts a connection that exceeds none of these limits.
    ///
    /// # Errors
    /// The limit that it exceeds. Then it is not counted at all.
    pub fn admit(
        self: &Arc<Self>,
        limits: &LimitSet,
        source: IpAddr,
        now: Tick,
    ) -> Result<Permit, ExceededLimit> {
        // The source first: one that exceeds its own limits takes nothing from the others.
        let counted = match &limits.source {
            Some(rules) => {
                let counted = self.table.admit(&self.sources, rules, source, now);
                Some(counted.ok_or(ExceededLimit::Source)?)
            }
            None => None,
        };
        let withdraw = |exceeded| {
            if let (Some(counted), Some(rules)) = (counted, &limits.source) {
                self.table.withdraw(&self.sources, counted, rules, now);
            }
            exceeded
        };
        self.take_place(limits.connections).map_err(withdraw)?;
        if let Err(exceeded) = self.arrive(limits.rate, now) {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(withdraw(exceeded));
        }
        Ok(Permit { limiter: Arc::clone(self), counted })
    }

    /// The limit that one more connection would exceed now. Counts nothing.
    pub fn exceeded(&self, limits: &LimitSet, source: IpAddr, now: Tick) -> Option<ExceededLimit> {
        let of_source = |rules| self.table.is_exceeded(&self.sources, rules, source, now);
        if limits.source.as_ref().is_some_and(of_source) {
            return Some(ExceededLimit::Source);
        }
        let count = self.connections.load(Ordering::Relaxed);
        if limits.connections.is_some_and(|most| count >= most) {
            return Some(ExceededLimit::Connections);
        }
        let next = NextArrival(Tick(self.next.load(Ordering::Relaxed)));
        let is_over = limits.rate.is_some_and(|rate| rate.admit(next, now).is_none());
        is_over.then_some(ExceededLimit::Rate)
    }

    fn take_place(&self, most: Option<u32>) -> Result<(), ExceededLimit> {
        let one_more = |count: u32| match most.is_some_and(|most| count >= most) {
            true => None,
            false => count.checked_add(1),
        };
        let taken = self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.map(drop).map_err(|_| ExceededLimit::Connections)
    }

    fn arrive(&self, rate: Option<Gcra>, now: Tick) -> Result<(), ExceededLimit> {
        let Some(rate) = rate else { return Ok(()) };
        let after = |next| Some(rate.admit(NextArrival(Tick(next)), now)?.0.0);
        let arrived = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
        arrived.map(drop).map_err(|_| ExceededLimit::Rate)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Limiter { table, connections, sources, .. } = &*self.limiter;
        connections.fetch_sub(1, Ordering::Relaxed);
        if let Some(counted) = self.counted {
            table.release(sources, counted, Tick::now());
        }
    }
}
