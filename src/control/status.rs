//! What became of each route, said in conditions.

use std::collections::HashMap;

use tracing::{info, warn};

use crate::routing::RouteKey;

/// The conditions of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteStatus {
    /// Whose they are.
    pub key: RouteKey,
    /// `metadata.generation` of the object that they speak of.
    pub observed_generation: Option<i64>,
    /// `Accepted`, `ResolvedRefs` and `Programmed`, in this order.
    pub conditions: [Condition; 3],
    /// How many endpoints its backends have.
    pub endpoints: usize,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs` or `Programmed`.
    pub kind: &'static str,
    /// Whether it holds.
    pub status: bool,
    /// One CamelCase word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// Logs what is wrong now and was not wrong in the same way `before`, and what is wrong no longer.
pub fn log_changes(before: &[RouteStatus], now: &[RouteStatus]) {
    let before: HashMap<&RouteKey, &RouteStatus> =
        before.iter().map(|status| (&status.key, status)).collect();
    for status in now {
        let former = before.get(&status.key);
        for (index, condition) in status.conditions.iter().enumerate() {
            let former = former.and_then(|status| status.conditions.get(index));
            if former == Some(condition) {
                continue;
            }
            log_change(&status.key, condition, former);
        }
    }
}

fn log_change(route: &RouteKey, condition: &Condition, former: Option<&Condition>) {
    // `message` is the log line's own.
    let Condition { kind, reason, message: detail, .. } = condition;
    if !condition.status {
        warn!(%route, condition = kind, reason, detail, "a route is not in order");
    } else if !detail.is_empty() {
        warn!(%route, condition = kind, reason, detail, "a route is only partly in force");
    } else if former.is_some_and(|former| !former.status) {
        info!(%route, condition = kind, "a route is in order again");
    }
}
