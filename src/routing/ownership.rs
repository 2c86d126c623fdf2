//! Ownership of hostnames: which claims to a hostname are served.
//!
//! A hostname belongs to the namespace of the oldest route that claims it. Routes of other namespaces are
//! served only if the owner shares it with them. `*` has an owner for each listener.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ahash::AHashMap as HashMap;

use super::{AnyOn, Hostname, Referrer, RouteKey};

/// The maximum number of routes for one hostname on one listener. It limits the cost of a lookup, of a
/// change and of the statuses.
pub const MOST_ROUTES_A_HOSTNAME: usize = 64;

/// The age of a claim, which is that of its route. The least is the oldest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age {
    /// In seconds since the epoch; routes without a time come last.
    created: i64,
    key: RouteKey,
}

/// The connections that a route asks for, among those to its hostnames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// The listeners; empty means all.
    pub listeners: Box<[Box<str>]>,
    /// The protocols of which the client must offer one; empty means any.
    pub alpn: Box<[Box<str>]>,
    /// Whether it asks for no connections, and only reserves its hostnames for its namespace.
    pub reserved: bool,
}

/// A claim to a hostname.
#[derive(Clone, Copy, Debug)]
pub struct Claimant<'c> {
    /// The route and its age.
    pub age: &'c Age,
    /// The connections that it asks for.
    pub demand: &'c Demand,
}

/// Which namespaces may claim hostnames below a wildcard that belongs to one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostnamesBelow {
    /// All namespaces.
    #[default]
    Anyone,
    /// The wildcard's owner, and namespaces with which it shares the wildcard. Claims that are older than
    /// the owner's are served as well.
    Owner,
}

impl HostnamesBelow {
    /// Both, in the order in which messages list them.
    pub const ALL: [HostnamesBelow; 2] = [HostnamesBelow::Owner, HostnamesBelow::Anyone];

    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            HostnamesBelow::Anyone => "Anyone",
            HostnamesBelow::Owner => "Owner",
        }
    }
}

/// Why a claim is not fully served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimConflict {
    /// Another namespace owns the hostname.
    Foreign {
        /// The oldest route there.
        owner: RouteKey,
    },
    /// Another namespace owns `*` on some of the route's listeners.
    ForeignOn {
        /// The oldest route there.
        owner: RouteKey,
        /// The listeners on which the claim is served.
        served: AnyOn,
        /// The first of the routes with precedence that take all connections there, if they do. The claim
        /// still gets those that other hostnames of its namespace leave over.
        winner: Option<RouteKey>,
    },
    /// An older claim to a wildcard reserves the names below it for another namespace.
    Below {
        /// The wildcard.
        wildcard: Hostname,
        /// The oldest route that claims it.
        owner: RouteKey,
    },
    /// The hostname already has [`MOST_ROUTES_A_HOSTNAME`] older routes on one of the route's listeners.
    TooMany,
    /// Routes with precedence take all connections that this one could get.
    Taken {
        /// The first of them.
        winner: RouteKey,
    },
    /// Routes with precedence take some of these connections.
    PartlyTaken {
        /// The first of them.
        winner: RouteKey,
    },
}

impl Age {
    /// The age of a route that was `created` at this second.
    pub fn new(created: Option<i64>, key: RouteKey) -> Self {
        Age { created: created.unwrap_or(i64::MAX), key }
    }

    /// The route.
    pub fn key(&self) -> &RouteKey {
        &self.key
    }

    /// The route's namespace.
    pub fn namespace(&self) -> &str {
        self.key.namespace()
    }
}

impl ClaimConflict {
    /// Whether the route gets no connections for the hostname.
    pub fn is_whole(&self) -> bool {
        match self {
            ClaimConflict::ForeignOn { winner, .. } => winner.is_some(),
            ClaimConflict::PartlyTaken { .. } => false,
            ClaimConflict::Taken { .. } => true,
            _ => self.is_left_out(),
        }
    }

    /// Whether the claim is left out of the table.
    pub fn is_left_out(&self) -> bool {
        matches!(
            self,
            ClaimConflict::Foreign { .. } | ClaimConflict::Below { .. } | ClaimConflict::TooMany
        )
    }
}

/// The conflict of each claim to one hostname that is not `*`, or `None` if the claim is fully served.
/// `claims` are sorted by age. `shares` returns whether a namespace shares the hostname with another.
///
/// The time is O(n log n) in the claims.
pub fn judge(
    claims: &[Claimant<'_>],
    shares: impl Fn(&str, Referrer<'_>) -> bool,
) -> Vec<Option<ClaimConflict>> {
    let Some(owner) = claims.first().map(|first| first.age) else { return Vec::new() };
    let mut shared = SharingCache { shares, known: HashMap::new() };
    let foreign = claims.iter().map(|claim| {
        let foreign = !shared.has(owner.namespace(), claim.age.key.referrer());
        foreign.then(|| ClaimConflict::Foreign { owner: owner.key.clone() })
    });
    let foreign = foreign.collect();
    Arbitration::new(claims).decide(foreign)
}

/// Like [`judge`], for `*`.
pub fn judge_any(
    claims: &[Claimant<'_>],
    shares: impl Fn(&str, Referrer<'_>) -> bool,
) -> Vec<Option<ClaimConflict>> {
    let owners = AnyOwners::of(claims);
    let mut shared = SharingCache { shares, known: HashMap::new() };
    let foreign = claims.iter().map(|claim| owners.conflict(claim, &mut shared)).collect();
    Arbitration::new(claims).decide(foreign)
}

/// The owner of `*`: for each listener that claims name and, under `None`, for all other listeners.
/// `claims` are sorted by age.
pub fn owners_of_any(claims: &[Claimant<'_>]) -> BTreeMap<Option<Box<str>>, RouteKey> {
    let owners = AnyOwners::of(claims);
    let named = owners.named.iter().map(|(listener, owner)| (Some((*listener).into()), *owner));
    let all = named.chain(owners.others.map(|owner| (None, owner)));
    all.map(|(listener, owner)| (listener, owner.key.clone())).collect()
}

/// A cache of which namespace shares the hostname with which.
struct SharingCache<'c, F> {
    shares: F,
    known: HashMap<(&'c str, Referrer<'c>), bool>,
}

impl<'c, F: Fn(&str, Referrer<'_>) -> bool> SharingCache<'c, F> {
    fn has(&mut self, owner: &'c str, claimant: Referrer<'c>) -> bool {
        owner == claimant.namespace
            || *self
                .known
                .entry((owner, claimant))
                .or_insert_with(|| (self.shares)(owner, claimant))
    }
}

/// The owners of `*`.
struct AnyOwners<'c> {
    /// For the listeners that are named before a claim takes all listeners.
    named: HashMap<&'c str, &'c Age>,
    /// For all other listeners.
    others: Option<&'c Age>,
}

impl<'c> AnyOwners<'c> {
    fn of(claims: &[Claimant<'c>]) -> Self {
        let mut owners = AnyOwners { named: HashMap::new(), others: None };
        for claim in claims {
            if claim.demand.listeners.is_empty() {
                owners.others = Some(claim.age);
                break;
            }
            for listener in &claim.demand.listeners {
                owners.named.entry(listener).or_insert(claim.age);
            }
        }
        owners
    }

    fn conflict(
        &self,
        claim: &Claimant<'c>,
        shared: &mut SharingCache<'c, impl Fn(&str, Referrer<'_>) -> bool>,
    ) -> Option<ClaimConflict> {
        let mut first_owner = None;
        let mut is_foreign = |owner: Option<&'c Age>| {
            let claimant = claim.age.key.referrer();
            let foreign = owner.filter(|o| !shared.has(o.namespace(), claimant));
            first_owner = first_owner.or(foreign);
            foreign.is_some()
        };
        let served = match claim.demand.listeners.is_empty() {
            false => {
                let own = claim.demand.listeners.iter();
                let own =
                    own.filter(|l| !is_foreign(self.named.get(&***l).copied().or(self.others)));
                AnyOn::Only(own.cloned().collect())
            }
            true => {
                let mut named: Vec<(&str, &Age)> =
                    self.named.iter().map(|(l, o)| (*l, *o)).collect();
                named.sort_unstable();
                let (lost, kept): (Vec<_>, Vec<_>) =
                    named.into_iter().partition(|(_, owner)| is_foreign(Some(*owner)));
                let listeners =
                    |some: Vec<(&str, &Age)>| some.into_iter().map(|(l, _)| l.into()).collect();
                match is_foreign(self.others) {
                    true => AnyOn::Only(listeners(kept)),
                    false => AnyOn::Except(listeners(lost)),
                }
            }
        };
        let owner = first_owner?.key.clone();
        Some(match &served {
            AnyOn::Only(none) if none.is_empty() => ClaimConflict::Foreign { owner },
            _ => ClaimConflict::ForeignOn { owner, served, winner: None },
        })
    }
}

/// Decides which claims to one hostname get which connections.
struct Arbitration<'c> {
    claims: &'c [Claimant<'c>],
    /// All listeners that claims name, sorted. The next number stands for all other listeners.
    listeners: Vec<&'c str>,
}

impl<'c> Arbitration<'c> {
    fn new(claims: &'c [Claimant<'c>]) -> Self {
        let named = claims.iter().flat_map(|claim| claim.demand.listeners.iter());
        let mut listeners: Vec<&str> = named.map(|listener| &**listener).collect();
        listeners.sort_unstable();
        listeners.dedup();
        Arbitration { claims, listeners }
    }

    fn decide(&self, mut conflicts: Vec<Option<ClaimConflict>>) -> Vec<Option<ClaimConflict>> {
        let mut left = self.within_bound(&mut conflicts);
        // The precedence of routes: those with ALPN first, then the oldest.
        left.sort_by_key(|place| Reverse(self.asks_for_alpn(*place)));
        let mut taken: HashMap<(usize, Option<&str>), usize> = HashMap::new();
        for place in left {
            let Some(conflict) = conflicts.get_mut(place) else { continue };
            let (first, free) = self.take(place, conflict.as_ref(), &mut taken);
            let Some(winner) = first.and_then(|winner| self.claims.get(winner)) else { continue };
            let winner = winner.age.key.clone();
            *conflict = Some(match (conflict.take(), free) {
                (Some(conflict), true) => conflict,
                (None, true) => ClaimConflict::PartlyTaken { winner },
                (Some(ClaimConflict::ForeignOn { owner, served, .. }), false) => {
                    ClaimConflict::ForeignOn { owner, served, winner: Some(winner) }
                }
                (_, false) => ClaimConflict::Taken { winner },
            });
        }
        conflicts
    }

    /// Takes the free connections that a claim asks for. Returns the first claim that has taken others
    /// before, and whether any was free.
    fn take(
        &self,
        place: usize,
        conflict: Option<&ClaimConflict>,
        taken: &mut HashMap<(usize, Option<&'c str>), usize>,
    ) -> (Option<usize>, bool) {
        let (mut first, mut free) = (None::<usize>, false);
        let Some(claim) = self.claims.get(place) else { return (first, free) };
        for listener in self.places(place, conflict) {
            let mut take = |protocol| {
                let winner = *taken.entry((listener, protocol)).or_insert(place);
                if winner == place {
                    free = true;
                } else {
                    first = Some(first.map_or(winner, |first| first.min(winner)));
                }
            };
            match claim.demand.alpn.is_empty() {
                true => take(None),
                false => claim.demand.alpn.iter().for_each(|protocol| take(Some(protocol))),
            }
        }
        (first, free)
    }

    /// The claims that neither another namespace nor the limit excludes.
    fn within_bound(&self, conflicts: &mut [Option<ClaimConflict>]) -> Vec<usize> {
        let mut counts = vec![0; self.listeners.len() + 1];
        let mut left = Vec::new();
        for (place, conflict) in conflicts.iter_mut().enumerate() {
            if conflict.as_ref().is_some_and(ClaimConflict::is_left_out) {
                continue;
            }
            let full = |listener: usize| {
                counts.get(listener).is_some_and(|count| *count >= MOST_ROUTES_A_HOSTNAME)
            };
            if self.places(place, conflict.as_ref()).any(full) {
                *conflict = Some(ClaimConflict::TooMany);
                continue;
            }
            for listener in self.places(place, conflict.as_ref()) {
                counts.get_mut(listener).into_iter().for_each(|count| *count += 1);
            }
            left.push(place);
        }
        left
    }

    fn asks_for_alpn(&self, place: usize) -> bool {
        self.claims.get(place).is_some_and(|claim| !claim.demand.alpn.is_empty())
    }

    /// The numbers of the listeners on which a claim is served. All unnamed listeners have one number.
    fn places<'a>(
        &'a self,
        place: usize,
        conflict: Option<&'a ClaimConflict>,
    ) -> impl Iterator<Item = usize> + use<'a, 'c> {
        let all: &[Box<str>] = &[];
        let own = self.claims.get(place).map_or(all, |claim| &claim.demand.listeners);
        let any = match conflict {
            Some(ClaimConflict::ForeignOn { served, .. }) => served,
            _ => &AnyOn::All,
        };
        let count = match self.claims.get(place) {
            Some(claim) if claim.demand.reserved => 0,
            _ if own.is_empty() => self.listeners.len() + 1,
            _ => own.len(),
        };
        (0..count).filter_map(move |index| match own.get(index) {
            Some(listener) => {
                any.has(listener).then(|| self.listeners.binary_search(&&**listener).ok())?
            }
            None => match self.listeners.get(index) {
                Some(listener) => any.has(listener).then_some(index),
                None => any.has_others().then_some(index),
            },
        })
    }
}
