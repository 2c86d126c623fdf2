//! Limiters against a slow truth, with a full table, and with several threads.

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::gcra::Tick;
use super::sources::{MOST_OF_GROUP, MOST_OF_OWNER, MOST_SOURCES};
use super::*;

fn limits(value: serde_json::Value) -> LimitSet {
    let limits: Limits = serde_json::from_value(value).unwrap();
    LimitSet::of(&limits).unwrap()
}

fn limiter(table: &Arc<SourceTable>) -> Arc<Limiter> {
    owned(table, "one")
}

fn owned(table: &Arc<SourceTable>, owner: &str) -> Arc<Limiter> {
    Arc::new(Limiter::new(table, owner))
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

/// A bucket of tokens, in parts of a token of which one takes `interval`.
#[derive(Clone)]
struct Bucket {
    tokens: u128,
    at: u64,
}

impl Bucket {
    fn has_one(&mut self, now: u64, interval: u128, burst: u128) -> bool {
        let gained = u128::from(now - std::mem::replace(&mut self.at, now));
        self.tokens = (self.tokens + gained).min(interval * burst);
        self.tokens >= interval
    }
}

/// What the limiter is compared with: the connections of each source in a list, and buckets of tokens.
struct Truth {
    open: Vec<u32>,
    rate: Bucket,
    source_rates: Vec<Bucket>,
}

const SOURCES: u32 = 6;
const MILLISECOND: u128 = 1_000_000;

impl Truth {
    fn new() -> Self {
        let full = |burst: u128, interval: u128| Bucket { tokens: burst * interval, at: 0 };
        let source_rates = vec![full(3, 100 * MILLISECOND); SOURCES as usize];
        Truth { open: Vec::new(), rate: full(8, 20 * MILLISECOND), source_rates }
    }

    /// At most 10 connections and 50 new ones a second, burst 8; for a source 4, and 10 a second, burst 3.
    fn admit(&mut self, source: u32, now: u64) -> Result<(), ExceededLimit> {
        let own = self.open.iter().filter(|other| **other == source).count();
        let bucket = &mut self.source_rates[source as usize];
        if own >= 4 || !bucket.has_one(now, 100 * MILLISECOND, 3) {
            return Err(ExceededLimit::Source);
        }
        if self.open.len() >= 10 {
            return Err(ExceededLimit::Connections);
        }
        if !self.rate.has_one(now, 20 * MILLISECOND, 8) {
            return Err(ExceededLimit::Rate);
        }
        bucket.tokens -= 100 * MILLISECOND;
        self.rate.tokens -= 20 * MILLISECOND;
        self.open.push(source);
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The pause before is in nanoseconds.
    Open {
        source: u32,
        pause: u64,
    },
    Close(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pause = prop_oneof![3 => Just(0), 3 => 0..30_000_000_u64, 1 => 0..500_000_000_u64];
    let open = (0..SOURCES, pause).prop_map(|(source, pause)| Step::Open { source, pause });
    vec(prop_oneof![3 => open, 2 => any::<usize>().prop_map(Step::Close)], 1..300)
}

proptest! {
    #[test]
    fn a_limiter_decides_as_the_slow_truth(steps in steps()) {
        let set = limits(json!({
            "connections": 10,
            "newConnections": { "rate": 50, "burst": 8 },
            "perSource": { "connections": 4, "newConnections": { "rate": 10, "burst": 3 } },
        }));
        let table = Arc::new(SourceTable::default());
        let (limiter, mut truth) = (limiter(&table), Truth::new());
        // In the future, because permits end at the actual time, and never later than they began.
        let start = Tick::now().after(Duration::from_secs(3600)).0;
        let (mut permits, mut now) = (Vec::new(), start);
        for step in steps {
            match step {
                Step::Open { source, pause } => {
                    now += pause;
                    let told = limiter.exceeded(&set, address(source), Tick(now));
                    let admitted = limiter.admit(&set, address(source), Tick(now));
                    prop_assert_eq!(told, admitted.as_ref().err().copied());
                    prop_assert_eq!(admitted.as_ref().map(drop).map_err(|e| *e), truth.admit(source, now));
                    permits.extend(admitted);
                }
                Step::Close(which) if !permits.is_empty() => {
                    let which = which % permits.len();
                    drop(permits.swap_remove(which));
                    truth.open.swap_remove(which);
                }
                Step::Close(_) => {}
            }
        }
        drop(permits);
        prop_assert_eq!(limiter.connections.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn no_thread_sees_more_connections_than_the_limits() {
    const MOST: u32 = 20;
    const MOST_OF_SOURCE: u32 = 7;
    let set =
        limits(json!({ "connections": MOST, "perSource": { "connections": MOST_OF_SOURCE } }));
    let table = Arc::new(SourceTable::default());
    let limiter = limiter(&table);
    let all = AtomicU32::new(0);
    let of_source: [AtomicU32; 5] = Default::default();
    let worker = |seed: u32| {
        let mut random = seed;
        let mut held: Vec<(usize, Permit)> = Vec::new();
        let (mut admitted, mut refused) = (0, 0);
        for _ in 0..20_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let source = (random >> 24) as usize % of_source.len();
            if random & 0x10_0000 == 0 {
                match limiter.admit(&set, address(source as u32), Tick::now()) {
                    Ok(permit) => {
                        assert!(all.fetch_add(1, Ordering::SeqCst) < MOST);
                        let own = of_source[source].fetch_add(1, Ordering::SeqCst);
                        assert!(own < MOST_OF_SOURCE);
                        held.push((source, permit));
                        admitted += 1;
                    }
                    Err(_) => refused += 1,
                }
            } else if let Some((source, permit)) = held.pop() {
                all.fetch_sub(1, Ordering::SeqCst);
                of_source[source].fetch_sub(1, Ordering::SeqCst);
                drop(permit);
            }
        }
        held.iter().for_each(|(source, _)| {
            all.fetch_sub(1, Ordering::SeqCst);
            of_source[*source].fetch_sub(1, Ordering::SeqCst);
        });
        (admitted, refused)
    };
    let sums = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=4).map(|seed| scope.spawn(move || worker(seed))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(sums.iter().all(|(admitted, refused)| *admitted > 0 && *refused > 0), "{sums:?}");
    assert!(table.is_empty());
    assert_eq!(limiter.connections.load(Ordering::Relaxed), 0);
}

#[test]
fn a_source_is_a_network_of_its_family() {
    let set = limits(json!({
        "perSource": { "connections": 1, "prefix": { "ipv4": 24, "ipv6": 56 } }
    }));
    let limiter = limiter(&Arc::default());
    let admit = |text: &str| limiter.admit(&set, text.parse().unwrap(), Tick::now());
    let _held = ["10.0.0.1", "10.0.1.1", "2001:db8:0:1::1", "2001:db8:0:100::1"]
        .map(|one| admit(one).unwrap());
    for same in ["10.0.0.255", "::ffff:10.0.0.2", "2001:db8:0:ff::1"] {
        assert_eq!(admit(same).unwrap_err(), ExceededLimit::Source, "{same}");
    }
    assert!(admit("::ffff:10.0.2.1").is_ok());
}

#[test]
fn who_is_refused_costs_its_source_no_token() {
    let set = limits(json!({
        "connections": 1, "perSource": { "newConnections": { "rate": 1, "burst": 2 } }
    }));
    let table = Arc::new(SourceTable::default());
    let limiter = limiter(&table);
    let now = Tick::now();
    let first = limiter.admit(&set, address(1), now).unwrap();
    for _ in 0..5 {
        let refused = limiter.admit(&set, address(2), now).unwrap_err();
        assert_eq!(refused, ExceededLimit::Connections);
    }
    drop(first);
    drop(limiter.admit(&set, address(2), now).unwrap());
    drop(limiter.admit(&set, address(2), now).unwrap());
    assert_eq!(limiter.admit(&set, address(2), now).unwrap_err(), ExceededLimit::Source);
}

#[test]
fn one_limit_has_an_eighth_of_the_table_and_its_further_sources_share_a_count() {
    let set = limits(json!({ "perSource": { "connections": 2 } }));
    let table = Arc::new(SourceTable::default());
    let (greedy, other) = (limiter(&table), limiter(&table));
    let admit = |limiter: &Arc<Limiter>, source| limiter.admit(&set, address(source), Tick::now());
    let mut held: Vec<_> = (0..MOST_OF_GROUP).map(|n| admit(&greedy, n).unwrap()).collect();
    assert_eq!(table.len(), MOST_OF_GROUP as usize);
    // All of them together have what one source has.
    held.push(admit(&greedy, MOST_OF_GROUP).unwrap());
    held.push(admit(&greedy, MOST_OF_GROUP + 1).unwrap());
    assert_eq!(admit(&greedy, MOST_OF_GROUP + 2).unwrap_err(), ExceededLimit::Source);
    assert_eq!(table.shared(), 3);
    // A source with an entry has its own, and so has one of another limit.
    held.push(admit(&greedy, 0).unwrap());
    held.push(admit(&other, MOST_OF_GROUP + 2).unwrap());
    assert_eq!(table.len(), MOST_OF_GROUP as usize + 1);
    drop(held);
    assert!(table.is_empty());
    assert!(admit(&greedy, MOST_OF_GROUP + 3).is_ok());
    assert_eq!(table.shared(), 3);
}

#[test]
fn a_full_table_admits_nobody_uncounted() {
    let set = limits(json!({ "perSource": { "connections": 1 } }));
    let table = Arc::new(SourceTable::default());
    let limiters: Vec<_> = (0..12).map(|n: u8| owned(&table, &n.to_string())).collect();
    let held: Vec<_> = limiters
        .iter()
        .flat_map(|limiter| {
            (0..MOST_OF_GROUP).filter_map(|n| limiter.admit(&set, address(n), Tick::now()).ok())
        })
        .collect();
    assert_eq!(table.len(), MOST_SOURCES);
    // The last limiter finds no room: all its sources share one count.
    let last = limiter(&table);
    let first = last.admit(&set, address(1), Tick::now());
    assert!(first.is_ok());
    assert_eq!(last.admit(&set, address(2), Tick::now()).unwrap_err(), ExceededLimit::Source);
    drop(held);
    assert!(table.is_empty());
    assert!(last.admit(&set, address(2), Tick::now()).is_ok());
}

/// A tenant may write any number of routes.
#[test]
fn all_limits_of_one_owner_have_a_quarter_of_the_table() {
    let set = limits(json!({ "perSource": { "connections": 1 } }));
    let table = Arc::new(SourceTable::default());
    let limiters: Vec<_> = (0..10).map(|_| owned(&table, "greedy")).collect();
    let sources = |limiter: &Arc<Limiter>| -> Vec<_> {
        let admit = |n| limiter.admit(&set, address(n), Tick::now()).ok();
        (0..MOST_OF_GROUP).filter_map(admit).collect()
    };
    let held: Vec<_> = limiters.iter().flat_map(sources).collect();
    assert_eq!(table.len(), MOST_OF_OWNER as usize);
    let other = owned(&table, "other");
    assert_eq!(sources(&other).len(), MOST_OF_GROUP as usize);
    drop(held);
    assert!(table.is_empty());
    assert_eq!(sources(&limiters[9]).len(), MOST_OF_GROUP as usize);
}

#[test]
fn entries_go_when_they_say_nothing_any_more() {
    let set = limits(json!({ "perSource": { "newConnections": { "rate": 1000 } } }));
    let table = Arc::new(SourceTable::default());
    let limiter = limiter(&table);
    let start = Tick::now();
    let admit = |source, now| limiter.admit(&set, address(source), now);
    for n in 0..MOST_OF_GROUP {
        // The rate outlives the connection.
        drop(admit(n, start.after(Duration::from_secs(60))).unwrap());
    }
    assert_eq!(table.len(), MOST_OF_GROUP as usize);
    let later = start.after(Duration::from_secs(120));
    assert!(admit(MOST_OF_GROUP, later).is_ok());
    assert_eq!(table.shared(), 0);
    assert!(table.len() < MOST_OF_GROUP as usize);
}
