//! What is counted for each source: one bounded table for all workers.

use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ahash::{AHashMap as HashMap, RandomState};

use super::gcra::{Gcra, NextArrival, Tick};
use crate::policy::{Number, SourceLimits, SourcePrefix};

/// Parts with a lock of their own, so that workers seldom meet at one.
const SHARDS: usize = 64;
/// How many sources the table has room for.
pub(super) const MOST_SOURCES: usize = 65_536;
const MOST_OF_SHARD: usize = MOST_SOURCES / SHARDS;
/// How many sources one limit may have there.
pub(super) const MOST_OF_GROUP: u32 = (MOST_SOURCES / 8) as u32;
/// How many all limits of one owner may have there.
pub(super) const MOST_OF_OWNER: u32 = (MOST_SOURCES / 4) as u32;
/// How often a shard is searched for entries that are not needed any more.
const SWEEP_EVERY: Duration = Duration::from_millis(10);

/// The sources of all limits. One limit may have an eighth of the table, and the limits of one owner a quarter: so no
/// tenant takes the room of the others. A source that finds no room shares one count with all others of its limit that find
/// none: a full table admits nobody uncounted.
#[derive(Debug)]
pub struct SourceTable {
    /// With keys of this process, so that nobody can choose a shard.
    hasher: RandomState,
    shards: Box<[Mutex<SourceShard>]>,
    /// How many entries each owner of limits has.
    owners: Mutex<HashMap<Box<str>, Weak<AtomicU32>>>,
    /// How many connections were counted together with those of other sources.
    shared: AtomicU64,
}

/// What all sources of one limit have in common.
#[derive(Debug)]
pub(super) struct SourceGroup {
    id: u64,
    /// How many entries of the table are its own.
    entries: AtomicU32,
    /// How many are of all limits of its owner.
    of_owner: Arc<AtomicU32>,
    /// The sources for which there is no entry.
    others: Mutex<Count>,
}

/// What a source may have, ready for use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourceRules {
    connections: Option<u32>,
    pub(super) rate: Option<Gcra>,
    prefix: SourcePrefix,
}

/// A source of one limit: the first bits of an address, with IPv4 in the form of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SourceKey {
    group: u64,
    // Two halves, because an `u128` would make each entry 16 bytes larger.
    prefix: [u64; 2],
}

/// Where a connection of a source is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CountedAt {
    Own(SourceKey),
    Others,
}

#[derive(Debug, Default)]
struct SourceShard {
    entries: HashMap<SourceKey, SourceEntry>,
    /// No entry can be removed before.
    sweep_at: Tick,
}

#[derive(Debug)]
struct SourceEntry {
    count: Count,
    group: Arc<SourceGroup>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    connections: u32,
    next: NextArrival,
}

impl SourceRules {
    /// `None` if nothing is limited.
    pub(super) fn of(limits: &SourceLimits) -> Option<Self> {
        limits.is_limiting().then(|| SourceRules {
            connections: limits.connections.map(Number::get),
            rate: limits.new_connections.as_ref().map(Gcra::of),
            prefix: limits.prefix,
        })
    }
}

impl SourceGroup {
    pub(super) fn new(id: u64, of_owner: Arc<AtomicU32>) -> Self {
        SourceGroup { id, entries: AtomicU32::new(0), of_owner, others: Mutex::default() }
    }

    fn has_room(&self) -> bool {
        self.entries.load(Ordering::Relaxed) < MOST_OF_GROUP
            && self.of_owner.load(Ordering::Relaxed) < MOST_OF_OWNER
    }

    /// Counts one more entry. Shards do this at the same time, so there may be a few more than allowed.
    fn take(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.of_owner.fetch_add(1, Ordering::Relaxed);
    }

    fn give_back(&self) {
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.of_owner.fetch_sub(1, Ordering::Relaxed);
    }

    fn others(&self) -> MutexGuard<'_, Count> {
        // Every change of it is whole.
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for SourceTable {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        SourceTable {
            hasher: RandomState::new(),
            shards,
            owners: Mutex::default(),
            shared: AtomicU64::new(0),
        }
    }
}

impl SourceTable {
    /// The count of all entries of an owner of limits.
    pub(super) fn owner(&self, name: &str) -> Arc<AtomicU32> {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = owners.get(name).and_then(Weak::upgrade) {
            return known;
        }
        owners.retain(|_, count| count.strong_count() > 0);
        let new = Arc::default();
        owners.insert(name.into(), Arc::downgrade(&new));
        new
    }

    /// How many sources have an entry.
    pub fn len(&self) -> usize {
        let shards = self.shards.iter().map(|shard| lock(shard).entries.len());
        shards.sum()
    }

    /// Whether no source has an entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many connections found no entry for their source, since the start.
    pub fn shared(&self) -> u64 {
        self.shared.load(Ordering::Relaxed)
    }

    /// Counts one more connection of a source. `None` if it is one too many.
    pub(super) fn admit(
        &self,
        group: &Arc<SourceGroup>,
        rules: &SourceRules,
        source: IpAddr,
        now: Tick,
    ) -> Option<CountedAt> {
        let key = SourceKey::of(group, source, rules.prefix);
        let mut shard = self.shard(&key);
        match shard.entry(key, group, now) {
            Some(count) => {
                let is_admitted = count.admit(rules, now);
                if !is_admitted {
                    shard.remove_unused(&key, now);
                }
                is_admitted.then_some(CountedAt::Own(key))
            }
            None => {
                drop(shard);
                self.shared.fetch_add(1, Ordering::Relaxed);
                group.others().admit(rules, now).then_some(CountedAt::Others)
            }
        }
    }

    /// Whether one more connection of a source would be one too many.
    pub(super) fn is_exceeded(
        &self,
        group: &SourceGroup,
        rules: &SourceRules,
        source: IpAddr,
        now: Tick,
    ) -> bool {
        let key = SourceKey::of(group, source, rules.prefix);
        let shard = self.shard(&key);
        let mut count = match shard.entries.get(&key) {
            Some(entry) => entry.count,
            None if shard.has_room(group) => Count::default(),
            None => *group.others(),
        };
        !count.admit(rules, now)
    }

    /// Ends a connection.
    pub(super) fn release(&self, group: &SourceGroup, counted: CountedAt, now: Tick) {
        self.change(group, counted, now, Count::end);
    }

    /// Takes back a connection that was admitted, and then refused for another reason.
    pub(super) fn withdraw(
        &self,
        group: &SourceGroup,
        counted: CountedAt,
        rules: &SourceRules,
        now: Tick,
    ) {
        self.change(group, counted, now, |count| {
            count.end();
            count.next = rules.rate.map_or(count.next, |rate| rate.withdraw(count.next));
        });
    }

    fn change(
        &self,
        group: &SourceGroup,
        counted: CountedAt,
        now: Tick,
        change: impl FnOnce(&mut Count),
    ) {
        match counted {
            CountedAt::Own(key) => {
                let mut shard = self.shard(&key);
                if let Some(entry) = shard.entries.get_mut(&key) {
                    change(&mut entry.count);
                }
                shard.remove_unused(&key, now);
            }
            CountedAt::Others => change(&mut group.others()),
        }
    }

    fn shard(&self, key: &SourceKey) -> MutexGuard<'_, SourceShard> {
        // In bounds, by the remainder. The map uses other bits of its own hash.
        lock(&self.shards[(self.hasher.hash_one(key) >> 32) as usize % SHARDS])
    }
}

fn lock(shard: &Mutex<SourceShard>) -> MutexGuard<'_, SourceShard> {
    // Every change of it is whole.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SourceKey {
    fn of(group: &SourceGroup, source: IpAddr, prefix: SourcePrefix) -> Self {
        let masked = prefix.of(source);
        SourceKey { group: group.id, prefix: [(masked >> 64) as u64, masked as u64] }
    }
}

impl Count {
    fn admit(&mut self, rules: &SourceRules, now: Tick) -> bool {
        if rules.connections.is_some_and(|most| self.connections >= most) {
            return false;
        }
        let next = rules.rate.map_or(Some(self.next), |rate| rate.admit(self.next, now));
        next.into_iter().for_each(|next| {
            *self = Count { connections: self.connections.saturating_add(1), next };
        });
        next.is_some()
    }

    fn end(&mut self) {
        self.connections = self.connections.saturating_sub(1);
    }

    /// Whether it says nothing that a new one would not.
    fn is_unused(&self, now: Tick) -> bool {
        self.connections == 0 && self.next.0 <= now
    }
}

impl SourceShard {
    /// Whether there is room for one more entry of a group.
    fn has_room(&self, group: &SourceGroup) -> bool {
        self.entries.len() < MOST_OF_SHARD && group.has_room()
    }

    /// The count of a source; a new one if there is room.
    fn entry(&mut self, key: SourceKey, group: &Arc<SourceGroup>, now: Tick) -> Option<&mut Count> {
        if !self.has_room(group) && !self.entries.contains_key(&key) {
            self.sweep(now);
            if !self.has_room(group) {
                return None;
            }
        }
        match self.entries.entry(key) {
            Entry::Occupied(entry) => Some(&mut entry.into_mut().count),
            Entry::Vacant(entry) => {
                group.take();
                let new = SourceEntry { count: Count::default(), group: Arc::clone(group) };
                Some(&mut entry.insert(new).count)
            }
        }
    }

    /// Removes all entries that are not needed, unless there can be none.
    fn sweep(&mut self, now: Tick) {
        if now < self.sweep_at {
            return;
        }
        let mut due = Tick(u64::MAX);
        self.entries.retain(|_, entry| {
            let keep = !entry.count.is_unused(now);
            match keep {
                true if entry.count.connections == 0 => due = due.min(entry.count.next.0),
                true => {}
                false => entry.group.give_back(),
            }
            keep
        });
        self.sweep_at = due.max(now.after(SWEEP_EVERY));
    }

    fn remove_unused(&mut self, key: &SourceKey, now: Tick) {
        let Some(entry) = self.entries.get(key).filter(|entry| entry.count.connections == 0) else {
            return;
        };
        if entry.count.is_unused(now) {
            entry.group.give_back();
            self.entries.remove(key);
        } else {
            self.sweep_at = self.sweep_at.min(entry.count.next.0.max(now.after(SWEEP_EVERY)));
        }
    }
}
