//! Which layer each field of a policy comes from: the route, the installation's defaults or sluice's own, and
//! what the installation's ceiling cuts down.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Access, Balancing, LoadBalancing, Policy, Timeout, Timeouts};

/// Where a field of an effective policy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// The route.
    Route,
    /// The setting `policy` of the installation.
    Policy,
    /// The setting `policyCeiling`: the other layers have more, or no bound.
    PolicyCeiling,
    /// sluice.
    Default,
}

impl Origin {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Route => "route",
            Origin::Policy => "policy",
            Origin::PolicyCeiling => "policyCeiling",
            Origin::Default => "default",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The origin of each field of an effective policy, by its path, such as `timeouts.idle`.
pub type Origins = BTreeMap<String, Origin>;

/// A policy with all its layers. Its text is that of [`Policy`], with the origins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectivePolicy {
    /// The fields that are in force. `access` is that of the nearest layer.
    #[serde(flatten)]
    pub policy: Policy,
    /// Where they come from.
    #[serde(rename = "policyFrom", default, skip_serializing_if = "Origins::is_empty")]
    pub origins: Origins,
    /// The clients that the ceiling admits: nobody else is, whatever `access` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_ceiling: Option<Access>,
}

impl EffectivePolicy {
    /// The fields of the route itself. Those that were cut down are so here.
    pub fn of_route(&self) -> Policy {
        let mut policy = json(&self.policy);
        for (path, origin) in &self.origins {
            if matches!(origin, Origin::Policy | Origin::Default) {
                remove(&mut policy, path);
            }
        }
        serde_json::from_value(policy).unwrap_or_default()
    }

    /// Whether it says of each field where it comes from, and of no other.
    pub fn is_consistent(&self) -> bool {
        fields(&json(&self.policy)).iter().eq(self.origins.keys())
    }

    /// The lists that all have to admit a client.
    pub fn access_lists(&self) -> impl Iterator<Item = &Access> {
        self.policy.access.iter().chain(&self.access_ceiling)
    }

    /// Each field that is in force: its path, its value and where it comes from.
    pub fn fields(&self) -> impl Iterator<Item = (&str, String, Origin)> {
        let policy = json(&self.policy);
        self.origins.iter().map(move |(path, origin)| {
            let value = path.split('.').try_fold(&policy, |value, name| value.get(name));
            let text = match value {
                Some(Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
                None => String::new(),
            };
            (&**path, text, *origin)
        })
    }
}

fn remove(value: &mut Value, path: &str) {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let Value::Object(fields) = value else { return };
    match (rest, fields.get_mut(name)) {
        (Some(rest), Some(inner)) => remove(inner, rest),
        _ => drop(fields.remove(name)),
    }
}

/// A field of a route that exceeds the ceiling.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {ceiling}, the longest that this installation allows, and not {asked}")]
pub struct Exceeded {
    /// Its path.
    pub field: &'static str,
    /// What the route has.
    pub asked: String,
    /// What is in force.
    pub ceiling: String,
}

/// A field for which there is no ceiling.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a ceiling bounds access and timeouts, and not {0}; write it under policy")]
pub struct UnboundedField(pub String);

/// The layers below a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    /// The installation's defaults, and below them sluice's own, as JSON.
    defaults: [(Origin, Value); 2],
    ceiling: Policy,
}

impl Default for Layers {
    fn default() -> Self {
        Layers::new(&Policy::default(), Policy::default())
    }
}

impl Layers {
    /// The layers of an installation. A ceiling bounds only what [`Layers::check_ceiling`] admits.
    pub fn new(defaults: &Policy, ceiling: Policy) -> Self {
        let defaults = [(Origin::Policy, json(defaults)), (Origin::Default, json(&built_in()))];
        Layers { defaults, ceiling }
    }

    /// Checks that a ceiling has only fields that it can bound.
    ///
    /// # Errors
    /// The first other field.
    pub fn check_ceiling(ceiling: &Policy) -> Result<(), UnboundedField> {
        let unbounded = Policy { timeouts: Timeouts::default(), access: None, ..ceiling.clone() };
        match fields(&json(&unbounded)).into_iter().next() {
            Some(field) => Err(UnboundedField(field)),
            None => Ok(()),
        }
    }

    /// The policy of a route that has `asked`.
    ///
    /// Also returns what it has and does not get.
    pub fn effective(&self, asked: &Policy) -> (EffectivePolicy, Vec<Exceeded>) {
        let mut origins = Origins::new();
        let mut merged = json(asked);
        origins.extend(fields(&merged).into_iter().map(|field| (field, Origin::Route)));
        for (origin, defaults) in &self.defaults {
            fill_in("", &mut merged, defaults, *origin, &mut origins);
        }
        // What was written from policies reads back as one.
        let mut policy: Policy = serde_json::from_value(merged).unwrap_or_default();
        let mut exceeded = Vec::new();
        for (field, value, ceiling) in [
            ("timeouts.connect", &mut policy.timeouts.connect, self.ceiling.timeouts.connect),
            ("timeouts.idle", &mut policy.timeouts.idle, self.ceiling.timeouts.idle),
        ] {
            let Some(ceiling) = ceiling else { continue };
            if value.is_some_and(|value| value <= ceiling) {
                continue;
            }
            let before = value.replace(ceiling);
            let origin = origins.insert(field.to_owned(), Origin::PolicyCeiling);
            if let (Some(asked), Some(Origin::Route)) = (before, origin) {
                let (asked, ceiling) = (asked.to_string(), ceiling.to_string());
                exceeded.push(Exceeded { field, asked, ceiling });
            }
        }
        let access_ceiling = self.ceiling.access.clone();
        (EffectivePolicy { policy, origins, access_ceiling }, exceeded)
    }
}

/// sluice's own defaults, of the fields that always have a value.
pub fn built_in() -> Policy {
    Policy {
        load_balancing: LoadBalancing { policy: Some(Balancing::default()) },
        timeouts: Timeouts {
            connect: Timeout::new(Duration::from_secs(5)),
            idle: Timeout::new(Duration::from_hours(1)),
        },
        ..Policy::default()
    }
}

/// Fields that are taken as a whole from one layer, whatever is in them.
const WHOLE: [&str; 1] = ["access"];

fn json(policy: &Policy) -> Value {
    // It has nothing that JSON cannot express.
    serde_json::to_value(policy).unwrap_or_default()
}

/// The paths of all fields that are set.
fn fields(value: &Value) -> Vec<String> {
    let mut origins = Origins::new();
    fill_in("", &mut Value::Object(Map::new()), value, Origin::Default, &mut origins);
    origins.into_keys().collect()
}

/// Adds what a lower layer has and `value` lacks.
fn fill_in(path: &str, value: &mut Value, lower: &Value, origin: Origin, origins: &mut Origins) {
    let (Value::Object(fields), Value::Object(lower)) = (value, lower) else { return };
    for (name, below) in lower {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let is_whole = !below.is_object() || WHOLE.contains(&&*path);
        match fields.get_mut(name) {
            Some(_) if is_whole => {}
            Some(value) => fill_in(&path, value, below, origin, origins),
            None if is_whole => {
                fields.insert(name.clone(), below.clone());
                origins.insert(path, origin);
            }
            None => {
                let empty = fields.entry(name.clone()).or_insert_with(|| Map::new().into());
                fill_in(&path, empty, below, origin, origins);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(value: Value) -> Policy {
        serde_json::from_value(value).unwrap()
    }

    fn origins(effective: &EffectivePolicy) -> Vec<(&str, &str)> {
        effective.origins.iter().map(|(path, origin)| (&**path, origin.as_str())).collect()
    }

    #[test]
    fn each_field_is_of_the_nearest_layer_that_has_it() {
        let defaults = policy(json!({
            "timeouts": { "connect": "2s" }, "proxyProtocol": { "send": "V2", "checksum": true }
        }));
        let asked = policy(json!({
            "loadBalancing": { "policy": "Random" }, "proxyProtocol": { "checksum": false }
        }));
        let (effective, _) = Layers::new(&defaults, Policy::default()).effective(&asked);
        assert_eq!(effective.of_route(), asked);
        assert_eq!(
            serde_json::to_value(&effective.policy).unwrap(),
            json!({
                "loadBalancing": { "policy": "Random" },
                "timeouts": { "connect": "2s", "idle": "1h" },
                "proxyProtocol": { "send": "V2", "checksum": false },
            })
        );
        assert_eq!(
            origins(&effective),
            [
                ("loadBalancing.policy", "route"),
                ("proxyProtocol.checksum", "route"),
                ("proxyProtocol.send", "policy"),
                ("timeouts.connect", "policy"),
                ("timeouts.idle", "default"),
            ]
        );
    }

    #[test]
    fn an_access_list_is_of_one_layer() {
        let defaults = policy(json!({ "access": { "deny": ["10.9.0.0/16"] } }));
        let asked = policy(json!({ "access": { "allow": ["10.0.0.0/8"] } }));
        let layers = Layers::new(&defaults, Policy::default());
        assert_eq!(layers.effective(&asked).0.policy.access, asked.access);
        assert_eq!(layers.effective(&Policy::default()).0.policy.access, defaults.access);
    }

    #[test]
    fn nothing_exceeds_the_ceiling_and_a_route_is_told() {
        let ceiling = policy(json!({ "timeouts": { "connect": "10s", "idle": "30m" } }));
        let layers = Layers::new(&Policy::default(), ceiling);
        let (effective, exceeded) =
            layers.effective(&policy(json!({ "timeouts": { "connect": "1m" } })));
        let exceeded: Vec<_> = exceeded.iter().map(ToString::to_string).collect();
        let expected =
            "timeouts.connect is 10s, the longest that this installation allows, and not 1m";
        assert_eq!(exceeded, [expected]);
        assert_eq!(
            origins(&effective)[1..],
            [("timeouts.connect", "policyCeiling"), ("timeouts.idle", "policyCeiling")]
        );
        let (within, exceeded) =
            layers.effective(&policy(json!({ "timeouts": { "connect": "10s" } })));
        assert_eq!(within.origins["timeouts.connect"], Origin::Route);
        assert_eq!(exceeded, []);
    }

    #[test]
    fn a_ceiling_of_what_cannot_be_bounded_is_an_error() {
        let bounded =
            policy(json!({ "timeouts": { "idle": "1h" }, "access": { "deny": ["::/0"] } }));
        assert_eq!(Layers::check_ceiling(&bounded), Ok(()));
        let unbounded = policy(json!({ "loadBalancing": { "policy": "Random" } }));
        let expected = UnboundedField("loadBalancing.policy".to_owned());
        assert_eq!(Layers::check_ceiling(&unbounded), Err(expected));
    }

    #[test]
    fn every_field_reads_back_as_it_was_written() {
        let whole = json!({
            "loadBalancing": { "policy": "SourceAddress" },
            "timeouts": { "connect": "1s500ms", "idle": "2h" },
            "access": { "allow": ["10.0.0.0/8", "2001:db8::/32"], "deny": ["10.9.0.0/16"] },
            "proxyProtocol":
                { "send": "V1", "authority": false, "uniqueId": true, "checksum": false },
            "suspend": true,
        });
        assert_eq!(serde_json::to_value(policy(whole.clone())).unwrap(), whole);
    }
}
