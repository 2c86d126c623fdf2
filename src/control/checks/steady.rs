//! Which conditions about certificates count, so that a server that shows now this certificate and now that one writes
//! no status with each check. Pure: the caller passes the time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ahash::AHashMap as HashMap;

use crate::control::status::Condition;
use crate::routing::ObjectRef;

/// How long it takes until another condition counts.
const STEADY: Duration = Duration::from_secs(60);
/// How many changes of a route count at once, so that whoever sets up its checks sees what they find.
const QUICK: u32 = 4;

/// The conditions that count, by route.
#[derive(Debug, Default)]
pub(super) struct SteadyConditions(HashMap<ObjectRef, SteadyCondition>);

#[derive(Debug)]
struct SteadyCondition {
    /// What counts.
    counted: Condition,
    /// Since when.
    since: Instant,
    /// Since when something else is seen.
    differs_since: Option<Instant>,
    /// How many more changes count at once.
    quick: u32,
}

/// A condition that counts from now on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ConditionChange {
    pub(super) route: ObjectRef,
    pub(super) former: Option<Condition>,
    pub(super) now: Condition,
}

impl SteadyConditions {
    /// Puts what counts in the place of what is seen `now`, and returns what has changed. The first condition of a
    /// route counts at once. A route of which nothing is seen any more is forgotten.
    pub(super) fn count(
        &mut self,
        conditions: &mut BTreeMap<ObjectRef, Condition>,
        now: Instant,
    ) -> Vec<ConditionChange> {
        self.0.retain(|route, _| conditions.contains_key(route));
        let mut changes = Vec::new();
        for (route, condition) in conditions {
            let former = match self.0.get_mut(route) {
                None => {
                    let steady = SteadyCondition::new(condition.clone(), now);
                    self.0.insert(route.clone(), steady);
                    None
                }
                Some(steady) => {
                    if !steady.turns_to(condition, now) {
                        condition.clone_from(&steady.counted);
                        continue;
                    }
                    Some(std::mem::replace(&mut steady.counted, condition.clone()))
                }
            };
            let (route, now) = (route.clone(), condition.clone());
            changes.push(ConditionChange { route, former, now });
        }
        changes
    }
}

impl SteadyCondition {
    fn new(counted: Condition, now: Instant) -> Self {
        SteadyCondition { counted, since: now, differs_since: None, quick: QUICK }
    }

    /// Whether something else counts from now on. A problem that comes and goes counts all the time: it appears at
    /// once, though not too often, and disappears only when it is not seen for a while.
    fn turns_to(&mut self, seen: &Condition, now: Instant) -> bool {
        if *seen == self.counted {
            self.differs_since = None;
            return false;
        }
        let differs_since = *self.differs_since.get_or_insert(now);
        let is_worse = self.counted.status && !seen.status;
        let begun = if is_worse { self.since } else { differs_since };
        let turns = self.quick > 0 || now >= begun + STEADY;
        if turns {
            (self.quick, self.since, self.differs_since) =
                (self.quick.saturating_sub(1), now, None);
        }
        turns
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::control::status::BACKEND_CERTIFICATE;

    /// The conditions of one route.
    struct OneRoute {
        steady: SteadyConditions,
        start: Instant,
        changes: usize,
    }

    impl OneRoute {
        /// One whose quick changes are used up, the last of them with this message.
        fn settled(message: &str) -> Self {
            let mut route =
                OneRoute { steady: SteadyConditions::default(), start: Instant::now(), changes: 0 };
            for quick in 0..QUICK {
                assert_eq!(route.see(0, &quick.to_string()), quick.to_string());
            }
            assert_eq!(route.see(0, message), message);
            route
        }

        /// What counts if this is seen after so many seconds: `Valid`, or another condition with this message.
        fn see(&mut self, seconds: u64, message: &str) -> String {
            let (status, message) = (message.is_empty(), message.to_owned());
            let seen = Condition { kind: BACKEND_CERTIFICATE, status, reason: "Reason", message };
            let mut conditions = [(ObjectRef::sni_route("ns", "r"), seen)].into();
            let now = self.start + Duration::from_secs(seconds);
            self.changes += self.steady.count(&mut conditions, now).len();
            conditions.into_values().next().unwrap().message
        }
    }

    #[test]
    fn later_changes_count_when_they_have_held() {
        let mut route = OneRoute::settled("a");
        assert_eq!(route.see(1, "b"), "a");
        assert_eq!(route.see(60, "b"), "a");
        assert_eq!(route.see(61, "b"), "b");
        // Each of them begins anew.
        assert_eq!(route.see(62, ""), "b");
        assert_eq!(route.see(63, "b"), "b");
        assert_eq!(route.see(64, ""), "b");
        assert_eq!(route.see(123, ""), "b");
        assert_eq!(route.see(124, ""), "");
        // What becomes worse after a while is seen at once.
        assert_eq!(route.see(183, "c"), "");
        assert_eq!(route.see(184, "c"), "c");
        assert_eq!(route.changes, QUICK as usize + 4);
    }

    #[test]
    fn a_server_with_two_certificates_changes_its_route_no_more_than_once() {
        for pair in [["", "expired"], ["expired", ""], ["a", "b"]] {
            let mut route = OneRoute::settled(pair[0]);
            let before = route.changes;
            let mut last = String::new();
            for check in 0..3600 {
                last = route.see(check, pair[usize::from(check % 10 == 0)]);
            }
            // Of a problem that comes and goes, one knows.
            assert!(!last.is_empty(), "{pair:?}");
            assert!(route.changes <= before + 1, "{pair:?}: {}", route.changes - before);
        }
    }

    #[test]
    fn what_is_never_the_same_counts_once_a_minute() {
        let mut route = OneRoute::settled("x");
        let before = route.changes;
        for check in 1..=600 {
            route.see(check, &check.to_string());
        }
        assert_eq!(route.changes - before, 9);
    }

    #[test]
    fn a_route_of_which_nothing_is_seen_is_forgotten() {
        let mut route = OneRoute::settled("a");
        assert_eq!(route.see(1, "b"), "a");
        route.steady.count(&mut BTreeMap::new(), route.start);
        assert_eq!(route.see(2, "b"), "b");
    }
}
