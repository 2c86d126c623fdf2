//! A rule of the definition.

use serde_json::Value;

/// A rule: where it is in the spec, a value that is refused and what is said to it, and the nearest
/// value that is taken.
#[derive(Clone)]
pub(super) struct Rule {
    pub(super) place: &'static str,
    pub(super) bad: Value,
    pub(super) says: String,
    pub(super) good: Value,
}

/// A rule with these parts.
pub(super) fn rule(place: &'static str, bad: Value, says: impl Into<String>, good: Value) -> Rule {
    Rule { place, bad, says: says.into(), good }
}
