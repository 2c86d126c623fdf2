//! The hellos of the connections that are being served. They are used to detect loops.
//!
//! A route may lead back to sluice without an address that shows it: through another replica, a load
//! balancer or a network address translation. One connection would then repeat until no descriptors are
//! left. Its hello stays the same, and so do the 32 random bytes that every client chooses for each hello
//! (RFC 8446 §4.1.2).
//!
//! A route that speaks TLS with its endpoints sends a hello of its own each time, with other random bytes. So what sluice
//! sends is recorded as well, and may not come back at all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::RandomState;

/// The maximum number of concurrent connections with the same hello. A client may retry with the same hello;
/// the third connection is a loop.
const MOST: u8 = 2;
/// The number of shards, each with its own lock, so that workers rarely wait for each other. A power of two.
const SHARDS: u64 = 256;

/// The hellos that all workers are serving. Each operation holds a lock for some ten nanoseconds, and
/// allocates only while the table grows.
#[derive(Debug)]
pub(super) struct Hellos {
    /// With keys of this process, so that a client cannot choose the shard.
    hasher: RandomState,
    shards: Box<[Mutex<HelloShard>]>,
}

type HelloShard = HashMap<u64, HelloUses, BuildHasherDefault<PassThroughHasher>>;

/// Where a hello is in use.
#[derive(Debug, Default, PartialEq, Eq)]
struct HelloUses {
    /// The number of connections that are served with it.
    served: u8,
    /// Whether it was sent to an endpoint.
    sent: bool,
}

/// A hello that is being served, until this is dropped.
#[derive(Debug)]
pub(super) struct ServedHello<'a> {
    hellos: &'a Hellos,
    key: u64,
}

/// A hello that was sent to an endpoint, until this is dropped: that may be as soon as the handshake is over. If the
/// hello comes back, it does so before the endpoint can answer it.
#[derive(Debug)]
pub(super) struct SentHello {
    hellos: Arc<Hellos>,
    key: u64,
}

impl Hellos {
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Hellos { hasher: RandomState::new(), shards }
    }

    /// The key of a hello with these random bytes.
    pub(super) fn key(&self, random: &[u8; 32]) -> u64 {
        self.hash(random)
    }

    /// A hash with the keys of this process.
    pub(super) fn hash(&self, of: &impl Hash) -> u64 {
        self.hasher.hash_one(of)
    }

    /// Enters a hello. `None` if it is already served as often as allowed, or if it was sent by this process and goes to
    /// a route that `sends_its_own`: such a route would send another one, and so on.
    pub(super) fn enter(&self, key: u64, sends_its_own: bool) -> Option<ServedHello<'_>> {
        let mut shard = self.shard(key)?;
        let uses = shard.entry(key).or_default();
        let is_loop = uses.served >= MOST || uses.sent && sends_its_own;
        if is_loop {
            return None;
        }
        uses.served += 1;
        Some(ServedHello { hellos: self, key })
    }

    /// Enters a hello that is sent to an endpoint. `None` if it is known already, which no new hello is.
    pub(super) fn send(self: &Arc<Self>, key: u64) -> Option<SentHello> {
        let mut shard = self.shard(key)?;
        let Entry::Vacant(entry) = shard.entry(key) else { return None };
        entry.insert(HelloUses { served: 0, sent: true });
        Some(SentHello { hellos: Arc::clone(self), key })
    }

    fn leave(&self, key: u64, change: impl Fn(&mut HelloUses)) {
        let Some(mut shard) = self.shard(key) else { return };
        if let Entry::Occupied(mut entry) = shard.entry(key) {
            change(entry.get_mut());
            if *entry.get() == HelloUses::default() {
                entry.remove();
            }
        }
    }

    /// The shard of a key. Never `None`, because there is a shard for each remainder.
    fn shard(&self, key: u64) -> Option<MutexGuard<'_, HelloShard>> {
        // The low bits are used for the position in the map.
        let shard = self.shards.get(((key >> 32) % SHARDS) as usize)?;
        // No code panics while it holds the lock.
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for ServedHello<'_> {
    fn drop(&mut self) {
        self.hellos.leave(self.key, |uses| uses.served = uses.served.saturating_sub(1));
    }
}

impl Drop for SentHello {
    fn drop(&mut self) {
        self.hellos.leave(self.key, |uses| uses.sent = false);
    }
}

/// A hasher that returns the key itself.
#[derive(Debug, Default)]
struct PassThroughHasher(u64);

impl Hasher for PassThroughHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used: keys are `u64`.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn the_third_concurrent_connection_with_one_hello_is_refused() {
        let hellos = Hellos::new();
        let (one, other) = (hellos.key(&[1; 32]), hellos.key(&[2; 32]));
        let first = hellos.enter(one, false).expect("the first");
        let second = hellos.enter(one, false).expect("a client may retry");
        assert!(hellos.enter(one, false).is_none());
        assert!(hellos.enter(other, false).is_some());
        drop(first);
        let third = hellos.enter(one, false).expect("the first is over");
        assert!(hellos.enter(one, false).is_none());
        drop((second, third));
        assert_eq!(left(&hellos), 0);
    }

    #[test]
    fn a_hello_that_was_sent_is_refused_where_another_would_be_sent() {
        let hellos = Arc::new(Hellos::new());
        let (one, other) = (hellos.key(&[1; 32]), hellos.key(&[2; 32]));
        let sent = hellos.send(one).expect("a new one");
        assert!(hellos.enter(one, true).is_none());
        // Whoever passes it on makes no loop, unless it comes again and again.
        let passed = [(); MOST as usize].map(|()| hellos.enter(one, false).expect("a place"));
        assert!(hellos.enter(one, false).is_none());
        drop(passed);
        assert!(hellos.enter(one, true).is_none());
        let served = hellos.enter(other, true).expect("another");
        assert!(hellos.send(other).is_none());
        drop(sent);
        assert!(hellos.enter(one, true).is_some());
        drop(served);
        assert_eq!(left(&hellos), 0);
    }

    fn left(hellos: &Hellos) -> usize {
        hellos.shards.iter().map(|shard| shard.lock().expect("a shard").len()).sum()
    }

    #[test]
    fn hellos_are_distributed_by_a_key_of_the_process() {
        let (hellos, others) = (Hellos::new(), Hellos::new());
        assert_ne!(hellos.key(&[1; 32]), others.key(&[1; 32]));
        let held: Vec<_> = (0..=u8::MAX)
            .map(|n| hellos.enter(hellos.key(&[n; 32]), false).expect("each for the first time"))
            .collect();
        let most = hellos.shards.iter().map(|shard| shard.lock().expect("a shard").len()).max();
        assert!(most < Some(16), "{most:?}");
        drop(held);
    }
}
