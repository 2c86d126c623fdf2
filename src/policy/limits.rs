//! Limits on connections.

use std::fmt;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Number, Timeout, is_default, or_default, schema};
use crate::duration;

/// How many connections there may be. The most is more than one machine has.
pub type ConnectionLimit = Number<1, 10_000_000>;
/// How many connections may be opened.
pub type ArrivalLimit = Number<1, 1_000_000>;
const LONGEST_PER: std::time::Duration = std::time::Duration::from_hours(1);

/// Limits on connections. Each replica counts for itself, from the moment on at which the limit is set. What is not
/// set is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub struct Limits {
    /// How many connections there may be at a time, 1 to 10,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ConnectionLimit")]
    pub connections: Option<ConnectionLimit>,

    /// How many connections may be opened in a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Rate")]
    pub new_connections: Option<Rate>,

    /// What each source of connections may have. A source is a client's address, or its network.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub per_source: SourceLimits,

    /// What each endpoint may have.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub per_endpoint: EndpointLimits,

    /// - `Enforce`: a connection that exceeds a limit is refused.
    /// - `Report`: it is admitted, and counted and logged as one that would have been refused.
    ///
    /// Without it, `Enforce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LimitMode")]
    pub mode: Option<LimitMode>,
}

/// What each source may have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub struct SourceLimits {
    /// How many connections there may be at a time, 1 to 10,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ConnectionLimit")]
    pub connections: Option<ConnectionLimit>,

    /// How many connections may be opened in a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Rate")]
    pub new_connections: Option<Rate>,

    /// How many bits of a client's address tell one source from another.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub prefix: SourcePrefix,
}

/// What each endpoint may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub struct EndpointLimits {
    /// How many connections there may be at a time, 1 to 10,000,000. Those of all routes that name its backend
    /// count. A new connection then goes to another endpoint, and is refused if all have so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ConnectionLimit")]
    pub connections: Option<ConnectionLimit>,
}

/// How many bits of a client's address tell one source from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub struct SourcePrefix {
    /// Of an IPv4 address, 1 to 32. Without it, 32: each address is a source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Number<1, 32>")]
    pub ipv4: Option<Number<1, 32>>,

    /// Of an IPv6 address, 1 to 128. Without it, 64: a host can have all addresses of such a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Number<1, 128>")]
    pub ipv6: Option<Number<1, 128>>,
}

/// How many connections may be opened in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object with a rate")]
pub struct Rate {
    /// How many, 1 to 1,000,000.
    pub rate: ArrivalLimit,

    /// In which time, at most `1h`. Without it, `1s`.
    #[serde(default, deserialize_with = "per", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::per")]
    pub per: Option<Timeout>,

    /// How many may be opened at once after a pause, 1 to 1,000,000. Without it, as many as `rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ArrivalLimit")]
    pub burst: Option<ArrivalLimit>,
}

/// What becomes of connections that exceed a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum LimitMode {
    /// They are refused.
    #[default]
    Enforce,
    /// They are admitted, counted and logged.
    Report,
}

impl Limits {
    /// Whether it limits anything.
    pub fn is_limiting(&self) -> bool {
        self.counts() || self.per_endpoint.connections.is_some()
    }

    /// Whether it limits what its own place counts: all but the connections of endpoints.
    pub fn counts(&self) -> bool {
        self.connections.is_some()
            || self.new_connections.is_some()
            || self.per_source.is_limiting()
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (whose, connections, rate) in [
            ("", self.connections, self.new_connections),
            (" of each source", self.per_source.connections, self.per_source.new_connections),
            (" of each endpoint", self.per_endpoint.connections, None),
        ] {
            parts.extend(connections.map(|most| format!("{most} connections{whose}")));
            parts.extend(rate.map(|rate| format!("new connections{whose} {rate}")));
        }
        f.write_str(&parts.join("; "))
    }
}

impl SourceLimits {
    /// Whether it limits anything.
    pub fn is_limiting(&self) -> bool {
        self.connections.is_some() || self.new_connections.is_some()
    }
}

impl SourcePrefix {
    /// Of an IPv4 address.
    pub fn ipv4(self) -> u32 {
        self.ipv4.map_or(32, Number::get)
    }

    /// Of an IPv6 address.
    pub fn ipv6(self) -> u32 {
        self.ipv6.map_or(64, Number::get)
    }

    /// The bits of an address that count, those of an IPv4 address mapped into IPv6. The others are zero.
    pub fn of(self, address: IpAddr) -> u128 {
        let (bits, length) = match address.to_canonical() {
            IpAddr::V4(ip) => (ip.to_ipv6_mapped().to_bits(), 96 + self.ipv4()),
            IpAddr::V6(ip) => (ip.to_bits(), self.ipv6()),
        };
        bits & u128::MAX.checked_shl(128_u32.saturating_sub(length)).unwrap_or(0)
    }
}

impl Rate {
    /// In which time.
    pub fn per(&self) -> std::time::Duration {
        self.per.map_or(std::time::Duration::from_secs(1), Timeout::get)
    }

    /// How many may be opened at once after a pause.
    pub fn burst(&self) -> ArrivalLimit {
        self.burst.unwrap_or(self.rate)
    }

    /// The rate that exceeds neither: the slower one, with the smaller burst.
    #[must_use]
    pub fn least(self, other: Rate) -> Rate {
        let by = |one: &Rate, other: &Rate| u128::from(one.rate.get()) * other.per().as_nanos();
        let slower = if by(&self, &other) <= by(&other, &self) { self } else { other };
        let burst = self.burst().min(other.burst());
        Rate { burst: (burst != slower.rate).then_some(burst), ..slower }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {}", self.rate, duration::display(self.per()))?;
        self.burst.map_or(Ok(()), |burst| write!(f, ", burst {burst}"))
    }
}

fn per<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timeout>, D::Error> {
    let per: Option<Timeout> = Option::deserialize(deserializer)?;
    match per.filter(|per| per.get() > LONGEST_PER) {
        Some(per) => Err(D::Error::custom(format!("{per} is over the maximum of 1h"))),
        None => Ok(per),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rate(rate: u32, per: &str, burst: u32) -> Rate {
        let burst = Some(Number::new(burst));
        Rate { rate: Number::new(rate), per: Some(per.parse().unwrap()), burst }
    }

    #[test]
    fn the_lesser_of_two_rates_exceeds_neither() {
        let least = rate(10, "1s", 100).least(rate(300, "1m", 30));
        assert_eq!(least, rate(300, "1m", 30));
        let least = rate(10, "1s", 100).least(rate(1200, "1m", 30));
        assert_eq!(least, rate(10, "1s", 30));
        assert_eq!(least.to_string(), "10 per 1s, burst 30");
    }

    #[test]
    fn limits_are_shown_in_one_line() {
        let limits = json!({ "connections": 9, "perSource": { "newConnections": { "rate": 5 } } });
        let limits: Limits = serde_json::from_value(limits).unwrap();
        assert_eq!(limits.to_string(), "9 connections; new connections of each source 5 per 1s");
    }

    #[test]
    fn what_limits_nothing_or_nobody_is_refused() {
        let error = |value: Value| serde_json::from_value::<Limits>(value).unwrap_err().to_string();
        for (value, expected) in [
            (json!({ "connections": 0 }), "0 is not a number from 1 to 10000000"),
            (json!({ "connections": 10_000_001 }), "10000001 is not a number from 1 to 10000000"),
            (json!({ "newConnections": { "rate": 0 } }), "0 is not a number from 1 to 1000000"),
            (json!({ "newConnections": {} }), "missing field `rate`"),
            (
                json!({ "newConnections": { "rate": 1, "per": "2h" } }),
                "2h is over the maximum of 1h",
            ),
            (
                json!({ "newConnections": { "rate": 1, "burst": 1_000_001 } }),
                "1000001 is not a number from 1 to 1000000",
            ),
            (
                json!({ "perSource": { "prefix": { "ipv4": 33 } } }),
                "33 is not a number from 1 to 32",
            ),
            (
                json!({ "perSource": { "prefix": { "ipv6": 129 } } }),
                "129 is not a number from 1 to 128",
            ),
        ] {
            assert_eq!(error(value.clone()), expected, "{value}");
        }
    }
}
