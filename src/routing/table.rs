//! The whole set of routes, laid out for lookup.

use std::sync::Arc;

use ahash::AHashMap as HashMap;

use super::hostname::labels;
use super::shards::{Keyed, Shards};
use super::{Hostname, Route, RouteKey, RouteSpec, Tally};

/// The whole set of routes as the data plane sees it. Immutable; a change makes a new one, which
/// shares with the old all that is the same.
#[derive(Debug, Default)]
pub struct Table {
    routes: Shards<Arc<Route>>,
    exact: Shards<Claimed>,
    /// By suffix, without the `*.`.
    wildcards: Shards<Claimed>,
    depths: Depths,
    any: Claims,
    retired: Box<[(RouteKey, Arc<Tally>)]>,
    generation: u64,
}

/// The routes that claim one hostname, the one with the highest precedence first.
type Claims = Arc<[Arc<Route>]>;

/// A name, or a wildcard's suffix, with those that claim it.
#[derive(Clone, Debug)]
struct Claimed {
    name: Arc<str>,
    claims: Claims,
}

impl Keyed for Claimed {
    type Key = str;

    fn key(&self) -> &str {
        &self.name
    }
}

impl Keyed for Arc<Route> {
    type Key = RouteKey;

    fn key(&self) -> &RouteKey {
        &self.spec.key
    }
}

/// The depths at which wildcards exist: only those suffixes of a name are looked up.
#[derive(Clone, Debug)]
struct Depths {
    /// How many wildcards have a suffix of so many labels. A name has at most 127 of them
    /// (RFC 1035 §2.3.4).
    count: Box<[u32; 128]>,
    /// A bit for each that is not 0.
    bits: u128,
}

/// The answer of a lookup.
#[derive(Clone, Copy, Debug)]
pub struct Match<'t> {
    /// The route that wins.
    pub route: &'t Arc<Route>,
    /// By which of its claims.
    pub kind: MatchKind<'t>,
}

/// By which kind of claim a route won.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchKind<'t> {
    /// An exact name.
    Exact,
    /// A wildcard with this suffix.
    Wildcard(&'t str),
    /// `*`.
    Any,
}

impl Table {
    /// This table but for `changes`: for each key, of which there is one, the route that is to be
    /// there, or `None`.
    /// `retired` are the tallies of routes that are gone.
    pub(super) fn with(
        &self,
        changes: Vec<(RouteKey, Option<Arc<Route>>)>,
        retired: Vec<(RouteKey, Arc<Tally>)>,
    ) -> Self {
        let mut edits = Edits::default();
        for (key, new) in &changes {
            if let Some(old) = self.routes.get(key) {
                edits.remove(old);
            }
            if let Some(new) = new {
                edits.add(new);
            }
        }
        let any = edits.any.apply(&self.any);
        let mut depths = self.depths.clone();
        let exact = edits.exact.into_iter().map(|(name, edit)| {
            let old = self.exact.get(&name).map(|claimed| &claimed.claims);
            edit.into_change(name, old)
        });
        let exact = self.exact.with(exact);
        let wildcards: Vec<_> = edits
            .wildcards
            .into_iter()
            .map(|(suffix, edit)| {
                let old = self.wildcards.get(&suffix).map(|claimed| &claimed.claims);
                let (suffix, new) = edit.into_change(suffix, old);
                depths.change(labels(&suffix), old.is_some(), new.is_some());
                (suffix, new)
            })
            .collect();
        Table {
            exact,
            wildcards: self.wildcards.with(wildcards),
            depths,
            any,
            routes: self.routes.with(changes),
            retired: retired.into(),
            generation: self.generation + 1,
        }
    }

    /// The route that owns a connection: the greatest by hostname and then by
    /// [`RouteSpec::precedence`] among those that match its name, listener and ALPN.
    ///
    /// `name` is normalised, `None` when the client named none; `offers` tells whether the client
    /// offers a protocol. Allocates nothing.
    pub fn lookup(
        &self,
        name: Option<&str>,
        listener: &str,
        offers: impl Fn(&[u8]) -> bool,
    ) -> Option<Match<'_>> {
        let first = |claims| first(claims, listener, &offers);
        if let Some(name) = name {
            if let Some(route) = self.exact.get(name).and_then(|claimed| first(&claimed.claims)) {
                return Some(Match { route, kind: MatchKind::Exact });
            }
            for suffix in self.depths.suffixes(name) {
                if let Some(Claimed { name: suffix, claims }) = self.wildcards.get(suffix)
                    && let Some(route) = first(claims)
                {
                    return Some(Match { route, kind: MatchKind::Wildcard(suffix) });
                }
            }
        }
        first(&self.any).map(|route| Match { route, kind: MatchKind::Any })
    }

    /// The route of this key.
    pub fn route(&self, key: &RouteKey) -> Option<&Arc<Route>> {
        self.routes.get(key)
    }

    /// All routes, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter()
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tallies of routes that are gone, kept for a while so that their last connections are
    /// still reported.
    pub fn retired(&self) -> &[(RouteKey, Arc<Tally>)] {
        &self.retired
    }

    /// How many hostnames have an owner.
    pub fn hostnames(&self) -> usize {
        self.exact.len() + self.wildcards.len() + usize::from(!self.any.is_empty())
    }

    /// How many tables came before this one; 0 is the empty table before the first.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// The first claim that admits the connection.
fn first<'c>(
    claims: &'c [Arc<Route>],
    listener: &str,
    offers: &impl Fn(&[u8]) -> bool,
) -> Option<&'c Arc<Route>> {
    claims.iter().find(|route| route.spec.admits(listener, offers))
}

impl Default for Depths {
    fn default() -> Self {
        Depths { count: Box::new([0; 128]), bits: 0 }
    }
}

impl Depths {
    /// A wildcard of this depth was there or not, and is there now or not.
    fn change(&mut self, labels: usize, before: bool, now: bool) {
        let Some(count) = self.count.get_mut(labels) else { return };
        *count = (*count + u32::from(now)).saturating_sub(u32::from(before));
        let bit = depth(labels);
        self.bits = if *count == 0 { self.bits & !bit } else { self.bits | bit };
    }

    /// The parent suffixes of `name`, longest first, at the depths where a wildcard exists.
    fn suffixes<'n>(&self, name: &'n str) -> impl Iterator<Item = &'n str> + use<'n> {
        let bits = self.bits;
        let count = if bits == 0 { 0 } else { labels(name) };
        name.match_indices('.')
            .take(count)
            .enumerate()
            .filter(move |(index, _)| bits & depth(count - 1 - index) != 0)
            .map(move |(_, (dot, _))| &name[dot + 1..])
    }
}

fn depth(labels: usize) -> u128 {
    u32::try_from(labels).ok().and_then(|labels| 1u128.checked_shl(labels)).unwrap_or(0)
}

/// What is to change about the claims, by hostname.
#[derive(Default)]
struct Edits {
    exact: HashMap<Arc<str>, Edit>,
    wildcards: HashMap<Arc<str>, Edit>,
    any: Edit,
}

/// Claims that go and claims that come.
#[derive(Default)]
struct Edit {
    gone: Vec<Arc<Route>>,
    new: Vec<Arc<Route>>,
}

impl Edits {
    fn remove(&mut self, route: &Arc<Route>) {
        for hostname in &route.spec.hostnames {
            self.of(hostname).gone.push(Arc::clone(route));
        }
    }

    fn add(&mut self, route: &Arc<Route>) {
        for hostname in &route.spec.hostnames {
            self.of(hostname).new.push(Arc::clone(route));
        }
    }

    fn of(&mut self, hostname: &Hostname) -> &mut Edit {
        match hostname {
            Hostname::Any => &mut self.any,
            Hostname::Exact(name) => self.exact.entry(Arc::clone(name)).or_default(),
            Hostname::Wildcard(suffix) => self.wildcards.entry(Arc::clone(suffix)).or_default(),
        }
    }
}

impl Edit {
    fn apply(mut self, old: &Claims) -> Claims {
        if self.gone.is_empty() && self.new.is_empty() {
            return Arc::clone(old);
        }
        let stays =
            |claim: &&Arc<Route>| !self.gone.iter().any(|gone| gone.spec.key == claim.spec.key);
        let mut claims: Vec<_> = old.iter().filter(stays).cloned().collect();
        claims.append(&mut self.new);
        claims.sort_by(|a, b| b.spec.precedence().cmp(&a.spec.precedence()));
        claims.into()
    }

    fn into_change(self, name: Arc<str>, old: Option<&Claims>) -> (Arc<str>, Option<Claimed>) {
        let claims = match old {
            Some(old) => self.apply(old),
            None if self.new.len() == 1 => self.new.into(),
            None => self.apply(&Claims::default()),
        };
        let claimed = (!claims.is_empty()).then(|| Claimed { name: Arc::clone(&name), claims });
        (name, claimed)
    }
}

/// A hostname that a route claims and another route owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The hostname in question.
    pub hostname: Hostname,
    /// The route that owns it.
    pub winner: RouteKey,
    /// Whether the winner takes every connection that the loser could get by this hostname. If
    /// not, the loser still serves the listeners or protocols that the winner does not.
    pub whole: bool,
}

/// What each of `claimants`, all of which claim `hostname`, loses to another of them; in their
/// order.
pub fn conflicts_over(hostname: &Hostname, claimants: &[&RouteSpec]) -> Vec<Option<Conflict>> {
    let mut order: Vec<&RouteSpec> = claimants.to_vec();
    order.sort_by(|a, b| b.precedence().cmp(&a.precedence()));
    let lost = |loser: &RouteSpec| {
        let better = || order.iter().take_while(|winner| winner.key != loser.key);
        let (winner, whole) = match better().find(|winner| covers(winner, loser)) {
            Some(winner) => (winner, true),
            None => (better().find(|winner| overlaps(winner, loser))?, false),
        };
        Some(Conflict { hostname: hostname.clone(), winner: winner.key.clone(), whole })
    };
    claimants.iter().map(|claimant| lost(claimant)).collect()
}

/// Whether the winner takes all that the loser could get by the same hostname.
fn covers(winner: &RouteSpec, loser: &RouteSpec) -> bool {
    let all = |wide: &[Box<str>], narrow: &[Box<str>]| {
        wide.is_empty() || !narrow.is_empty() && narrow.iter().all(|item| wide.contains(item))
    };
    all(&winner.listeners, &loser.listeners) && all(&winner.alpn, &loser.alpn)
}

/// Whether some connection could go to either, were the other not there, and it is not merely that
/// ALPN was asked for by one of them, which is how routes are meant to share a name.
fn overlaps(winner: &RouteSpec, loser: &RouteSpec) -> bool {
    let meet = |a: &[Box<str>], b: &[Box<str>]| {
        a.is_empty() || b.is_empty() || a.iter().any(|item| b.contains(item))
    };
    winner.alpn.is_empty() == loser.alpn.is_empty()
        && meet(&winner.listeners, &loser.listeners)
        && meet(&winner.alpn, &loser.alpn)
}
