//! What became of each route, said in conditions.

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
