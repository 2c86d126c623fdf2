//! The effective policies of routes.

use std::sync::{Arc, Weak};

use ahash::AHashMap as HashMap;

use crate::policy::{AccessLists, Layers, Policy};
use crate::routing::TrafficPolicy;

/// The effective policies of routes. Routes with the same fields share one.
#[derive(Debug)]
pub(in crate::control) struct Policies {
    layers: Layers,
    known: HashMap<Policy, Known>,
    /// The access lists of the known policies.
    lists: AccessLists,
    /// The unused ones are removed when there are this many.
    most: usize,
}

#[derive(Debug)]
struct Known {
    policy: Weak<TrafficPolicy>,
    exceeded: Arc<str>,
}

/// How many policies there are before the unused ones are removed for the first time.
const FEW: usize = 64;

impl Policies {
    pub(in crate::control) fn new(layers: Layers) -> Self {
        Policies { layers, known: HashMap::default(), lists: AccessLists::default(), most: FEW }
    }

    /// The policy of a route with these fields, and a message about those that exceed the installation's
    /// ceiling.
    pub(in crate::control) fn effective(
        &mut self,
        mut asked: Policy,
    ) -> (Arc<TrafficPolicy>, Arc<str>) {
        if let Some(known) = self.known.get(&asked)
            && let Some(policy) = known.policy.upgrade()
        {
            return (policy, Arc::clone(&known.exceeded));
        }
        let (effective, exceeded) = self.layers.effective(&asked);
        let is_own = asked.access.is_some();
        let policy = Arc::new(TrafficPolicy::new(effective, &mut self.lists));
        asked.access = policy.effective().policy.access.clone().filter(|_| is_own);
        let exceeded: Vec<_> = exceeded.iter().map(ToString::to_string).collect();
        let exceeded: Arc<str> = exceeded.join("; ").into();
        if self.known.len() >= self.most {
            self.known.retain(|_, known| known.policy.strong_count() > 0);
            self.lists.clean();
            self.most = FEW.max(2 * self.known.len());
        }
        let known = Known { policy: Arc::downgrade(&policy), exceeded: Arc::clone(&exceeded) };
        self.known.insert(asked, known);
        (policy, exceeded)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::Access;

    fn idle(seconds: usize) -> Policy {
        serde_json::from_value(json!({ "timeouts": { "idle": format!("{seconds}s") } })).unwrap()
    }

    #[test]
    fn routes_with_the_same_fields_share_a_policy() {
        let mut policies = Policies::new(Layers::default());
        let (one, _) = policies.effective(idle(1));
        assert!(Arc::ptr_eq(&one, &policies.effective(idle(1)).0));
        assert!(!Arc::ptr_eq(&one, &policies.effective(idle(2)).0));
    }

    #[test]
    fn policies_with_the_same_access_share_its_list() {
        let mut policies = Policies::new(Layers::default());
        let mut with = |seconds, networks: &[&str]| {
            let allow = networks.iter().map(|network| network.parse().unwrap()).collect();
            let access = Some(Access { allow, ..Access::default() });
            policies.effective(Policy { access, ..idle(seconds) }).0
        };
        let (one, same, other) =
            (with(1, &["10.0.0.0/8"]), with(2, &["10.0.0.0/8"]), with(1, &["10.0.0.0/9"]));
        assert!(std::ptr::eq(one.access(), same.access()));
        let networks = |policy: &TrafficPolicy| {
            policy.effective().policy.access.as_ref().unwrap().allow.as_ptr()
        };
        assert_eq!(networks(&one), networks(&same));
        assert!(!std::ptr::eq(one.access(), other.access()));
    }

    #[test]
    fn unused_policies_are_removed() {
        let mut policies = Policies::new(Layers::default());
        let (used, _) = policies.effective(idle(1));
        for seconds in 2..1000 {
            policies.effective(idle(seconds));
        }
        assert!(policies.known.len() <= FEW, "{}", policies.known.len());
        assert!(Arc::ptr_eq(&used, &policies.effective(idle(1)).0));
    }
}
