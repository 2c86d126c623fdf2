//! The messages and reasons for claims that are not fully served.

use crate::routing::{AnyOn, ClaimConflict, Hostname, MOST_ROUTES_A_HOSTNAME};

/// The reason of the condition for these conflicts.
pub(super) fn reason<'v>(lost: impl IntoIterator<Item = &'v ClaimConflict>) -> &'static str {
    match lost.into_iter().any(|conflict| matches!(conflict, ClaimConflict::TooMany)) {
        true => TOO_MANY,
        false => CONFLICT,
    }
}

const TOO_MANY: &str = "TooManyRoutes";
const CONFLICT: &str = "HostnameConflict";

/// The message, for people.
pub(super) fn message(hostname: &Hostname, conflict: &ClaimConflict) -> String {
    match conflict {
        ClaimConflict::Foreign { owner } => {
            let namespace = owner.namespace();
            format!(
                "{hostname} belongs to namespace {namespace}, whose route {owner} is the oldest"
            )
        }
        ClaimConflict::ForeignOn { owner, served, winner } => {
            let namespace = owner.namespace();
            let (where_, listeners) = match served {
                AnyOn::Except(listeners) => ("on", listeners.join(", ")),
                AnyOn::Only(listeners) => ("on all listeners but", listeners.join(", ")),
                AnyOn::All => ("on", String::new()),
            };
            let elsewhere = match winner {
                Some(winner) => format!("; elsewhere it belongs to {winner}"),
                None => String::new(),
            };
            format!(
                "{hostname} belongs to namespace {namespace}, whose route {owner} is the oldest, \
                 {where_} {listeners}{elsewhere}"
            )
        }
        ClaimConflict::Below { wildcard, owner } => {
            let namespace = owner.namespace();
            format!(
                "{hostname} is below {wildcard}, which belongs to namespace {namespace}, route \
                 {owner}; only that namespace may have names below it"
            )
        }
        ClaimConflict::TooMany => {
            format!(
                "{hostname} has {MOST_ROUTES_A_HOSTNAME} older routes, the most that one may have"
            )
        }
        ClaimConflict::Taken { winner } => format!("{hostname} belongs to {winner}"),
        ClaimConflict::PartlyTaken { winner } => {
            format!("{hostname} belongs to {winner} where both take the same listener and ALPN")
        }
    }
}
