//! Which namespaces have a hostname together, and which are kept out by a wildcard above it.

use std::cell::{OnceCell, RefCell};

use ahash::{AHashMap as HashMap, AHashSet as HashSet};

use super::claims::{Claims, Known};
use super::domain::Domain;
use super::grants::Grants;
use crate::routing::{Age, Hostname, Verdict};

/// With whom the owners of a hostname share it. Each question is worked out once.
pub(super) struct Sharing<'c> {
    known: &'c Known,
    grants: &'c Grants,
    /// The names of the routes that claim the hostname, by namespace.
    routes: OnceCell<HashMap<&'c str, HashSet<&'c str>>>,
    answers: RefCell<Answers>,
}

/// By owner and namespace.
type Answers = HashMap<(Box<str>, Box<str>), bool>;

impl<'c> Sharing<'c> {
    pub(super) fn of(known: &'c Known, grants: &'c Grants) -> Self {
        Sharing { known, grants, routes: OnceCell::new(), answers: RefCell::default() }
    }

    /// Whether the owner's namespace lets another one have the hostname.
    pub(super) fn has(&self, owner: &str, namespace: &str) -> bool {
        let question = (owner.into(), namespace.into());
        if let Some(answer) = self.answers.borrow().get(&question) {
            return *answer;
        }
        let answer = self.grants.share(owner, namespace, |name| {
            let routes = self.routes.get_or_init(|| self.routes()).get(owner);
            routes.is_some_and(|routes| routes.contains(name))
        });
        self.answers.borrow_mut().insert(question, answer);
        answer
    }

    fn routes(&self) -> HashMap<&'c str, HashSet<&'c str>> {
        let mut routes: HashMap<&str, HashSet<&str>> = HashMap::new();
        for age in self.known.ages() {
            routes.entry(age.namespace()).or_default().insert(age.key().name());
        }
        routes
    }
}

/// The wildcards above a hostname that keep claims out which are younger than theirs.
pub(super) struct Keepers<'c>(Vec<Keeper<'c>>);

struct Keeper<'c> {
    wildcard: Hostname,
    owner: &'c Age,
    sharing: Sharing<'c>,
}

impl<'c> Keepers<'c> {
    /// The nearest one that is older than a claim decides. So of those above, the nearest first, only
    /// those count that are older than all before them.
    pub(super) fn above(claims: &'c Claims, hostname: &'c Hostname, grants: &'c Grants) -> Self {
        let mut keepers: Vec<Keeper<'_>> = Vec::new();
        for (suffix, wildcard) in claims.wildcards.above(hostname) {
            let Some(owner) = &wildcard.owner else { continue };
            if keepers.last().is_some_and(|nearer| nearer.owner <= owner) {
                continue;
            }
            let wildcard = Hostname::Wildcard(suffix.clone());
            let Some(known) = claims.known.get(&Domain(wildcard.clone())) else { continue };
            keepers.push(Keeper { wildcard, owner, sharing: Sharing::of(known, grants) });
        }
        Keepers(keepers)
    }

    /// Whether a claim is kept out.
    pub(super) fn verdict(&self, age: &Age) -> Option<Verdict> {
        let at = self.0.partition_point(|keeper| keeper.owner >= age);
        let Keeper { wildcard, owner, sharing } = self.0.get(at)?;
        let may =
            owner.namespace() == age.namespace() || sharing.has(owner.namespace(), age.namespace());
        (!may).then(|| Verdict::Below { wildcard: wildcard.clone(), owner: owner.key().clone() })
    }
}
