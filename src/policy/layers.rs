//! Which layer each field of a policy comes from: the route, the installation's defaults or sluice's own, and
//! what the installation's ceiling cuts down.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ceiling::Cut;
use super::{
    Access, ActiveHealth, Exceeded, LimitMode, Limits, Policy, PolicyOrigin, PolicyOrigins, Rate,
    Timeout, Timeouts, built_in,
};

/// A policy with all its layers. Its text is that of [`Policy`], with the origins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectivePolicy {
    /// The fields that are in force. `access` is that of the nearest layer.
    #[serde(flatten)]
    pub policy: Policy,
    /// Where they come from.
    #[serde(rename = "policyFrom", default, skip_serializing_if = "PolicyOrigins::is_empty")]
    pub origins: PolicyOrigins,
    /// The clients that the ceiling admits: nobody else is, whatever `access` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_ceiling: Option<Access>,
    /// The limits of the ceiling. They hold also if those of the policy are only reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits_ceiling: Option<Limits>,
}

impl EffectivePolicy {
    /// The fields of the route itself. Those that were cut down are so here.
    pub fn of_route(&self) -> Policy {
        let is_of_route = |origin: &PolicyOrigin| {
            matches!(origin, PolicyOrigin::Route | PolicyOrigin::PolicyCeiling)
        };
        let access = self.policy.access.clone();
        let access = access.filter(|_| self.origins.get(ACCESS).is_some_and(is_of_route));
        let mut policy = json(&self.policy);
        for (path, _) in self.origins.iter().filter(|(_, origin)| !is_of_route(origin)) {
            remove(&mut policy, path);
        }
        Policy { access, ..from_json(policy) }
    }

    /// Whether its access list comes from there.
    pub fn access_is_of(&self, origin: PolicyOrigin) -> bool {
        self.origins.get(ACCESS) == Some(&origin)
    }

    /// Whether it says of each field where it comes from, and of no other.
    pub fn is_consistent(&self) -> bool {
        fields(&self.policy).iter().eq(self.origins.keys())
    }

    /// Each field that is in force: its path, its value and where it comes from.
    pub fn fields(&self) -> impl Iterator<Item = (&str, String, PolicyOrigin)> {
        let policy = json(&self.policy);
        self.origins.iter().map(move |(path, origin)| {
            let value = path.split('.').try_fold(&policy, |value, name| value.get(name));
            let text = match (value, &self.policy.access) {
                (Some(Value::String(text)), _) => text.clone(),
                (Some(value), _) => shown(value),
                (None, Some(access)) if path == ACCESS => access.to_string(),
                (None, _) => String::new(),
            };
            (&**path, text, *origin)
        })
    }
}

/// A value for people.
fn shown(value: &Value) -> String {
    let rate = Rate::deserialize(value).map(|rate| rate.to_string());
    let checks = || ActiveHealth::deserialize(value).map(|checks| checks.to_string());
    rate.or_else(|_| checks()).unwrap_or_else(|_| value.to_string())
}

fn remove(value: &mut Value, path: &str) {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let Value::Object(fields) = value else { return };
    match (rest, fields.get_mut(name)) {
        (Some(rest), Some(inner)) => remove(inner, rest),
        _ => drop(fields.remove(name)),
    }
}

/// A field for which there is no ceiling.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a ceiling bounds access, limits and timeouts, and not {0}; write it under policy")]
pub struct UnboundedField(pub String);

/// The layers below a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    /// The installation's defaults, and below them sluice's own, as JSON.
    defaults: [(PolicyOrigin, Value); 2],
    /// The default of `access`.
    access: Option<Access>,
    ceiling: Policy,
    /// The longest of any timeout that somebody sets.
    max: Option<Timeout>,
}

impl Default for Layers {
    fn default() -> Self {
        Layers::new(&Policy::default(), Policy::default())
    }
}

impl Layers {
    /// The layers of an installation. A ceiling bounds only what [`Layers::check_ceiling`] admits.
    pub fn new(defaults: &Policy, ceiling: Policy) -> Self {
        let access = defaults.access.clone();
        let defaults =
            [(PolicyOrigin::Policy, json(defaults)), (PolicyOrigin::Default, json(&built_in()))];
        Layers { defaults, access, ceiling, max: None }
    }

    /// Bounds every timeout that has a value. Unlike a ceiling, this sets none.
    #[must_use]
    pub fn with_max(self, max: Option<Timeout>) -> Self {
        Layers { max, ..self }
    }

    /// Checks that a ceiling has only fields that it can bound.
    ///
    /// # Errors
    /// The first other field.
    pub fn check_ceiling(ceiling: &Policy) -> Result<(), UnboundedField> {
        let limits = Limits { mode: ceiling.limits.mode, ..Limits::default() };
        let unbounded =
            Policy { timeouts: Timeouts::default(), access: None, limits, ..ceiling.clone() };
        match fields(&unbounded).into_iter().next() {
            Some(field) => Err(UnboundedField(field)),
            None => Ok(()),
        }
    }

    /// The policy of a route that has `asked`.
    ///
    /// Also returns what it has and does not get.
    pub fn effective(&self, asked: &Policy) -> (EffectivePolicy, Vec<Exceeded>) {
        let mut origins = PolicyOrigins::new();
        origins.extend(fields(asked).into_iter().map(|field| (field, PolicyOrigin::Route)));
        let mut merged = json(asked);
        for (origin, defaults) in &self.defaults {
            fill_in("", &mut merged, defaults, *origin, &mut origins);
        }
        // An access list is taken as a whole.
        let access = asked.access.clone().or_else(|| {
            let access = self.access.clone()?;
            origins.insert(ACCESS.to_owned(), PolicyOrigin::Policy);
            Some(access)
        });
        let mut policy = Policy { access, ..from_json(merged) };
        let mut cut = Cut { origins: &mut origins, exceeded: Vec::new() };
        cut.timeouts(&mut policy.timeouts, &self.ceiling.timeouts, self.max);
        let ceiling = &self.ceiling.limits;
        if policy.limits.mode != Some(LimitMode::Report) {
            cut.limits(&mut policy.limits, ceiling);
        }
        let exceeded = cut.exceeded;
        let access_ceiling = self.ceiling.access.clone();
        let limits_ceiling = ceiling.is_limiting().then(|| ceiling.clone());
        (EffectivePolicy { policy, origins, access_ceiling, limits_ceiling }, exceeded)
    }
}

/// The field that is taken as a whole. It may have thousands of networks, so it is never made into JSON here.
const ACCESS: &str = "access";

/// The fields that are objects, and are taken as a whole too: parts of two rates would make a third one, and the
/// server name of one check is no matter of another one's type.
const WHOLE: [&str; 3] =
    ["limits.newConnections", "limits.perSource.newConnections", "health.active"];

/// A policy without its access list, as JSON.
fn json(policy: &Policy) -> Value {
    let without = Policy { access: None, ..policy.clone() };
    // It has nothing that JSON cannot express.
    serde_json::to_value(without).unwrap_or_default()
}

fn from_json(value: Value) -> Policy {
    // What was written from a policy reads back as one.
    serde_json::from_value(value).unwrap_or_default()
}

/// The paths of all fields that are set.
fn fields(policy: &Policy) -> BTreeSet<String> {
    let mut origins = PolicyOrigins::new();
    fill_in("", &mut Value::Object(Map::new()), &json(policy), PolicyOrigin::Default, &mut origins);
    origins.into_keys().chain(policy.access.as_ref().map(|_| ACCESS.to_owned())).collect()
}

/// Adds what a lower layer has and `value` lacks.
fn fill_in(
    path: &str,
    value: &mut Value,
    lower: &Value,
    origin: PolicyOrigin,
    origins: &mut PolicyOrigins,
) {
    let (Value::Object(fields), Value::Object(lower)) = (value, lower) else { return };
    for (name, below) in lower {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match fields.get_mut(name) {
            Some(_) if WHOLE.contains(&&*path) => {}
            Some(value) => fill_in(&path, value, below, origin, origins),
            None if below.is_object() && !WHOLE.contains(&&*path) => {
                let empty = fields.entry(name.clone()).or_insert_with(|| Map::new().into());
                fill_in(&path, empty, below, origin, origins);
            }
            None => {
                fields.insert(name.clone(), below.clone());
                origins.insert(path, origin);
            }
        }
    }
}

#[cfg(test)]
mod tests;
