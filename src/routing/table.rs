//! The whole set of routes, laid out for lookup.

use std::cmp::Ordering;
use std::hash::Hash;
use std::sync::Arc;

use ahash::RandomState;

use super::hostname::labels;
use super::hostnames::Place;
use super::shards::{Item, Shards};
use super::{Hostname, Route, RouteKey, RouteSpec, Tally};

/// The whole set of routes as the data plane sees it. Immutable; a change makes a new one, which
/// shares with the old all that is the same.
#[derive(Debug, Default)]
pub struct Table {
    routes: Shards<Keyed>,
    exact: Shards<Claim>,
    /// By suffix, without the `*.`.
    wildcards: Shards<Claim>,
    depths: Depths,
    /// Those that claim `*`, the one with the highest precedence first.
    any: Box<[Arc<Route>]>,
    /// Keyed, so that nobody can choose names that meet.
    hasher: RandomState,
    retired: Box<[(RouteKey, Arc<Tally>)]>,
    generation: u64,
}

/// A route, to be found by its key.
#[derive(Clone, Debug)]
struct Keyed {
    route: Arc<Route>,
    /// Of the key.
    hash: u32,
}

/// A hostname that a route claims. There may be a million of them, so it is two words, and the name
/// is read in the route.
#[derive(Clone, Debug)]
struct Claim {
    route: Arc<Route>,
    /// Of the name, or of a wildcard's suffix.
    hash: u32,
    place: Place,
}

impl Claim {
    /// The name, or a wildcard's suffix.
    fn name(&self) -> &str {
        match self.route.spec.hostnames.at(self.place) {
            Hostname::Exact(name) | Hostname::Wildcard(name) => name,
            Hostname::Any => "",
        }
    }
}

impl Item for Keyed {
    fn hash(&self) -> u32 {
        self.hash
    }

    fn order(&self, other: &Self) -> Ordering {
        self.route.spec.key.cmp(&other.route.spec.key)
    }

    fn shares_key(&self, other: &Self) -> bool {
        self.route.spec.key == other.route.spec.key
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.route, &other.route)
    }
}

impl Item for Claim {
    fn hash(&self) -> u32 {
        self.hash
    }

    /// By name, and the one with the highest precedence first.
    fn order(&self, other: &Self) -> Ordering {
        let precedence = || other.route.spec.precedence().cmp(&self.route.spec.precedence());
        self.name().cmp(other.name()).then_with(precedence)
    }

    fn shares_key(&self, other: &Self) -> bool {
        self.name() == other.name()
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.route, &other.route) && self.place == other.place
    }
}

/// The depths at which wildcards exist: only those suffixes of a name are looked up.
#[derive(Clone, Debug)]
struct Depths {
    /// How many claims are of wildcards with a suffix of so many labels. A name has at most 127 of
    /// them (RFC 1035 §2.3.4).
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
        changes: &[(RouteKey, Option<Arc<Route>>)],
        retired: Vec<(RouteKey, Arc<Tally>)>,
    ) -> Self {
        let old = changes.iter().filter_map(|(key, _)| self.route(key));
        let gone = Entries::of(old, &self.hasher);
        let new = Entries::of(changes.iter().filter_map(|(_, route)| route.as_ref()), &self.hasher);
        let mut depths = self.depths.clone();
        gone.wildcards.iter().for_each(|claim| depths.remove(labels(claim.name())));
        new.wildcards.iter().for_each(|claim| depths.add(labels(claim.name())));
        let stays = |route: &&Arc<Route>| !gone.any.iter().any(|gone| Arc::ptr_eq(gone, route));
        let mut any: Vec<_> = self.any.iter().filter(stays).cloned().chain(new.any).collect();
        any.sort_by(|a, b| b.spec.precedence().cmp(&a.spec.precedence()));
        Table {
            routes: self.routes.with(gone.routes, new.routes),
            exact: self.exact.with(gone.exact, new.exact),
            wildcards: self.wildcards.with(gone.wildcards, new.wildcards),
            depths,
            any: any.into(),
            hasher: self.hasher.clone(),
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
        let admits = |route: &&Arc<Route>| route.spec.admits(listener, &offers);
        if let Some(name) = name {
            if let Some(route) =
                self.claims(&self.exact, name).map(|claim| &claim.route).find(admits)
            {
                return Some(Match { route, kind: MatchKind::Exact });
            }
            for suffix in self.depths.suffixes(name) {
                let mut claims = self.claims(&self.wildcards, suffix);
                if let Some(claim) = claims.find(|claim| admits(&&claim.route)) {
                    let kind = MatchKind::Wildcard(claim.name());
                    return Some(Match { route: &claim.route, kind });
                }
            }
        }
        self.any.iter().find(admits).map(|route| Match { route, kind: MatchKind::Any })
    }

    /// Who claims `name`, the one with the highest precedence first.
    fn claims<'t, 'n>(
        &self,
        claims: &'t Shards<Claim>,
        name: &'n str,
    ) -> impl Iterator<Item = &'t Claim> + use<'t, 'n> {
        let same_hash = claims.with_hash(hash(&self.hasher, name)).iter();
        same_hash.filter(move |claim| claim.name() == name)
    }

    /// The route of this key.
    pub fn route(&self, key: &RouteKey) -> Option<&Arc<Route>> {
        let mut same_hash =
            self.routes.with_hash(hash(&self.hasher, key)).iter().map(|keyed| &keyed.route);
        same_hash.find(|route| route.spec.key == *key)
    }

    /// All routes, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter().map(|keyed| &keyed.route)
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.routes.keys()
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
        self.exact.keys() + self.wildcards.keys() + usize::from(!self.any.is_empty())
    }

    /// How many tables came before this one; 0 is the empty table before the first.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

impl Default for Depths {
    fn default() -> Self {
        Depths { count: Box::new([0; 128]), bits: 0 }
    }
}

impl Depths {
    /// A wildcard whose suffix has so many labels comes.
    fn add(&mut self, labels: usize) {
        if let Some(count) = self.count.get_mut(labels) {
            *count = count.saturating_add(1);
            self.bits |= depth(labels);
        }
    }

    /// A wildcard whose suffix has so many labels goes.
    fn remove(&mut self, labels: usize) {
        if let Some(count) = self.count.get_mut(labels) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.bits &= !depth(labels);
            }
        }
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

/// All that a table has of some routes.
#[derive(Default)]
struct Entries {
    routes: Vec<Keyed>,
    exact: Vec<Claim>,
    wildcards: Vec<Claim>,
    any: Vec<Arc<Route>>,
}

impl Entries {
    fn of<'r>(routes: impl Iterator<Item = &'r Arc<Route>>, hasher: &RandomState) -> Self {
        let mut entries = Entries::default();
        for route in routes {
            entries
                .routes
                .push(Keyed { route: route.clone(), hash: hash(hasher, &route.spec.key) });
            for (place, hostname) in route.spec.hostnames.places() {
                let claim =
                    |name| Claim { route: Arc::clone(route), hash: hash(hasher, name), place };
                match hostname {
                    Hostname::Any => entries.any.push(Arc::clone(route)),
                    Hostname::Exact(name) => entries.exact.push(claim(name)),
                    Hostname::Wildcard(suffix) => entries.wildcards.push(claim(suffix)),
                }
            }
        }
        entries
    }
}

fn hash<K: Hash + ?Sized>(hasher: &RandomState, key: &K) -> u32 {
    (hasher.hash_one(key) >> 32) as u32
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
