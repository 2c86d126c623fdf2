//! When an endpoint counts as failed, and what is done instead.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::{ActiveHealth, InvalidValue, Number, Timeout, is_default, or_default, schema};

/// When endpoints count as failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub struct HealthPolicy {
    /// What the connections of clients show, of all routes that have the same endpoint.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub passive: PassiveHealth,

    /// What connections of sluice itself show. Without it, that of the installation; if that has none, there are
    /// no checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ActiveHealth")]
    pub active: Option<ActiveHealth>,
}

/// What the connections of clients show of an endpoint. After some failures in a row, the endpoint is
/// ejected for a time: clients get it only if no other is left. After that time, one connection at a time
/// tries it, until one succeeds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
#[schemars(extend("x-kubernetes-validations" = [schema::rule(schema::EJECTION_GROWS, schema::EJECTION_SHRINKS)]))]
pub struct PassiveHealth {
    /// How many failures in a row eject an endpoint, 0 to 16; with 0, none is ever ejected. Without it, the
    /// installation's own; 3 if that has none.
    ///
    /// A failure is an endpoint that refuses, cannot be reached or does not answer, and one that closes after
    /// the hello and before its first byte while the client waits. The latter counts once for each client: an
    /// IPv4 address, or a /64 of IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Number<0, 16>")]
    pub failures: Option<Number<0, 16>>,

    /// How long an endpoint is ejected the first time, such as `10s`. Each further time is longer by as much.
    /// Without it, the installation's own; `10s` if that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Timeout")]
    pub eject_for: Option<Timeout>,

    /// The longest time that an endpoint is ejected, such as `5m`. After it has been well for so long, the
    /// next time is as short as the first one. Without it, the installation's own; `5m` if that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Timeout")]
    pub max_eject_for: Option<Timeout>,
}

impl HealthPolicy {
    /// Checks the fields against each other.
    ///
    /// # Errors
    /// When the longest time is shorter than the first one, or fields of `active` contradict each other.
    pub fn check(&self) -> Result<(), InvalidValue> {
        let active = self.active.iter().try_for_each(ActiveHealth::check);
        active.map_err(|fault| InvalidValue::new(format!("active.{fault}")))?;
        let PassiveHealth { eject_for, max_eject_for, .. } = &self.passive;
        match (eject_for, max_eject_for) {
            (Some(first), Some(longest)) if longest < first => Err(InvalidValue::new(format!(
                "passive.maxEjectFor is {longest}, less than ejectFor, which is {first}"
            ))),
            _ => Ok(()),
        }
    }

    /// Reads and checks the fields as somebody wrote them.
    ///
    /// # Errors
    /// When they cannot be read, or [`HealthPolicy::check`] fails.
    pub fn checked<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let health: HealthPolicy = or_default(deserializer)?;
        health.check().map_err(serde::de::Error::custom)?;
        Ok(health)
    }
}

/// The race of a second endpoint against one that does not answer. The first one that connects gets the
/// client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub struct RacePolicy {
    /// How long an endpoint may be silent before another one is tried as well, such as `300ms`. Without it, the
    /// installation's own; `300ms` if that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Timeout")]
    pub after: Option<Timeout>,

    /// How many clients may have several attempts at the same time: a percentage of the clients of the whole
    /// process that wait for an endpoint, 0 to 100. Three of each route always may; with 0, none may. An
    /// endpoint that refuses is replaced by another one at once, whatever this is. Without it, the
    /// installation's own; 20 if that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Number<0, 100>")]
    pub budget: Option<Number<0, 100>>,
}
