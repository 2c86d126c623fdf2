//! The names that are resolved, and the time of the next lookup of each address family.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::known_addresses::{Family, KnownAddresses, LookupResult};
use super::lookup_queues::{LookupClass, LookupQueues, Ticket};
use crate::control::api::DnsName;
use crate::control::translate::{
    DnsAnswer, NAMES_OF_A_NAMESPACE, NameChanges, NameFault, Rank, WantedName,
};

/// A lookup of one family.
#[derive(Debug)]
pub(super) struct LookupJob {
    pub(super) name: DnsName,
    pub(super) family: Family,
    /// The namespace whose turn this lookup uses.
    namespace: Arc<str>,
    class: LookupClass,
    /// The id of the name's entry. The entry may have been removed, and a new one added.
    id: u64,
}

/// All names. Pure: the caller passes the time.
#[derive(Debug, Default)]
pub(super) struct LookupSchedule {
    names: HashMap<DnsName, FollowedName>,
    namespaces: HashMap<Arc<str>, AdmittedNames>,
    v4: LookupQueues,
    v6: LookupQueues,
    /// The scheduled lookups by time, each once.
    due: BTreeSet<(Instant, DnsName, Family)>,
    answers: Vec<(DnsName, DnsAnswer)>,
    last_number: u64,
}

#[derive(Debug, Default)]
struct FollowedName {
    id: u64,
    /// The namespaces that use the name, each with the rank of its first route.
    wanted: BTreeMap<Arc<str>, Rank>,
    /// The namespaces with room for the name. Without any, the name is not looked up.
    admitted: BTreeSet<Arc<str>>,
    known: KnownAddresses,
    /// The last answer that was returned.
    told: Option<DnsAnswer>,
    stages: [LookupStage; 2],
}

/// The stage of one family's lookup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LookupStage {
    #[default]
    Idle,
    Due(Instant),
    Waiting(Ticket),
    Running,
}

/// The names of a namespace. Only the earliest ones, up to the limit, are looked up.
#[derive(Debug, Default)]
struct AdmittedNames {
    within: BTreeSet<(Rank, DnsName)>,
    beyond: BTreeSet<(Rank, DnsName)>,
}

impl LookupSchedule {
    /// Adds and removes names.
    pub(super) fn change(&mut self, changes: NameChanges, now: Instant) {
        let mut touched = BTreeSet::new();
        for name in changes.unwanted {
            self.want(&name, BTreeMap::new(), &mut touched);
        }
        for WantedName { name, namespaces } in changes.wanted {
            self.want(&name, namespaces, &mut touched);
        }
        for name in touched {
            self.admit(&name, now);
        }
    }

    /// The next lookup to start.
    pub(super) fn next(&mut self, now: Instant) -> Option<LookupJob> {
        while let Some((due, ..)) = self.due.first()
            && *due <= now
            && let Some((_, name, family)) = self.due.pop_first()
        {
            self.wait(&name, family);
        }
        for family in Family::ALL {
            while let Some((namespace, class, name)) = self.queues(family).next() {
                let Some(followed) = self.names.get_mut(&name) else {
                    self.queues(family).finish(&namespace, class);
                    continue;
                };
                let id = followed.id;
                let stage = std::mem::replace(followed.stage(family), LookupStage::Running);
                let elsewhere: Vec<Arc<str>> = followed.admitted.iter().cloned().collect();
                if let LookupStage::Waiting(ticket) = stage {
                    let queues = self.queues(family);
                    elsewhere.iter().for_each(|namespace| queues.withdraw(namespace, ticket));
                }
                return Some(LookupJob { name, family, namespace, class, id });
            }
        }
        None
    }

    /// The time of the next scheduled lookup, apart from those that wait for a turn.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, ..)| *due)
    }

    /// Records the end of a lookup.
    pub(super) fn finish(&mut self, job: &LookupJob, result: LookupResult, now: Instant) {
        self.queues(job.family).finish(&job.namespace, job.class);
        let Some(followed) = self.names.get_mut(&job.name) else { return };
        if followed.id != job.id || followed.admitted.is_empty() {
            return;
        }
        let due = now + followed.known.take(job.family, result);
        *followed.stage(job.family) = LookupStage::Due(due);
        self.due.insert((due, job.name.clone(), job.family));
        if let Some(answer) = followed.known.answer() {
            self.tell(&job.name, answer);
        }
    }

    /// The new answers since the last call.
    pub(super) fn take_answers(&mut self) -> Vec<(DnsName, DnsAnswer)> {
        std::mem::take(&mut self.answers)
    }

    fn queues(&mut self, family: Family) -> &mut LookupQueues {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn tell(&mut self, name: &DnsName, answer: DnsAnswer) {
        if let Some(followed) = self.names.get_mut(name)
            && followed.told.as_ref() != Some(&answer)
        {
            followed.told = Some(answer.clone());
            self.answers.push((name.clone(), answer));
        }
    }

    /// Sets the namespaces that use a name. Adds to `touched` each name that may now be admitted or no
    /// longer be admitted.
    fn want(
        &mut self,
        name: &DnsName,
        wanted: BTreeMap<Arc<str>, Rank>,
        touched: &mut BTreeSet<DnsName>,
    ) {
        let followed = self.names.entry(name.clone()).or_default();
        let before = std::mem::replace(&mut followed.wanted, wanted.clone());
        touched.insert(name.clone());
        for (namespace, rank) in
            before.iter().filter(|(namespace, rank)| wanted.get(*namespace) != Some(*rank))
        {
            if let Some(admitted) = self.namespaces.get_mut(namespace) {
                touched.extend(admitted.remove((rank.clone(), name.clone())));
                if admitted.within.is_empty() {
                    self.namespaces.remove(namespace);
                }
            }
        }
        for (namespace, rank) in wanted {
            if before.get(&namespace) != Some(&rank) {
                let admitted = self.namespaces.entry(namespace).or_default();
                touched.extend(admitted.insert((rank, name.clone())));
            }
        }
    }

    /// Starts or stops the lookups of a name, depending on whether a namespace has room for it.
    fn admit(&mut self, name: &DnsName, now: Instant) {
        let Some(followed) = self.names.get_mut(name) else { return };
        let namespaces = &self.namespaces;
        let has_room = |namespace: &Arc<str>, rank: &Rank| {
            let admitted = namespaces.get(namespace);
            admitted.is_some_and(|admitted| admitted.within.contains(&(rank.clone(), name.clone())))
        };
        let admitted: BTreeSet<Arc<str>> = followed
            .wanted
            .iter()
            .filter(|(namespace, rank)| has_room(namespace, rank))
            .map(|(namespace, _)| Arc::clone(namespace))
            .collect();
        if followed.admitted == admitted && !admitted.is_empty() {
            return;
        }
        let before = std::mem::replace(&mut followed.admitted, admitted);
        if before.is_empty() || followed.admitted.is_empty() {
            self.stop(name, &before);
            self.start(name, now);
            return;
        }
        // The name stays, but may now wait for turns of other namespaces.
        for family in Family::ALL {
            if let Some(LookupStage::Waiting(ticket)) =
                self.names.get(name).map(|one| one.at(family))
            {
                let queues = self.queues(family);
                before.iter().for_each(|namespace| queues.withdraw(namespace, ticket));
                self.wait(name, family);
            }
        }
    }

    /// Starts the lookups of a name, or answers that there is no room for it.
    fn start(&mut self, name: &DnsName, now: Instant) {
        let id = self.number();
        let Some(followed) = self.names.get_mut(name) else { return };
        if followed.wanted.is_empty() {
            self.names.remove(name);
            return;
        }
        followed.id = id;
        followed.known = KnownAddresses::default();
        if followed.admitted.is_empty() {
            let fault = Some(NameFault::TooManyNames);
            self.tell(name, DnsAnswer { addresses: Vec::new(), fault });
            return;
        }
        for family in Family::ALL {
            *followed.stage(family) = LookupStage::Due(now);
            self.due.insert((now, name.clone(), family));
        }
    }

    /// Stops the lookups of a name, which waits for turns of `namespaces`.
    fn stop(&mut self, name: &DnsName, namespaces: &BTreeSet<Arc<str>>) {
        for family in Family::ALL {
            let Some(followed) = self.names.get_mut(name) else { return };
            match std::mem::take(followed.stage(family)) {
                // The result of a running lookup is ignored.
                LookupStage::Idle | LookupStage::Running => {}
                LookupStage::Due(due) => _ = self.due.remove(&(due, name.clone(), family)),
                LookupStage::Waiting(ticket) => {
                    let queues = self.queues(family);
                    namespaces.iter().for_each(|namespace| queues.withdraw(namespace, ticket));
                }
            }
        }
    }

    /// Queues a lookup of one family.
    fn wait(&mut self, name: &DnsName, family: Family) {
        let ticket = self.number();
        let Some(followed) = self.names.get_mut(name) else { return };
        *followed.stage(family) = LookupStage::Waiting(ticket);
        let class = match &followed.known {
            known if known.is_failing(family) => LookupClass::Failing,
            known if known.is_new(family) => LookupClass::New,
            _ => LookupClass::Answered,
        };
        let namespaces: Vec<Arc<str>> = followed.admitted.iter().cloned().collect();
        let queues = self.queues(family);
        for namespace in namespaces {
            queues.add(&namespace, class, ticket, name.clone());
        }
    }
}

impl FollowedName {
    fn stage(&mut self, family: Family) -> &mut LookupStage {
        let [v4, v6] = &mut self.stages;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    fn at(&self, family: Family) -> LookupStage {
        let [v4, v6] = self.stages;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }
}

impl AdmittedNames {
    /// Adds a name. Returns the name that loses its place, if any; this may be the added one.
    fn insert(&mut self, one: (Rank, DnsName)) -> Option<DnsName> {
        self.within.insert(one);
        if self.within.len() <= NAMES_OF_A_NAMESPACE {
            return None;
        }
        let last = self.within.pop_last()?;
        self.beyond.insert(last.clone());
        Some(last.1)
    }

    /// Removes a name. Returns the name that gets the free place, if any.
    fn remove(&mut self, one: (Rank, DnsName)) -> Option<DnsName> {
        if !self.within.remove(&one) {
            self.beyond.remove(&one);
            return None;
        }
        let first = self.beyond.pop_first()?;
        self.within.insert(first.clone());
        Some(first.1)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
