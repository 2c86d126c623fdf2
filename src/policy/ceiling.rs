//! What no route's policy exceeds.

use std::fmt;

use super::{ConnectionLimit, Limits, PolicyOrigin, PolicyOrigins, Rate, Timeout, Timeouts};

/// A field of a route that exceeds the ceiling.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {ceiling}, the most that this installation allows, and not {asked}")]
pub struct Exceeded {
    /// Its path.
    pub field: &'static str,
    /// What the route has.
    pub asked: String,
    /// What is in force.
    pub ceiling: String,
}

/// Cuts a policy down to the ceiling.
pub(super) struct Cut<'a> {
    pub(super) origins: &'a mut PolicyOrigins,
    pub(super) exceeded: Vec<Exceeded>,
}

impl Cut<'_> {
    /// No timeout that is set is longer than `max`.
    pub(super) fn timeouts(
        &mut self,
        timeouts: &mut Timeouts,
        ceiling: &Timeouts,
        max: Option<Timeout>,
    ) {
        for (field, value, ceiling) in [
            ("timeouts.connect", &mut timeouts.connect, ceiling.connect),
            ("timeouts.idle", &mut timeouts.idle, ceiling.idle),
            ("timeouts.lifetime", &mut timeouts.lifetime, ceiling.lifetime),
        ] {
            let max = max.filter(|_| value.is_some());
            self.field(field, value, ceiling.into_iter().chain(max).min(), Timeout::min);
        }
    }

    /// All numbers. Sources are told apart as the route says: the ceiling counts its own.
    pub(super) fn limits(&mut self, limits: &mut Limits, ceiling: &Limits) {
        self.field(
            "limits.connections",
            &mut limits.connections,
            ceiling.connections,
            ConnectionLimit::min,
        );
        let rate = ceiling.new_connections;
        self.field("limits.newConnections", &mut limits.new_connections, rate, Rate::least);
        let (own, most) = (&mut limits.per_source, &ceiling.per_source);
        let connections = most.connections;
        self.field(
            "limits.perSource.connections",
            &mut own.connections,
            connections,
            ConnectionLimit::min,
        );
        let rate = most.new_connections;
        self.field("limits.perSource.newConnections", &mut own.new_connections, rate, Rate::least);
        let (of_endpoint, most_of_endpoint) =
            (&mut limits.per_endpoint.connections, ceiling.per_endpoint);
        let connections = most_of_endpoint.connections;
        self.field(
            "limits.perEndpoint.connections",
            of_endpoint,
            connections,
            ConnectionLimit::min,
        );
    }

    /// Replaces a value by the lesser of it and its ceiling.
    fn field<T: Copy + PartialEq + fmt::Display>(
        &mut self,
        field: &'static str,
        value: &mut Option<T>,
        ceiling: Option<T>,
        least: impl Fn(T, T) -> T,
    ) {
        let Some(ceiling) = ceiling else { return };
        let lesser = value.map_or(ceiling, |value| least(value, ceiling));
        let before = value.replace(lesser);
        if before == Some(lesser) {
            return;
        }
        let origin = self.origins.insert(field.to_owned(), PolicyOrigin::PolicyCeiling);
        if let (Some(asked), Some(PolicyOrigin::Route)) = (before, origin) {
            let (asked, ceiling) = (asked.to_string(), lesser.to_string());
            self.exceeded.push(Exceeded { field, asked, ceiling });
        }
    }
}
