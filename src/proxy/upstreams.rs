//! The upstreams of a worker's connections, so that those whose endpoint is gone are found without a search in
//! every task.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;

use slab::Slab;

use super::reactor::{Reactor, TaskId};
use crate::routing::Removals;

/// How many removals are kept for a connection that has no endpoint yet.
const MOST_NEWS: usize = 16;

/// The upstreams of all connections of one worker.
#[derive(Default)]
pub(super) struct Upstreams {
    entries: RefCell<Slab<UpstreamEntry>>,
    /// How many open ones have news that their task has not taken.
    with_news: Cell<usize>,
}

struct UpstreamEntry {
    task: TaskId,
    /// The endpoint; `None` until it is connected.
    address: Option<SocketAddr>,
    /// The removals that may concern it.
    news: Vec<Arc<Removals>>,
}

/// The upstream of one connection.
pub(super) struct KnownUpstream<'a> {
    all: &'a Upstreams,
    key: usize,
}

impl Upstreams {
    /// Adds the upstream of the current task, before an endpoint is chosen: none may be chosen and then
    /// removed in between.
    pub(super) fn enter(&self, reactor: &Reactor) -> KnownUpstream<'_> {
        let (task, news) = (reactor.current(), Vec::new());
        let key = self.entries.borrow_mut().insert(UpstreamEntry { task, address: None, news });
        KnownUpstream { all: self, key }
    }

    /// Wakes the tasks that `removals` concern.
    pub(super) fn tell(&self, removals: &Arc<Removals>, reactor: &Reactor) {
        for (_, entry) in self.entries.borrow_mut().iter_mut() {
            match entry.address {
                // The endpoint is not known yet. A client may wait for it for very long, and each removal keeps a
                // table: what is older is forgotten, and a dead endpoint is found as any other.
                None => {
                    if entry.news.len() == MOST_NEWS {
                        entry.news.remove(0);
                    }
                    entry.news.push(Arc::clone(removals));
                }
                Some(address) if removals.concern(address) => {
                    self.with_news.update(|count| count + usize::from(entry.news.is_empty()));
                    entry.news.push(Arc::clone(removals));
                    reactor.wake(entry.task);
                }
                Some(_) => {}
            }
        }
    }
}

impl KnownUpstream<'_> {
    /// Records that the connection to `endpoint` is open.
    pub(super) fn connected(&self, endpoint: Option<SocketAddr>) {
        let mut entries = self.all.entries.borrow_mut();
        let (Some(entry), Some(address)) = (entries.get_mut(self.key), endpoint) else { return };
        entry.address = endpoint;
        entry.news.retain(|removals| removals.concern(address));
        self.all.with_news.update(|count| count + usize::from(!entry.news.is_empty()));
    }

    /// The endpoint, if it is connected.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.all.entries.borrow().get(self.key)?.address
    }

    /// Takes the removals since the last call that may concern it, the oldest first.
    pub(super) fn take_news(&self) -> Vec<Arc<Removals>> {
        if self.all.with_news.get() == 0 {
            return Vec::new();
        }
        let mut entries = self.all.entries.borrow_mut();
        let news = entries.get_mut(self.key).map(|entry| std::mem::take(&mut entry.news));
        let news = news.unwrap_or_default();
        self.all.with_news.update(|count| count.saturating_sub(usize::from(!news.is_empty())));
        news
    }
}

impl Drop for KnownUpstream<'_> {
    fn drop(&mut self) {
        let Some(entry) = self.all.entries.borrow_mut().try_remove(self.key) else { return };
        let had_news = entry.address.is_some() && !entry.news.is_empty();
        self.all.with_news.update(|count| count.saturating_sub(usize::from(had_news)));
    }
}
