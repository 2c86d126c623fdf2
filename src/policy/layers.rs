//! Which layer each field of a policy comes from: the route, the installation's defaults or sluice's own, and
//! what the installation's ceiling cuts down.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Access, LimitMode, Limits, Policy, Rate, Timeout, Timeouts, built_in};

/// Where a field of an effective policy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PolicyOrigin {
    /// The route.
    Route,
    /// The setting `policy` of the installation.
    Policy,
    /// The setting `policyCeiling`: the other layers have more, or no bound.
    PolicyCeiling,
    /// sluice.
    Default,
}

impl PolicyOrigin {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            PolicyOrigin::Route => "route",
            PolicyOrigin::Policy => "policy",
            PolicyOrigin::PolicyCeiling => "policyCeiling",
            PolicyOrigin::Default => "default",
        }
    }
}

impl fmt::Display for PolicyOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The origin of each field of an effective policy, by its path, such as `timeouts.idle`.
pub type PolicyOrigins = BTreeMap<String, PolicyOrigin>;

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
    /// The limits of the ceiling, if those of the policy are only reported: they hold all the same.
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
                (Some(value), _) => match Rate::deserialize(value) {
                    Ok(rate) => rate.to_string(),
                    Err(_) => value.to_string(),
                },
                (None, Some(access)) if path == ACCESS => access.to_string(),
                (None, _) => String::new(),
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
#[error("{field} is {ceiling}, the most that this installation allows, and not {asked}")]
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
        let is_apart = policy.limits.mode == Some(LimitMode::Report);
        if !is_apart {
            cut.limits(&mut policy.limits, ceiling);
        }
        let exceeded = cut.exceeded;
        let access_ceiling = self.ceiling.access.clone();
        let limits_ceiling = (is_apart && ceiling.is_limiting()).then(|| ceiling.clone());
        (EffectivePolicy { policy, origins, access_ceiling, limits_ceiling }, exceeded)
    }
}

/// Cuts a policy down to the ceiling.
struct Cut<'a> {
    origins: &'a mut PolicyOrigins,
    exceeded: Vec<Exceeded>,
}

impl Cut<'_> {
    /// No timeout that is set is longer than `max`.
    fn timeouts(&mut self, timeouts: &mut Timeouts, ceiling: &Timeouts, max: Option<Timeout>) {
        for (field, value, ceiling) in [
            ("timeouts.connect", &mut timeouts.connect, ceiling.connect),
            ("timeouts.idle", &mut timeouts.idle, ceiling.idle),
            ("timeouts.lifetime", &mut timeouts.lifetime, ceiling.lifetime),
        ] {
            let max = max.filter(|_| value.is_some());
            self.field(field, value, ceiling.into_iter().chain(max).min(), Timeout::min);
        }
    }

    fn limits(&mut self, limits: &mut Limits, ceiling: &Limits) {
        self.field("limits.connections", &mut limits.connections, ceiling.connections, u32::min);
        let rate = ceiling.new_connections;
        self.field("limits.newConnections", &mut limits.new_connections, rate, Rate::least);
        let (own, most) = (&mut limits.per_source, &ceiling.per_source);
        let connections = most.connections;
        self.field("limits.perSource.connections", &mut own.connections, connections, u32::min);
        let rate = most.new_connections;
        self.field("limits.perSource.newConnections", &mut own.new_connections, rate, Rate::least);
        // A longer prefix would make more sources of the same clients.
        let ipv4 = most.prefix.ipv4.filter(|most| *most < own.prefix.ipv4());
        self.field("limits.perSource.prefix.ipv4", &mut own.prefix.ipv4, ipv4, u8::min);
        let ipv6 = most.prefix.ipv6.filter(|most| *most < own.prefix.ipv6());
        self.field("limits.perSource.prefix.ipv6", &mut own.prefix.ipv6, ipv6, u8::min);
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

/// The field that is taken as a whole. It may have thousands of networks, so it is never made into JSON here.
const ACCESS: &str = "access";

/// The fields that are objects, and are taken as a whole too: parts of two rates would make a third one.
const RATES: [&str; 2] = ["limits.newConnections", "limits.perSource.newConnections"];

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
            Some(_) if RATES.contains(&&*path) => {}
            Some(value) => fill_in(&path, value, below, origin, origins),
            None if below.is_object() && !RATES.contains(&&*path) => {
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
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

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
        let mut expected = serde_json::to_value(built_in()).unwrap();
        expected["loadBalancing"]["policy"] = json!("Random");
        expected["timeouts"]["connect"] = json!("2s");
        expected["proxyProtocol"] = json!({ "send": "V2", "checksum": false });
        assert_eq!(serde_json::to_value(&effective.policy).unwrap(), expected);
        let (default, of_others): (Vec<_>, Vec<_>) =
            origins(&effective).into_iter().partition(|(_, origin)| *origin == "default");
        assert_eq!(
            of_others,
            [
                ("loadBalancing.policy", "route"),
                ("proxyProtocol.checksum", "route"),
                ("proxyProtocol.send", "policy"),
                ("timeouts.connect", "policy"),
            ]
        );
        assert!(default.contains(&("timeouts.idle", "default")));
    }

    #[test]
    fn an_access_list_is_of_one_layer() {
        let defaults = policy(json!({ "access": { "deny": ["10.9.0.0/16"] } }));
        let asked = policy(json!({ "access": { "allow": ["10.0.0.0/8"] } }));
        let layers = Layers::new(&defaults, Policy::default());
        let (own, _) = layers.effective(&asked);
        assert_eq!(
            (&own.policy.access, own.origins["access"]),
            (&asked.access, PolicyOrigin::Route)
        );
        assert_eq!(own.of_route(), asked);
        let (default, _) = layers.effective(&Policy::default());
        assert_eq!(
            (&default.policy.access, default.origins["access"]),
            (&defaults.access, PolicyOrigin::Policy)
        );
        assert_eq!(default.of_route(), Policy::default());
        assert!(own.is_consistent() && default.is_consistent());
    }

    #[test]
    fn nothing_exceeds_the_ceiling_and_a_route_is_told() {
        let ceiling = policy(json!({ "timeouts": { "connect": "10s", "idle": "30m" } }));
        let layers = Layers::new(&Policy::default(), ceiling);
        let (effective, exceeded) =
            layers.effective(&policy(json!({ "timeouts": { "connect": "1m" } })));
        let exceeded: Vec<_> = exceeded.iter().map(ToString::to_string).collect();
        let expected =
            "timeouts.connect is 10s, the most that this installation allows, and not 1m";
        assert_eq!(exceeded, [expected]);
        let cut = origins(&effective).into_iter().filter(|(_, origin)| *origin == "policyCeiling");
        let cut: Vec<_> = cut.map(|(field, _)| field).collect();
        assert_eq!(cut, ["timeouts.connect", "timeouts.idle"]);
        let (within, exceeded) =
            layers.effective(&policy(json!({ "timeouts": { "connect": "10s" } })));
        assert_eq!(within.origins["timeouts.connect"], PolicyOrigin::Route);
        assert_eq!(exceeded, []);
    }

    #[test]
    fn a_ceiling_bounds_a_lifetime_that_nobody_sets_and_a_maximum_only_one_that_somebody_sets() {
        let lifetime = |layers: &Layers, asked: Value| {
            let (effective, exceeded) = layers.effective(&policy(asked));
            let mut fields = effective.fields().filter(|field| field.0 == "timeouts.lifetime");
            let (value, origin) =
                fields.next().map(|(_, value, from)| (value, from.as_str())).unzip();
            (value.unwrap_or_default(), origin.unwrap_or_default(), exceeded.len())
        };
        let of = |lifetime: &str| json!({ "timeouts": { "lifetime": lifetime } });
        let bounded = Layers::default().with_max(Timeout::new(Duration::from_hours(2)));
        assert_eq!(lifetime(&bounded, json!({})), (String::new(), "", 0));
        assert_eq!(lifetime(&bounded, of("24h")), ("2h".to_owned(), "policyCeiling", 1));
        let ceiling = Layers::new(&Policy::default(), policy(of("3h")));
        assert_eq!(lifetime(&ceiling, json!({})), ("3h".to_owned(), "policyCeiling", 0));
        assert_eq!(lifetime(&ceiling, of("24h")), ("3h".to_owned(), "policyCeiling", 1));
    }

    #[test]
    fn a_rate_is_of_one_layer() {
        let defaults = policy(json!({ "limits": {
            "connections": 9, "newConnections": { "rate": 5, "per": "1m", "burst": 7 }
        } }));
        let asked = policy(json!({ "limits": { "newConnections": { "rate": 3 } } }));
        let (effective, _) = Layers::new(&defaults, Policy::default()).effective(&asked);
        let limits = serde_json::to_value(&effective.policy.limits).unwrap();
        assert_eq!(limits, json!({ "connections": 9, "newConnections": { "rate": 3 } }));
        let of_limits =
            origins(&effective).into_iter().filter(|(path, _)| path.starts_with("limits"));
        let expected = [("limits.connections", "policy"), ("limits.newConnections", "route")];
        assert_eq!(of_limits.collect::<Vec<_>>(), expected);
        assert!(effective.is_consistent());
        assert_eq!(effective.of_route(), asked);
        let shown = effective.fields().find(|(path, ..)| *path == "limits.newConnections");
        assert_eq!(shown.unwrap().1, "3 per 1s");
    }

    #[test]
    fn limits_are_cut_down_and_hold_even_if_a_route_only_reports() {
        let ceiling = policy(json!({ "limits": {
            "connections": 100,
            "newConnections": { "rate": 10 },
            "perSource": { "connections": 5, "prefix": { "ipv6": 64 } },
        } }));
        let layers = Layers::new(&Policy::default(), ceiling.clone());
        let asked = |mode| {
            policy(json!({ "limits": {
            "connections": 50,
            "newConnections": { "rate": 20, "burst": 5 },
            "perSource": { "connections": 6, "prefix": { "ipv6": 128 } },
            "mode": mode,
        } }))
        };
        let (cut, exceeded) = layers.effective(&asked("Enforce"));
        assert_eq!(
            serde_json::to_value(&cut.policy.limits).unwrap(),
            json!({
                "connections": 50,
                "newConnections": { "rate": 10, "burst": 5 },
                "perSource": { "connections": 5, "prefix": { "ipv6": 64 } },
                "mode": "Enforce",
            })
        );
        let exceeded: Vec<_> = exceeded.iter().map(|exceeded| exceeded.field).collect();
        assert_eq!(
            exceeded,
            [
                "limits.newConnections",
                "limits.perSource.connections",
                "limits.perSource.prefix.ipv6"
            ]
        );
        assert_eq!(cut.limits_ceiling, None);
        let (reported, exceeded) = layers.effective(&asked("Report"));
        assert_eq!(reported.policy.limits, asked("Report").limits);
        assert_eq!(reported.limits_ceiling, Some(ceiling.limits));
        assert_eq!(exceeded, []);
    }

    #[test]
    fn a_ceiling_of_what_cannot_be_bounded_is_an_error() {
        let bounded = policy(json!({
            "timeouts": { "idle": "1h" }, "access": { "deny": ["::/0"] }, "limits": { "connections": 1 }
        }));
        assert_eq!(Layers::check_ceiling(&bounded), Ok(()));
        let unbounded = policy(json!({ "loadBalancing": { "policy": "Random" } }));
        let expected = UnboundedField("loadBalancing.policy".to_owned());
        assert_eq!(Layers::check_ceiling(&unbounded), Err(expected));
        let mode = policy(json!({ "limits": { "connections": 1, "mode": "Report" } }));
        let expected = UnboundedField("limits.mode".to_owned());
        assert_eq!(Layers::check_ceiling(&mode), Err(expected));
    }

    #[test]
    fn every_field_reads_back_as_it_was_written() {
        let whole = json!({
            "loadBalancing":
                { "policy": "SourceAddress", "slowStart": "30s", "race": { "after": "100ms", "budget": 0 } },
            "health":
                { "passive": { "failures": 0, "ejectFor": "30s", "maxEjectFor": "1h" } },
            "timeouts": { "connect": "1s500ms", "idle": "2h", "lifetime": "24h" },
            "access": { "allow": ["10.0.0.0/8", "2001:db8::/32"], "deny": ["10.9.0.0/16"] },
            "limits": {
                "connections": 10_000,
                "newConnections": { "rate": 500, "per": "2s", "burst": 1000 },
                "perSource": {
                    "connections": 100,
                    "newConnections": { "rate": 50 },
                    "prefix": { "ipv4": 24, "ipv6": 56 },
                },
                "mode": "Report",
            },
            "proxyProtocol":
                { "send": "V1", "authority": false, "uniqueId": true, "checksum": false },
            "endpoints": { "onRemoval": "Close", "closeOver": "0s" },
            "suspend": true,
        });
        assert_eq!(serde_json::to_value(policy(whole.clone())).unwrap(), whole);
    }
}
