//! All claims of hostnames, and their conflicts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use ahash::AHashMap as HashMap;

use super::domain::{Domain, labels, text};
use super::grants::Grants;
use super::notes::{MOST_NAMES_BELOW, NoteChange, Notes};
use super::sharing::{ProtectingWildcards, Sharing};
use super::small_map::SmallMap;
use super::wildcards::Wildcards;
use crate::routing::{
    Age, ClaimConflict, Claimant, Demand, Hostname, HostnamesBelow, Referrer, RouteKey, judge,
    judge_any, owners_of_any,
};

/// All claims. The cost of a change depends on its extent: the hostnames of a route, the hostnames below a
/// wildcard with a new owner, and the notes on them.
#[derive(Debug)]
pub(super) struct Claims {
    hostnames_below: HostnamesBelow,
    pub(super) known: BTreeMap<Domain, HostnameClaims>,
    pub(super) wildcards: Wildcards,
    /// Hostnames to process again, the least specific first: the claims of a name depend on the owners of the
    /// wildcards above it.
    dirty: BTreeMap<usize, Vec<Hostname>>,
    pub(super) notes: Notes,
    /// Namespaces with changed grants, each with its hostname that was marked last.
    granting: Vec<(Arc<str>, Option<Hostname>)>,
    /// Wildcards whose names below are still to be marked.
    below: Vec<MarkBelow>,
    /// The hostnames for which grants matter, by owner.
    granted: HashMap<Arc<str>, BTreeSet<Hostname>>,
    /// The owners of `*`, by listener.
    any_owners: BTreeMap<Option<Box<str>>, RouteKey>,
}

/// How many hostnames are marked at a time.
const MARKED_AT_A_TIME: usize = 256;

/// The names below a wildcard that are still to be marked.
#[derive(Debug)]
struct MarkBelow {
    suffix: Arc<str>,
    /// Only hostnames with claims that are younger than this.
    than: Option<Age>,
    /// The next hostname to mark.
    from: Domain,
}

/// The claims of one hostname.
#[derive(Debug, Default)]
pub(super) struct HostnameClaims {
    /// The oldest first.
    claims: SmallMap<Age, ClaimState>,
    /// The oldest claim that is served. Its namespace is the owner.
    pub(super) owner: Option<Age>,
    /// Whether it is in [`Claims::dirty`].
    dirty: bool,
    /// Whether it is in [`Claims::granted`], with its owner.
    granted: bool,
    /// Whether the wildcards above it count it.
    pub(super) counted: bool,
}

#[derive(Debug)]
struct ClaimState {
    demand: Arc<Demand>,
    conflict: Option<Arc<ClaimConflict>>,
}

/// The effects of changed claims.
#[derive(Debug, Default)]
pub(super) struct ClaimChanges {
    /// The claims whose conflict has changed.
    pub(super) conflicts: Vec<(RouteKey, Hostname, Option<Arc<ClaimConflict>>)>,
    /// The notes that have changed.
    pub(super) notes: Vec<NoteChange>,
    /// The hostnames that moved to another namespace, with the routes there.
    pub(super) moves: Vec<(Hostname, RouteKey, RouteKey)>,
}

impl Claims {
    pub(super) fn new(hostnames_below: HostnamesBelow) -> Self {
        Claims {
            hostnames_below,
            known: BTreeMap::new(),
            wildcards: Wildcards::new(MOST_NAMES_BELOW),
            dirty: BTreeMap::new(),
            notes: Notes::default(),
            granting: Vec::new(),
            below: Vec::new(),
            granted: HashMap::new(),
            any_owners: BTreeMap::new(),
        }
    }

    /// Adds a claim.
    pub(super) fn add(&mut self, hostname: Hostname, age: &Age, demand: &Arc<Demand>) {
        let known = self.known.entry(Domain(hostname.clone())).or_default();
        known.claims.insert(age.clone(), ClaimState { demand: Arc::clone(demand), conflict: None });
        self.mark(hostname);
    }

    /// Removes a claim.
    pub(super) fn remove(&mut self, hostname: Hostname, age: &Age) {
        let Some(known) = self.known.get_mut(&Domain(hostname.clone())) else { return };
        known.claims.remove(age);
        self.mark(hostname);
    }

    /// Marks the hostnames of a namespace whose grants have changed.
    pub(super) fn grants_changed(&mut self, namespace: &Arc<str>) {
        self.granting.push((Arc::clone(namespace), None));
        if self.known.contains_key(&Domain(Hostname::Any)) {
            self.mark(Hostname::Any);
        }
    }

    /// Processes the next part of the changes. Returns its number of steps, or `None` if nothing is left.
    pub(super) fn step(&mut self, grants: &Grants, news: &mut ClaimChanges) -> Option<usize> {
        // Only hostnames below are marked meanwhile, and these come later.
        if let Some((namespace, after)) = self.granting.pop() {
            Some(self.mark_granted(namespace, after))
        } else if let Some(below) = self.below.pop() {
            Some(self.mark_below(below))
        } else if let Some(hostname) = self.next_dirty() {
            Some(self.settle_hostname(hostname, grants, news))
        } else {
            self.tell_one(&mut news.notes).then_some(1)
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
            && self.wildcards.is_empty()
            && self.dirty.is_empty()
            && self.granting.is_empty()
            && self.below.is_empty()
            && self.notes.is_empty()
            && self.granted.is_empty()
            && self.any_owners.is_empty()
    }

    fn next_dirty(&mut self) -> Option<Hostname> {
        let mut least = self.dirty.first_entry()?;
        let hostname = least.get_mut().pop();
        if least.get().is_empty() {
            least.remove();
        }
        hostname
    }

    fn settle_hostname(
        &mut self,
        hostname: Hostname,
        grants: &Grants,
        news: &mut ClaimChanges,
    ) -> usize {
        let domain = Domain(hostname);
        let Some(known) = self.known.get(&domain) else { return 1 };
        let steps = 1 + known.claims.len();
        let conflicts = self.judge(&domain.0, known, grants);
        let first = known.first_left_in(&conflicts).cloned();
        let contested = first.as_ref().is_some_and(|first| known.is_contested(first));
        let is_any = domain.0 == Hostname::Any;
        if is_any {
            let owners = owners_of_any(&known.claimants());
            self.move_any(owners, news);
        }
        let Some(known) = self.known.get_mut(&domain) else { return steps };
        known.dirty = false;
        known.take_conflicts(&domain.0, conflicts, news);
        let before = std::mem::replace(&mut known.owner, first.clone());
        let was_granted = std::mem::replace(&mut known.granted, false);
        if !is_any {
            if let (Some(from), Some(to)) = (&before, &first)
                && from.namespace() != to.namespace()
            {
                news.moves.push((domain.0.clone(), from.key().clone(), to.key().clone()));
            }
            self.index(&domain, was_granted.then_some(before.as_ref()).flatten(), contested);
        }
        self.pass_on(domain, before, first, news);
        steps
    }

    /// Marks the hostnames that depend on this one, and removes it if no route claims it.
    fn pass_on(
        &mut self,
        domain: Domain,
        before: Option<Age>,
        now: Option<Age>,
        news: &mut ClaimChanges,
    ) {
        if let (Hostname::Wildcard(_), HostnamesBelow::Owner) = (&domain.0, self.hostnames_below)
            && before != now
        {
            // Claims that are older than both owners do not depend on them.
            let than = before.iter().chain(&now).min().cloned();
            self.mark_all_below(text(&domain.0), than);
        }
        self.follow_owner(&domain, now.as_ref(), &mut news.notes);
        if self.known.get(&domain).is_some_and(|known| !known.is_claimed()) {
            self.known.remove(&domain);
        }
    }

    /// The conflict of each claim to a hostname, in the order of their ages.
    fn judge(
        &self,
        hostname: &Hostname,
        known: &HostnameClaims,
        grants: &Grants,
    ) -> Vec<Option<ClaimConflict>> {
        // The common case.
        if let (SmallMap::One(..), HostnamesBelow::Anyone) = (&known.claims, self.hostnames_below) {
            return vec![None];
        }
        let mut left = known.claimants();
        let mut conflicts: Vec<Option<ClaimConflict>> = match self.hostnames_below {
            HostnamesBelow::Anyone => left.iter().map(|_| None).collect(),
            HostnamesBelow::Owner => {
                let wildcards = ProtectingWildcards::above(self, hostname, grants);
                left.iter().map(|claim| wildcards.conflict(claim.age)).collect()
            }
        };
        let mut out = conflicts.iter().map(Option::is_some);
        left.retain(|_| !out.next().unwrap_or_default());
        let sharing = Sharing::of(known, grants);
        let shares = |owner: &str, from: Referrer<'_>| sharing.has(owner, from);
        let judged = match hostname {
            Hostname::Any => judge_any(&left, shares),
            Hostname::Wildcard(_) | Hostname::Exact(_) => judge(&left, shares),
        };
        let free = conflicts.iter_mut().filter(|conflict| conflict.is_none());
        free.zip(judged).for_each(|(conflict, judged)| *conflict = judged);
        conflicts
    }

    /// Marks the names below a wildcard; with an age, only those with younger claims.
    fn mark_all_below(&mut self, suffix: &str, than: Option<Age>) {
        self.below.push(MarkBelow { suffix: suffix.into(), than, from: Domain::below(suffix) });
    }

    fn mark_below(&mut self, below: MarkBelow) -> usize {
        let MarkBelow { suffix, than, from } = below;
        let rest = self.known.range_mut(from..).take_while(|(domain, _)| domain.is_below(&suffix));
        for (number, (domain, known)) in rest.enumerate() {
            if number == MARKED_AT_A_TIME {
                self.below.push(MarkBelow { suffix, than, from: domain.clone() });
                break;
            }
            let concerned = than.as_ref().is_none_or(|age| known.claims.last_key() > Some(age));
            if concerned && !std::mem::replace(&mut known.dirty, true) {
                self.dirty.entry(rank(&domain.0)).or_default().push(domain.0.clone());
            }
        }
        MARKED_AT_A_TIME / 8
    }

    /// Marks the hostnames for which the grants of a namespace matter.
    fn mark_granted(&mut self, namespace: Arc<str>, after: Option<Hostname>) -> usize {
        let Some(hostnames) = self.granted.get(&namespace) else { return 1 };
        let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let some: Vec<Hostname> =
            hostnames.range((from, Bound::Unbounded)).take(MARKED_AT_A_TIME).cloned().collect();
        if some.len() == MARKED_AT_A_TIME {
            self.granting.push((namespace, some.last().cloned()));
        }
        for hostname in some {
            if let (Hostname::Wildcard(suffix), HostnamesBelow::Owner) =
                (&hostname, self.hostnames_below)
            {
                self.mark_all_below(&suffix.clone(), None);
            }
            self.mark(hostname);
        }
        MARKED_AT_A_TIME / 4
    }

    fn mark(&mut self, hostname: Hostname) {
        let domain = Domain(hostname);
        let Some(known) = self.known.get_mut(&domain) else { return };
        if !std::mem::replace(&mut known.dirty, true) {
            self.dirty.entry(rank(&domain.0)).or_default().push(domain.0);
        }
    }

    /// Updates whether the grants of a hostname's owner matter.
    fn index(&mut self, domain: &Domain, before: Option<&Age>, contested: bool) {
        if let Some(before) = before
            && let Some(hostnames) = self.granted.get_mut(before.namespace())
        {
            hostnames.remove(&domain.0);
            if hostnames.is_empty() {
                self.granted.remove(before.namespace());
            }
        }
        let Some(known) = self.known.get_mut(domain) else { return };
        let is_wildcard = matches!(domain.0, Hostname::Wildcard(_));
        let matters = contested || is_wildcard && self.hostnames_below == HostnamesBelow::Owner;
        if let (Some(owner), true) = (&known.owner, matters) {
            known.granted = true;
            self.granted.entry(owner.namespace().into()).or_default().insert(domain.0.clone());
        }
    }

    /// Sets the owners of `*`.
    fn move_any(&mut self, now: BTreeMap<Option<Box<str>>, RouteKey>, news: &mut ClaimChanges) {
        let before = std::mem::replace(&mut self.any_owners, now);
        let mut moves = BTreeSet::new();
        for (listener, from) in &before {
            let to = self.any_owners.get(listener).or(self.any_owners.get(&None));
            if let Some(to) = to.filter(|to| to.namespace() != from.namespace()) {
                moves.insert((from.clone(), to.clone()));
            }
        }
        news.moves.extend(moves.into_iter().map(|(from, to)| (Hostname::Any, from, to)));
    }
}

/// The claimed names below a wildcard.
pub(super) fn names_below<'k>(
    known: &'k BTreeMap<Domain, HostnameClaims>,
    suffix: &'k str,
) -> impl Iterator<Item = &'k Domain> {
    let below = known.range(Domain::below(suffix)..);
    let below = below.take_while(move |(domain, _)| domain.is_below(suffix));
    below.filter(|(_, known)| known.counted).map(|(domain, _)| domain)
}

impl HostnameClaims {
    /// Whether any route claims it.
    pub(super) fn is_claimed(&self) -> bool {
        !self.claims.is_empty()
    }

    fn claimants(&self) -> Vec<Claimant<'_>> {
        self.claims.iter().map(|(age, claim)| Claimant { age, demand: &claim.demand }).collect()
    }

    /// The oldest claim that has a place in the table.
    fn first_left_in(&self, conflicts: &[Option<ClaimConflict>]) -> Option<&Age> {
        let is_left_in = |(_, conflict): &(_, &Option<ClaimConflict>)| {
            !conflict.as_ref().is_some_and(ClaimConflict::is_left_out)
        };
        self.claims.keys().zip(conflicts).find(is_left_in).map(|(age, _)| age)
    }

    /// Whether other namespaces than the owner's claim it, too.
    fn is_contested(&self, owner: &Age) -> bool {
        self.claims.keys().any(|age| age.namespace() != owner.namespace())
    }

    /// Stores the conflict of each claim, and reports those that have changed.
    fn take_conflicts(
        &mut self,
        hostname: &Hostname,
        conflicts: Vec<Option<ClaimConflict>>,
        news: &mut ClaimChanges,
    ) {
        for ((age, claim), conflict) in self.claims.iter_mut().zip(conflicts) {
            if claim.conflict.as_deref() != conflict.as_ref() {
                claim.conflict = conflict.map(Arc::new);
                let told = claim.conflict.clone();
                news.conflicts.push((age.key().clone(), hostname.clone(), told));
            }
        }
    }

    /// The ages of all claims, the oldest first.
    pub(super) fn ages(&self) -> impl Iterator<Item = &Age> {
        self.claims.keys()
    }
}

/// Wildcards before the names below them, and names last.
fn rank(hostname: &Hostname) -> usize {
    match hostname {
        Hostname::Any => 0,
        Hostname::Wildcard(suffix) => labels(suffix),
        Hostname::Exact(_) => usize::MAX,
    }
}
