//! The whole set of routes, laid out for lookup.

use std::sync::Arc;

use super::claim::{Claim, Hasher, Keyed};
use super::claims::Claims;
use super::hostname::labels;
use super::search::Search;
use super::shards::Shards;
use super::{Hostname, Route, RouteKey, Tally};

/// The whole set of routes as the data plane sees it. Immutable; a change makes a new one, which
/// shares with the old all that is the same.
#[derive(Debug, Default)]
pub struct Table {
    routes: Shards<Keyed>,
    exact: Claims,
    /// By suffix, without the `*.`; those to `*` by the empty one, which no wildcard has.
    wildcards: Claims,
    depths: Depths,
    hasher: Hasher,
    retired: Box<[(RouteKey, Arc<Tally>)]>,
    generation: u64,
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
        let wildcards = |entries: &Entries| -> Vec<usize> {
            let suffixes = entries.wildcards.iter().map(Claim::name);
            suffixes.filter(|suffix| !suffix.is_empty()).map(labels).collect()
        };
        wildcards(&gone).into_iter().for_each(|labels| depths.remove(labels));
        wildcards(&new).into_iter().for_each(|labels| depths.add(labels));
        Table {
            routes: self.routes.with(gone.routes, new.routes),
            exact: self.exact.with(gone.exact, new.exact, &self.hasher),
            wildcards: self.wildcards.with(gone.wildcards, new.wildcards, &self.hasher),
            depths,
            hasher: self.hasher.clone(),
            retired: retired.into(),
            generation: self.generation + 1,
        }
    }

    /// The route that takes a connection: the greatest by hostname and then by
    /// [`RouteSpec::precedence`](super::RouteSpec::precedence) among those that match its name,
    /// listener and ALPN. Once a hostname that covers the name is claimed and no claim to it suits
    /// the connection, only routes of the namespace that has the oldest of these claims are
    /// considered: what is claimed never falls to another namespace.
    ///
    /// `name` is normalised, `None` when the client named none; `offers` are the protocols that the
    /// client offers, of which the first [`MOST_OFFERS`](super::MOST_OFFERS) count. Of the
    /// hostnames that cover the name, the first
    /// [`MOST_CLAIMED_HOSTNAMES`](super::MOST_CLAIMED_HOSTNAMES) that are claimed are considered.
    /// Allocates nothing.
    pub fn lookup<'o>(
        &self,
        name: Option<&str>,
        listener: &str,
        offers: impl IntoIterator<Item = &'o [u8]>,
    ) -> Option<Match<'_>> {
        let mut search = Search::new(self, listener, offers.into_iter());
        if let Some(name) = name {
            if let Some(found) = search.level(Hostname::Exact(name)) {
                return Some(Match { route: found.route, kind: MatchKind::Exact });
            }
            for suffix in self.depths.suffixes(name) {
                if let Some(found) = search.level(Hostname::Wildcard(suffix)) {
                    let kind = MatchKind::Wildcard(found.text);
                    return Some(Match { route: found.route, kind });
                }
            }
        }
        let found = search.level(Hostname::Any)?;
        Some(Match { route: found.route, kind: MatchKind::Any })
    }

    /// The claims among which those to a hostname are, by the hash of its text.
    pub(super) fn claims(&self, hostname: Hostname<&str>) -> (&Claims, u32) {
        let claims = match hostname {
            Hostname::Exact(_) => &self.exact,
            Hostname::Wildcard(_) | Hostname::Any => &self.wildcards,
        };
        (claims, self.hasher.hash(hostname.text()))
    }

    pub(super) fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// The route of this key.
    pub fn route(&self, key: &RouteKey) -> Option<&Arc<Route>> {
        let mut same_hash =
            self.routes.with_hash(self.hasher.hash(key)).iter().map(|keyed| &keyed.route);
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
        self.exact.names() + self.wildcards.names()
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
}

impl Entries {
    fn of<'r>(routes: impl Iterator<Item = &'r Arc<Route>>, hasher: &Hasher) -> Self {
        let mut entries = Entries::default();
        for route in routes {
            entries.routes.push(Keyed::new(route, hasher));
            for (place, hostname) in route.spec.hostnames.places() {
                let claim = Claim::new(route, place, hostname, hasher);
                match hostname {
                    Hostname::Exact(_) => entries.exact.push(claim),
                    Hostname::Wildcard(_) | Hostname::Any => entries.wildcards.push(claim),
                }
            }
        }
        entries
    }
}
