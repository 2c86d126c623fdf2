//! The whole set of routes, laid out for lookup.

use std::collections::HashMap;
use std::sync::Arc;

use super::hostname::labels;
use super::{Hostname, Route, RouteKey, RouteSpec, Tally};

/// The routes that claim one hostname, the one with the highest precedence first.
type Claims = Box<[Arc<Route>]>;

/// The whole set of routes as the data plane sees it. Immutable; a change makes a new one.
#[derive(Debug, Default)]
pub struct Table {
    routes: Box<[Arc<Route>]>,
    exact: HashMap<Box<str>, Claims>,
    /// By suffix, without the `*.`.
    wildcards: HashMap<Box<str>, Claims>,
    /// Bit n is set when some wildcard's suffix has n labels: only those suffixes are looked up.
    /// A name has at most 127 labels (RFC 1035 §2.3.4).
    depths: u128,
    any: Claims,
    retired: Box<[(RouteKey, Arc<Tally>)]>,
    generation: u64,
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
    /// Lays out `routes`. `retired` are the tallies of routes that are gone.
    pub(super) fn new(
        mut routes: Vec<Arc<Route>>,
        retired: Vec<(RouteKey, Arc<Tally>)>,
        generation: u64,
    ) -> Self {
        // In order of precedence, so that every list of claims below is in order too.
        routes.sort_by(|a, b| b.spec.precedence().cmp(&a.spec.precedence()));
        let mut exact: HashMap<Box<str>, Vec<Arc<Route>>> = HashMap::new();
        let mut wildcards: HashMap<Box<str>, Vec<Arc<Route>>> = HashMap::new();
        let mut any = Vec::new();
        let mut depths = 0;
        for route in &routes {
            for hostname in &route.spec.hostnames {
                let claims = match hostname {
                    Hostname::Any => &mut any,
                    Hostname::Exact(name) => exact.entry(name.clone()).or_default(),
                    Hostname::Wildcard(suffix) => {
                        depths |= depth(labels(suffix));
                        wildcards.entry(suffix.clone()).or_default()
                    }
                };
                claims.push(Arc::clone(route));
            }
        }
        let boxed = |map: HashMap<Box<str>, Vec<Arc<Route>>>| {
            map.into_iter().map(|(name, claims)| (name, claims.into())).collect()
        };
        Table {
            exact: boxed(exact),
            wildcards: boxed(wildcards),
            depths,
            any: any.into(),
            routes: routes.into(),
            retired: retired.into(),
            generation,
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
        let first = |claims: &'_ Claims| -> Option<usize> {
            claims.iter().position(|route| route.spec.admits(listener, &offers))
        };
        if let Some(name) = name {
            if let Some(claims) = self.exact.get(name)
                && let Some(index) = first(claims)
            {
                return Some(Match { route: &claims[index], kind: MatchKind::Exact });
            }
            for suffix in self.suffixes(name) {
                if let Some((suffix, claims)) = self.wildcards.get_key_value(suffix)
                    && let Some(index) = first(claims)
                {
                    return Some(Match {
                        route: &claims[index],
                        kind: MatchKind::Wildcard(suffix),
                    });
                }
            }
        }
        first(&self.any).map(|index| Match { route: &self.any[index], kind: MatchKind::Any })
    }

    /// The parent suffixes of `name`, longest first, at the depths where a wildcard exists.
    fn suffixes<'n>(&self, name: &'n str) -> impl Iterator<Item = &'n str> + use<'_, 'n> {
        let count = if self.depths == 0 { 0 } else { labels(name) };
        name.match_indices('.')
            .take(count)
            .enumerate()
            .filter(move |(index, _)| self.depths & depth(count - 1 - index) != 0)
            .map(move |(_, (dot, _))| &name[dot + 1..])
    }

    /// All routes, in order of precedence among equals.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
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

fn depth(labels: usize) -> u128 {
    u32::try_from(labels).ok().and_then(|labels| 1u128.checked_shl(labels)).unwrap_or(0)
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

/// The conflicts that each route loses, by the route's index in `routes`.
pub fn conflicts(routes: &[&RouteSpec]) -> Vec<Vec<Conflict>> {
    let mut order: Vec<usize> = (0..routes.len()).collect();
    order.sort_by(|&a, &b| routes[b].precedence().cmp(&routes[a].precedence()));
    let mut owners: HashMap<&Hostname, Vec<usize>> = HashMap::new();
    let mut lost = vec![Vec::new(); routes.len()];
    for index in order {
        let route = routes[index];
        for hostname in &route.hostnames {
            let earlier = owners.entry(hostname).or_default();
            let conflict = |whole: bool| {
                let meets = if whole { covers } else { overlaps };
                let winner = earlier
                    .iter()
                    .find(|&&winner| winner != index && meets(routes[winner], route))?;
                Some(Conflict {
                    hostname: hostname.clone(),
                    winner: routes[*winner].key.clone(),
                    whole,
                })
            };
            lost[index].extend(conflict(true).or_else(|| conflict(false)));
            if earlier.last() != Some(&index) {
                earlier.push(index);
            }
        }
    }
    lost
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
