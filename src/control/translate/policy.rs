//! The effective policies of routes.

use std::sync::{Arc, Weak};

use ahash::AHashMap as HashMap;

use crate::policy::{Layers, Policy};
use crate::routing::TrafficPolicy;

/// The effective policies of routes. Routes with the same fields share one.
#[derive(Debug)]
pub(super) struct Policies {
    layers: Layers,
    known: HashMap<Policy, Known>,
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
    pub(super) fn new(layers: Layers) -> Self {
        Policies { layers, known: HashMap::default(), most: FEW }
    }

    /// The policy of a route with these fields, and a message about those that exceed the installation's
    /// ceiling.
    pub(super) fn effective(&mut self, asked: Policy) -> (Arc<TrafficPolicy>, Arc<str>) {
        if let Some(known) = self.known.get(&asked)
            && let Some(policy) = known.policy.upgrade()
        {
            return (policy, Arc::clone(&known.exceeded));
        }
        let (effective, exceeded) = self.layers.effective(&asked);
        let policy = Arc::new(TrafficPolicy::new(effective));
        let exceeded: Vec<_> = exceeded.iter().map(ToString::to_string).collect();
        let exceeded: Arc<str> = exceeded.join("; ").into();
        if self.known.len() >= self.most {
            self.known.retain(|_, known| known.policy.strong_count() > 0);
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
