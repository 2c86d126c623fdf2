//! Who claims which hostnames, and what becomes of each claim.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use ahash::AHashMap as HashMap;

use super::NamesBelow;
use super::below::{Note, Notes};
use super::domain::{Domain, suffixes, text};
use super::few::Few;
use super::grants::Grants;
use crate::routing::{
    Age, Claimant, Demand, Hostname, RouteKey, Verdict, judge, judge_any, owners_of_any,
};

/// All claims. A change costs what it concerns: the hostnames of a route, those below a wildcard of
/// which the owner changes, and what is to be told of either.
#[derive(Debug)]
pub(super) struct Claims {
    names_below: NamesBelow,
    pub(super) known: BTreeMap<Domain, Known>,
    /// How many wildcards are claimed, by how many labels their suffixes have.
    wildcards: BTreeMap<usize, usize>,
    /// Those that are to be looked at again, by how specific they are: a name's claims depend on
    /// the owners of the wildcards above it.
    dirty: BTreeMap<usize, Vec<Hostname>>,
    /// The wildcards of which it is to be told anew what is below them.
    above: BTreeSet<Hostname>,
    /// By owner: the hostnames for which its grants matter.
    granted: HashMap<Arc<str>, BTreeSet<Hostname>>,
    /// The owners of `*`, by listener.
    any_owners: BTreeMap<Option<Box<str>>, RouteKey>,
}

/// What is known of a hostname.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The oldest first.
    claims: Few<Age, Claim>,
    /// The oldest claim that is served, which makes its namespace the owner.
    pub(super) owner: Option<Age>,
    /// Whether it is in [`Claims::dirty`].
    dirty: bool,
    /// Whether it is in [`Claims::granted`], with its owner.
    granted: bool,
    /// What was told of a wildcard and the names below it.
    pub(super) told: Option<Box<Notes>>,
}

#[derive(Debug)]
struct Claim {
    demand: Arc<Demand>,
    verdict: Option<Arc<Verdict>>,
}

/// What came of changes.
#[derive(Debug, Default)]
pub(super) struct ClaimNews {
    /// What became of claims: nothing keeps them from being served, or something does.
    pub(super) verdicts: Vec<(RouteKey, Hostname, Option<Arc<Verdict>>)>,
    /// What is to be told of a route's hostname and a wildcard.
    pub(super) notes: Vec<(RouteKey, (Hostname, Hostname), Option<Note>)>,
    /// The hostnames that went from one namespace to another, with the routes there.
    pub(super) moves: Vec<(Hostname, RouteKey, RouteKey)>,
}

impl Claims {
    pub(super) fn new(names_below: NamesBelow) -> Self {
        Claims {
            names_below,
            known: BTreeMap::new(),
            wildcards: BTreeMap::new(),
            dirty: BTreeMap::new(),
            above: BTreeSet::new(),
            granted: HashMap::new(),
            any_owners: BTreeMap::new(),
        }
    }

    /// A route claims a hostname.
    pub(super) fn add(&mut self, hostname: Hostname, age: &Age, demand: &Arc<Demand>) {
        let known = self.known.entry(Domain(hostname.clone())).or_default();
        if let (Hostname::Wildcard(suffix), true) = (&hostname, known.claims.is_empty()) {
            *self.wildcards.entry(labels(suffix)).or_default() += 1;
        }
        known.claims.insert(age.clone(), Claim { demand: Arc::clone(demand), verdict: None });
        self.mark(hostname);
    }

    /// A route claims a hostname no more.
    pub(super) fn remove(&mut self, hostname: Hostname, age: &Age) {
        let Some(known) = self.known.get_mut(&Domain(hostname.clone())) else { return };
        let before = known.claims.len();
        known.claims.remove(age);
        if let (Hostname::Wildcard(suffix), 1, 0) = (&hostname, before, known.claims.len()) {
            let count = self.wildcards.entry(labels(suffix)).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.wildcards.remove(&labels(suffix));
            }
        }
        self.mark(hostname);
    }

    /// The grants of a namespace are different.
    pub(super) fn grants_changed(&mut self, namespace: &str) {
        for hostname in self.granted.get(namespace).cloned().unwrap_or_default() {
            if let (Hostname::Wildcard(_), NamesBelow::Owner) = (&hostname, self.names_below) {
                self.mark_below(&hostname, None);
            }
            self.mark(hostname);
        }
        if self.known.contains_key(&Domain(Hostname::Any)) {
            self.mark(Hostname::Any);
        }
    }

    /// Works out what the changes come to.
    pub(super) fn settle(&mut self, grants: &Grants) -> ClaimNews {
        let mut news = ClaimNews::default();
        // What is marked on the way is below, and so comes later.
        while let Some((_, hostnames)) = self.dirty.pop_first() {
            for hostname in hostnames {
                self.settle_hostname(hostname, grants, &mut news);
            }
        }
        for wildcard in std::mem::take(&mut self.above) {
            self.tell_of_names_below(&wildcard, &mut news.notes);
        }
        news
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
            && self.wildcards.is_empty()
            && self.dirty.is_empty()
            && self.granted.is_empty()
            && self.any_owners.is_empty()
    }

    fn settle_hostname(&mut self, hostname: Hostname, grants: &Grants, news: &mut ClaimNews) {
        let domain = Domain(hostname);
        let Some(known) = self.known.get(&domain) else { return };
        let verdicts = self.judge(&domain.0, known, grants);
        let left_in = |(_, verdict): &(_, &Option<Verdict>)| {
            !verdict.as_ref().is_some_and(Verdict::is_left_out)
        };
        let first = known.claims.keys().zip(&verdicts).find(left_in).map(|(age, _)| age.clone());
        let namespaces =
            |key: &RouteKey| known.claims.keys().any(|a| a.namespace() != key.namespace());
        let contested = first.as_ref().is_some_and(|first| namespaces(first.key()));
        let any_owners = match domain.0 {
            Hostname::Any => owners_of_any(&known.claimants()),
            _ => BTreeMap::new(),
        };

        let Some(known) = self.known.get_mut(&domain) else { return };
        known.dirty = false;
        for ((age, claim), verdict) in known.claims.iter_mut().zip(verdicts) {
            if claim.verdict.as_deref() != verdict.as_ref() {
                claim.verdict = verdict.map(Arc::new);
                let told = claim.verdict.clone();
                news.verdicts.push((age.key().clone(), domain.0.clone(), told));
            }
        }
        let before = std::mem::replace(&mut known.owner, first.clone());
        let was_granted = std::mem::replace(&mut known.granted, false);
        match domain.0 {
            Hostname::Any => self.move_any(any_owners, news),
            _ => {
                if let (Some(from), Some(to)) = (&before, &first)
                    && from.namespace() != to.namespace()
                {
                    news.moves.push((domain.0.clone(), from.key().clone(), to.key().clone()));
                }
                self.index(&domain, was_granted.then_some(before.as_ref()).flatten(), contested);
            }
        }
        self.pass_on(domain, before, first, news);
    }

    /// Has those looked at again that depend on a hostname, and forgets it if nobody claims it.
    fn pass_on(
        &mut self,
        domain: Domain,
        before: Option<Age>,
        now: Option<Age>,
        news: &mut ClaimNews,
    ) {
        let above: Vec<Hostname> = self.above(&domain.0).map(|(wildcard, _)| wildcard).collect();
        self.above.extend(above);
        if let Hostname::Wildcard(_) = domain.0 {
            if self.names_below == NamesBelow::Owner && before != now {
                // What is older than either owner does not depend on them.
                self.mark_below(&domain.0, before.iter().chain(&now).min());
            }
            self.above.insert(domain.0.clone());
        }
        if self.known.get(&domain).is_some_and(|known| known.claims.is_empty())
            && let Some(told) = self.known.remove(&domain).and_then(|known| known.told)
        {
            let (wildcard, nothing) = (domain.0, Notes::default());
            told.replace_by(&nothing, &wildcard, &mut news.notes);
        }
    }

    /// What becomes of each claim to a hostname, in the order of their ages.
    fn judge(&self, hostname: &Hostname, known: &Known, grants: &Grants) -> Vec<Option<Verdict>> {
        // As it is with almost all.
        if let (Few::One(..), NamesBelow::Anyone) = (&known.claims, self.names_below) {
            return vec![None];
        }
        let mut left = known.claimants();
        let kept_out = left.iter().map(|claim| self.kept_out(hostname, claim.age, grants));
        let mut verdicts: Vec<Option<Verdict>> = kept_out.collect();
        let mut out = verdicts.iter().map(Option::is_some);
        left.retain(|_| !out.next().unwrap_or_default());
        let shares = |owner: &str, namespace: &str| known.shares(owner, namespace, grants);
        let judged = match hostname {
            Hostname::Any => judge_any(&left, shares),
            Hostname::Wildcard(_) | Hostname::Exact(_) => judge(&left, shares),
        };
        let free = verdicts.iter_mut().filter(|verdict| verdict.is_none());
        free.zip(judged).for_each(|(verdict, judged)| *verdict = judged);
        verdicts
    }

    /// Whether an older claim to a wildcard above keeps a claim out.
    fn kept_out(&self, hostname: &Hostname, age: &Age, grants: &Grants) -> Option<Verdict> {
        if self.names_below == NamesBelow::Anyone {
            return None;
        }
        // The nearest decides.
        self.above(hostname)
            .find_map(|(wildcard, known)| {
                let owner = known.owner.as_ref()?;
                let namespace = age.namespace();
                let may = owner.namespace() == namespace
                    || known.shares(owner.namespace(), namespace, grants);
                match (owner < age, may) {
                    (false, _) => None,
                    (true, true) => Some(ControlFlow::Continue(())),
                    (true, false) => {
                        let owner = owner.key().clone();
                        Some(ControlFlow::Break(Verdict::Below { wildcard, owner }))
                    }
                }
            })?
            .break_value()
    }

    /// The wildcards above a hostname that are claimed, the nearest first.
    fn above<'a>(
        &'a self,
        hostname: &'a Hostname,
    ) -> impl Iterator<Item = (Hostname, &'a Known)> + use<'a> {
        let mut rest = if self.wildcards.is_empty() { 0 } else { labels(text(hostname)) };
        let suffixes = suffixes(hostname).take(rest);
        suffixes.filter_map(move |suffix| {
            rest = rest.saturating_sub(1);
            self.wildcards.get(&rest)?;
            let domain = Domain(Hostname::Wildcard(suffix.into()));
            let known = self.known.get(&domain)?;
            Some((domain.0, known))
        })
    }

    /// Has the names below a wildcard looked at again; with an age, those alone that are younger.
    fn mark_below(&mut self, wildcard: &Hostname, than: Option<&Age>) {
        let suffix = text(wildcard);
        let below = self.known.range_mut(Domain::below(suffix)..);
        for (domain, known) in below.take_while(|(domain, _)| domain.is_below(suffix)) {
            let concerned = than.is_none_or(|age| known.claims.last_key() > Some(age));
            if concerned && !std::mem::replace(&mut known.dirty, true) {
                self.dirty.entry(rank(&domain.0)).or_default().push(domain.0.clone());
            }
        }
    }

    fn mark(&mut self, hostname: Hostname) {
        let domain = Domain(hostname);
        let Some(known) = self.known.get_mut(&domain) else { return };
        if !std::mem::replace(&mut known.dirty, true) {
            self.dirty.entry(rank(&domain.0)).or_default().push(domain.0);
        }
    }

    /// Notes whether the grants of a hostname's owner matter.
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
        let matters = contested || is_wildcard && self.names_below == NamesBelow::Owner;
        if let (Some(owner), true) = (&known.owner, matters) {
            known.granted = true;
            self.granted.entry(owner.namespace().into()).or_default().insert(domain.0.clone());
        }
    }

    /// Takes over who owns `*` now.
    fn move_any(&mut self, now: BTreeMap<Option<Box<str>>, RouteKey>, news: &mut ClaimNews) {
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

impl Known {
    fn claimants(&self) -> Vec<Claimant<'_>> {
        self.claims.iter().map(|(age, claim)| Claimant { age, demand: &claim.demand }).collect()
    }

    /// Whether the owner's namespace lets another one have the hostname.
    fn shares(&self, owner: &str, namespace: &str, grants: &Grants) -> bool {
        grants.share(owner, namespace, |name| {
            let mut routes = self.claims.keys().map(Age::key);
            routes.any(|route| route.namespace() == owner && route.name() == name)
        })
    }
}

fn labels(name: &str) -> usize {
    name.split('.').count()
}

/// Wildcards before the names below them, and names last.
fn rank(hostname: &Hostname) -> usize {
    match hostname {
        Hostname::Any => 0,
        Hostname::Wildcard(suffix) => labels(suffix),
        Hostname::Exact(_) => usize::MAX,
    }
}
