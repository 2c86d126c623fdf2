//! The traffic policy of a route, limited by the installation's settings.

use std::time::Duration;

use crate::control::api::{RouteTimeouts, SniRouteSpec};
use crate::duration::display;
use crate::routing::{Timeouts, TrafficPolicy};

/// The traffic policy of a route with timeouts of at most `longest`, and a message about those that were
/// reduced.
pub(super) fn policy(asked: &SniRouteSpec, longest: Option<Duration>) -> (TrafficPolicy, String) {
    let (timeouts, capped) = timeouts(&asked.timeouts, longest);
    (TrafficPolicy { balancing: asked.load_balancing.policy, timeouts }, capped)
}

fn timeouts(asked: &RouteTimeouts, longest: Option<Duration>) -> (Timeouts, String) {
    let mut said = String::new();
    let mut cap = |name: &str, asked: Option<Duration>| match (asked, longest) {
        (Some(asked), Some(longest)) if asked > longest => {
            let separator = if said.is_empty() { "" } else { "; " };
            let (longest_text, asked) = (display(longest), display(asked));
            said.push_str(&format!(
                "{separator}timeouts.{name} is {longest_text}, the longest that this installation \
                 allows, and not {asked}"
            ));
            Some(longest)
        }
        _ => asked,
    };
    let connect = cap("connect", asked.connect.map(|timeout| timeout.get()));
    let idle = cap("idle", asked.idle.map(|timeout| timeout.get()));
    (Timeouts { connect, idle }, said)
}
